"""The pagers that are compared: the product's own, and what others do.

Owns the baselines. Ours is the code the kernel runs, called as the kernel calls it. The baselines are written from
their descriptions; each gets the same handles, the same cache marks and the same faults as ours.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType

from aos_mcp.abi.handle import PageId
from aos_mcp.abi.page import Page, PageKind
from aos_mcp.abi.settings import ContextSettings
from aos_mcp.bench.cache_model import PriceRow
from aos_mcp.bench.meaning import Meaning
from aos_mcp.bench.session import Bill, Context, Pager, log_tokens
from aos_mcp.bench.traces import Trace
from aos_mcp.context.compaction import compaction
from aos_mcp.context.nearness import UNKNOWN, nearness
from aos_mcp.context.page_table import WHOLE_TOKENS_MAX, groups, in_window
from aos_mcp.context.replacement import FAULT_OUTPUT_TOKENS, MARK_DISTANCE_TOKENS, SEARCH_TOKENS, candidates

SETTINGS = ContextSettings()  # Ours runs as it comes.
PATIENT_TOKENS = 10_000.0
AGE_TURNS = 4  # What "old" means to the age-based pager,
AGE_TOKENS_MIN = 125  # and what is too small for it.
SUMMARY_TOKENS = 600
FORESEEN_EVERY = (8, 12, 16, 24)  # How often one that foresees every use cuts; the best of these is told.
KEPT = 2  # No pager takes the newest groups.


@dataclass
class AppendEverything:
    """Never evicts, whatever the window."""

    name: str = "append everything"
    pins: bool = False
    by_use: bool = False
    """Whether it sorts all pages by how often they were used before each call."""

    def decide(self, context: Context, *, window: int, row: PriceRow, idle_s: float) -> None:
        """Nothing leaves."""
        context.by_use = self.by_use


@dataclass
class Lru:
    """Evicts the least recently used groups once the window is full, down to a part of it."""

    name: str
    down_to: float
    pins: bool = False

    def decide(self, context: Context, *, window: int, row: PriceRow, idle_s: float) -> None:
        """Evict when the window is full."""
        log = log_tokens(context)
        if log <= window:
            return
        needed = log - int(window * self.down_to)
        found = _evictable(context)
        victims: list[PageId] = []
        for group in sorted(found, key=lambda each: max(page.used_at for page in each)):
            if needed <= 0:
                break
            needed -= sum(page.tokens for page in group)
            victims += [page.page_id for page in group]
        context.leave(victims)


@dataclass
class Age:
    """Evicts each tool result a few turns after it came; one that is asked for again stays for good."""

    name: str = "age > 4 turns, pinned by a fault"
    pins: bool = True

    def decide(self, context: Context, *, window: int, row: PriceRow, idle_s: float) -> None:
        """Evict what has come of age."""
        turns = [page.created_at for page in context.pages if page.kind is PageKind.REPLY]
        if len(turns) <= AGE_TURNS:
            return
        before = turns[-AGE_TURNS]
        victims = [
            page.page_id
            for page in context.pages
            if page.resident
            and not page.pinned
            and page.kind is PageKind.RESULT
            and page.tokens > AGE_TOKENS_MIN
            and page.created_at < before
        ]
        if victims:
            context.leave(victims)


@dataclass
class Summarise:
    """Replaces the oldest part by a summary when the window is full. What was summarised can only be fetched anew."""

    name: str = "summarise and flush to 30 %"
    pins: bool = False

    def decide(self, context: Context, *, window: int, row: PriceRow, idle_s: float) -> Bill | None:
        """Flush when the window is full; the model reads everything once more to write the summary."""
        log = log_tokens(context)
        if log <= window:
            return None
        needed = log - int(window * 0.3)
        victims: list[PageId] = []
        for group in _evictable(context):
            if needed <= 0:
                break
            needed -= sum(page.tokens for page in group)
            victims += [page.page_id for page in group]
        bill = Bill(cost=row.prices.read * context.tokens + row.prices.output * SUMMARY_TOKENS, requests=1)
        context.summary_tokens = SUMMARY_TOKENS
        context.leave(victims, forget=True)
        return bill


@dataclass
class Ours:
    """The kernel's: what must leave above the high-water mark, what pays before, what a cold cache makes free."""

    name: str = "aos"
    pins: bool = False
    policy: str = "cost"
    round_trip: float = 0.0
    """What a round trip costs beyond its tokens, in tokens of uncached input."""
    words: bool = True
    """Whether titles tell how near a page is to the newest message;"""
    meaning: Meaning | None = None
    """vectors tell it better where there are any."""

    def decide(self, context: Context, *, window: int, row: PriceRow, idle_s: float) -> None:
        """Decide as the kernel does before each model call."""
        table = context.table()
        leaving = partial(
            compaction,
            table,
            window_tokens=window,
            high_water=SETTINGS.high_water,
            low_water=SETTINGS.low_water,
            policy=self.policy,
            prices=replace(row.prices, round_trip=self.round_trip),
            cold=idle_s > row.ttl_s,
            experience=context.experience,
        )
        near = nearness(table) if self.words else UNKNOWN
        victims = leaving(near=near)
        if victims and self.meaning is not None:
            near = nearness(table, self.meaning.cosines(table))
            victims = leaving(near=near)
        if victims:
            context.leave(victims, near=near)


