"""Page replacement: when to compact, and what leaves.

Owns the policies. Promises: victims are whole groups, chosen in one batch, and never what must stay: static and pinned
pages, the newest groups, the current plan, fresh errors, and pages whose handle would be as large as they are. Only
where nothing else makes room do results of the newest groups leave, and their handles answer in their places. The same
pages always give the same victims. Does not know bodies, a provider's name, or when a cache is cold: prices and that
fact are handed in.

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
from aos_mcp.context.hazard import Experience, Hazard
from aos_mcp.context.nearness import UNKNOWN, Nearness
from aos_mcp.context.page_table import WHOLE_TOKENS_MAX, groups, in_window, left_tokens, listed, resident_tokens

GROUPS_KEPT = 2  # The model is working on these.
ERROR_GROUPS_KEPT = 3  # A model that no longer sees its last error makes it again.
SEARCH_TOKENS = 500  # What asking for a page without a handle takes more: a search's question and answer.
PIN_HOLDS = 0.75  # A pin weaker than this holds nothing.
FAULT_OUTPUT_TOKENS = 60  # What a model writes to ask for a page back.
CUTS_TRIED = 32  # Places for the first hole that are compared when room is needed; more would not change the bill.
MARK_DISTANCE_TOKENS = 8_192  # A cut is felt back to the last cache mark; these stand about so far apart.

HORIZON_PART = 0.25  # A session that has lasted for n turns is taken to last for this part of n more,
HORIZON_TURNS_MAX = 40  # and no promise is believed for longer.


@dataclass(frozen=True, slots=True)
class CachePrices:
    """What a provider charges, in tokens of input that no cache holds. The defaults are typical of a prefix cache."""

    read: float = 0.1
    write: float = 1.25
    output: float = 5.0
    round_trip: float = 0.0
    """What a request more is worth to the user beyond its tokens: the time it takes."""


TYPICAL = CachePrices()


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
    since: float = 0.0
    """Turns since the last cut."""
    measured: bool = False
    """Whether no more than needed leaves: the agent keeps asking for what left."""
    cold: bool = False
    """Nothing of the prompt is in a cache: all of it is written again, whatever leaves."""


Policy = Callable[[Sequence[Candidate], Demand], Sequence[Candidate]]
"""Returns the candidates that leave, given those that may, in order of position."""


def cache_prices(price: ModelPrice | None) -> CachePrices:
    """Return a model's prices as ratios; of a model that is free or unknown, the typical ones."""
    if price is None or price.input <= 0:
        return TYPICAL
    return CachePrices(price.cached / price.input, price.written / price.input, price.output / price.input)


def choose_victims(
    pages: Sequence[Page],
    *,
    target_tokens: int,
    near: Nearness = UNKNOWN,
    policy: str = "cost",
    prices: CachePrices = TYPICAL,
    experience: Experience | None = None,
    cold: bool = False,
    measured: bool = False,
) -> tuple[PageId, ...]:
    """Return the pages that leave so that the context comes down to `target_tokens`, in order of position.

    When not enough may leave, all that may does.

    Args:
        pages: the page table of one process, in any order.
        target_tokens: what pages and handles may take together.
        near: how near the pages are to what the agent is working on.
        policy: a name of POLICIES.
        prices: of the model that reads the context next.
        experience: what was seen to be used; by what the rows tell where None.
        cold: whether the provider's cache holds nothing of this context any more.
        measured: whether no more than needed shall leave.

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
    hazard = Hazard(pages, near, experience)
    demand = Demand(needed, resident, hazard, prices, horizon(hazard), cold=cold, measured=measured)
    found = candidates(pages)
    loose = unpinned(found, hazard)
    return ids(choose(loose if sum(c.freed for c in loose) >= needed else found, demand))


def last_resort(pages: Sequence[Page], victims: Sequence[PageId], target_tokens: int) -> tuple[PageId, ...]:
    """Return results of the newest groups that leave too, largest first, where all other victims do not make room.

    Their handles stand in their places, so that each call still has its answer.
    """
    gone = frozenset(victims)
    kept = [page for page in pages if page.page_id not in gone]
    needed = resident_tokens(pages) - sum(page.tokens for page in pages if page.page_id in gone) - target_tokens
    chosen: list[PageId] = []
    results = [page for page in kept if page.kind is PageKind.RESULT and in_window(page) and not page.pinned]
    for page in sorted(results, key=lambda page: (-page.tokens, page.position)):
        freed = page.tokens - handle_tokens(page)
        if needed <= 0 or freed <= 0:
            break
        chosen.append(page.page_id)
        needed -= freed
    return tuple(chosen)


def unpinned(found: Sequence[Candidate], hazard: Hazard) -> list[Candidate]:
    """Return the candidates without those that only need makes leave: summaries, and what was just asked for again."""
    return [
        c for c in found if not any(page.kind is PageKind.SUMMARY or hazard.pin(page) >= PIN_HOLDS for page in c.pages)
    ]


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


def ids(chosen: Sequence[Candidate]) -> tuple[PageId, ...]:
    """Return the pages of some candidates, by position."""
    return tuple(page.page_id for victim in sorted(chosen, key=lambda c: c.index) for page in victim.pages)


def horizon(hazard: Hazard) -> float:
    """Return for how many turns more a session is taken to last."""
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
    each token freed: until enough is free, and beyond it as long as it is worth anything, since all of that is written
    again anyway. Among places that free enough the cheapest bill wins, and of equal ones the one nearest the tail.
    """
    worth = {candidate.index: _worth(candidate, demand) for candidate in found}
    ranked = sorted(found, key=lambda c: (-worth[c.index] / c.freed, c.index))
    best: tuple[float, int] | None = None
    chosen: Sequence[Candidate] = found
    for start in _cuts(found, demand.needed):
        behind = [c for c in ranked if c.index >= start.index]
        batch = _until_enough(behind, demand.needed)
        if not demand.measured:
            batch += [c for c in behind[len(batch) :] if worth[c.index] > 0]
        first = min(batch, key=lambda c: c.index)
        bill = _rewritten(first, demand) - sum(worth[c.index] for c in batch)
        if best is None or (bill, -first.index) < best:
            best, chosen = (bill, -first.index), batch
    return chosen


