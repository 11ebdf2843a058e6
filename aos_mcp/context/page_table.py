"""The page table, read: what is in the window, which pages stand or fall together, and whose handles are listed.

Owns the notion of a group, and the rule by which old handles give way. Pure; knows neither bodies nor policies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from aos_mcp.abi.handle import PageId
from aos_mcp.abi.page import STATIC_KINDS, Page, PageKind
from aos_mcp.context.handle import COLLAPSED_TOKENS, handle_tokens

LISTED_TOKENS_MIN = 128  # Of a result; a handle for less would be half of what it stands for.
TURN_KINDS = frozenset({PageKind.MESSAGE, PageKind.REPLY, PageKind.RESULT})
BATCH_LISTED_MAX = 8  # Handles of one compaction that are listed, its largest pages; search finds the others.
LISTED_MIN = 32  # Handles of all compactions together: at twice as many the oldest give way,
LISTED_MAX = 2 * LISTED_MIN  # all at once, so that the prefix rarely changes for it.


def in_window(page: Page) -> bool:
    """Return whether a page's own text is in the window. Static pages always are."""
    return page.resident or page.kind in STATIC_KINDS


def listed(pages: Iterable[Page]) -> frozenset[PageId]:
    """Return the pages out of the window whose handles are shown; the others are counted where they stood.

    The choice follows from what never changes while a page is out, so it is stable between compactions.
    """
    batches: dict[float, list[Page]] = {}
    for page in worth_a_handle([page for page in pages if not in_window(page)]):
        batches.setdefault(page.left_at or 0.0, []).append(page)
    shown: list[Page] = []
    for left_at in sorted(batches):
        largest = sorted(batches[left_at], key=lambda page: (-page.tokens, page.position, page.page_id))
        shown += in_order(largest[:BATCH_LISTED_MAX])
    gone = max(0, len(shown) - LISTED_MIN) // LISTED_MIN * LISTED_MIN
    return frozenset(page.page_id for page in shown[gone:])


def worth_a_handle(absent: Sequence[Page]) -> list[Page]:
    """Return the pages that deserve a handle when they are out of the window.

    A reply whose result left with it does not: the result's handle says what it was about. Nor does a turn of the
    conversation that is shorter than two handles. Notes, plans, documents and summaries do, however short.
    """
    with_result = {page.group for page in absent if page.kind is PageKind.RESULT}
    return [
        page
        for page in absent
        if page.kind not in TURN_KINDS
        or (page.tokens >= LISTED_TOKENS_MIN and not (page.kind is PageKind.REPLY and group_key(page) in with_result))
    ]


def left_tokens(group: Sequence[Page]) -> int:
    """Return the tokens of what a group leaves behind, at most: its handles, or the line that counts it."""
    named = worth_a_handle(group)
    return max(sum(handle_tokens(page) for page in named), COLLAPSED_TOKENS)


def resident_tokens(pages: Sequence[Page]) -> int:
    """Return the tokens that the pages put in the window: their own where resident, their handles' where not."""
    shown = listed(pages)
    total, counted = 0, False
    for page in in_order(pages):
        if in_window(page):
            total += page.tokens + counted * COLLAPSED_TOKENS
            counted = False
        elif page.page_id in shown:
            total += handle_tokens(page)
        else:
            counted = True
    return total + counted * COLLAPSED_TOKENS


def in_order(pages: Iterable[Page]) -> list[Page]:
    """Return the pages by position, then id."""
    return sorted(pages, key=lambda page: (page.position, page.page_id))


def group_key(page: Page) -> int | None:
    """Return what a reply and its results have in common, or None for a page that stands alone."""
    if page.kind is PageKind.REPLY:
        return page.position if page.group is None else page.group
    return page.group if page.kind is PageKind.RESULT else None


def groups(pages: Sequence[Page]) -> list[tuple[Page, ...]]:
    """Return a reply with its results as one group, every other page as its own, by position of the first member."""
    found: list[list[Page]] = []
    open_groups: dict[int, list[Page]] = {}
    for page in in_order(pages):
        key = group_key(page)
        if key is not None and key in open_groups:
            open_groups[key].append(page)
            continue
        group = [page]
        found.append(group)
        if key is not None:
            open_groups[key] = group
    return [tuple(group) for group in found]
