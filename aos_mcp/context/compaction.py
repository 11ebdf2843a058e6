"""When pages leave a context, how many, and what stands in their place afterwards.

Owns the occasions: a window nearly full, a cut that pays by itself, a cache that is cold anyway; and what a compaction
writes: who has left, whose handle is listed, in which order the loose pages stand. Promises: between two compactions
nothing moves. Which groups leave is `replacement`'s. Pure.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace

from aos_mcp.abi.handle import PageId
from aos_mcp.abi.page import STATIC_KINDS, Page, PageKind
from aos_mcp.context.handle import handle_tokens
from aos_mcp.context.hazard import Experience, Hazard
from aos_mcp.context.nearness import UNKNOWN, Nearness
from aos_mcp.context.page_table import PageTable, in_order, in_window, resident_tokens, worth_a_handle
from aos_mcp.context.replacement import (
    FAULT_OUTPUT_TOKENS,
    SEARCH_TOKENS,
    TYPICAL,
    CachePrices,
    Demand,
    candidates,
    choose_victims,
    horizon,
    ids,
    last_resort,
    paying,
    unpinned,
)
from aos_mcp.context.uses import busiest_first

LEFT_WHY = "compaction"

# A cut that nothing forces is made only where it pays. These bound how sure one must be.
SMALL_LOG_TOKENS = 16_000  # Below it there is too little to gain: most sessions end before a first cut has paid.
SMALL_LATER_TOKENS = 4_000  # After a first cut the session is known to be long.
TURNS_BETWEEN_CUTS = 8

# Thrashing: what left is asked for again at once, and again.
THRASH_TURNS = 20  # Seen over the last so many turns;
THRASH_SOON = 10  # "at once" is within so many turns after it left;
THRASH_CALM = 0.25  # up to so many pages a turn are ordinary,
THRASH_WILD = 0.75  # and at so many the low-water mark stands at its highest:
THRASH_RAISE = 0.5  # so much of the way to the high one.

# Handles.
LISTED_MAX = 20  # In front of a cut; where more would stand, all are looked at again.
LISTED_LEAST = 4  # Behind it, always: an agent that sees no handle does not know that there is something to ask for;
LISTED_NEW = 12  # and so many where they are likely to save a search.


def needs_compaction(resident_tokens: int, window_tokens: int, high_water: float) -> bool:
    """Return whether the context has risen above the high-water mark, a fraction of the window."""
    return resident_tokens > window_tokens * high_water


def may_compact(table: PageTable) -> bool:
    """Return whether a cut that nothing forces could pay. Cheap: most turns of most agents end here."""
    return table.log_tokens >= (SMALL_LATER_TOKENS if table.was_cut else SMALL_LOG_TOKENS)


def is_cold(pages: Sequence[Page], *, model: str, now: float, ttl_s: float) -> bool:
    """Return whether the provider's cache holds nothing of this context: the model changed, or its time is over."""
    last = max((page for page in pages if page.kind is PageKind.REPLY), key=lambda page: page.position, default=None)
    return last is not None and (last.source != model or now - last.created_at > ttl_s)


def compaction(
    pages: Sequence[Page],
    *,
    window_tokens: int,
    high_water: float,
    low_water: float,
    near: Nearness = UNKNOWN,
    policy: str = "cost",
    prices: CachePrices = TYPICAL,
    experience: Experience | None = None,
    cold: bool = False,
) -> tuple[PageId, ...]:
    """Return what leaves before the next turn, in order of position: what must, or else what pays; none as a rule.

    Above the high-water mark (a fraction of the window) the context comes down to the low one, or less far while the
    agent thrashes. Other arguments as of `choose_victims`.
    """
    if needs_compaction(resident_tokens(pages), window_tokens, high_water):
        victims = choose_victims(
            pages,
            target_tokens=int(window_tokens * low_water_mark(pages, low_water, high_water)),
            measured=thrash(pages) > 0,
            near=near,
            policy=policy,
            prices=prices,
            experience=experience,
            cold=cold,
        )
        place = {page.page_id: page.position for page in pages}
        more = last_resort(pages, victims, int(window_tokens * high_water))
        return tuple(sorted((*victims, *more), key=place.__getitem__)) if more else victims
    if policy != "cost":
        return ()
    return worthwhile_victims(pages, near=near, prices=prices, experience=experience, cold=cold)


