"""How likely a page is asked for again, learned from the page table as it stands.

Owns the estimate. It follows how long a page has lain unused, which says more than all else, and it is learned: each
page on record tells how long pages of its class (its kind and the tool it came from) lay before they were used, or
have lain in vain. Where little is on record a prior speaks. Pure: the same table gives the same figures. Time is
counted in turns of the model, so that an agent that waited is not taken for one that lost interest.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import exp, sqrt

from aos_mcp.abi.page import Page, PageKind

Similarity = Callable[[Page], float]
"""How near a page is to what the agent is working on: 0 not at all, 1 the same."""

AGES = (0.0, 5.0, 15.0, 40.0, 100.0, float("inf"))
"""Turns without use at which the likelihood of one changes."""
PRIOR = (0.06, 0.02, 0.005, 0.0015, 0.0006)
"""Uses a turn between those ages, as in recorded sessions, of pages of which nothing else is known."""
PRIOR_REPLY_PART = 0.1  # What a model said itself is rarely asked for.
PRIOR_TURNS = 40.0  # The prior weighs as much as so many turns on record; so does the kind against the class.

_WORD = re.compile(r"[^\W_]{3,}")
_Rates = tuple[float, ...]


@dataclass(slots=True)
class _Record:
    """What is on record of some pages: their uses by the age at which they came, and the turns they lay at each age."""

    pages: int = 0
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
        self.pages += other.pages
        self.uses = [one + more for one, more in zip(self.uses, other.uses, strict=True)]
        self.turns = [one + more for one, more in zip(self.turns, other.turns, strict=True)]

    def rates(self, before: _Rates) -> _Rates:
        """Return uses a turn by age: what is on record, and `before` where that is little."""
        return tuple(
            (uses + PRIOR_TURNS * rate) / (turns + PRIOR_TURNS)
            for uses, turns, rate in zip(self.uses, self.turns, before, strict=True)
        )


class Hazard:
    """The estimate for one page table."""

    def __init__(self, pages: Sequence[Page], task_words: frozenset[str], similarity: Similarity | None) -> None:
        self._turn_at = sorted(page.created_at for page in pages if page.kind is PageKind.REPLY)
        self._task_words = task_words
        self._similarity = similarity
        classes = self._record(pages)
        kinds = {kind: _Record() for kind in PageKind}
        for (kind, _), record in classes.items():
            kinds[kind].add(record)
        self._uses = {key: sum(record.uses) / record.pages for key, record in classes.items()}
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
        idle = self.turns_since(page.used_at)
        expected = sum(
            rate * max(0.0, min(idle + turns, end) - max(idle, begin))
            for rate, begin, end in zip(self._rates[_class(page)], AGES, AGES[1:], strict=False)
        )
        oftener = sqrt((1.0 + page.uses) / (1.0 + self._uses[_class(page)]))
        weight = (0.4 + 1.2 * page.importance) * (1.0 + 2.0 * self._near(page)) * (1.0 + page.faults)
        return 1.0 - exp(-expected * oftener * weight)

    def _record(self, pages: Sequence[Page]) -> Mapping[tuple[PageKind, str], _Record]:
        found: dict[tuple[PageKind, str], _Record] = {}
        for page in pages:
            record = found.setdefault(_class(page), _Record())
            idle = self.turns_since(page.used_at)
            record.pages += 1
            if page.uses:
                gap = (self.turns_since(page.created_at) - idle) / page.uses
                record.uses[bisect_right(AGES, gap) - 1] += page.uses
                record.lay(gap, page.uses)
            record.lay(idle, 1)
        return found

    def _near(self, page: Page) -> float:
        if self._similarity is not None:
            return min(1.0, max(0.0, self._similarity(page)))
        words = frozenset(_WORD.findall(page.title.lower())) if self._task_words else frozenset()
        return len(words & self._task_words) / len(words) if words else 0.0


def _class(page: Page) -> tuple[PageKind, str]:
    return page.kind, page.source.partition(":")[0]


def _prior(kind: PageKind) -> _Rates:
    return tuple(rate * PRIOR_REPLY_PART for rate in PRIOR) if kind is PageKind.REPLY else PRIOR
