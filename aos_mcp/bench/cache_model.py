"""Prompt caches as providers really keep them, and what they charge.

Owns the dated price rows of the benchmark and where each provider puts cache entries. Promises: a prefix is cheap only
where an entry of an earlier request stands, is of the same text, and has not expired. Knows nothing of pages or
policies: a request is a chain of segments, each known by a number that stands for all the text up to its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from aos_mcp.context.replacement import CachePrices

LOOKBACK_BLOCKS = 20  # A mark finds entries at most so many blocks before it.
LATEST_ENTRIES = 80  # An exact cache compares a request with so many of its newest entries.
UNIT_TOKENS = 8_192  # Distance of the units of a cache on disk. The provider does not say; this is an assumption.


class Entries(StrEnum):
    """Where a provider's cache has entries."""

    MARKS = "marks"
    """At a request's marks; a mark also finds entries a few blocks before it."""
    EXACT = "exact"
    """At a request's marks; the newest entries are compared, none is matched in part."""
    UNITS = "units"
    """At the ends of requests and at fixed distances."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceRow:
    """A model's prices on a date: US dollars per million tokens, and the rules of its cache."""

    name: str
    date: str
    input: float
    cached: float
    written: float
    output: float
    entries: Entries
    tokens_min: int
    ttl_s: float

    @property
    def prices(self) -> CachePrices:
        """The prices as ratios to an uncached input token."""
        return CachePrices(self.cached / self.input, self.written / self.input, self.output / self.input)


# The ratios of reading are 0.1, 0.05 twice, 0.025 and 0.02. Dollars as published by genai-prices 0.2 on the dates.
ROWS = (
    PriceRow(
        name="claude-opus-5",
        date="2026-11-22",
        input=5.0,
        cached=0.5,
        written=6.25,
        output=25.0,
        entries=Entries.MARKS,
        tokens_min=512,
        ttl_s=300.0,
    ),
    PriceRow(
        name="claude-opus-5-5",
        date="2026-11-22",
        input=4.0,
        cached=0.2,
        written=5.0,
        output=20.0,
        entries=Entries.MARKS,
        tokens_min=1_024,
        ttl_s=300.0,
    ),
    PriceRow(
        name="gpt-6.1-sol",
        date="2026-11-22",
        input=2.0,
        cached=0.1,
        written=2.5,
        output=10.0,
        entries=Entries.EXACT,
        tokens_min=1_024,
        ttl_s=1_800.0,
    ),
    PriceRow(
        name="claude-fable-5-2",
        date="2026-11-22",
        input=8.0,
        cached=0.2,
        written=10.0,
        output=40.0,
        entries=Entries.MARKS,
        tokens_min=512,
        ttl_s=300.0,
    ),
    PriceRow(
        name="deepseek-v4-flash",
        date="2026-06-28",
        input=0.14,
        cached=0.0028,
        written=0.14,
        output=0.28,
        entries=Entries.UNITS,
        tokens_min=0,
        ttl_s=3_600.0,
    ),
)


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt. `chain[i]` stands for all text up to the end of segment i, `ends[i]` for its tokens."""

    chain: Sequence[int]
    ends: Sequence[int]
    marks: Sequence[int]
    """Segments that end at a cache mark, in order; the last segment is one."""


class PrefixCache:
    """The entries that one session has with one provider."""

    def __init__(self, row: PriceRow) -> None:
        self._row = row
        self._expires: dict[int, float] = {}

    def read(self, request: Request, now: float) -> int:
        """Return how many tokens of the request are read from the cache, and keep its own entries."""
        hit = self._find(request, now)
        chain, until = request.chain, now + self._row.ttl_s
        for index in (*([hit] if hit >= 0 else []), *self._written(request)):
            if request.ends[index] >= self._row.tokens_min:
                self._expires.pop(chain[index], None)  # an entry that is used again is the newest
                self._expires[chain[index]] = until
        if self._row.entries is Entries.EXACT:
            for old in list(self._expires)[:-LATEST_ENTRIES]:
                del self._expires[old]
        return request.ends[hit] if hit >= 0 else 0

    def _find(self, request: Request, now: float) -> int:
        places: Sequence[int] = range(len(request.chain))
        if self._row.entries is Entries.MARKS:
            reach = {place for mark in request.marks for place in range(max(0, mark - LOOKBACK_BLOCKS + 1), mark + 1)}
            places = sorted(reach)
        expires, chain = self._expires, request.chain
        return next((place for place in reversed(places) if expires.get(chain[place], -1.0) >= now), -1)

    def _written(self, request: Request) -> Sequence[int]:
        if self._row.entries is not Entries.UNITS:
            return request.marks
        last = len(request.ends) - 1
        line = 0
        units: list[int] = []
        for place, end in enumerate(request.ends):
            if end // UNIT_TOKENS > line:
                line = end // UNIT_TOKENS
                units.append(place)
        return [*units, last]
