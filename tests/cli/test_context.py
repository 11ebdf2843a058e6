"""The past of a context, from its page table and journal, and the picture of it."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from aos_mcp.cli.context_history import NEVER_INSIDE, history
from aos_mcp.cli.context_picture import COLOURS, picture


def row(kind: str, tokens: int, left_at: float | None = None, **more: Any) -> dict[str, Any]:
    return {
        "page_id": f"pg_{kind}{tokens}",
        "kind": kind,
        "title": "a <title> & more",
        "tokens": tokens,
        "resident": left_at is None,
        "pinned": False,
        "uses": 0,
        "faults": 0,
        "left_at": left_at,
        "left_why": None if left_at is None else "compaction",
        "created_at": 0.0,
        "summarizes": [],
        **more,
    }


def call(number: int, at: float, name: str = "model") -> dict[str, Any]:
    return {"number": number, "call": name, "state": "done", "started_at": at, "ended_at": at + 1}


PAGES = [
    row("document", 9_000, 0.0, left_why=NEVER_INSIDE),
    row("task", 100),
    row("reply", 50, 25.0),
    row("result", 1_000, 25.0),
    row("reply", 50),
    row("result", 500),
    row("reply", 50),
]
STEPS = [call(0, 10.0), call(1, 11.0, "page_in"), call(2, 20.0), call(3, 30.0)]


def test_each_model_call_is_told_with_what_stood_in_the_window_then() -> None:
    first, second, third = history(PAGES, STEPS)
    assert (first.resident, first.left, first.faults, first.compacted) == (100, 0, 0, False)
    assert (second.resident, second.left, second.faults, second.compacted) == (1_150, 0, 1, False)
    assert (third.resident, third.left, third.compacted) == (650, 1_050, True)


def test_without_a_compaction_the_cost_is_that_of_append_only_and_after_one_the_rest_is_written_again() -> None:
    first, second, third = history(PAGES, STEPS)
    assert first.cost == first.cost_append_only == 1.25 * 100
    assert second.cost == second.cost_append_only
    assert third.cost - second.cost == 0.1 * 100 + 1.25 * 550
    assert third.cost_append_only - second.cost_append_only == 0.1 * 1_150 + 1.25 * 550


def test_an_agent_that_has_not_thought_yet_has_no_past() -> None:
    assert history(PAGES[:2], []) == []


def test_the_picture_is_well_formed_whatever_titles_hold() -> None:
    table: dict[str, Any] = {
        "pages": [*PAGES, row("note", 10, title="\x00\x1b[2J\ud800<script>")],
        "resident_tokens": 650,
        "window_tokens": 20_000,
        "faults": 1,
    }
    for turns in (history(PAGES, STEPS), []):
        drawn = picture("agent <&>", table, turns)
        tree = ElementTree.fromstring(drawn)
        assert tree.tag.endswith("svg")
        assert "script" not in {element.tag for element in tree.iter()}
        assert drawn.count("<title>") == len(table["pages"]) + 1


def test_a_summary_counts_from_the_moment_on_in_which_it_was_written() -> None:
    summary = row("summary", 80, created_at=25.0, summarizes=["pg_reply50", "pg_result1000"])
    turns = history([*PAGES[:2], summary, *PAGES[2:]], STEPS)
    assert [(turn.resident, turn.left, turn.summaries) for turn in turns] == [
        (100, 0, 0),
        (1_150, 0, 0),
        (730, 1_050, 80),
    ]
    assert turns[2].cost - turns[1].cost == 0.1 * 100 + 1.25 * 630
    assert turns[2].cost_append_only == history(PAGES, STEPS)[2].cost_append_only
    table: dict[str, Any] = {"pages": [summary], "resident_tokens": 80, "window_tokens": 9, "faults": 0}
    assert COLOURS["summary"] in picture("agent", table, []).split("pages, in order")[1]
