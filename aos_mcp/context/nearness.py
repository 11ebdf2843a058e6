"""How near each page is to what an agent is working on: by vectors where there are any, by words elsewhere.

Owns the scale, -1 (unlike) to 1 (like), on which 0 says nothing: a page of which nothing is known is neither held nor
let go for it. Cosines are handed in, and count by their order alone: what is a high one differs from embedder to
embedder. Pure.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from aos_mcp.abi.handle import PageId
from aos_mcp.abi.page import Page, PageKind

Nearness = Mapping[PageId, float]
UNKNOWN: Nearness = MappingProxyType({})

_WORD = re.compile(r"[^\W_]{3,}")


def focus(pages: Sequence[Page]) -> list[Page]:
    """Return what tells what an agent is working on: its task, its newest plan and the newest message, as far as any.

    Args:
        pages: the page table of one process, by position.
    """
    task = next((page for page in pages if page.kind is PageKind.TASK), None)
    newest = [
        next((page for page in reversed(pages) if page.kind is kind), None)
        for kind in (PageKind.PLAN, PageKind.MESSAGE)
    ]
    return [page for page in (task, *newest) if page is not None]


def nearness(pages: Sequence[Page], cosines: Mapping[PageId, float] = UNKNOWN) -> Nearness:
    """Return how near the pages are that are in the window or listed.

    Args:
        pages: the page table of one process, by position.
        cosines: of those that have a vector, to what the agent is working on; the others are told by their words.
    """
    return {**_by_words(pages), **_by_rank(cosines)}


def _by_words(pages: Sequence[Page]) -> dict[PageId, float]:
    """Return which part of the words of a title, if any, is in the titles of the focus."""
    words = frozenset(word for page in focus(pages) for word in _words(page))
    found = {}
    for page in pages if words else ():
        if page.resident or page.listed:
            own = _words(page)
            shared = len(own & words)
            if shared:
                found[page.page_id] = shared / len(own)
    return found


def _by_rank(cosines: Mapping[PageId, float]) -> dict[PageId, float]:
    ordered = sorted(cosines.values())
    return {
        page_id: (bisect_left(ordered, cosine) + bisect_right(ordered, cosine)) / len(ordered) - 1.0
        for page_id, cosine in cosines.items()
    }


def _words(page: Page) -> frozenset[str]:
    return frozenset(_WORD.findall(page.title.lower()))
