"""For how long a provider's cache is believed to hold a prompt, learned from its bills and kept in the store.

Owns one number a model, in seconds. A prompt that only grew and was billed as read from the cache after a pause shows
that the cache held it for that long; one that was billed as new shows that it did not. Believing too little makes a cut
look free that is not, so a hit is believed at once, and misses step by step: one alone may have had another cause.
"""

from __future__ import annotations

from math import sqrt

from aos_mcp.abi.completion import ModelInfo
from aos_mcp.ports import Transaction

FIRST_GUESS_S = {"anthropic": 300.0}
"""By dialect, before the first bill that tells: what the Messages dialect keeps a mark for, unless asked for more;"""
PROMISED_S = 1_800.0
"""and of all others thirty minutes, the most that is promised."""
PAUSE_S = 60.0  # A miss after a shorter pause says nothing about time: no cache is promised for less.
LIFETIME_S_MAX = 86_400.0  # The longest that any provider offers.
WARM_PART = 0.5  # Of what was sent before, billed as read: more is a hit; a provider may round to blocks.


def moved(believed_s: float, pause_s: float, hit: float) -> float:
    """Return for how long a cache is believed to hold, after a bill. Pure.

    Args:
        believed_s: what was believed before.
        pause_s: seconds since the last answer.
        hit: the part of the earlier prompt that was billed as read from the cache, 0 to 1.
    """
    if hit >= WARM_PART:
        return max(believed_s, min(LIFETIME_S_MAX, pause_s))
    return sqrt(believed_s * pause_s) if PAUSE_S <= pause_s < believed_s else believed_s


def believed(tx: Transaction, info: ModelInfo) -> float:
    """Return for how many seconds without use a model's cache is believed to hold a prompt."""
    known = tx.fact_get(_fact(info.name))
    return float(known) if known is not None else FIRST_GUESS_S.get(info.dialect, PROMISED_S)


def learn(tx: Transaction, info: ModelInfo, pause_s: float, hit: float) -> None:
    """Take a bill for a prompt that only grew."""
    before = believed(tx, info)
    after = moved(before, pause_s, hit)
    if after != before:
        tx.fact_put(_fact(info.name), f"{after:.1f}")


def _fact(model: str) -> str:
    return f"cache_s:{model}"
