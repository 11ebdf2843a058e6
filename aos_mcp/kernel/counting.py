"""What a model's provider counts beside what we count, learned from its bills and kept in the store.

Owns one number a model: billed over counted tokens of a prompt, as a moving average. Windows are held against counts
corrected by it; a reservation is never lowered by it.
"""

from __future__ import annotations

from aos_mcp.abi.budget import Usage
from aos_mcp.abi.completion import ModelInfo
from aos_mcp.ports import Transaction

STEP = 0.2  # Weight of the newest bill.
MOVED = 0.01  # A smaller change is not worth a write.
FACTOR_MIN, FACTOR_MAX = 0.25, 4.0  # Beyond these a bill counts something else than the prompt.
COUNTED_MIN = 500  # A shorter prompt is mostly what a dialect puts around it.
RESERVE = 1.05  # Kept free above a corrected count: the text that comes may be of another kind than what was billed.
FIRST_GUESS = {"anthropic": 1.15}
"""By dialect, before the first bill: newer tokenizers of that provider count more than ours of 200,000 words."""


def factor(tx: Transaction, info: ModelInfo) -> float:
    """Return how many tokens the provider counts for one of ours."""
    known = tx.fact_get(_fact(info.name))
    return float(known) if known is not None else FIRST_GUESS.get(info.dialect, 1.0)


def learn(tx: Transaction, info: ModelInfo, counted: int, usage: Usage) -> None:
    """Take a bill for a prompt of so many tokens, as we counted it uncorrected."""
    billed = usage.prompt_tokens
    if counted < COUNTED_MIN or not billed:
        return
    known = tx.fact_get(_fact(info.name))
    now = billed / counted
    _put(tx, info, known, now if known is None else float(known) + STEP * (now - float(known)))


def too_long(tx: Transaction, info: ModelInfo, counted: int) -> None:
    """Take a refusal: the provider counted the whole window at least for a prompt of so many tokens of ours."""
    if counted >= COUNTED_MIN:
        _put(tx, info, tx.fact_get(_fact(info.name)), max(factor(tx, info), info.context_tokens / counted))


def room(tx: Transaction, info: ModelInfo, window_tokens: int) -> int:
    """Return how many tokens of ours surely fit into so many of the provider's."""
    return int(window_tokens / (factor(tx, info) * RESERVE))


def _put(tx: Transaction, info: ModelInfo, known: str | None, value: float) -> None:
    value = min(FACTOR_MAX, max(FACTOR_MIN, value))
    if known is None or abs(value - float(known)) > MOVED * float(known):
        tx.fact_put(_fact(info.name), f"{value:.4f}")


def _fact(model: str) -> str:
    return f"tokens:{model}"
