"""Prices and windows: the operator's own, then the dated overrides, then the maintained package. Unknown is not free.

Owns the arithmetic of money: integer micro-dollars, rounded up. The package costs about a second to import, so it is
loaded on a worker thread when the first price is asked for, and never talks to the network.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from importlib import resources
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from pydantic import TypeAdapter

from aos_mcp.abi import limits
from aos_mcp.abi.budget import Usage
from aos_mcp.abi.completion import ModelPrice, PriceTier
from aos_mcp.abi.settings import PriceSettings, Rates
from aos_mcp.llm.providers import Row

if TYPE_CHECKING:
    from types import ModuleType

_REMEMBERED_MAX = 4_096
"""Prices kept by model and minute, and windows: asking the package costs a tenth of a millisecond, at every turn."""
_FIELDS = (
    ("input", "input_mtok"),
    ("cached", "cache_read_mtok"),
    ("written", "cache_write_mtok"),
    ("output", "output_mtok"),
)

LOCAL = ModelPrice(input=0.0, cached=0.0, written=0.0, output=0.0, source="local")


def microusd(usd: float | Decimal | Fraction) -> int:
    """Return micro-dollars, rounded up, never negative."""
    return max(0, math.ceil(_exact(usd) * 1_000_000))


def cost_microusd(price: ModelPrice, usage: Usage) -> int:
    """Return what `usage` costs at `price`, in micro-dollars, rounded up once over the whole."""
    # Dollars per million tokens are micro-dollars per token, so no scale is left.
    rates = price.at(usage.prompt_tokens)
    parts = (
        (rates.input, usage.input_tokens),
        (rates.cached, usage.cached_tokens),
        (rates.written, usage.written_tokens),
        (rates.output, usage.output_tokens),
    )
    return math.ceil(sum((_exact(rate) * tokens for rate, tokens in parts), Fraction(0)))


def _exact(number: float | Decimal | Fraction) -> Fraction:
    """Read a float as the decimal a person wrote: 0.1 is a tenth, not the binary number next to it."""
    return Fraction(str(number)) if isinstance(number, float) else Fraction(number)


class DatedPrice(PriceSettings):
    """A row of prices.toml. Of those of one model the newest that has begun holds."""

    effective_from: date
    source: str
    context_tokens: int | None = None
    """The model's window, where the package does not know it either."""


_DATED = TypeAdapter(dict[str, list[DatedPrice]])


