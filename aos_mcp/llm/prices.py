"""Prices and windows: the operator's own, then the dated overrides, then the maintained package. Unknown is not free.

Owns the arithmetic of money: integer micro-dollars, rounded up. The package costs about a second to import, so it is
loaded on a worker thread when the first price is asked for, and never talks to the network.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from importlib import resources
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from aos_mcp.abi import limits
from aos_mcp.abi.budget import Usage
from aos_mcp.abi.completion import ModelPrice
from aos_mcp.abi.settings import PriceSettings
from aos_mcp.llm.providers import Row

if TYPE_CHECKING:
    from types import ModuleType

LOCAL = ModelPrice(input=0.0, cached=0.0, written=0.0, output=0.0, source="local")


def microusd(usd: float | Decimal | Fraction) -> int:
    """Return micro-dollars, rounded up, never negative."""
    return max(0, math.ceil(_exact(usd) * 1_000_000))


def cost_microusd(price: ModelPrice, usage: Usage) -> int:
    """Return what `usage` costs at `price`, in micro-dollars, rounded up once over the whole."""
    # Dollars per million tokens are micro-dollars per token, so no scale is left.
    parts = (
        (price.input, usage.input_tokens),
        (price.cached, usage.cached_tokens),
        (price.written, usage.written_tokens),
        (price.output, usage.output_tokens),
    )
    return math.ceil(sum((_exact(rate) * tokens for rate, tokens in parts), Fraction(0)))


def _exact(number: float | Decimal | Fraction) -> Fraction:
    """Read a float as the decimal a person wrote: 0.1 is a tenth, not the binary number next to it."""
    return Fraction(str(number)) if isinstance(number, float) else Fraction(number)


class PriceTable:
    """All that is known of prices. `load` once before the other methods."""

    def __init__(self, configured: Mapping[str, PriceSettings]) -> None:
        self._configured = {name: _from_settings(row, "aos.toml") for name, row in configured.items()}
        self._dated: Mapping[str, ModelPrice] = {}
        self._package: ModuleType | None = None
        self._lock = anyio.Lock()

    async def load(self) -> None:
        """Load the package and the overrides, once."""
        async with self._lock:
            if self._package is None:
                self._dated = await anyio.to_thread.run_sync(_load_dated)
                self._package = await anyio.to_thread.run_sync(_load_package)

    def quote(self, row: Row, model: str, now: float) -> ModelPrice | None:
        """Return the price to reserve by; None when none is known.

        Where it depends on the prompt's size or the hour, this is the dearest that can apply to a call that starts now.
        """
        own = self._own(row, model)
        if own is not None:
            return own
        found = [self._calculate(row, model, Usage(), at) for at in (now, now + limits.MODEL_CALL_S)]
        rates = [_dearest(each.model_price) for each in found if each is not None]
        if not rates or not rates[0].keys() >= {"input", "output"}:
            return None
        top = {key: max(each.get(key, 0.0) for each in rates) for key in rates[0]}
        assert self._package is not None
        return ModelPrice(
            input=top["input"],
            cached=top.get("cached", top["input"]),
            written=top.get("written", top["input"]),
            output=top["output"],
            source=f"genai-prices {self._package.__version__}",
        )

    def cost(self, row: Row, model: str, usage: Usage, at: float) -> int | None:
        """Return the cost of a finished call that started at `at`, in micro-dollars; None when no price is known."""
        own = self._own(row, model)
        if own is not None:
            return cost_microusd(own, usage)
        found = self._calculate(row, model, usage, at)
        if found is None or not _dearest(found.model_price).keys() >= {"input", "output"}:
            return None
        return microusd(found.total_price)

    def context_tokens(self, row: Row, model: str) -> int | None:
        """Return the model's window where the package knows it."""
        found = None if row.local else self._calculate(row, model, Usage(), 0.0)
        return found.model.context_window if found is not None else None

    def _own(self, row: Row, model: str) -> ModelPrice | None:
        for name in (f"{row.name}/{model}", f"{row.name}/*"):
            if name in self._configured:
                return self._configured[name]
        return LOCAL if row.local else self._dated.get(f"{row.name}/{model}")

    def _calculate(self, row: Row, model: str, usage: Usage, at: float) -> Any:
        assert self._package is not None, "load() comes first"
        counted = self._package.Usage(
            input_tokens=usage.input_tokens + usage.cached_tokens + usage.written_tokens,
            cache_read_tokens=usage.cached_tokens,
            cache_write_tokens=usage.written_tokens,
            output_tokens=usage.output_tokens,
        )
        where = {"provider_id": row.prices} if row.prices else {"provider_api_url": row.base_url}
        try:
            return self._package.calc_price(
                counted, model, genai_request_timestamp=datetime.fromtimestamp(at, UTC), **where
            )
        except LookupError:
            return None


def _load_package() -> ModuleType:
    import genai_prices  # half a second to a second and a half: a large table of literals
    import genai_prices.data  # noqa: F401 - so that the table is parsed on this thread and not at the first price

    return genai_prices


def _load_dated() -> dict[str, ModelPrice]:
    text = resources.files(__package__).joinpath("prices.toml").read_text("utf-8")
    rows = tomllib.loads(text)
    return {name: _from_settings(PriceSettings.model_validate(row), "prices.toml") for name, row in rows.items()}


def _from_settings(row: PriceSettings, source: str) -> ModelPrice:
    return ModelPrice(
        input=row.input,
        cached=row.input if row.cached is None else row.cached,
        written=row.input if row.written is None else row.written,
        output=row.output,
        source=source,
    )


def _dearest(price: Any) -> dict[str, float]:
    """Return the highest rate of each kind over all tiers, in US dollars per million tokens."""
    rates: dict[str, float] = {}
    for kind, field in (
        ("input", "input_mtok"),
        ("cached", "cache_read_mtok"),
        ("written", "cache_write_mtok"),
        ("output", "output_mtok"),
    ):
        value = getattr(price, field)
        if value is not None:
            steps = [value.base, *(tier.price for tier in value.tiers)] if hasattr(value, "tiers") else [value]
            rates[kind] = float(max(steps))
    return rates
