"""Budgets: reserve the worst case before, settle after. An account and all its ancestors must have room.

The decisions are pure; `reserve`, `settle` and `count` apply them inside one transaction, so that any number of agents
racing on one budget cannot overdraw it, and a crash between the two leaves the reservation charged in full.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache

from aos_mcp.abi.budget import WORKSPACE_ACCOUNT, Account, Budget, Reservation, Usage
from aos_mcp.abi.completion import ModelPrice
from aos_mcp.abi.errors import BudgetExhausted, Conflict
from aos_mcp.abi.handle import Pid
from aos_mcp.abi.settings import BudgetSettings, WorkspaceBudget
from aos_mcp.kernel.scheduler import units
from aos_mcp.ports import Transaction

MICRO = 1_000_000
OUTPUT_TOKENS_MIN = 256
"""A turn that may not even write this much is not worth its prompt."""
ONE_TURN = Usage(turns=1)
ONE_TOOL_CALL = Usage(tool_calls=1)


def microusd(usd: float | None) -> int | None:
    """Convert US dollars to micro-dollars, rounded."""
    return None if usd is None else round(usd * MICRO)


def as_budget(limits: BudgetSettings | WorkspaceBudget) -> Budget:
    """Convert configured limits."""
    if isinstance(limits, WorkspaceBudget):
        return Budget(microusd=microusd(limits.usd), tokens=limits.tokens)
    return Budget(
        microusd=microusd(limits.usd),
        tokens=limits.tokens,
        turns=limits.turns,
        tool_calls=limits.tool_calls,
        wall_s=limits.wall_s,
    )


def left(account: Account) -> Budget:
    """Return what an account still has, its own limits only; `wall_s` is as given."""
    limit, used = account.limit, account.used
    return Budget(
        microusd=None if limit.microusd is None else limit.microusd - used.microusd - account.reserved_microusd,
        tokens=None if limit.tokens is None else limit.tokens - used.tokens - account.reserved_tokens,
        turns=None if limit.turns is None else limit.turns - used.turns,
        tool_calls=None if limit.tool_calls is None else limit.tool_calls - used.tool_calls,
        wall_s=limit.wall_s,
    )


def left_of_chain(chain: Sequence[Account]) -> Budget:
    """Return what an account has left when its ancestors are counted: the least of each."""
    parts = [left(account) for account in chain]

    def least(values: list[int | None]) -> int | None:
        known = [value for value in values if value is not None]
        return min(known, default=None)

    return Budget(
        microusd=least([part.microusd for part in parts]),
        tokens=least([part.tokens for part in parts]),
        turns=least([part.turns for part in parts]),
        tool_calls=least([part.tool_calls for part in parts]),
        wall_s=min((part.wall_s for part in parts if part.wall_s is not None), default=None),
    )


def within(asked: Budget, default: Budget, available: Budget) -> Budget:
    """Return the budget of a new process: what is asked for, else the default cut to what is available.

    Raises:
        BudgetExhausted: more is asked for than is available; the sentence names which, and how much there is.
    """
    return Budget(
        microusd=_one("usd", asked.microusd, default.microusd, available.microusd, MICRO),
        tokens=_one("tokens", asked.tokens, default.tokens, available.tokens),
        turns=_one("turns", asked.turns, default.turns, available.turns),
        tool_calls=_one("tool_calls", asked.tool_calls, default.tool_calls, available.tool_calls),
        wall_s=asked.wall_s if asked.wall_s is not None else default.wall_s,
    )


def _one(name: str, asked: int | None, default: int | None, available: int | None, unit: int = 1) -> int | None:
    if asked is None:
        known = [value for value in (default, available) if value is not None]
        return max(0, min(known)) if known else None
    if available is not None and asked > available:
        raise BudgetExhausted(
            f"{asked / unit:g} {name} were asked for; {max(0, available) / unit:g} are left.",
            "Ask for less, or have the operator raise the budget above this one.",
        )
    return asked


def check_alive(given: Budget, asked: Budget) -> None:
    """Check that a new process can make its first turn, where nobody asked for a budget of nothing.

    Raises:
        BudgetExhausted: what is left above it is nothing; it would only be spawned to end.
    """
    for name, part, wanted in (
        ("usd", given.microusd, asked.microusd),
        ("tokens", given.tokens, asked.tokens),
        ("turns", given.turns, asked.turns),
    ):
        if part == 0 and wanted is None:
            raise BudgetExhausted(f"No {name} are left for another agent.", "Do the work yourself, or finish.")


def check_wall(chain: Sequence[Account], now: float) -> None:
    """Check that time is left for another turn. An account's time runs from its opening, for all that is under it.

    Raises:
        BudgetExhausted: the time of one of them is over.
    """
    for account in chain:
        limit = account.limit.wall_s
        if limit is not None and now - account.opened_at > limit:
            raise BudgetExhausted(
                f"The wall_s budget of {_whose(account)} is used up: {limit:g} s have passed.",
                "Spawn with a larger one.",
            )


def worst_case(price: ModelPrice | None, input_tokens: int, output_tokens: int) -> int:
    """Return the most a call can cost, in micro-dollars: no token comes from a cache, every one is written to it."""
    if price is None:
        return 0
    price = price.up_to(input_tokens)
    dearest = max(price.input, price.written)
    return -(-(input_tokens * _exact(dearest) + output_tokens * _exact(price.output)) // _SCALE)


_SCALE = 10**9


@lru_cache(maxsize=1_024)
def _exact(rate: float) -> int:
    """Return micro-dollars a token in billionths, read as the decimal a person wrote: sums are then whole numbers."""
    return math.ceil(Fraction(str(rate)) * _SCALE)


class BudgetHeld(BudgetExhausted):
    """What is missing is only set aside for calls under way: they give back what they do not use."""


def fit_output(chain: Sequence[Account], price: ModelPrice | None, input_tokens: int, output_tokens: int) -> int:
    """Return how many output tokens the chain can pay for, at most `output_tokens`.

    Raises:
        BudgetHeld: it would fit once the calls under way are settled at nothing.
        BudgetExhausted: not even a short turn fits; names the account, the budget and what is left.
    """
    try:
        return _fit(chain, price, input_tokens, output_tokens)
    except BudgetExhausted as error:
        settled = [replace(account, reserved_microusd=0, reserved_tokens=0) for account in chain]
        if settled == list(chain):
            raise
        _fit(settled, price, input_tokens, output_tokens)
        raise BudgetHeld(error.message, "Calls under way hold what is left; try again when they have ended.") from None


def _fit(chain: Sequence[Account], price: ModelPrice | None, input_tokens: int, output_tokens: int) -> int:
    allowed = output_tokens
    for account in chain:
        rest = left(account)
        if rest.turns is not None and rest.turns < 1:
            raise _exhausted(account, "turns", "0")
        if rest.tokens is not None:
            allowed = min(allowed, rest.tokens - input_tokens)
            if allowed < min(OUTPUT_TOKENS_MIN, output_tokens):
                raise _exhausted(account, "tokens", str(max(0, rest.tokens)))
        if rest.microusd is None:
            continue
        if price is None:
            raise BudgetExhausted(
                "No price is known for this model, so a money budget cannot be kept.",
                'Set one in aos.toml under [prices."provider/model"], or spawn without a money limit anywhere above.',
            )
        rate = _exact(price.up_to(input_tokens).output)
        if rate > 0:
            spare = rest.microusd - worst_case(price, input_tokens, 0)
            allowed = min(allowed, spare * _SCALE // rate)
        if allowed < min(OUTPUT_TOKENS_MIN, output_tokens) or rest.microusd < worst_case(price, input_tokens, 0):
            raise _exhausted(account, "usd", f"{max(0, rest.microusd) / MICRO:.6f}")
    return allowed


def _exhausted(account: Account, name: str, rest: str) -> BudgetExhausted:
    return BudgetExhausted(
        f"The {name} budget of {_whose(account)} is used up: {rest} left, and the next call may need more.",
        "Raise that budget, or finish with what there is.",
    )


def _whose(account: Account) -> str:
    return "the workspace" if account.account == WORKSPACE_ACCOUNT else account.account


def reserve(tx: Transaction, account: str, reservation_id: str, *, cost_microusd: int, tokens: int, at: float) -> None:
    """Set a worst case aside on the account and all its ancestors. The caller has checked that it fits.

    The turn is charged here and now: calls under way side by side must not share the last one.
    """
    tx.account_add(account, ONE_TURN, reserved_microusd=cost_microusd, reserved_tokens=tokens)
    tx.reservation_insert(
        Reservation(reservation_id=reservation_id, account=account, microusd=cost_microusd, tokens=tokens, at=at)
    )


def settle(tx: Transaction, reservation_id: str, used: Usage) -> None:
    """Give a reservation back and charge what was used; `used.turns` is what the call took, 0 gives its turn back.

    Raises:
        Conflict: it was settled before.
    """
    held = tx.reservation_take(reservation_id)
    if held is None:
        raise Conflict("This reservation was settled before.", "Nothing needs to be done.")
    charged = replace(used, turns=used.turns - ONE_TURN.turns)
    tx.account_add(held.account, charged, reserved_microusd=-held.microusd, reserved_tokens=-held.tokens)
    tx.share_charge(Pid(held.account), units(used))


def settle_in_full(tx: Transaction, held: Reservation) -> None:
    """Charge a reservation that a crash left open: the provider may have billed all of it."""
    settle(tx, held.reservation_id, Usage(microusd=held.microusd, input_tokens=held.tokens, turns=1))


def count_tool_call(tx: Transaction, account: str) -> None:
    """Charge one tool call to the account and all its ancestors.

    Raises:
        BudgetExhausted: one of them has none left.
    """
    for link in tx.account_chain(account):
        rest = left(link).tool_calls
        if rest is not None and rest < 1:
            raise _exhausted(link, "tool_calls", "0")
    tx.account_add(account, ONE_TOOL_CALL, reserved_microusd=0, reserved_tokens=0)
