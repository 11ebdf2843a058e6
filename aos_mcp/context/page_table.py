"""The page table: what is in the window, which pages stand or fall together, and whose handles are listed.

Owns the notion of a group, and a table that is kept from turn to turn, into which only what changed is put. Knows
neither bodies nor policies, and does no input or output.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence
from dataclasses import replace

from aos_mcp.abi.handle import PageId
from aos_mcp.abi.page import STATIC_KINDS, Page, PageKind
from aos_mcp.context.handle import COLLAPSED_TOKENS, handle_tokens
from aos_mcp.context.hazard import Experience, page_class

TURN_KINDS = frozenset({PageKind.MESSAGE, PageKind.REPLY, PageKind.RESULT})
WHOLE_TOKENS_MAX = 160  # A page of so few tokens is shown whole by a search that finds it: it needs no handle.


def in_window(page: Page) -> bool:
    """Return whether a page's own text is in the window. Static pages always are."""
    return page.resident or page.kind in STATIC_KINDS


def listed(pages: Iterable[Page]) -> frozenset[PageId]:
    """Return the pages out of the window whose handles are shown; the others are counted where they stood."""
    return frozenset(page.page_id for page in pages if page.listed and not in_window(page))


def worth_a_handle(absent: Sequence[Page]) -> list[Page]:
    """Return the pages that deserve a handle when they are out of the window.

    A reply whose result left with it does not: the result's handle says what it was about. Nor does a turn of the
    conversation that a search shows whole. Notes, plans, documents and summaries do, however short.
    """
    with_result = {page.group for page in absent if page.kind is PageKind.RESULT}
    return [
        page
        for page in absent
        if page.kind not in TURN_KINDS
        or (page.tokens > WHOLE_TOKENS_MAX and not (page.kind is PageKind.REPLY and group_key(page) in with_result))
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
    """Return the pages by position, a summary before what it stands for, then by id."""
    return sorted(pages, key=_place)


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


class PageTable:
    """The rows of one context. Putting a page in costs the same however many there are, while pages are appended."""

    def __init__(self, pages: Iterable[Page] = ()) -> None:
        self.rows: dict[PageId, Page] = {}
        self.experience = Experience()
        self._ordered: list[Page] = []
        self._turns: list[float] = []
        self._resident: int | None = 0
        self._log = 0
        self._cut_at: float | None = None
        for page in pages:
            self.put(page)

    @property
    def pages(self) -> Sequence[Page]:
        """The rows in order; not to be changed."""
        return self._ordered

    @property
    def resident_tokens(self) -> int:
        """What the pages put in the window; see the function of this name."""
        if self._resident is None:
            self._resident = resident_tokens(self._ordered)
        return self._resident

    @property
    def log_tokens(self) -> int:
        """What stands in the window and may leave it, handles aside."""
        return self._log

    @property
    def turns(self) -> int:
        """How many turns the model has made."""
        return len(self._turns)

    @property
    def turns_since_cut(self) -> int:
        """How many turns the model has made since pages left; all, when none did."""
        return self.turns if self._cut_at is None else self.turns_since(self._cut_at)

    @property
    def was_cut(self) -> bool:
        """Whether any page has left."""
        return self._cut_at is not None

    def turns_since(self, when: float) -> int:
        """Return how many turns began after `when`."""
        return len(self._turns) - bisect_right(self._turns, when)

    def put(self, page: Page) -> None:
        """Add a page, or replace its row. A use that was seen here and is not in the row is kept."""
        old = self.rows.get(page.page_id)
        if old is None:
            self._add(page)
            return
        if page.uses < old.uses:
            page = replace(page, uses=old.uses, used_at=max(page.used_at, old.used_at))
        elif page.uses > old.uses:
            self.experience.used(page_class(page, self.rows), self.turns_since(old.used_at))
        self.rows[page.page_id] = page
        self._replace(old, page)

    def use(self, page_id: PageId, when: float) -> None:
        """Record that a page in the window was used."""
        page = self.rows[page_id]
        self.put(replace(page, uses=page.uses + 1, used_at=max(page.used_at, when)))

    def _add(self, page: Page) -> None:
        self.rows[page.page_id] = page
        last = self._ordered[-1] if self._ordered else None
        if last is None or _place(last) < _place(page):
            self._ordered.append(page)
        else:
            insort(self._ordered, page, key=_place)
            self._resident = None
        if page.kind is PageKind.REPLY:
            insort(self._turns, page.created_at)
        self._count(page, 1)
        if in_window(page):
            if self._resident is not None:
                self._resident += page.tokens
        else:
            self._resident = None
            self._left(page)

    def _replace(self, old: Page, page: Page) -> None:
        place = bisect_left(self._ordered, _place(old), key=_place)
        if old.position == page.position:
            self._ordered[place] = page
        else:
            del self._ordered[place]
            insort(self._ordered, page, key=_place)
        self._count(old, -1)
        self._count(page, 1)
        stands = (old.position, in_window(old), old.listed) == (page.position, in_window(page), page.listed)
        if not stands:
            self._resident = None
        if not in_window(page):
            self._left(page)

    def _count(self, page: Page, times: int) -> None:
        if page.resident and page.kind not in STATIC_KINDS:
            self._log += times * page.tokens

    def _left(self, page: Page) -> None:
        if page.left_at is not None and (self._cut_at is None or page.left_at > self._cut_at):
            self._cut_at = page.left_at


def _place(page: Page) -> tuple[int, bool, PageId]:
    """Return where a page stands: a summary in front of the first page that left when it was written."""
    return page.position, page.kind is not PageKind.SUMMARY, page.page_id