class PriceTable:
    """All that is known of prices. `load` once before the other methods."""

    def __init__(self, configured: Mapping[str, PriceSettings]) -> None:
        self._configured = {name: _from_settings(row, "aos.toml") for name, row in configured.items()}
        self._dated: Mapping[str, Sequence[DatedPrice]] = {}
        self._package: ModuleType | None = None
        self._lock = anyio.Lock()
        self._by_minute: dict[tuple[str, str, int], ModelPrice | None] = {}
        self._windows: dict[tuple[str, str], int | None] = {}

    async def load(self) -> None:
        """Load the package and the overrides, once."""
        if self._package is not None:
            return
        async with self._lock:
            if self._package is None:
                self._dated = await anyio.to_thread.run_sync(load_dated)
                self._package = await anyio.to_thread.run_sync(load_package)

    def quote(self, row: Row, model: str, now: float) -> ModelPrice | None:
        """Return the price to reserve by; None when none is known.

        Where it depends on the hour, this is the dearest that can apply to a call that starts now. What depends on the
        prompt's size stays apart, in the tiers.
        """
        prices = [self.price(row, model, at) for at in (now, now + limits.MODEL_CALL_S)]
        known = [price for price in prices if price is not None]
        return _dearest(known) if known else None

    def cost(self, row: Row, model: str, usage: Usage, at: float) -> int | None:
        """Return the cost of a finished call that started at `at`, in micro-dollars; None when no price is known."""
        price = self.price(row, model, at)
        return None if price is None else cost_microusd(price, usage)

    def price(self, row: Row, model: str, at: float) -> ModelPrice | None:
        """Return the price of a call that starts at `at`; None when none is known."""
        key = (row.name, model, int(at // 60))
        if key not in self._by_minute:
            if len(self._by_minute) >= _REMEMBERED_MAX:
                self._by_minute.clear()
            self._by_minute[key] = self._look_up(row, model, at)
        return self._by_minute[key]

    def models(self, row: Row, at: float) -> list[str]:
        """Return the names of the provider's models that have a price at `at`, in order; none of a local one's."""
        assert self._package is not None, "load() comes first"
        known = {model.id for each in self._package.data.providers if each.id == row.prices for model in each.models}
        own = {name for name in (*self._configured, *self._dated) if name.partition("/")[0] == row.name}
        named = known | {name.partition("/")[2] for name in own if not name.endswith("/*")}
        return sorted(name for name in named if self.price(row, name, at) is not None)

    def context_tokens(self, row: Row, model: str) -> int | None:
        """Return the model's window where the overrides or the package know it."""
        key = (row.name, model)
        if key not in self._windows:
            if len(self._windows) >= _REMEMBERED_MAX:
                self._windows.clear()
            self._windows[key] = self._window(row, model)
        return self._windows[key]

    def _window(self, row: Row, model: str) -> int | None:
        told = [each.context_tokens for each in self._dated.get(f"{row.name}/{model}", ()) if each.context_tokens]
        if told or row.local:
            return told[-1] if told else None
        found = self._ask(row, model, 0.0)
        return found.model.context_window if found is not None else None

    def _look_up(self, row: Row, model: str, at: float) -> ModelPrice | None:
        for name in (f"{row.name}/{model}", f"{row.name}/*"):
            if name in self._configured:
                return self._configured[name]
        if row.local:
            return LOCAL
        today = datetime.fromtimestamp(at, UTC).date()
        begun = [each for each in self._dated.get(f"{row.name}/{model}", ()) if each.effective_from <= today]
        if begun:
            newest = max(begun, key=lambda each: each.effective_from)
            return _from_settings(newest, f"{newest.source} ({newest.effective_from})")
        found = self._ask(row, model, at)
        assert self._package is not None
        return None if found is None else _from_package(found.model_price, f"genai-prices {self._package.__version__}")

    def _ask(self, row: Row, model: str, at: float) -> Any:
        """Return the package's calculation for nothing used, which holds what it knows of the model."""
        assert self._package is not None, "load() comes first"
        where = {"provider_id": row.prices} if row.prices else {"provider_api_url": row.base_url}
        try:
            return self._package.calc_price(
                self._package.Usage(), model, genai_request_timestamp=datetime.fromtimestamp(at, UTC), **where
            )
        except LookupError:
            return None


def load_package() -> ModuleType:
    """Return the price package with its table."""
    import genai_prices  # half a second to a second and a half: a large table of literals
    import genai_prices.data  # noqa: F401 - so that the table is parsed on this thread and not at the first price

    return genai_prices


def load_dated() -> dict[str, list[DatedPrice]]:
    """Return the rows of prices.toml by model."""
    text = resources.files(__package__).joinpath("prices.toml").read_text("utf-8")
    return _DATED.validate_python(tomllib.loads(text))


def _from_settings(row: PriceSettings, source: str) -> ModelPrice:
    tiers = [
        PriceTier(above_tokens=tier.above_tokens, **_rates(tier))
        for tier in sorted(row.tiers, key=lambda tier: tier.above_tokens)
    ]
    return ModelPrice(**_rates(row), source=source, tiers=tuple(tiers))


def _rates(row: Rates) -> dict[str, float]:
    return {
        "input": row.input,
        "cached": row.input if row.cached is None else row.cached,
        "written": row.input if row.written is None else row.written,
        "output": row.output,
    }


def _from_package(price: Any, source: str) -> ModelPrice | None:
    """Return the package's price, its tiers put together; None where it has none for tokens."""
    known = {kind: getattr(price, field) for kind, field in _FIELDS}
    if known["input"] is None or known["output"] is None:
        return None
    given = {kind: known["input"] if value is None else value for kind, value in known.items()}
    starts = sorted({tier.start for value in given.values() for tier in getattr(value, "tiers", ())})
    tiers = [
        PriceTier(above_tokens=start, **{kind: _rate_above(value, start) for kind, value in given.items()})
        for start in starts
    ]
    base = {kind: _rate_above(value, -1) for kind, value in given.items()}
    return ModelPrice(**base, source=source, tiers=tuple(tiers))


def _rate_above(value: Any, tokens: int) -> float:
    """Return the rate for a prompt just above so many tokens."""
    reached = [tier.price for tier in getattr(value, "tiers", ()) if tier.start <= tokens]
    return float(reached[-1] if reached else getattr(value, "base", value))


def _dearest(prices: Sequence[ModelPrice]) -> ModelPrice:
    first = prices[0]
    if all(price == first for price in prices):
        return first
    starts = sorted({tier.above_tokens for price in prices for tier in price.tiers})

    def rates(tokens: int) -> dict[str, float]:
        each = [price.at(tokens) for price in prices]
        return {kind: max(getattr(price, kind) for price in each) for kind, _ in _FIELDS}

    tiers = [PriceTier(above_tokens=start, **rates(start + 1)) for start in starts]
    return ModelPrice(**rates(0), source=first.source, tiers=tuple(tiers))
