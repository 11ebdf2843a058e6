"""Money: rounded up, never negative, never below what the package says, and unknown where nobody knows."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aos_mcp.abi.budget import Usage
from aos_mcp.abi.completion import ModelPrice
from aos_mcp.abi.settings import PriceSettings
from aos_mcp.llm.prices import PriceTable, cost_microusd, microusd
from aos_mcp.llm.providers import load_rows
from tests.apart import apart

ROWS = load_rows({}, {})
NOW = 1_795_392_000.0  # 2026-11-23T00:00:00Z: outside DeepSeek's dear hours
DEAR = NOW + 2 * 3_600

rates = st.decimals(min_value=0, max_value=200, places=4).map(float)
counts = st.integers(min_value=0, max_value=10**7)
prices = st.builds(ModelPrice, input=rates, cached=rates, written=rates, output=rates, source=st.just("test"))
usages = st.builds(Usage, input_tokens=counts, cached_tokens=counts, written_tokens=counts, output_tokens=counts)


@given(prices, usages)
def test_a_cost_is_the_exact_sum_rounded_up_once(price: ModelPrice, usage: Usage) -> None:
    exact = sum(
        Decimal(str(rate)) * tokens
        for rate, tokens in (
            (price.input, usage.input_tokens),
            (price.cached, usage.cached_tokens),
            (price.written, usage.written_tokens),
            (price.output, usage.output_tokens),
        )
    )
    assert cost_microusd(price, usage) == math.ceil(exact)


@given(prices, usages, usages)
def test_two_calls_never_cost_less_than_one_of_both(price: ModelPrice, one: Usage, two: Usage) -> None:
    assert cost_microusd(price, one) + cost_microusd(price, two) >= cost_microusd(price, one + two)


@given(st.fractions(min_value=0, max_value=1_000))
def test_micro_dollars_are_rounded_up_by_less_than_one(usd: Fraction) -> None:
    assert 0 <= microusd(usd) - usd * 1_000_000 < 1


@pytest.fixture(scope="module")
def table() -> PriceTable:
    made = PriceTable(
        {"openai/mine": PriceSettings(input=1, output=2, cached=0.5), "vllm/*": PriceSettings(input=3, output=4)}
    )
    apart(lambda: anyio.run(made.load))
    return made


KNOWN = [(name, row.default_model) for name, row in ROWS.items() if row.default_model and row.prices]


@pytest.mark.parametrize(("name", "model"), [k for k in KNOWN if k[0] != "openrouter"])
def test_every_provider_s_default_model_has_a_price(table: PriceTable, name: str, model: str) -> None:
    assert table.quote(ROWS[name], model, NOW) is not None


@pytest.mark.parametrize(("name", "model"), [k for k in KNOWN if k[0] != "openrouter"])
@given(usage=usages, at=st.floats(min_value=NOW, max_value=NOW + 86_400))
def test_no_call_costs_more_than_its_quote(table: PriceTable, name: str, model: str, usage: Usage, at: float) -> None:
    quote = table.quote(ROWS[name], model, at)
    cost = table.cost(ROWS[name], model, usage, at)
    assert quote is not None
    assert cost is not None
    assert cost <= cost_microusd(quote, usage)


def test_a_dearer_tier_counts_from_where_it_begins(table: PriceTable) -> None:
    haiku = (ROWS["anthropic"], "claude-haiku-5-5")
    assert table.cost(*haiku, Usage(input_tokens=100_000), NOW) == 10_000
    assert table.cost(*haiku, Usage(input_tokens=100_001), NOW) == 50_001


def test_an_hour_that_is_dearer_counts(table: PriceTable) -> None:
    flash = (ROWS["deepseek"], "deepseek-flash")
    assert table.cost(*flash, Usage(output_tokens=1_000_000), NOW) == 600_000
    assert table.cost(*flash, Usage(output_tokens=1_000_000), DEAR) == 1_200_000
    just_before = table.quote(*flash, NOW + 3_600 - 60)
    assert just_before is not None
    assert just_before.output == 1.2


def test_the_operator_s_price_goes_before_all_others(table: PriceTable) -> None:
    assert table.cost(ROWS["openai"], "mine", Usage(input_tokens=10, cached_tokens=10), NOW) == 15
    assert table.cost(ROWS["vllm"], "anything", Usage(output_tokens=10), NOW) == 40


def test_a_local_model_is_free_and_says_why(table: PriceTable) -> None:
    quote = table.quote(ROWS["ollama"], "qwen2.5:7b", NOW)
    assert quote is not None
    assert (quote.input, quote.output, quote.source) == (0.0, 0.0, "local")


def test_an_unknown_model_has_no_price(table: PriceTable) -> None:
    assert table.quote(ROWS["qwen"], "qwen9", NOW) is None
    assert table.cost(ROWS["qwen"], "qwen9", Usage(input_tokens=1), NOW) is None
    assert table.context_tokens(ROWS["qwen"], "qwen9") is None


def test_windows_come_from_the_package(table: PriceTable) -> None:
    assert table.context_tokens(ROWS["anthropic"], "claude-haiku-5-5") == 1_000_000
