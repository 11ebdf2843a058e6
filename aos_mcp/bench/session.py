"""A session played against a prompt cache: what a pager's decisions cost.

Owns the bill. Each step appends its pages, lets the pager decide, fetches back what the step uses and is not there, and
sends one request. Layout, handles and cache marks are the product's own (`aos_mcp.context`). A fetch is a real request:
the model asks for all missing pages at once, and what comes back is a new page at the tail, as page_in makes it. A page
whose handle is no longer listed has to be searched for first, which is a request more.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from aos_mcp.abi.handle import Digest, PageId
from aos_mcp.abi.page import Page, PageKind
from aos_mcp.bench.cache_model import PriceRow
from aos_mcp.bench.traces import Step, Trace, TracePage
from aos_mcp.context.compaction import compacted
from aos_mcp.context.handle import COLLAPSED_TOKENS, handle_tokens
from aos_mcp.context.hazard import Experience, page_class
from aos_mcp.context.layout import cache_marks
from aos_mcp.context.nearness import UNKNOWN, Nearness
from aos_mcp.context.page_table import WHOLE_TOKENS_MAX, in_window, listed, resident_tokens
from aos_mcp.context.replacement import FAULT_OUTPUT_TOKENS, SEARCH_TOKENS, CachePrices
from aos_mcp.testing.prompt_cache import PrefixCache, Request

TITLE = "-" * 40  # Most traces have no titles; handles are charged for one of ordinary length, without a word in it.

FETCHED = "+"  # How the names of pages begin that a fetch brings beside what it is for.
KINDS = {
    "assistant": PageKind.REPLY,
    "tool_result": PageKind.RESULT,
    "file": PageKind.RESULT,
    "user": PageKind.MESSAGE,
    "session": PageKind.DOCUMENT,
}


class Context:
    """The page table of a session, and the prompt it makes."""

    def __init__(self, system_tokens: int, prices: CachePrices) -> None:
        self.prices = prices
        self.experience = Experience()
        self._turns: list[float] = []
        self._by_id: dict[PageId, Page] = {}
        self.system_tokens = system_tokens
        self.pages: list[Page] = []
        self.forgotten: set[PageId] = set()
        """Pages that left without a handle."""
        self.summary_tokens = 0
        self.by_use = False
        """Whether the pages stand by how often they were used, at every request."""
        self.now = 0.0
        self._row: dict[str, int] = {}
        self._stale = True
        self._chain: list[int] = []
        self._ends: list[int] = []
        self._tokens: list[int] = []
        self._may_mark: list[bool] = []
        self._hole: int | None = None
        self._shown: frozenset[PageId] = frozenset()
        self._own, self._brought = system_tokens, 0

    @property
    def tokens(self) -> int:
        """What the next prompt takes."""
        self._refresh()
        return self._ends[-1]

    def table(self) -> list[Page]:
        """Return the rows, by position."""
        return self.pages

    def append(self, page: TracePage, *, origin: Page | None = None) -> None:
        """Add a page at the tail; one with the name of an earlier page takes its place in what is used."""
        position = len(self.pages)
        kind = KINDS[page.kind]
        group = position if kind is PageKind.REPLY else None
        if kind is PageKind.RESULT and self.pages and self.pages[-1].group is not None:
            group = self.pages[-1].group
        row = Page(
            page_id=PageId(f"{page.page_id}@{position}"),
            pid=None,
            owner="",
            kind=kind,
            title=page.title or TITLE,
            digest=Digest(""),
            tokens=page.tokens,
            size_bytes=0,
            position=position,
            group=group,
            source=page.source,
            origin=None if origin is None else origin.origin or origin.page_id,
            created_at=self.now,
            used_at=self.now,
        )
        if origin is None and not page.page_id.startswith(FETCHED):
            self._own += page.tokens
        else:
            self._brought += page.tokens
        self._row[page.page_id] = position
        self._by_id[row.page_id] = row
        if kind is PageKind.REPLY:
            self._turns.append(self.now)
        self.pages.append(row)
        if not self._stale:
            self._add(hash(row.page_id), row.tokens, may_mark=kind is not PageKind.REPLY)

    def use(self, name: str) -> None:
        """Record that the model used a page that is in the window."""
        place = self._row[name]
        page = self.pages[place]
        self._see(page)
        self.pages[place] = replace(page, uses=page.uses + 1, used_at=self.now)

    def _see(self, page: Page) -> None:
        lain = len(self._turns) - bisect_right(self._turns, page.used_at)
        self.experience.used(page_class(page, self._by_id), lain)

    def absent(self, names: Collection[str]) -> list[Page]:
        """Return those of the pages that are not in the window."""
        return [page for name in names for page in [self.pages[self._row[name]]] if not in_window(page)]

    def is_listed(self, page: Page) -> bool:
        """Return whether the page's handle is in the prompt."""
        self._refresh()
        return page.page_id in self._shown and page.page_id not in self.forgotten

    def fresh(self) -> tuple[int, int]:
        """Return the tokens that came since this was asked last: of the session itself, and of what was fetched."""
        own, brought, self._own, self._brought = self._own, self._brought, 0, 0
        return own, brought

    def leave(self, victims: Collection[PageId], *, forget: bool = False, near: Nearness = UNKNOWN) -> None:
        """Take pages out of the window, with a handle unless they are to be forgotten."""
        self.pages = compacted(
            self.pages, tuple(victims), now=self.now, near=near, prices=self.prices, experience=self.experience
        )
        self.forgotten |= set(victims) if forget else set()
        self._stale = True

    def fetched(self, page: Page, *, pinned: bool) -> None:
        """Count a fault, and put a copy of the page at the tail."""
        place = page.position
        self._see(page)
        self.pages[place] = replace(page, faults=page.faults + 1, uses=page.uses + 1, used_at=self.now)
        name = page.page_id.partition("@")[0]
        self.append(TracePage(name, page.tokens, "tool_result", "page_in"), origin=page)
        if pinned:
            self.pages[-1] = replace(self.pages[-1], pinned=True)

    def request(self) -> Request:
        """Return the next prompt. The system part is a segment of its own, with a mark behind it."""
        self._stale |= self.by_use
        self._refresh()
        hole = self._hole
        marks = cache_marks(self._tokens[1:], self._may_mark[1:], None if hole is None else hole - 1)
        return Request(self._chain, self._ends, sorted({0, *(mark + 1 for mark in marks if mark or len(marks) < 3)}))

    def _refresh(self) -> None:
        if not self._stale:
            return
        self._stale = False
        self._chain, self._ends, self._tokens, self._may_mark, self._hole = [], [], [], [], None
        self._shown = listed(page for page in self.pages if page.page_id not in self.forgotten)
        self._add(hash("system"), self.system_tokens, may_mark=True)
        if self.summary_tokens:
            self._add(hash(("summary", self.now)), self.summary_tokens, may_mark=True)
        newest = max((page.left_at for page in self.pages if page.left_at is not None), default=None)
        run: list[Page] = []
        for page in sorted(self.pages, key=lambda page: -page.uses) if self.by_use else self.pages:
            if not in_window(page):
                run.append(page)
                continue
            self._add_handles(run, newest)
            run = []
            self._add(hash(page.page_id), page.tokens, may_mark=page.kind is not PageKind.REPLY)
        self._add_handles(run, newest)

    def _add_handles(self, run: Sequence[Page], newest: float | None) -> None:
        kept = [page for page in run if page.page_id not in self.forgotten]
        if any(page.left_at == newest for page in run) and self._hole is None:
            self._hole = len(self._chain)
        if not kept:
            return
        named = [page for page in kept if page.page_id in self._shown]
        tokens = sum(handle_tokens(page) for page in named) + COLLAPSED_TOKENS * (len(named) < len(kept))
        key = (tuple(page.page_id for page in named), len(kept))
        self._add(hash(key), tokens, may_mark=True)

    def _add(self, key: int, tokens: int, *, may_mark: bool) -> None:
        self._chain.append(hash((self._chain[-1] if self._chain else 0, key)))
        self._ends.append(tokens + (self._ends[-1] if self._ends else 0))
        self._tokens.append(tokens)
        self._may_mark.append(may_mark)


