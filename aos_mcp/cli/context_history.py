"""The past of a context, told from the two resources that show it: the page table and the journal.

Owns the reckoning: which pages stood in the window at each model call, and what the prompts cost beside those of an
agent that never lets a page go. The cost is an estimate in tokens of uncached input, at the ratios of an ordinary
prefix cache and without the text of the kernel itself, which is the same in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aos_mcp.abi.journal import MODEL_CALL, StepState
from aos_mcp.abi.page import PageKind
from aos_mcp.cli.client import Json

READ_COST = 0.1
WRITE_COST = 1.25
PAGE_IN = "page_in"
NEVER_INSIDE = "kept outside the window from the start"


@dataclass(frozen=True, slots=True)
class Turn:
    """A context as one model call met it. All but `at` (seconds since the epoch) are tokens, or counts."""

    at: float
    resident: int
    left: int
    pinned: int
    summaries: int
    faults: int
    """Pages the agent had read back by then."""
    compacted: bool
    cost: float
    """Of all prompts so far, in tokens of uncached input,"""
    cost_append_only: float
    """and what they would have cost if nothing had ever left."""


def history(pages: Sequence[Json], steps: Sequence[Json]) -> list[Turn]:
    """Return the context at each finished model call.

    Args:
        pages: rows of a page table, by position.
        steps: the journal, in order. Its model calls that are done belong to the table's replies, one to one.
    """
    inside = [page for page in pages if page["left_why"] != NEVER_INSIDE]
    calls = [step for step in steps if step["call"] == MODEL_CALL and step["state"] == StepState.DONE]
    replies = [place for place, page in enumerate(inside) if page["kind"] == PageKind.REPLY]
    turns: list[Turn] = []
    cost = cost_append_only = 0.0
    before = appended_before = 0
    left_before = 0.0
    for call, place in zip(calls, [*replies, len(inside)], strict=False):
        at = float(call["started_at"])
        then = [page for page in inside[:place] if page["created_at"] <= at]  # a summary is put in between later
        present = [page for page in then if not _was_gone(page, at)]
        resident = sum(page["tokens"] for page in present)
        appended = sum(page["tokens"] for page in then if page["kind"] != PageKind.SUMMARY)
        cuts = [page["left_at"] for page in then if _was_gone(page, at) and page["left_at"] > left_before]
        kept = before if not cuts else _in_front(then, at, left_before)
        cost += READ_COST * kept + WRITE_COST * (resident - kept)
        cost_append_only += READ_COST * appended_before + WRITE_COST * (appended - appended_before)
        before, appended_before, left_before = resident, appended, max([left_before, *cuts])
        turns.append(
            Turn(
                at=at,
                resident=resident,
                left=sum(page["tokens"] for page in then if _was_gone(page, at)),
                pinned=sum(page["tokens"] for page in present if page["pinned"]),
                summaries=sum(page["tokens"] for page in present if page["kind"] == PageKind.SUMMARY),
                faults=sum(step["call"] == PAGE_IN and step["started_at"] < at for step in steps),
                compacted=bool(cuts),
                cost=cost,
                cost_append_only=cost_append_only,
            )
        )
    return turns


def _was_gone(page: Json, at: float) -> bool:
    return page["left_at"] is not None and page["left_at"] <= at


def _in_front(pages: Sequence[Json], at: float, left_before: float) -> int:
    """Return the tokens in front of the first page that left since `left_before`: the prefix that stayed the same.

    A summary is made in the moment the pages leave that it stands in front of.
    """
    total = 0
    for page in pages:
        is_new = page["kind"] == PageKind.SUMMARY and page["created_at"] > left_before
        if not _was_gone(page, at) and not is_new:
            total += page["tokens"]
        elif is_new or page["left_at"] > left_before:
            break
    return total
