"""How large a process will be: learned from its like, bounded by its budget. Pure.

The scheduler puts the short first, so it asks. What is said here is a guess, and nothing breaks when it is wrong: the
leeway between programs is bounded, and so is every wait.
"""

from __future__ import annotations

from aos_mcp.abi.scheduling import SizeHint, Work
from aos_mcp.kernel.scheduler import OUTPUT_WEIGHT

TURNS_UNKNOWN = 8.0
TURN_UNITS_UNKNOWN = 2_000.0
"""Of agents whose like was never seen."""
LONG_LIVED = 0.5
"""One that has outlived its like is taken to go on for this part of a usual life: most that got so far are large."""
NEWS = 0.2
"""What the newest life counts for in a mean, once there were a few."""


def expected(work: Work) -> tuple[float, float]:
    """Return the units that the next turn is expected to take, and all turns until the end.

    A budget bounds the guess: an agent that was given little will be done soon, one way or the other.
    """
    done = _units(work.input_tokens, work.output_tokens)
    turn = work.usual_turn_units or TURN_UNITS_UNKNOWN
    if work.turns:
        turn = (turn + done) / (1 + work.turns)
    usual = work.usual_turns or TURNS_UNKNOWN
    turns = max(usual - work.turns, usual * LONG_LIVED)
    if work.turns_left is not None:
        turns = min(turns, max(0, work.turns_left))
    left = turn * turns
    if work.tokens_left is not None:
        left = min(left, float(OUTPUT_WEIGHT * max(0, work.tokens_left)))
    return turn, left


def learned(known: SizeHint | None, agent: str, model: str, work: Work) -> SizeHint:
    """Return the hint after one more life: the mean of the first few, then a mean that forgets."""
    turn = _units(work.input_tokens, work.output_tokens) / max(1, work.turns)
    if known is None:
        return SizeHint(agent=agent, model=model, turns=float(work.turns), turn_units=turn, runs=1)
    news = max(NEWS, 1 / (known.runs + 1))
    return SizeHint(
        agent=agent,
        model=model,
        turns=known.turns + news * (work.turns - known.turns),
        turn_units=known.turn_units + news * (turn - known.turn_units),
        runs=known.runs + 1,
    )


def _units(input_tokens: int, output_tokens: int) -> int:
    return input_tokens + OUTPUT_WEIGHT * output_tokens
