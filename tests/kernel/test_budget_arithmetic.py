"""The pure side of budgets: never negative, never more than there is, never less than it may cost."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aos_mcp.abi.budget import WORKSPACE_ACCOUNT, Account, Budget, Usage
from aos_mcp.abi.completion import ModelPrice, Prompt, Turn
from aos_mcp.abi.errors import BudgetExhausted
from aos_mcp.kernel.budget import (
    OUTPUT_TOKENS_MIN,
    BudgetHeld,
    check_wall,
    fit_output,
    left_of_chain,
    within,
    worst_case,
)
from aos_mcp.kernel.margin import MARGIN_EXACT, Margin, counted_in

amounts = st.none() | st.integers(0, 10**9)
budgets = st.builds(
    Budget, microusd=amounts, tokens=amounts, turns=amounts, tool_calls=amounts, wall_s=st.none() | st.floats(0.1, 1e6)
)
usages = st.builds(
    Usage,
    input_tokens=st.integers(0, 10**6),
    output_tokens=st.integers(0, 10**6),
    microusd=st.integers(0, 10**8),
    turns=st.integers(0, 100),
    tool_calls=st.integers(0, 100),
)
rates = st.integers(0, 200_000).map(lambda millis: millis / 1_000)
prices = st.builds(ModelPrice, input=rates, cached=rates, written=rates, output=rates, source=st.just("drawn"))
tokens = st.integers(0, 2_000_000)


@st.composite
def chains(draw: st.DrawFn) -> list[Account]:
    limits = draw(st.lists(st.tuples(budgets, usages, tokens, tokens), min_size=1, max_size=5))
    return [
        Account(
            account=WORKSPACE_ACCOUNT if number == len(limits) - 1 else f"p_{number}",
            parent=None,
            limit=limit,
            used=used,
            reserved_microusd=money,
            reserved_tokens=count,
        )
        for number, (limit, used, money, count) in enumerate(limits)
    ]


@given(asked=budgets, default=budgets, available=budgets)
def test_a_new_budget_is_never_negative_and_never_more_than_there_is(
    asked: Budget, default: Budget, available: Budget
) -> None:
    try:
        given_ = within(asked, default, available)
    except BudgetExhausted as refused:
        assert "were asked for" in refused.message
        over = [f.name for f in fields(Budget) if f.name != "wall_s" and exceeds(asked, available, f.name)]
        assert over, "it is refused only where more is asked for than there is"
        return
    for name in ("microusd", "tokens", "turns", "tool_calls"):
        got, asked_for, there_is = getattr(given_, name), getattr(asked, name), getattr(available, name)
        assert got is None or got >= 0
        if asked_for is not None:
            assert got == asked_for
        if there_is is not None:
            assert got is not None, "below a limit there is a limit"
            assert got <= there_is


def exceeds(asked: Budget, available: Budget, name: str) -> bool:
    one, other = getattr(asked, name), getattr(available, name)
    return one is not None and other is not None and one > other


@given(chain=chains())
def test_what_a_chain_has_left_is_what_its_poorest_link_has(chain: list[Account]) -> None:
    rest = left_of_chain(chain)
    for number in range(len(chain)):
        alone = left_of_chain(chain[number : number + 1])
        for name in ("microusd", "tokens", "turns", "tool_calls", "wall_s"):
            mine, whole = getattr(alone, name), getattr(rest, name)
            assert mine is None or (whole is not None and whole <= mine)


@given(price=prices, fresh=tokens, cached=tokens, written=tokens, output=tokens, slack=tokens)
def test_the_worst_case_is_never_less_than_the_bill(
    price: ModelPrice, fresh: int, cached: int, written: int, output: int, slack: int
) -> None:
    cheapest_first = min(price.cached, price.input)  # no provider asks more for a token it has in its cache
    bill = fresh * price.input + cached * cheapest_first + written * price.written + output * price.output
    assert worst_case(price, fresh + cached + written, output + slack) >= int(bill)


@given(price=prices, one=tokens, other=tokens, output=tokens)
def test_the_worst_case_grows_with_what_is_asked(price: ModelPrice, one: int, other: int, output: int) -> None:
    small, large = sorted((one, other))
    assert 0 <= worst_case(price, small, output) <= worst_case(price, large, output)
    assert worst_case(price, output, small) <= worst_case(price, output, large)


@given(chain=chains(), price=prices, prompt=st.integers(0, 500_000), wanted=st.integers(1, 64_000))
def test_what_fits_can_be_paid_by_every_link(chain: list[Account], price: ModelPrice, prompt: int, wanted: int) -> None:
    try:
        output = fit_output(chain, price, prompt, wanted)
    except BudgetExhausted as refused:
        assert "left" in refused.message
        return
    assert min(OUTPUT_TOKENS_MIN, wanted) <= output <= wanted
    cost = worst_case(price, prompt, output)
    for account in chain:
        rest = left_of_chain([account])
        assert rest.tokens is None or prompt + output <= rest.tokens
        assert rest.microusd is None or cost <= rest.microusd
        assert rest.turns is None or rest.turns >= 1


@given(chain=chains(), prompt=st.integers(0, 500_000), wanted=st.integers(1, 64_000))
def test_without_a_price_nothing_is_spent_under_a_money_limit(chain: list[Account], prompt: int, wanted: int) -> None:
    if all(account.limit.microusd is None for account in chain):
        return
    with pytest.raises(BudgetExhausted):
        fit_output(chain, None, prompt, wanted)


@given(chain=chains(), passed=st.floats(0, 2e6))
def test_the_time_of_every_link_counts(chain: list[Account], passed: float) -> None:
    shortest = left_of_chain(chain).wall_s
    if shortest is not None and passed > shortest:
        with pytest.raises(BudgetExhausted, match="wall_s budget"):
            check_wall(chain, passed)
    else:
        check_wall(chain, passed)


@given(texts=st.lists(st.text(max_size=200), min_size=1, max_size=6))
def test_a_longer_prompt_is_never_estimated_lower(texts: list[str]) -> None:
    turns = tuple(Turn(role="user", text=text) for text in texts)
    whole = counted_in(Prompt(system="s", turns=turns)).at_most(Margin(MARGIN_EXACT))
    assert whole >= counted_in(Prompt(system="s", turns=turns[:-1])).at_most(Margin(MARGIN_EXACT))


def test_what_only_calls_under_way_hold_is_not_used_up() -> None:
    held = Account(account="a", parent=None, limit=Budget(tokens=10_000), reserved_tokens=9_900)
    with pytest.raises(BudgetHeld):
        fit_output([held], None, 1_000, 1_000)
    spent = Account(account="a", parent=None, limit=Budget(tokens=10_000), used=Usage(input_tokens=9_900))
    with pytest.raises(BudgetExhausted) as refused:
        fit_output([spent], None, 1_000, 1_000)
    assert not isinstance(refused.value, BudgetHeld)
