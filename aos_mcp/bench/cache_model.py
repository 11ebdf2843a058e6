"""What providers charge for prompts, and by which rules they cache them: the dated price rows of the benchmark."""

from __future__ import annotations

from dataclasses import dataclass

from aos_mcp.context.replacement import CachePrices
from aos_mcp.testing.prompt_cache import CacheRules, Entries


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceRow(CacheRules):
    """A model's prices on a date: US dollars per million tokens, and the rules of its cache."""

    name: str
    date: str
    input: float
    cached: float
    written: float
    output: float

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