class Pager(Protocol):
    """Decides what leaves, before a request."""

    name: str
    pins: bool
    """Whether a page that was fetched back never leaves again."""

    def decide(self, context: Context, *, window: int, row: PriceRow, idle_s: float) -> Bill | None:
        """Take pages out of `context`; return what deciding itself cost, if anything."""
        ...


@dataclass(slots=True)
class Bill:
    """What was spent, in tokens of uncached input, and how often something had to be fetched back."""

    cost: float = 0.0
    requests: int = 0
    faults: int = 0
    """Requests more than the trace has: each is a round trip in which the agent gets no further."""
    fetching: float = 0.0
    """Of the cost, what these requests took and what they brought;"""
    again: float = 0.0
    """what was written again behind a hole, and the handles."""
    read: int = 0
    sent: int = 0
    tokens_max: int = 0

    @property
    def hit_rate(self) -> float:
        """The part of all that was sent that came from the cache."""
        return self.read / self.sent if self.sent else 0.0


class Play:
    """One session with one pager at one provider."""

    def __init__(self, trace: Trace, pager: Pager, row: PriceRow, window: int) -> None:
        self._trace, self._pager, self._row, self._window = trace, pager, row, window
        self._context = Context(trace.system_tokens, row.prices)
        self._cache = PrefixCache(row)
        self.bill = Bill()

    def run(self) -> Bill:
        """Play all steps."""
        for step in self._trace.steps:
            self._step(step)
        return self.bill

    def _step(self, step: Step) -> None:
        context = self._context
        context.now += step.gap_s
        for name in step.new:
            context.append(self._trace.pages[name])
        extra = self._pager.decide(context, window=self._window, row=self._row, idle_s=step.gap_s)
        if extra is not None:
            self.bill.cost += extra.cost
            self.bill.requests += extra.requests
        missing = context.absent(step.refs)
        if missing:
            self._fetch(missing)
        self._send(step.output_tokens)
        for name in step.refs:
            if name not in step.new:  # that a page is read as it comes says nothing of what follows
                context.use(name)

    def _fetch(self, missing: Sequence[Page]) -> None:
        context = self._context
        hidden = [page for page in missing if not context.is_listed(page)]
        if hidden:
            self._ask()
            context.append(
                TracePage(f"{FETCHED}found{len(context.pages)}", SEARCH_TOKENS, "tool_result", "search_pages")
            )
        fetched = [page for page in missing if page not in hidden or page.tokens > WHOLE_TOKENS_MAX]
        if fetched:
            self._ask()
        for page in missing:
            context.fetched(page, pinned=self._pager.pins)

    def _ask(self) -> None:
        context = self._context
        self._send(FAULT_OUTPUT_TOKENS, fetching=True)
        context.now += 1.0
        self.bill.faults += 1
        context.append(TracePage(f"{FETCHED}ask{len(context.pages)}", FAULT_OUTPUT_TOKENS, "assistant", ""))

    def _send(self, output_tokens: int, *, fetching: bool = False) -> None:
        request, prices, bill = self._context.request(), self._row.prices, self.bill
        hit = self._cache.read(request, self._context.now)
        sent = request.ends[-1]
        own, brought = self._context.fresh()
        again = max(0, sent - hit - own - brought)
        bill.cost += prices.read * hit + prices.write * (sent - hit) + prices.output * output_tokens
        bill.again += prices.write * again
        bill.fetching += prices.write * brought + fetching * (prices.read * hit + prices.output * output_tokens)
        bill.requests += 1
        bill.read += hit
        bill.sent += sent
        bill.tokens_max = max(bill.tokens_max, sent)


