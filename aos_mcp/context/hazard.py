"""How likely a page is asked for again, learned from the page table as it stands.

Owns the estimate. It follows how long a page has lain unused, which says more than all else, and it is learned: each
page on record tells how long pages of its class (its kind, the tool it came from, whether it was fetched back) lay
before they were used, or have lain in vain. Where little is on record a prior speaks. Pure: the same table gives the
same figures. Time is counted in turns of the model, so that an agent that waited is not taken for one that lost
interest.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import exp

from aos_mcp.abi.handle import PageId
from aos_mcp.abi.page import Page, PageKind
from aos_mcp.context.nearness import UNKNOWN, Nearness

AGES = (0.0, 5.0, 15.0, 40.0, 100.0, float("inf"))
"""Turns without use at which the likelihood of one changes."""
PRIOR = (0.06, 0.02, 0.005, 0.0015, 0.0006)
"""Uses a turn between those ages, as in recorded sessions, of pages of which nothing else is known."""
PRIOR_REPLY_PART = 0.1  # What a model said itself is rarely asked for.
PRIOR_TURNS = 40.0  # The prior weighs as much as so many turns on record; so does the kind against the class.
OWN_USES = 6.0  # A page's own record weighs as much as its class's when it was used so often.
NEAR_WEIGHT = 0.25  # By how much nearness to the task moves the estimate, as a logarithm: 0.78 to 1.28 times.
PIN_HALF_TURNS = 8.0  # After so many turns a page that was asked for again is held half as firmly.

_Rates = tuple[float, ...]
PageClass = tuple[PageKind, str]
"""The kind of a page and the tool it came from, with a plus where it was fetched back."""


@dataclass(slots=True)
class _Record:
    """What is on record of some pages: their uses by the age at which they came, and the turns they lay at each age."""

    uses: list[float] = field(default_factory=lambda: [0.0] * len(PRIOR))
    turns: list[float] = field(default_factory=lambda: [0.0] * len(PRIOR))

    def lay(self, turns: float, times: int) -> None:
        """Count pages that lay for so many turns."""
        for place, begin in enumerate(AGES[:-1]):
            if turns <= begin:
                return
            self.turns[place] += times * (min(turns, AGES[place + 1]) - begin)

    def add(self, other: _Record) -> None:
        """Count other pages too."""
        self.uses = [one + more for one, more in zip(self.uses, other.uses, strict=True)]
        self.turns = [one + more for one, more in zip(self.turns, other.turns, strict=True)]

    def rates(self, before: _Rates) -> _Rates:
        """Return uses a turn by age: what is on record, and `before` where that is little."""
        return tuple(
            (uses + PRIOR_TURNS * rate) / (turns + PRIOR_TURNS)
            for uses, turns, rate in zip(self.uses, self.turns, before, strict=True)
        )


@dataclass(slots=True)
class Experience:
    """What was seen to be used, as it happened: by class of page, how long it had lain. It only grows."""

    records: dict[PageClass, _Record] = field(default_factory=dict)

    def used(self, what: PageClass, turns: float) -> None:
        """Count one use of a page that had lain for so many turns."""
        record = self.records.setdefault(what, _Record())
        record.uses[bisect_right(AGES, turns) - 1] += 1
        record.lay(turns, 1)


class Hazard:
    """The estimate for one page table."""

    def __init__(
        self,
        pages: Sequence[Page],
        near: Nearness = UNKNOWN,
        experience: Experience | None = None,
    ) -> None:
        self._turn_at = sorted(page.created_at for page in pages if page.kind is PageKind.REPLY)
        self._near = near
        self._rows = {page.page_id: page for page in pages}
        classes = self._record(pages, experience)
        kinds = {kind: _Record() for kind in PageKind}
        for (kind, _), record in classes.items():
            kinds[kind].add(record)
        self._rates = {key: record.rates(kinds[key[0]].rates(_prior(key[0]))) for key, record in classes.items()}

    @property
    def turns(self) -> int:
        """How many turns the session has had."""
        return len(self._turn_at)

    def turns_since(self, when: float) -> int:
        """Return how many turns began after `when`."""
        return len(self._turn_at) - bisect_right(self._turn_at, when)

    def within(self, page: Page, turns: float) -> float:
        """Return how likely the page is asked for within so many turns, 0 to 1."""
        return self.outlook(page, turns)[0]

    def outlook(self, page: Page, turns: float) -> tuple[float, float]:
        """Return how likely the page is asked for within so many turns, and for how many of them it would be missed.

        The second is the mean time until it is asked for, at most `turns`.
        """
        idle = self.turns_since(page.used_at)
        weight = self._weight(page)
        unasked, lain = 1.0, 0.0
        for rate, begin, end in zip(self._rates[self._class(page)], AGES, AGES[1:], strict=False):
            span = min(idle + turns, end) - max(idle, begin)
            if span <= 0:
                continue
            hazard = rate * weight
            still = unasked * exp(-hazard * span)
            lain += (unasked - still) / hazard if hazard * span > 1e-9 else unasked * span
            unasked = still
        return 1.0 - unasked, lain

    def pin(self, page: Page) -> float:
        """Return how firmly a page is held because it was asked for again: 1 just then, half as much later; else 0."""
        if page.origin is None and not page.faults:
            return 0.0
        return float(0.5 ** (self.turns_since(page.used_at) / PIN_HALF_TURNS))

    def _weight(self, page: Page) -> float:
        oftener = 1.0
        if page.uses:
            gap = (self.turns_since(page.created_at) - self.turns_since(page.used_at)) / page.uses
            usual = sum(
                rate * max(0.0, min(gap, end) - begin)
                for rate, begin, end in zip(self._rates[self._class(page)], AGES, AGES[1:], strict=False)
            )
            oftener = (OWN_USES + page.uses) / (OWN_USES + page.uses * usual)
        near = exp(NEAR_WEIGHT * self._near.get(page.page_id, 0.0))
        return oftener * (0.4 + 1.2 * page.importance) * near * (1.0 + page.faults)

    def _record(self, pages: Sequence[Page], experience: Experience | None) -> Mapping[PageClass, _Record]:
        """Count how long pages have lain; and their uses, as far as nobody saw them: each at the mean distance then."""
        found: dict[PageClass, _Record] = {}
        copied = frozenset(page.origin for page in pages if page.origin is not None)
        for page in pages:
            record = found.setdefault(self._class(page), _Record())
            idle = self.turns_since(page.used_at)
            if page.uses and experience is None:
                gap = (self.turns_since(page.created_at) - idle) / page.uses
                record.uses[bisect_right(AGES, gap) - 1] += page.uses
                record.lay(gap, page.uses)
            if page.page_id not in copied:  # the copy is what lies now
                record.lay(idle, 1)
        if experience is not None:
            for what, record in experience.records.items():
                found.setdefault(what, _Record()).add(record)
        return found

    def _class(self, page: Page) -> PageClass:
        return page_class(page, self._rows)


def page_class(page: Page, rows: Mapping[PageId, Page]) -> PageClass:
    """Return what pages are alike. A copy is of the class of what it is a copy of, apart from what was never copied."""
    if page.origin is None:
        return page.kind, page.source.partition(":")[0]
    root = rows.get(page.origin, page)
    return root.kind, root.source.partition(":")[0] + "+"


def _prior(kind: PageKind) -> _Rates:
    return tuple(rate * PRIOR_REPLY_PART for rate in PRIOR) if kind is PageKind.REPLY else PRIOR
