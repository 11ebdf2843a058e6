"""The search benchmark reads collections in their own form, and judges rankings as they are judged elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aos_mcp.abi.errors import Invalid
from aos_mcp.bench import search
from aos_mcp.bench.recall import Question, average_precision, judge, load_cacm, load_locomo
from tests.apart import apart


def a_conversation(name: str) -> dict[str, object]:
    said = [("Ann", "Where did the owl go?"), ("Bob", "Into the woods, at night."), ("Ann", "I bought a lorry.")]
    session = [{"speaker": who, "dia_id": f"D1:{n}", "text": text} for n, (who, text) in enumerate(said, start=1)]
    other = [{"speaker": "Bob", "dia_id": "D2:1", "text": "Look!", "blip_caption": "a photo of a submarine"}]
    asked = [
        {"question": "Where did the owl go?", "evidence": ["D1:1; D1:2"], "category": 1},
        {"question": "Who saw a submarine?", "evidence": ["D2:01"], "category": 5},
        {"question": "What was never said?", "evidence": ["D9:9"], "category": 2},
    ]
    talk = {"session_1": session, "session_2": other, "session_3_date_time": "2:00 pm on 10 May, 2023"}
    times = {"session_1_date_time": "1:56 pm on 8 May, 2023", "session_2_date_time": "9:01 am on 9 May, 2023"}
    return {"sample_id": name, "conversation": talk | times, "qa": asked}


@pytest.fixture
def locomo(tmp_path: Path) -> Path:
    path = tmp_path / "locomo10.json"
    path.write_text(json.dumps([a_conversation(f"conv-{n}") for n in range(3)]), "utf-8")
    return path


@pytest.fixture
def cacm(tmp_path: Path) -> Path:
    for number, text in ((1, "Owls\n\nOf owls &amp; mice."), (2, "Lorries\n\nOf lorries.\n\n1\t5\t2\n2\t4\t2")):
        (tmp_path / f"CACM-000{number}.html").write_text(f"<html>\n<pre>\n\n{text}\n</pre>\n</html>", "latin-1")
    (tmp_path / "topics.cacm.txt").write_text("<DOC>\n<DOCNO> 1 </DOCNO>\n\n What of\nmice?\n\n</DOC>\n", "utf-8")
    (tmp_path / "qrels.cacm.txt").write_text("1 Q0 CACM-0001 1\n1 Q0 CACM-0002 0\n", "utf-8")
    return tmp_path


def test_a_turn_is_a_page_and_a_session_its_context(locomo: Path) -> None:
    first = load_locomo(locomo)[0]
    assert [(t.page_id, t.context, t.position, t.source) for t in first.texts] == [
        ("D1:1", "p_1", 0, "Ann"),
        ("D1:2", "p_1", 1, "Bob"),
        ("D1:3", "p_1", 2, "Ann"),
        ("D2:1", "p_2", 0, "Bob"),
    ]
    assert first.texts[3].text == "Bob: Look! [shares a photo of a submarine]"
    assert first.texts[0].at < first.texts[3].at
    assert [question.evidence for question in first.questions] == [{"D1:1", "D1:2"}, {"D2:1"}]


def test_a_document_is_a_note_without_its_citations(cacm: Path) -> None:
    collection = load_cacm(cacm)
    assert [text.text for text in collection.texts] == ["Owls\n\nOf owls & mice.", "Lorries\n\nOf lorries."]
    assert collection.questions == [Question("What of mice?", frozenset({"CACM-0001"}))]


def test_a_file_of_another_form_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}", "utf-8")
    for path in (tmp_path / "other.json", tmp_path / "none.json"):
        with pytest.raises(Invalid):
            load_locomo(path)
    with pytest.raises(Invalid):
        load_cacm(tmp_path / "none")


def test_rankings_are_judged_by_the_evidence_they_hold() -> None:
    question = Question("?", frozenset({"D1:1", "D2:7"}), 3)
    judged = judge(question, ["D3:1", "D1:1", "D3:2", "D3:3", "D3:4", "D2:7"])
    assert judged.recall == (0.5, 1.0, 1.0)
    assert judged.hit == (False, True, True)
    assert average_precision(question, ["x", "D1:1", "y", "D2:7"]) == (1 / 2 + 2 / 4) / 2


def test_the_benchmark_prints_every_way_of_searching_beside_the_lexical_index(locomo: Path, cacm: Path) -> None:
    told: list[str] = []
    figures = {each.name: each for each in apart(lambda: search.run(locomo, cacm, 30, "/nowhere", told.append))}
    assert figures["words: turn R@10"].value == 1.0
    assert figures["words: turn R@10"].baseline == "FTS5 alone"
    assert figures["words: CACM MAP"].value == 1.0
    assert figures["page_in p99, 30 pages"].value > 0
    assert any("absent" in line for line in told)
