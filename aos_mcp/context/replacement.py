"""Page replacement: when to compact, and what leaves.

Owns the policies. Promises: victims are whole groups, chosen in one batch, and never what must stay: static and pinned
pages, the newest groups, the current plan, fresh errors, and pages whose handle would be as large as they are. The
same pages always give the same victims. Does not know bodies, prices of a provider, or when a cache is cold.

Why one batch: a provider caches prompts by prefix, so a page that leaves makes everything behind it be written again.
Leaving one at a time, by any policy, costs more than never leaving; so does re-sorting between compactions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import log1p
from types import MappingProxyType

from aos_mcp.abi.errors import Invalid
from aos_mcp.abi.handle import PageId
from aos_mcp.abi.page import STATIC_KINDS, Page, PageKind
from aos_mcp.context.handle import handle_tokens
from aos_mcp.context.page_table import groups, in_window, resident_tokens

GROUPS_KEPT = 2  # The model is working on these.
ERROR_GROUPS_KEPT = 3  # A model that no longer sees its last error makes it again.

# The `cost` policy counts in input tokens that no cache holds. The figures are typical of providers with a prefix
# cache; only their ratio matters, and any of them may be off by two without a visible change of the victims.
WRITE_COST = 1.25
READ_COST = 0.1
FAULT_OUTPUT_TOKENS = 60  # What a model writes to ask for a page back,
OUTPUT_COST = 5.0  # and what it costs.
COLD_AFTER_S = 600.0  # A page that nobody used for this long is half as likely to be asked for.
CUTS_TRIED = 64  # Places for the first hole that are compared; more would not change the bill.
REFERENCE_PRIOR = 0.1  # How likely a middling page that left is asked for again; measured traces fault 3-15 %.

_WORD = re.compile(r"[^\W_]{3,}")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One group that may leave. `freed` is what its leaving saves, handles deducted; `after` what stands behind it."""

    pages: tuple[Page, ...]
    freed: int
    tokens: int
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
    """What is asked of a policy: at least `needed` tokens, in a context of `resident` tokens, at `now`."""

    needed: int
    resident: int
    now: float
    task_words: frozenset[str]


Policy = Callable[[Sequence[Candidate], Demand], Sequence[Candidate]]
"""Returns the candidates that leave, given those that may, in order of position."""


def needs_compaction(resident_tokens: int, window_tokens: int, high_water: float) -> bool:
    """Return whether the context has risen above the high-water mark, a fraction of the window."""
    return resident_tokens > window_tokens * high_water


def choose_victims(
    pages: Sequence[Page],
    *,
    target_tokens: int,
    now: float,
    task_words: frozenset[str] = frozenset(),
    policy: str = "cost",
) -> tuple[PageId, ...]:
    """Return the pages that leave so that the context comes down to `target_tokens`, in order of position.

    When not enough may leave, all that may does. `task_words` are lower-case words of what the agent is working on.
    Raises Invalid for an unknown policy.
    """
    choose = POLICIES.get(policy)
    if choose is None:
        raise Invalid(f"There is no replacement policy {policy!r}.", f"Use one of: {', '.join(sorted(POLICIES))}.")
    resident = resident_tokens(pages)
    needed = resident - target_tokens
    if needed <= 0:
        return ()
    chosen = choose(candidates(pages), Demand(needed, resident, now, task_words))
    return tuple(page.page_id for victim in sorted(chosen, key=lambda c: c.index) for page in victim.pages)


def candidates(pages: Sequence[Page]) -> list[Candidate]:
    """Return the groups that may leave, by position."""
    present = [tuple(page for page in group if in_window(page)) for group in groups(pages)]
    present = [group for group in present if group]
    plan = _current_plan(pages)
    working = [index for index, group in enumerate(present) if group[0].kind not in STATIC_KINDS]
    newest, recent = frozenset(working[-GROUPS_KEPT:]), frozenset(working[-ERROR_GROUPS_KEPT:])
    found: list[Candidate] = []
    after = 0
    for index in range(len(present) - 1, -1, -1):
        group = present[index]
        tokens = sum(page.tokens for page in group)
        freed = tokens - sum(handle_tokens(page) for page in group)
        fresh_error = index in recent and any(page.is_error for page in group)
        if freed > 0 and index not in newest and not fresh_error and not _stays(group, plan):
            found.append(Candidate(group, freed, tokens, after, index))
        after += tokens
    return found[::-1]


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

    For each place of the first hole, the candidates from there on leave in order of expected refetch cost for each
    token freed, until enough is free. Among places that free enough the cheapest bill wins, and of equal ones the one
    nearest the tail, which keeps the longer prefix.
    """
    faults = {candidate.index: _fault_cost(candidate, demand) for candidate in found}
    ranked = sorted(found, key=lambda c: (faults[c.index] / c.freed, c.index))
    best: tuple[float, int] | None = None
    chosen: Sequence[Candidate] = found
    for start in _cuts(found, demand.needed):
        batch = _until_enough([c for c in ranked if c.index >= start.index], demand.needed)
        first = min(batch, key=lambda c: c.index)
        kept = first.after - sum(c.tokens for c in batch if c is not first)
        bill = (WRITE_COST - READ_COST) * kept + sum(faults[c.index] for c in batch)
        if best is None or (bill, -first.index) < best:
            best, chosen = (bill, -first.index), batch
    return chosen


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


def _fault_cost(candidate: Candidate, demand: Demand) -> float:
    """Return the expected cost of fetching a group back: one more request, and its tokens written at the tail."""
    request = READ_COST * demand.resident + OUTPUT_COST * FAULT_OUTPUT_TOKENS
    return sum(_hazard(page, demand) * (request + WRITE_COST * page.tokens) for page in candidate.pages)


def _hazard(page: Page, demand: Demand) -> float:
    """Return how likely a page is asked for again: recency, importance, closeness to the task, and past use."""
    idle_s = max(0.0, demand.now - page.used_at)
    recency = COLD_AFTER_S / (COLD_AFTER_S + idle_s)
    used = 1.0 + log1p(page.uses) + 2.0 * log1p(page.faults)
    return REFERENCE_PRIOR * recency * (0.2 + 1.6 * page.importance) * (1.0 + 2.0 * _closeness(page, demand)) * used


def _closeness(page: Page, demand: Demand) -> float:
    """Return which part of the title's words the task shares, 0 to 1."""
    words = frozenset(_WORD.findall(page.title.lower()))
    return len(words & demand.task_words) / len(words) if words and demand.task_words else 0.0


POLICIES: Mapping[str, Policy] = MappingProxyType({"cost": cost, "lru": lru, "fifo": fifo, "importance": importance})
"""The policies by name."""