@dataclass
class Foreseeing:
    """Knows every use to come, and takes out at every so many steps what then pays most: what no pager can know."""

    trace: Trace
    every: int
    name: str = "one that foresees every use"
    pins: bool = False
    _step: int = 0
    _uses: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for number, step in enumerate(self.trace.steps):
            for name in step.refs:
                self._uses.setdefault(name, []).append(number)

    def decide(self, context: Context, *, window: int, row: PriceRow, idle_s: float) -> None:
        """Take out the batch behind the first hole that saves most, at the true prices of what is to come."""
        self._step += 1
        if self._step % self.every:
            return
        again = row.prices.write - row.prices.read
        best, gained = 0.0, 0.0
        chosen: list[PageId] = []
        gaining: list[PageId] = []
        for group in reversed(candidates(context.table())):
            worth = again * group.tokens + sum(self._worth(page, context, row) for page in group.pages)
            if worth <= 0:
                continue
            gained += worth
            gaining += [page.page_id for page in group.pages]
            behind = group.before % MARK_DISTANCE_TOKENS + group.tokens + group.after
            if gained - again * behind > best:
                best, chosen = gained - again * behind, list(gaining)
        if chosen:
            context.leave(chosen)

    def _worth(self, page: Page, context: Context, row: PriceRow) -> float:
        """Return what it saves to be without a page until its next use, for which a request is half to blame."""
        uses, now, prices = self._uses.get(page.page_id.partition("@")[0], ()), self._step - 1, row.prices
        place = bisect_left(uses, now)
        if place == len(uses):
            return prices.read * page.tokens * (len(self.trace.steps) - now)
        request = (prices.read * context.tokens + prices.output * FAULT_OUTPUT_TOKENS) / 2
        search = request + prices.write * SEARCH_TOKENS if page.tokens <= WHOLE_TOKENS_MAX else 0.0
        return prices.read * page.tokens * (uses[place] - now) - request - search - prices.write * page.tokens


def _evictable(context: Context) -> list[tuple[Page, ...]]:
    present = [tuple(page for page in group if in_window(page)) for group in groups(context.pages)]
    return [group for group in present if group][:-KEPT]


PAGERS: Mapping[str, Callable[[Trace], Pager]] = MappingProxyType(
    {
        "append": lambda trace: AppendEverything(),
        "sorted": lambda trace: AppendEverything("append everything, sorted by use at every call", by_use=True),
        "lru": lambda trace: Lru("LRU, one at a time", 1.0),
        "lru50": lambda trace: Lru("LRU, batched to 50 %", 0.5),
        "lru30": lambda trace: Lru("LRU, batched to 30 %", 0.3),
        "age": lambda trace: Age(),
        "summarise": lambda trace: Summarise(),
        "aos": lambda trace: Ours(),
        "patient": lambda trace: Ours("aos, a round trip at 10,000 tokens", round_trip=PATIENT_TOKENS),
        "aos-blind": lambda trace: Ours("aos, without nearness", words=False),
        **{f"foreseeing-{every}": partial(Foreseeing, every=every) for every in FORESEEN_EVERY},
        "aos-lru": lambda trace: Ours("aos, policy lru", policy="lru"),
        "aos-fifo": lambda trace: Ours("aos, policy fifo", policy="fifo"),
        "aos-importance": lambda trace: Ours("aos, policy importance", policy="importance"),
    }
)
"""The pagers by name, each made anew for a trace."""
