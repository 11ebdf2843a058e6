"""Page replacement: when to compact, and what leaves.

Owns the policies. Promises: victims are whole groups, chosen in one batch, and never what must stay: static and pinned
pages, the newest groups, the current plan, fresh errors, and pages whose handle would be as large as they are. The
same pages always give the same victims. Does not know bodies, a provider's name, or when a cache is cold: prices and
that fact are handed in.

Why one batch: a provider caches prompts by prefix, so a page that leaves makes everything behind it be written again.
Leaving one at a time, by any policy, costs more than never leaving; so does re-sorting between compactions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from aos_mcp.abi.completion import ModelPrice
from aos_mcp.abi.errors import Invalid
from aos_mcp.abi.handle import PageId
from aos_mcp.abi.page import STATIC_KINDS, Page, PageKind
from aos_mcp.context.handle import handle_tokens
from aos_mcp.context.hazard import Hazard, Similarity
from aos_mcp.context.page_table import groups, in_window, left_tokens, listed, resident_tokens

GROUPS_KEPT = 2  # The model is working on these.
ERROR_GROUPS_KEPT = 3  # A model that no longer sees its last error makes it again.
FAULT_OUTPUT_TOKENS = 60  # What a model writes to ask for a page back.
CUTS_TRIED = 64  # Places for the first hole that are compared when room is needed; more would not change the bill.
MARK_DISTANCE_TOKENS = 8_192  # A cut is felt back to the last cache mark; these stand about so far apart.

# A cut that nothing forces is made only where it pays. These bound how sure one must be.
SMALL_LOG_TOKENS = 40_000  # Below it there is too little to gain: most sessions end before a cut has paid.
TURNS_BETWEEN_CUTS = 12
HORIZON_PART = 0.25  # A session that has lasted for n turns is taken to last for this part of n more,
HORIZON_TURNS_MAX = 80  # and no promise is believed for longer.

# Thrashing: what left is asked for again and again.
THRASH_TURNS = 20  # Seen over the last so many turns;
THRASH_CALM = 0.15  # up to so many pages a turn are ordinary,
THRASH_WILD = 0.5  # and at so many nothing should leave that need not.


@dataclass(frozen=True, slots=True)
class CachePrices:
    """What a provider charges, in tokens of input that no cache holds. The defaults are typical of a prefix cache."""

    read: float = 0.1
    write: float = 1.25
    output: float = 5.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """One group that may leave. `freed` is what its leaving saves, handles deducted.

    `before` and `after` are the tokens in front of it and behind it.
    """

    pages: tuple[Page, ...]
    freed: int
    tokens: int
    before: int
    after: int
    index: int

    @property
    def used_at(self) -> float:
        """When any of it was last used."""
        return max(page.used_at for page in self.pages)

    @property
    def importance(self) -> float:
        """The importance of its most important page."""
        return max(page.importance for page in self.pages)


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked of a policy: at least `needed` tokens, in a context of `resident` tokens."""

    needed: int
    resident: int
    hazard: Hazard
    prices: CachePrices
    turns: float
    """How long the session is taken to last."""
    cold: bool = False
    """Nothing of the prompt is in a cache: all of it is written again, whatever leaves."""


Policy = Callable[[Sequence[Candidate], Demand], Sequence[Candidate]]
"""Returns the candidates that leave, given those that may, in order of position."""


def cache_prices(price: ModelPrice | None) -> CachePrices:
    """Return a model's prices as ratios; of a model that is free or unknown, the typical ones."""
    if price is None or price.input <= 0:
        return CachePrices()
    return CachePrices(price.cached / price.input, price.written / price.input, price.output / price.input)


def needs_compaction(resident_tokens: int, window_tokens: int, high_water: float) -> bool:
    """Return whether the context has risen above the high-water mark, a fraction of the window."""
    return resident_tokens > window_tokens * high_water


def may_compact(pages: Sequence[Page], window_tokens: int, high_water: float) -> bool:
    """Return whether `compaction` could name any victim. Cheap: most turns of most agents end here."""
    return _log_tokens(pages) >= SMALL_LOG_TOKENS or needs_compaction(resident_tokens(pages), window_tokens, high_water)


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
    task_words: frozenset[str] = frozenset(),
    policy: str = "cost",
    prices: CachePrices = CachePrices(),
    similarity: Similarity | None = None,
    cold: bool = False,
) -> tuple[PageId, ...]:
    """Return what leaves before the next turn, in order of position: what must, or else what pays; none as a rule.

    Above the high-water mark (a fraction of the window) the context comes down to the low one, or less far while the
    agent thrashes. Other arguments as of `choose_victims`.
    """
    if needs_compaction(resident_tokens(pages), window_tokens, high_water):
        return choose_victims(
            pages,
            target_tokens=int(window_tokens * low_water_mark(pages, low_water, high_water)),
            task_words=task_words,
            policy=policy,
            prices=prices,
            similarity=similarity,
            cold=cold,
        )
    if policy != "cost":
        return ()
    return worthwhile_victims(pages, task_words=task_words, prices=prices, similarity=similarity, cold=cold)