def known_future_bound(trace: Trace, row: PriceRow) -> float:
    """Return a cost that no policy can go below: each page is written once, and a request reads only what it uses."""
    prices = row.prices
    written = trace.system_tokens + sum(page.tokens for page in trace.pages.values())
    total = prices.write * written
    for number, step in enumerate(trace.steps):
        used = sum(trace.pages[name].tokens for name in step.refs if name not in step.new)
        total += prices.read * (used + trace.system_tokens * (number > 0)) + prices.output * step.output_tokens
    return total


def held_or_fetched_bound(trace: Trace, row: PriceRow) -> float:
    """Return a higher cost that no policy can go below either: what a step uses was held since, or is fetched back.

    Held, a page is read by each request in between. Fetched, it is written again, after a request more at least. The
    two newest pages, holes and what merely stands in the way are still free.
    """
    prices, seen, total = row.prices, dict[str, int](), known_future_bound(trace, row)
    request = prices.read * trace.system_tokens + (prices.output + prices.write) * FAULT_OUTPUT_TOKENS
    for number, step in enumerate(trace.steps):
        old = [name for name in step.refs if name not in step.new]
        held = [prices.read * trace.pages[name].tokens * max(0, number - seen[name] - 1) for name in old]
        fetched = [prices.write * trace.pages[name].tokens for name in old]
        total += min(sum(held), request + sum(min(pair) for pair in zip(held, fetched, strict=True)))
        seen |= dict.fromkeys((*step.new, *step.refs), number)
    return total


def log_tokens(context: Context) -> int:
    """Return what stands behind the system part: pages and handles."""
    return resident_tokens(context.table())
