"""How likely a page is asked for again, learned from the page table as it stands.

Owns the estimate. It starts from a prior, and every use and every fault on record moves it: those of the page itself,
and those of all pages of its class (its kind and the tool it came from). Pure: the same table gives the same figures.
Time is counted in turns of the model, so that an agent that waited is not taken for one that lost interest.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from math import exp

from aos_mcp.abi.page import Page, PageKind

Similarity = Callable[[Page], float]
"""How near a page is to what the agent is working on: 0 not at all, 1 the same."""

PRIOR_USES = 1.0  # The prior of a class weighs as much as so many uses,
PRIOR_RATE = 0.02  # spread over turns at this rate: a middling page is asked for once in fifty turns.
PRIOR_RATE_REPLY = 0.002  # What a model said itself is rarely asked for.
PAGE_WEIGHT = 0.5  # The class weighs as much as so many uses of a page itself; pages of a class differ widely.
IDLE_TURNS = 40.0  # A page that was not used for so long is half as likely to be.

_WORD = re.compile(r"[^\W_]{3,}")


class Hazard:
    """The estimate for one page table."""

    def __init__(
        self, pages: Sequence[Page], now: float, task_words: frozenset[str], similarity: Similarity | None
    ) -> None:
        self._turn_at = sorted(page.created_at for page in pages if page.kind is PageKind.REPLY)
        self._now = now
        self._task_words = task_words
        self._similarity = similarity
        uses: dict[tuple[PageKind, str], float] = {}
        exposure: dict[tuple[PageKind, str], float] = {}
        for page in pages:
            key = _class(page)
            uses[key] = uses.get(key, PRIOR_USES) + page.uses
            exposure[key] = exposure.get(key, PRIOR_USES / _prior(page)) + self.turns_since(page.created_at)
        self._rate = {key: uses[key] / exposure[key] for key in uses}

    @property
    def turns(self) -> int:
        """How many turns the session has had."""
        return len(self._turn_at)

    def turns_since(self, when: float) -> int:
        """Return how many turns began after `when`."""
        return len(self._turn_at) - bisect_right(self._turn_at, when)

    def within(self, page: Page, turns: float) -> float:
        """Return how likely the page is asked for within so many turns, 0 to 1."""
        return 1.0 - exp(-self.rate(page) * turns)

    def rate(self, page: Page) -> float:
        """Return how often the page is asked for, a turn."""
        own = PAGE_WEIGHT + page.uses
        rate = own / (PAGE_WEIGHT / self._rate[_class(page)] + self.turns_since(page.created_at))
        idle = IDLE_TURNS / (IDLE_TURNS + self.turns_since(page.used_at))
        return rate * idle * (0.4 + 1.2 * page.importance) * (1.0 + 2.0 * self._near(page))

    def _near(self, page: Page) -> float:
        if self._similarity is not None:
            return min(1.0, max(0.0, self._similarity(page)))
        words = frozenset(_WORD.findall(page.title.lower())) if self._task_words else frozenset()
        return len(words & self._task_words) / len(words) if words else 0.0


def _class(page: Page) -> tuple[PageKind, str]:
    return page.kind, page.source.partition(":")[0]


def _prior(page: Page) -> float:
    return PRIOR_RATE_REPLY if page.kind is PageKind.REPLY else PRIOR_RATE