def choose_victims(
    pages: Sequence[Page],
    *,
    target_tokens: int,
    task_words: frozenset[str] = frozenset(),
    policy: str = "cost",
    prices: CachePrices = CachePrices(),
    similarity: Similarity | None = None,
    cold: bool = False,
) -> tuple[PageId, ...]:
    """Return the pages that leave so that the context comes down to `target_tokens`, in order of position.

    When not enough may leave, all that may does.

    Args:
        pages: the page table of one process, in any order.
        target_tokens: what pages and handles may take together.
        task_words: lower-case words of what the agent is working on.
        policy: a name of POLICIES.
        prices: of the model that reads the context next.
        similarity: how near a page is to the task, 0 to 1; by the words of its title where None.
        cold: whether the provider's cache holds nothing of this context any more.

    Raises:
        Invalid: there is no such policy.
    """
    choose = POLICIES.get(policy)
    if choose is None:
        raise Invalid(f"There is no replacement policy {policy!r}.", f"Use one of: {', '.join(sorted(POLICIES))}.")
    resident = resident_tokens(pages)
    needed = resident - target_tokens
    if needed <= 0:
        return ()
    hazard = Hazard(pages, task_words, similarity)
    demand = Demand(needed, resident, hazard, prices, _horizon(hazard), cold)
    return _ids(choose(candidates(pages), demand))


def worthwhile_victims(
    pages: Sequence[Page],
    *,
    task_words: frozenset[str] = frozenset(),
    prices: CachePrices = CachePrices(),
    similarity: Similarity | None = None,
    cold: bool = False,
) -> tuple[PageId, ...]:
    """Return the pages whose leaving pays by itself although there is room, in order of position; none as a rule.

    Nothing leaves a small context, one that was cut a few turns ago (unless its cache is cold, which makes a cut free),
    or one whose agent keeps asking for what left. Arguments as of `choose_victims`.
    """
    if _log_tokens(pages) < SMALL_LOG_TOKENS:
        return ()
    hazard = Hazard(pages, task_words, similarity)
    last_cut = max((page.left_at for page in pages if page.left_at is not None), default=None)
    if last_cut is not None and not cold and hazard.turns_since(last_cut) < TURNS_BETWEEN_CUTS:
        return ()
    if thrash(pages) > 0:
        return ()
    demand = Demand(0, resident_tokens(pages), hazard, prices, _horizon(hazard), cold)
    return _ids(_paying(candidates(pages), demand))


def thrash(pages: Sequence[Page]) -> float:
    """Return how much of what left is asked for again, lately: 0 is ordinary, 1 is an agent that does little else."""
    turns = sorted(page.created_at for page in pages if page.kind is PageKind.REPLY)[-THRASH_TURNS:]
    if len(turns) < THRASH_TURNS:
        return 0.0
    back = sum(1 for page in pages if page.faults and not in_window(page) and page.used_at >= turns[0])
    return min(1.0, max(0.0, (back / THRASH_TURNS - THRASH_CALM) / (THRASH_WILD - THRASH_CALM)))


def low_water_mark(pages: Sequence[Page], low_water: float, high_water: float) -> float:
    """Return the fraction of the window to come down to: nearer to the high-water mark while an agent thrashes."""
    return low_water + (high_water - low_water) * 0.75 * thrash(pages)


def candidates(pages: Sequence[Page]) -> list[Candidate]:
    """Return the groups that may leave, by position."""
    everything, shown = groups(pages), listed(pages)
    plan = _current_plan(pages)
    working = [
        index
        for index, group in enumerate(everything)
        if group[0].kind not in STATIC_KINDS and any(in_window(page) for page in group)
    ]
    newest, recent = frozenset(working[-GROUPS_KEPT:]), frozenset(working[-ERROR_GROUPS_KEPT:])
    weights = [
        sum(page.tokens if in_window(page) else handle_tokens(page) * (page.page_id in shown) for page in group)
        for group in everything
    ]
    found: list[Candidate] = []
    before, total = 0, sum(weights)
    for index, whole in enumerate(everything):
        group = tuple(page for page in whole if in_window(page))
        tokens = sum(page.tokens for page in group)
        freed = tokens - left_tokens(group)
        fresh_error = index in recent and any(page.is_error for page in group)
        if freed > 0 and index not in newest and not fresh_error and not _stays(group, plan):
            found.append(Candidate(group, freed, tokens, before, total - before - weights[index], index))
        before += weights[index]
    return found


def _log_tokens(pages: Sequence[Page]) -> int:
    return sum(page.tokens for page in pages if page.resident and page.kind not in STATIC_KINDS)


def _ids(chosen: Sequence[Candidate]) -> tuple[PageId, ...]:
    return tuple(page.page_id for victim in sorted(chosen, key=lambda c: c.index) for page in victim.pages)


