"""Retrieval judged without a model: LoCoMo's evidence and CACM's relevance judgements, from files the user names.

Neither collection is part of this project: LoCoMo (snap-research/LoCoMo, `data/locomo10.json`) is CC BY-NC 4.0. Each
conversation, and CACM, gets a store of its own; the pages in it are what a kernel would have written.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from aos_mcp.abi.errors import Invalid
from aos_mcp.abi.handle import Digest, PageId, Pid
from aos_mcp.abi.page import OUTSIDE, Page, PageKind
from aos_mcp.testing.kernels import OWNER

_EVIDENCE = re.compile(r"D(\d+):(\d+)")
_CITATION = re.compile(r"\s*\d+\t\d+\t\d+\s*")
_TOPIC = re.compile(r"<DOC>\s*<DOCNO>\s*(\d+)\s*</DOCNO>(.*?)</DOC>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Text:
    """One page to be: its id, its context and place there (None: long-term memory), who wrote it, and what it says."""

    page_id: str
    context: str | None
    position: int
    source: str
    title: str
    text: str
    at: float

    def page(self, digest: Digest) -> Page:
        """Return the page's row."""
        return Page(
            page_id=PageId(self.page_id),
            pid=Pid(self.context) if self.context else None,
            owner=OWNER,
            kind=PageKind.MESSAGE if self.context else PageKind.NOTE,
            title=self.title,
            digest=digest,
            tokens=len(self.text) // 4,
            size_bytes=len(self.text.encode()),
            position=self.position,
            source=self.source,
            created_at=self.at,
            used_at=self.at,
        )


@dataclass(frozen=True, slots=True)
class Question:
    """A query and the pages that answer it."""

    text: str
    evidence: frozenset[str]
    category: int = 0


@dataclass(frozen=True, slots=True)
class Collection:
    """Pages and questions about them."""

    name: str
    texts: Sequence[Text]
    questions: Sequence[Question]


def load_locomo(path: Path) -> list[Collection]:
    """Read LoCoMo: a turn is a page, a session a context, a speaker a source. Questions without evidence are left out.

    Raises:
        Invalid: the file is not in LoCoMo's form.
    """
    try:
        found = [_conversation(sample) for sample in json.loads(path.read_text("utf-8"))]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Invalid(
            f"{path} is not LoCoMo's locomo10.json: {error!r}.", "Take data/locomo10.json of LoCoMo."
        ) from None
    if not found:
        raise Invalid(f"{path} holds no conversation.", "Take data/locomo10.json of LoCoMo.")
    return found


def _conversation(sample: Mapping[str, object]) -> Collection:
    talk, asked = sample["conversation"], sample["qa"]
    assert isinstance(talk, dict)
    assert isinstance(asked, list)
    texts = []
    numbers = sorted(int(key.split("_")[1]) for key in talk if re.fullmatch(r"session_\d+", key))
    for number in numbers:
        said_at = talk[f"session_{number}_date_time"]
        at = datetime.strptime(said_at, "%I:%M %p on %d %B, %Y").replace(tzinfo=UTC).timestamp()
        for position, turn in enumerate(talk[f"session_{number}"]):
            shared = f" [shares {turn['blip_caption']}]" if turn.get("blip_caption") else ""
            text = f"{turn['speaker']}: {turn['text']}{shared}"
            texts.append(Text(turn["dia_id"], f"p_{number}", position, turn["speaker"], said_at, text, at))
    known = {text.page_id for text in texts}
    questions = []
    for each in asked:
        named = {f"D{int(a)}:{int(b)}" for said in each["evidence"] for a, b in _EVIDENCE.findall(said)} & known
        if named:
            questions.append(Question(each["question"], frozenset(named), each["category"]))
    return Collection(str(sample["sample_id"]), texts, questions)


def load_cacm(folder: Path) -> Collection:
    """Read CACM as Anserini keeps it: `CACM-*.html`, `topics.cacm.txt`, `qrels.cacm.txt`. A document is a note.

    The numbers of citations at a document's end are no text and are left out.

    Raises:
        Invalid: a file is missing or not in its form.
    """
    try:
        texts = [
            Text(path.stem, None, OUTSIDE, "host", said.partition("\n")[0], said, 0.0)
            for path in sorted(folder.glob("CACM-*.html"))
            for said in [_document(path.read_text("latin-1"))]
        ]
        judged: dict[str, set[str]] = {}
        for line in (folder / "qrels.cacm.txt").read_text("utf-8").splitlines():
            topic, _, document, grade = line.split()
            if int(grade) > 0:
                judged.setdefault(topic, set()).add(document)
        topics = dict(_TOPIC.findall((folder / "topics.cacm.txt").read_text("utf-8")))
        questions = [Question(" ".join(topics[n].split()), frozenset(found)) for n, found in judged.items()]
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise Invalid(f"{folder} does not hold CACM: {error!r}.", "See docs/search.md for the files.") from None
    return Collection("CACM", texts, questions)


def _document(page: str) -> str:
    body = re.search(r"<pre>(.*?)</pre>", page, re.DOTALL)
    if body is None:
        raise ValueError("a document without <pre>")
    lines = html.unescape(body.group(1)).strip().splitlines()
    return "\n".join(line for line in lines if not _CITATION.fullmatch(line)).strip()


@dataclass(frozen=True, slots=True)
class Judged:
    """What a ranking is worth to one question: evidence recall at 5, 10 and 20, session hit at 1, 5 and 10."""

    recall: tuple[float, float, float]
    hit: tuple[bool, bool, bool]
    category: int


def judge(question: Question, ranked: Sequence[str]) -> Judged:
    """Judge a ranking of LoCoMo's turns, best first. Sessions are in the order of their best turn."""
    recall = [len(question.evidence.intersection(ranked[:k])) / len(question.evidence) for k in (5, 10, 20)]
    sessions = list(dict.fromkeys(turn.partition(":")[0] for turn in ranked))
    wanted = {turn.partition(":")[0] for turn in question.evidence}
    hit = [bool(wanted.intersection(sessions[:k])) for k in (1, 5, 10)]
    return Judged((recall[0], recall[1], recall[2]), (hit[0], hit[1], hit[2]), question.category)


def average_precision(question: Question, ranked: Sequence[str]) -> float:
    """Return the average precision of a ranking, over at most 1,000 pages as trec_eval reads them."""
    found = 0
    total = 0.0
    for place, page_id in enumerate(ranked[:1_000], start=1):
        if page_id in question.evidence:
            found += 1
            total += found / place
    return total / len(question.evidence)


def means(judged: Sequence[Judged]) -> Iterator[tuple[str, float]]:
    """Yield the named means of a set of judgements."""
    answerable = [each for each in judged if each.category <= 4]
    for label, those in (("", judged), (", categories 1-4", answerable)):
        for place, k in enumerate((5, 10, 20)):
            yield f"turn R@{k}{label}", sum(each.recall[place] for each in those) / len(those)
    for place, k in enumerate((1, 5, 10)):
        yield f"session hit@{k}", sum(each.hit[place] for each in judged) / len(judged)
