"""A limit of calls a minute that no provider tells is found from its refusals, and kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pytest

from aos_mcp.abi.completion import RateLimits
from aos_mcp.abi.errors import ModelFault
from aos_mcp.kernel.lane import Bucket, Lane, LaneLimits, Ticket
from aos_mcp.kernel.pace import CALLS_MAX, MINUTE_S, Pace

STEP_S = 0.05
CALL_S = 2.0
CALLERS = 40
"""Who wait all the time."""

Takes = Callable[[float], float]
"""Returns 0 for a call that is taken, else after how many seconds to come back."""


def bucket(per_min: int) -> Takes:
    """Return a provider that refills evenly and saves up a minute."""
    own = Bucket(per_min, 0.0)

    def takes(now: float) -> float:
        own.refill(now)
        wait_s = own.admits_at(1, now) - now
        own.level -= wait_s == 0
        return wait_s

    return takes


def whole_minutes(per_min: int) -> Takes:
    """Return a provider that counts the last minute."""
    taken: deque[float] = deque()

    def takes(now: float) -> float:
        while taken and taken[0] <= now - MINUTE_S:
            taken.popleft()
        if len(taken) >= per_min:
            return taken[0] + MINUTE_S - now
        taken.append(now)
        return 0.0

    return takes


START = 1_000.0


def play(lane: Lane, takes: Takes, begin: float, end: float) -> tuple[int, int]:
    """Have callers call from one minute to another; return how many calls were answered, and how many refused."""
    on_the_wire = deque(sorted(lane.in_flight, key=lambda ticket: ticket.sent_at or 0.0))
    answered = refused = 0
    for step in range(int(begin * MINUTE_S / STEP_S), int(end * MINUTE_S / STEP_S)):
        now = START + step * STEP_S
        while on_the_wire and now - (on_the_wire[0].sent_at or 0.0) >= CALL_S:
            lane.succeeded(on_the_wire.popleft(), now, (1, 1), None)
            answered += 1
        for _ in range(CALLERS - lane.waiting - len(lane.in_flight)):
            lane.offer(Ticket((now,), 1, 1))
        for ticket in lane.admit(now):
            if wait_s := takes(now):
                refused += 1
                lane.failed(ticket, now, ModelFault.RATE, retry_at=now + wait_s, limits=None)
            else:
                on_the_wire.append(ticket)
    return answered, refused


@pytest.mark.parametrize("limit", [30, 120, 600])
@pytest.mark.parametrize("provider", [bucket, whole_minutes])
def test_a_limit_of_calls_a_minute_that_nobody_told_is_found_and_kept(
    provider: Callable[[int], Takes], limit: int
) -> None:
    lane, takes = Lane(LaneLimits(), START), provider(limit)
    _, while_looking = play(lane, takes, 0, 2)
    assert while_looking <= 30
    answered, refused = play(lane, takes, 2, 14)
    assert answered >= 0.9 * 12 * limit
    assert refused <= max(12, 0.02 * answered), "one a minute, or one in fifty"


def test_a_pace_that_was_found_is_tried_faster_when_it_goes_well() -> None:
    lane = Lane(LaneLimits(), START)
    play(lane, bucket(60), 0, 5)
    found = lane.buckets["requests"].per_min
    assert 50 <= found <= 70
    raised, _ = play(lane, bucket(600), 5, 25)
    assert lane.buckets["requests"].per_min > 2 * found
    assert raised > 20 * 70


def test_what_a_provider_tells_goes_before_what_was_found() -> None:
    lane = Lane(LaneLimits(), START)
    play(lane, bucket(60), 0, 2)
    assert lane.buckets["requests"].per_min < 100
    for ticket in [*lane.in_flight]:
        lane.succeeded(ticket, START + 2 * MINUTE_S, (1, 1), RateLimits(requests_limit=500, requests_left=400))
    assert lane.buckets["requests"].per_min == 500


def test_what_the_operator_told_is_never_put_aside() -> None:
    lane = Lane(LaneLimits(requests_per_min=120), START)
    play(lane, bucket(60), 0, 2)
    assert lane.buckets["requests"].per_min == 120


def test_few_calls_and_very_many_tell_nothing() -> None:
    few, many = Pace(), Pace()
    for pace, calls in ((few, 3), (many, CALLS_MAX + 10)):
        for number in range(calls):
            pace.went(number * 1e-3)
        assert pace.refused(0.0, 10.0) is None