def paying(found: Sequence[Candidate], demand: Demand) -> Sequence[Candidate]:
    """Return the batch with the largest gain over leaving everything where it is; none where nothing gains, or yet.

    A cut that pays in the end may pay more a little later. It is made once reading what it takes out has cost, since
    the last cut, what the cut itself costs: whatever comes then, it was not twice as dear as the best moment. With a
    cold cache there is nothing to wait for.
    """
    best, start, gained = 0.0, 0, 0.0
    gaining: list[Candidate] = []
    for place in range(len(found) - 1, -1, -1):
        worth = _worth(found[place], demand)
        if worth <= 0:
            continue
        gained += worth
        gaining.append(found[place])
        if gained - _rewritten(found[place], demand) > best:
            best, start = gained - _rewritten(found[place], demand), len(gaining)
    batch = gaining[:start]
    return batch if batch and (demand.cold or _rent(batch, demand) >= _toll(batch, demand)) else ()


def _toll(batch: Sequence[Candidate], demand: Demand) -> float:
    """Return what a cut costs, its first hole last in the batch: what stays behind it is written again, and the risk.

    What leaves is not written again, so that a cut which leaves little behind it is cheap, however long the log was.
    """
    again = demand.prices.write - demand.prices.read
    stays = _rewritten(batch[-1], demand) - again * sum(candidate.tokens for candidate in batch)
    return stays + sum(_reckoned(candidate, demand)[1] for candidate in batch)


def _rent(batch: Sequence[Candidate], demand: Demand) -> float:
    """Return what it has cost since the last cut to read what nobody used meanwhile."""
    lain = (page.tokens * min(demand.since, demand.hazard.turns_since(page.used_at)) for c in batch for page in c.pages)
    return demand.prices.read * sum(lain)


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
    """Return what is saved if a group leaves that would be written again otherwise."""
    again = demand.prices.write if demand.cold else demand.prices.write - demand.prices.read
    read, risk = _reckoned(candidate, demand)
    return again * candidate.tokens + read - risk


def _reckoned(candidate: Candidate, demand: Demand) -> tuple[float, float]:
    """Return what a group's leaving saves in reading it until it is asked for again, and what its leaving risks.

    Paid is, with the likelihood that it is asked for, a request more and its tokens at the tail; and the handle, or a
    search where that is cheaper. Of a small page a search shows all.
    """
    prices, read, risk = demand.prices, 0.0, 0.0
    request = prices.read * demand.resident + prices.output * FAULT_OUTPUT_TOKENS + prices.round_trip
    search = request + prices.write * SEARCH_TOKENS
    keeping = prices.write + prices.read * demand.turns
    for page in candidate.pages:
        asked, lain = demand.hazard.outlook(page, demand.turns)
        read += prices.read * page.tokens * lain
        risk += asked * (request + prices.write * page.tokens)
        if page.tokens > WHOLE_TOKENS_MAX:
            risk += min(asked * search, keeping * handle_tokens(page))
    return read, risk


POLICIES: Mapping[str, Policy] = MappingProxyType({"cost": cost, "lru": lru, "fifo": fifo, "importance": importance})
"""The policies by name."""
