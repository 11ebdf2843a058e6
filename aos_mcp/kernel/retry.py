"""What is done about a model call that failed: wait and try again, go on with the next model, or give up. Pure.

Drivers never retry (`max_retries=0`): a call that is tried again goes back into its lane's queue, with the time at
which it first came, and holds no place while it waits.
"""

from __future__ import annotations

from dataclasses import dataclass

from aos_mcp.abi.errors import ModelFault
from aos_mcp.abi.limits import (
    FALLBACK_AFTER_TRIES,
    FALLBACK_WAIT_S,
    MODEL_RETRIES_MAX,
    MODEL_RETRY_BASE_S,
    MODEL_RETRY_CAP_S,
)

PATIENT = frozenset({ModelFault.RATE, ModelFault.OVERLOAD})
"""Faults that waiting cures. They never end an agent; its wall-time budget bounds them."""
IMPATIENT = frozenset({ModelFault.TRANSPORT, ModelFault.CUT_STREAM})
"""Faults that a new try may cure: `MODEL_RETRIES_MAX` in a row end an agent."""
ELSEWHERE = frozenset({ModelFault.SPEND_LIMIT, ModelFault.AUTH})
"""Faults of an account, which only another provider cures. A refused or malformed request would fail there too."""
PATIENT_FAULTS_MAX = MODEL_RETRIES_MAX // 2
"""Up to here patient faults lengthen the back-off; beyond it they would use up the tries of the impatient."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Try the same model again after `seconds`; `park` has the whole lane wait, not this call alone."""

    seconds: float
    park: bool


@dataclass(frozen=True, slots=True)
class Next:
    """Go on with the next model of the chain, at once."""


TOLD_LEAST_S, TOLD_LEAST_CAP_S = 0.05, 1.0
"""The least that is waited where a provider says how long; twice as much after each fault, up to the second."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Nothing that can be done here cures it."""


Verdict = Wait | Next | GiveUp


def judge(fault: ModelFault, faults: int, retry_after_s: float | None, *, chance: float, has_next: bool) -> Verdict:
    """Return what is done about a fault.

    Args:
        fault: what went wrong.
        faults: how many calls in a row failed on this model, this one among them.
        retry_after_s: what the provider asks for, where it does.
        chance: a number in [0, 1), so that many who failed together do not come back together.
        has_next: whether the chain goes on.
    """
    if fault in ELSEWHERE:
        return Next() if has_next else GiveUp()
    if fault not in PATIENT | IMPATIENT:
        return GiveUp()
    ceiling = min(MODEL_RETRY_CAP_S, MODEL_RETRY_BASE_S * 2 ** min(faults, 16))
    wait_s = ceiling * (0.5 + chance / 2)
    if retry_after_s is not None:
        # A provider that says "now", or whose clock is behind, and refuses again is asked less and less often.
        wait_s = max(retry_after_s, min(TOLD_LEAST_CAP_S, TOLD_LEAST_S * 2 ** min(faults, 16)))
    if has_next and (faults >= FALLBACK_AFTER_TRIES or wait_s > FALLBACK_WAIT_S):
        return Next()
    if fault in IMPATIENT and faults > MODEL_RETRIES_MAX:
        return GiveUp()
    return Wait(wait_s, park=fault in PATIENT)


def counted(fault: ModelFault, before: int) -> int:
    """Return how many faults in a row there are with this one; patient ones do not use up the tries of the others."""
    return max(before, min(before + 1, PATIENT_FAULTS_MAX)) if fault in PATIENT else before + 1


def chain_of(model: str) -> tuple[str, ...]:
    """Return the models of a chain in their order: `first, then, …`. A single name is a chain of one."""
    return tuple(name for part in model.split(",") if (name := part.strip()))
