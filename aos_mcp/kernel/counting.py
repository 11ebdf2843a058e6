"""What a model's provider counts beside what we count, learned from its bills and kept in the store.

Owns one number for each model and each way to count: billed over counted tokens of a prompt, as a moving average.
Windows are held against counts corrected by it; a reservation is never lowered by it. What was learned by another
counter is kept apart: a store may come from a machine that had no vocabulary, or one may be installed later.
"""

from __future__ import annotations

from aos_mcp.abi.budget import Usage
from aos_mcp.abi.completion import ModelInfo
from aos_mcp.context.tokens import CLASSES, O200K, counter
from aos_mcp.ports import Transaction

STEP = 0.2  # Weight of the newest bill.
MOVED = 0.01  # A smaller change is not worth a write.
FACTOR_MIN, FACTOR_MAX = 0.25, 4.0  # Beyond these a bill counts something else than the prompt.
COUNTED_MIN = 500  # A shorter prompt is mostly what a dialect puts around it.
RESERVE = 1.05  # Kept free above a corrected count: the text that comes may be of another kind than what was billed.
FIRST_GUESS = {
    O200K: {"anthropic": 1.3, "openai": 1.1},
    CLASSES: {"anthropic": 1.15, "openai": 1.0},
}
"""By counter and dialect, before the first bill of a model that counts by another vocabulary than we do."""


def factor(tx: Transaction, info: ModelInfo) -> float:
    """Return how many tokens the provider counts for one of ours."""
    known = tx.fact_get(_fact(info.name))
    return float(known) if known is not None else first_guess(info)


def first_guess(info: ModelInfo) -> float:
    """Return the factor of a model of which no bill is known."""
    guesses = FIRST_GUESS[counter()]
    return 1.0 if info.vocabulary == counter() else guesses.get(info.dialect, guesses["openai"])


def described(tx: Transaction, info: ModelInfo) -> str:
    """Return what counts a model's tokens, and by which factor the count is corrected, for a person to read."""
    corrected = factor(tx, info)
    return counter() if corrected == 1.0 else f"{counter()} x {corrected:.2f}"


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
    return f"tokens:{by_counter(model)}"


def by_counter(model: str) -> str:
    """Return under which name is kept what was learned of a model's counts: by classes it is the model's own."""
    return model if counter() == CLASSES else f"{counter()}:{model}"
