"""Money: rounded up, never negative, never below what the package says, and unknown where nobody knows."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aos_mcp.abi.budget import Usage
from aos_mcp.abi.completion import ModelPrice, PriceTier
from aos_mcp.abi.settings import PriceSettings, TierSettings
from aos_mcp.kernel.budget import worst_case
from aos_mcp.llm.prices import PriceTable, cost_microusd, load_dated, load_package, microusd
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
        {
            "openai/mine": PriceSettings(input=1, output=2, cached=0.5),
            "openai/long": PriceSettings(input=1, output=2, tiers=[TierSettings(above_tokens=100, input=3, output=5)]),
            "vllm/*": PriceSettings(input=3, output=4),
        }
    )
    apart(lambda: anyio.run(made.load))
    return made


UNPRICED = {"openrouter", "qwen-cn"}
"""A router says itself what a call cost; a list in yuan has no fixed price in dollars."""
KNOWN = [(name, row.default_model) for name, row in ROWS.items() if row.default_model and name not in UNPRICED]


@pytest.mark.parametrize(("name", "model"), KNOWN)
def test_every_provider_s_default_model_has_a_price(table: PriceTable, name: str, model: str) -> None:
    assert table.quote(ROWS[name], model, NOW) is not None


@pytest.mark.parametrize(("name", "model"), KNOWN)
@given(usage=usages, at=st.floats(min_value=NOW, max_value=NOW + 86_400))
def test_no_call_costs_more_than_its_quote(table: PriceTable, name: str, model: str, usage: Usage, at: float) -> None:
    quote = table.quote(ROWS[name], model, at)
    cost = table.cost(ROWS[name], model, usage, at)
    assert quote is not None
    assert cost is not None
    assert cost <= cost_microusd(quote, usage)


tiers = st.builds(PriceTier, above_tokens=st.integers(0, 10**6), input=rates, cached=rates, written=rates, output=rates)
stepped = st.builds(
    ModelPrice,
    input=rates,
    cached=rates,
    written=rates,
    output=rates,
    source=st.just("test"),
    tiers=st.lists(tiers, max_size=3).map(lambda each: tuple(sorted(each, key=lambda tier: tier.above_tokens))),
)


@given(stepped, usages, counts)
def test_what_is_reserved_covers_every_prompt_up_to_the_one_counted(price: ModelPrice, usage: Usage, more: int) -> None:
    """Also where a longer prompt is cheaper: the dearest that can apply is set aside."""
    prompt = usage.tokens - usage.output_tokens
    uncached = Usage(input_tokens=prompt - usage.written_tokens, written_tokens=usage.written_tokens)
    reserved = worst_case(price, prompt + more, usage.output_tokens)
    assert cost_microusd(price, uncached + Usage(output_tokens=usage.output_tokens)) <= reserved


def test_a_short_prompt_is_reserved_at_the_rates_of_short_prompts(table: PriceTable) -> None:
    quote = table.quote(ROWS["anthropic"], "claude-haiku-5-5", NOW)
    assert quote is not None
    assert worst_case(quote, 100_000, 0) == 12_500
    assert worst_case(quote, 100_001, 0) == 62_501


@pytest.mark.parametrize("provider", ["anthropic", "openai", "gemini", "minimax", "deepseek", "kimi", "glm", "groq"])
def test_a_cost_is_what_the_package_would_reckon(table: PriceTable, provider: str) -> None:
    """For every model of a provider, on both sides of every tier, at a cheap and at a dear hour."""
    package, row = load_package(), ROWS[provider]
    models = next(each for each in package.data.providers if each.id == row.prices).models
    compared = 0
    for model in models:
        for at in (NOW, DEAR):
            price = table.price(row, model.id, at)
            if price is None:
                continue
            for prompt in (1_000, *(tier.above_tokens + step for tier in price.tiers for step in (0, 1))):
                usage = Usage(input_tokens=prompt - 900, cached_tokens=500, written_tokens=400, output_tokens=77)
                counted = package.Usage(
                    input_tokens=prompt, cache_read_tokens=500, cache_write_tokens=400, output_tokens=77
                )
                when = datetime.fromtimestamp(at, UTC)
                theirs = package.calc_price(counted, model.id, provider_id=row.prices, genai_request_timestamp=when)
                assert table.cost(row, model.id, usage, at) == microusd(theirs.total_price), model.id
                compared += 1
    assert compared > 10


def test_the_operator_may_price_long_prompts_apart(table: PriceTable) -> None:
    long = (ROWS["openai"], "long")
    assert table.cost(*long, Usage(input_tokens=50, cached_tokens=50, output_tokens=1), NOW) == 102
    assert table.cost(*long, Usage(input_tokens=51, cached_tokens=50, output_tokens=1), NOW) == 308


def test_a_dated_price_holds_from_its_day_on(table: PriceTable) -> None:
    plus = (ROWS["qwen"], "qwen3.7-plus")
    before, after = table.price(*plus, 1_780_272_000.0), table.price(*plus, NOW)  # 2026-06-01
    assert before is None
    assert after is not None
    assert "2026-06-02" in after.source


def test_every_dated_price_says_its_source_and_begins_on_a_day_of_its_own() -> None:
    for model, dated in load_dated().items():
        assert all(each.source.strip() for each in dated), model
        assert len({each.effective_from for each in dated}) == len(dated), model


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
    assert table.context_tokens(ROWS["qwen"], "qwen3.7-plus") == 1_000_000  # of the overrides
    assert table.context_tokens(ROWS["anthropic"], "claude-haiku-5-5") == 1_000_000


def test_a_provider_s_models_are_those_that_have_a_price(table: PriceTable) -> None:
    assert "claude-haiku-5-5" in table.models(ROWS["anthropic"], NOW)
    assert {"mine", "long"} <= set(table.models(ROWS["openai"], NOW))
    assert table.models(ROWS["qwen"], NOW) == ["qwen3.7-plus"]
    assert table.models(ROWS["vllm"], NOW) == []