def worthwhile_victims(
    pages: Sequence[Page],
    *,
    near: Nearness = UNKNOWN,
    prices: CachePrices = TYPICAL,
    experience: Experience | None = None,
    cold: bool = False,
) -> tuple[PageId, ...]:
    """Return the pages whose leaving pays by itself although there is room, in order of position; none as a rule.

    Nothing leaves a small context, or one that was cut a few turns ago (unless its cache is cold, which makes a cut
    free). Arguments as of `choose_victims`.
    """
    last_cut = max((page.left_at for page in pages if page.left_at is not None), default=None)
    if _log_tokens(pages) < (SMALL_LOG_TOKENS if last_cut is None else SMALL_LATER_TOKENS):
        return ()
    hazard = Hazard(pages, near, experience)
    since = hazard.turns if last_cut is None else hazard.turns_since(last_cut)
    if last_cut is not None and not cold and since < TURNS_BETWEEN_CUTS:
        return ()
    demand = Demand(0, resident_tokens(pages), hazard, prices, horizon(hazard), since, cold=cold)
    return ids(paying(unpinned(candidates(pages), hazard), demand))


def thrash(pages: Sequence[Page]) -> float:
    """Return how much of what left is asked for again, lately: 0 is ordinary, 1 is an agent that does little else."""
    turns = sorted(page.created_at for page in pages if page.kind is PageKind.REPLY)[-THRASH_TURNS:]
    if len(turns) < THRASH_TURNS:
        return 0.0
    back = sum(
        1
        for page in pages
        if page.faults
        and page.left_at is not None
        and page.used_at >= turns[0]
        and bisect_right(turns, page.used_at) - bisect_right(turns, page.left_at) <= THRASH_SOON
    )
    return min(1.0, max(0.0, (back / THRASH_TURNS - THRASH_CALM) / (THRASH_WILD - THRASH_CALM)))


def fault_counts(pages: Sequence[Page]) -> dict[str, int]:
    """Return how often what left was asked for: `faults`; of these not for the first time: `refaults`; and `garbage`.

    Garbage are pages that left and were never asked for. A copy that left again and is asked for is a refault.
    """
    left = [page for page in pages if page.left_why == LEFT_WHY]
    again = sum(page.faults if page.origin is not None else max(0, page.faults - 1) for page in pages)
    return {
        "faults": sum(page.faults for page in pages),
        "refaults": again,
        "garbage": sum(not page.faults for page in left),
    }


def low_water_mark(pages: Sequence[Page], low_water: float, high_water: float) -> float:
    """Return the fraction of the window to come down to: nearer to the high-water mark while an agent thrashes."""
    return low_water + (high_water - low_water) * THRASH_RAISE * thrash(pages)


def compacted(
    pages: Sequence[Page],
    victims: Sequence[PageId],
    *,
    now: float,
    near: Nearness = UNKNOWN,
    prices: CachePrices = TYPICAL,
    experience: Experience | None = None,
) -> list[Page]:
    """Return the page table after the victims have left. Rows that did not change are the same objects.

    Behind the first hole, where all is written again anyway, loose pages stand by use, and of what is out of the window
    those are listed whose handle is worth its place: a page without one has to be searched for, a request more.
    """
    if not victims:
        return list(pages)
    gone = frozenset(victims)
    moved = {page.page_id: page for page in busiest_first(pages, victims)}
    after = [
        replace(page, resident=False, left_at=now, left_why=LEFT_WHY)
        if page.page_id in gone
        else moved.get(page.page_id, page)
        for page in pages
    ]
    shown = _worth_listing(after, gone, Hazard(pages, near, experience), prices)
    return [
        page if in_window(page) or page.listed == (page.page_id in shown) else replace(page, listed=not page.listed)
        for page in after
    ]


def _worth_listing(
    pages: Sequence[Page], gone: frozenset[PageId], hazard: Hazard, prices: CachePrices
) -> frozenset[PageId]:
    hole = min((page.position for page in pages if page.page_id in gone), default=0)
    absent = [page for page in in_order(pages) if not in_window(page) and (page.listed or page.page_id in gone)]
    before = [page for page in absent if page.position < hole]
    if len(before) > LISTED_MAX:
        hole, before = 0, []
    copied = frozenset(page.origin for page in pages if page.origin is not None)
    behind = [page for page in worth_a_handle([p for p in absent if p.position >= hole]) if page.page_id not in copied]
    turns, resident = horizon(hazard), resident_tokens(pages)
    search = prices.read * resident + prices.output * FAULT_OUTPUT_TOKENS + prices.write * SEARCH_TOKENS
    worth = {
        page.page_id: hazard.within(page, turns) * search - (prices.write + prices.read * turns) * handle_tokens(page)
        for page in behind
    }
    ranked = sorted(behind, key=lambda page: -worth[page.page_id])[:LISTED_NEW]
    chosen = [page for place, page in enumerate(ranked) if place < LISTED_LEAST or worth[page.page_id] > 0]
    return frozenset(page.page_id for page in (*before, *chosen))


def _log_tokens(pages: Sequence[Page]) -> int:
    return sum(page.tokens for page in pages if page.resident and page.kind not in STATIC_KINDS)