def _horizon(hazard: Hazard) -> float:
    return min(HORIZON_TURNS_MAX, HORIZON_PART * hazard.turns)


def _stays(group: Sequence[Page], plan: PageId | None) -> bool:
    return any(page.kind in STATIC_KINDS or page.pinned or page.page_id == plan for page in group)


def _current_plan(pages: Sequence[Page]) -> PageId | None:
    plans = [page for page in pages if page.kind is PageKind.PLAN and in_window(page)]
    return max(plans, key=lambda page: (page.position, page.page_id)).page_id if plans else None


def _until_enough(ordered: Sequence[Candidate], needed: int) -> list[Candidate]:
    taken: list[Candidate] = []
    for candidate in ordered:
        if needed <= 0:
            break
        taken.append(candidate)
        needed -= candidate.freed
    return taken


def lru(found: Sequence[Candidate], demand: Demand) -> Sequence[Candidate]:
    """Least recently used first."""
    return _until_enough(sorted(found, key=lambda c: (c.used_at, c.index)), demand.needed)


def fifo(found: Sequence[Candidate], demand: Demand) -> Sequence[Candidate]:
    """Oldest place first."""
    return _until_enough(found, demand.needed)


def importance(found: Sequence[Candidate], demand: Demand) -> Sequence[Candidate]:
    """Least important first, the oldest of those that are equal."""
    return _until_enough(sorted(found, key=lambda c: (c.importance, c.index)), demand.needed)


def cost(found: Sequence[Candidate], demand: Demand) -> Sequence[Candidate]:
    """The batch with the smallest bill: text behind its first hole is written again, pages asked for are fetched again.

    For each place of the first hole, the candidates from there on leave in order of what their leaving is worth for
    each token freed, until enough is free. Among places that free enough the cheapest bill wins, and of equal ones the
    one nearest the tail, which keeps the longer prefix.
    """
    worth = {candidate.index: _worth(candidate, demand) for candidate in found}
    ranked = sorted(found, key=lambda c: (-worth[c.index] / c.freed, c.index))
    best: tuple[float, int] | None = None
    chosen: Sequence[Candidate] = found
    for start in _cuts(found, demand.needed):
        batch = _until_enough([c for c in ranked if c.index >= start.index], demand.needed)
        first = min(batch, key=lambda c: c.index)
        bill = _rewritten(first, demand) - sum(worth[c.index] for c in batch)
        if best is None or (bill, -first.index) < best:
            best, chosen = (bill, -first.index), batch
    return chosen


def _paying(found: Sequence[Candidate], demand: Demand) -> Sequence[Candidate]:
    """Return the batch with the largest gain over leaving everything where it is; none where nothing gains."""
    best, start, gained = 0.0, len(found), 0.0
    gaining: list[Candidate] = []
    for place in range(len(found) - 1, -1, -1):
        worth = _worth(found[place], demand)
        if worth <= 0:
            continue
        gained += worth
        gaining.append(found[place])
        if gained - _rewritten(found[place], demand) > best:
            best, start = gained - _rewritten(found[place], demand), len(gaining)
    return gaining[:start] if best > 0 else ()


def _cuts(found: Sequence[Candidate], needed: int) -> list[Candidate]:
    """Return places for the first hole behind which enough may leave, evenly spread when there are many."""
    freed, last = 0, -1
    for place in range(len(found) - 1, -1, -1):
        freed += found[place].freed
        if freed >= needed:
            last = place
            break
    step = max(last, 0) // CUTS_TRIED + 1
    return [found[place] for place in range(last, -1, -step)]


def _rewritten(first: Candidate, demand: Demand) -> float:
    """Return what a first hole at this candidate costs if all from the cache mark before it is written again."""
    if demand.cold:
        return 0.0
    behind = first.before % MARK_DISTANCE_TOKENS + first.tokens + first.after
    return (demand.prices.write - demand.prices.read) * behind


def _worth(candidate: Candidate, demand: Demand) -> float:
    """Return what is saved if a group leaves that would be written again otherwise.

    Saved: writing it, and reading it in every turn to come. Paid: writing its handle, and with the likelihood that one
    of its pages is asked for again one more request, its tokens at the tail, and reading them there.
    """
    prices, turns = demand.prices, demand.turns
    again = prices.write if demand.cold else prices.write - prices.read
    saved = again * candidate.tokens + prices.read * candidate.freed * turns
    handle = prices.write * (candidate.tokens - candidate.freed)
    request = prices.read * demand.resident + prices.output * FAULT_OUTPUT_TOKENS
    fetched = sum(
        demand.hazard.within(page, turns) * (request + (prices.write + prices.read * turns / 2) * page.tokens)
        for page in candidate.pages
    )
    return saved - handle - fetched


POLICIES: Mapping[str, Policy] = MappingProxyType({"cost": cost, "lru": lru, "fifo": fifo, "importance": importance})
"""The policies by name."""
