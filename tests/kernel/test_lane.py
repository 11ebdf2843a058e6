"""A provider's lane: never too wide, never idle while somebody may go, and patient where the provider asks for it."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aos_mcp.abi.completion import RateLimits
from aos_mcp.abi.errors import ModelFault
from aos_mcp.kernel.lane import (
    BREAKER_FAILURES,
    BREAKER_S,
    MINUTE_S,
    OVERDUE_SHARE,
    STEEP,
    WINDOW_CUT,
    WINDOW_START,
    BreakerState,
    Lane,
    LaneLimits,
    Ticket,
)

NOW = 1_000.0


def ticket(order: float = 0.0, tokens: int = 100, output: int = 100) -> Ticket:
    return Ticket((order,), tokens, output)


def offered(lane: Lane, *orders: float) -> list[Ticket]:
    tickets = [ticket(order) for order in orders]
    for each in tickets:
        lane.offer(each)
    return tickets


def test_calls_go_by_their_order_and_not_by_when_they_queued() -> None:
    lane = Lane(LaneLimits(concurrency=2), NOW)
    late, early, middle = offered(lane, 3, 1, 2)
    assert lane.admit(NOW) == [early, middle]
    lane.succeeded(early, NOW, (1, 1), None)
    assert lane.admit(NOW) == [late]


def test_a_refusal_narrows_the_window_once_for_all_that_were_on_the_wire_together() -> None:
    lane = Lane(LaneLimits(), NOW)
    tickets = offered(lane, *range(WINDOW_START))
    assert lane.admit(NOW) == tickets
    for each in tickets[:5]:
        lane.failed(each, NOW + 1, ModelFault.RATE, retry_at=None, limits=None)
    assert lane.window == pytest.approx(WINDOW_START * WINDOW_CUT)
    (later,) = offered(lane, 99)
    assert lane.admit(NOW + 2) == [later]
    lane.failed(later, NOW + 3, ModelFault.OVERLOAD, retry_at=None, limits=None)
    assert lane.window == pytest.approx(WINDOW_START * WINDOW_CUT - 1), "one alone is no sign of a crowd"


def answered(lane: Lane, tickets: list[Ticket], now: float) -> None:
    for each in tickets:
        lane.succeeded(each, now, (1, 1), None)


def test_a_window_grows_by_half_with_each_round_of_answers_and_an_idle_lane_does_not() -> None:
    lane = Lane(LaneLimits(), NOW)
    for number in range(200):
        (alone,) = offered(lane, number)
        assert lane.admit(NOW + number) == [alone]
        answered(lane, [alone], NOW + number)
    assert lane.window == WINDOW_START, "one call at a time says nothing of a wider window"
    offered(lane, *range(100))
    first = lane.admit(NOW + 300)
    for each in first:
        answered(lane, [each], NOW + 301)
        lane.admit(NOW + 301)
    assert len(lane.in_flight) == (1 + STEEP) * len(first) == (1 + STEEP) * WINDOW_START


def refused_at(lane: Lane, limit: int, rounds: range) -> int:
    """Play a provider with so many places; return how many calls it refused."""
    refused = 0
    for number in rounds:
        now = NOW + number
        offered(lane, *range(2 * limit))
        went = lane.admit(now)
        extra = len(lane.in_flight) - limit
        for each in went[-extra:] if extra > 0 else []:
            refused += 1
            lane.failed(each, now, ModelFault.RATE, retry_at=None, limits=None)
        for each in sorted(lane.in_flight, key=lambda one: one.sent_at or 0.0):
            answered(lane, [each], now + 0.5)
            if (went := lane.admit(now + 0.5)) and len(lane.in_flight) > limit:
                refused += 1
                lane.failed(went[-1], now + 0.5, ModelFault.RATE, retry_at=None, limits=None)
    return refused


@pytest.mark.parametrize("limit", [3, 8, 20, 50])
def test_a_limit_that_nobody_told_is_found_and_held_with_few_refusals(limit: int) -> None:
    lane = Lane(LaneLimits(), NOW)
    refused_at(lane, limit, range(30))
    assert 0.7 * limit <= int(lane.window) <= limit + 1
    later = refused_at(lane, limit, range(30, 430))
    assert later < 0.02 * 400 * limit
    assert 0.9 * limit <= int(lane.window) <= limit + 1


def test_a_limit_that_was_raised_is_found_again() -> None:
    lane = Lane(LaneLimits(), NOW)
    refused_at(lane, 10, range(40))
    refused_at(lane, 30, range(40, 440))
    assert lane.window > 20


def test_what_the_operator_set_is_never_exceeded() -> None:
    lane = Lane(LaneLimits(concurrency=4), NOW)
    for number in range(100):
        for each in [*lane.in_flight]:
            lane.succeeded(each, NOW + number, (1, 1), None)
        offered(lane, *range(9))
        lane.admit(NOW + number)
        assert len(lane.in_flight) == 4


def test_a_parked_lane_lets_nothing_go_and_everything_at_its_hour() -> None:
    lane = Lane(LaneLimits(), NOW)
    (first,) = offered(lane, 0)
    lane.admit(NOW)
    lane.failed(first, NOW, ModelFault.RATE, retry_at=NOW + 7, limits=None)
    waiting = offered(lane, 1, 2)
    assert lane.room(NOW + 6.9) == 0
    assert lane.admit(NOW + 6.9) == []
    assert lane.next_at(NOW + 1) == NOW + 7
    assert lane.admit(NOW + 7) == waiting


def test_requests_a_minute_are_kept_and_refill_evenly() -> None:
    lane = Lane(LaneLimits(requests_per_min=60), NOW)
    tickets = offered(lane, *range(100))
    went = lane.admit(NOW)
    for each in went:
        lane.succeeded(each, NOW, (1, 1), None)
    while len(went) < 60:
        more = lane.admit(NOW)
        for each in more:
            lane.succeeded(each, NOW, (1, 1), None)
        went += more
        assert more, "there are sixty"
    assert lane.admit(NOW) == []
    at = lane.next_at(NOW)
    assert at is not None
    assert at == pytest.approx(NOW + MINUTE_S / 60)
    assert lane.admit(at) == [tickets[60]]


def test_tokens_are_reserved_before_and_settled_after() -> None:
    lane = Lane(LaneLimits(output_tokens_per_min=1_000), NOW)
    big, next_one = ticket(0, output=900), ticket(1, output=900)
    lane.offer(big)
    lane.offer(next_one)
    assert lane.admit(NOW) == [big], "the second could write more than is left"
    lane.succeeded(big, NOW, (10, 100), None)
    assert lane.admit(NOW) == [next_one], "the first wrote less"


def test_a_call_larger_than_a_minutes_tokens_goes_when_the_bucket_is_full() -> None:
    lane = Lane(LaneLimits(input_tokens_per_min=1_000), NOW)
    huge = ticket(tokens=5_000)
    lane.offer(huge)
    assert lane.admit(NOW) == [huge]


def test_a_providers_headers_are_the_truth_less_what_went_since() -> None:
    lane = Lane(LaneLimits(), NOW)
    first, second, third, fourth = offered(lane, 0, 1, 2, 3)
    lane.window = 1
    assert lane.admit(NOW) == [first]
    lane.window = 9
    assert lane.admit(NOW + 1) == [second, third, fourth]
    told = RateLimits(requests_limit=60, requests_left=4)
    lane.succeeded(first, NOW + 1, (1, 1), told)
    assert lane.buckets["requests"].level == pytest.approx(4 + 1 - 3), "one was refilled, three were sent since"
    offered(lane, 4, 5, 6)
    assert len(lane.admit(NOW + 1)) == 2
    assert lane.next_at(NOW + 1) == pytest.approx(NOW + 2)


def test_headers_of_a_long_call_count_the_short_ones_that_came_and_went_meanwhile() -> None:
    lane = Lane(LaneLimits(), NOW)
    (long_one,) = offered(lane, 0)
    lane.admit(NOW)
    answered(lane, offered_and_sent(lane, 5), NOW)
    lane.succeeded(long_one, NOW, (1, 1), RateLimits(requests_limit=60, requests_left=20))
    assert lane.buckets["requests"].level == pytest.approx(15)


def offered_and_sent(lane: Lane, count: int) -> list[Ticket]:
    offered(lane, *range(1, count + 1))
    return lane.admit(NOW)


def test_a_provider_may_say_less_than_the_operator_and_not_more() -> None:
    for told, kept in ((10, 10), (1_000, 60)):
        lane = Lane(LaneLimits(requests_per_min=60), NOW)
        (one,) = offered(lane, 0)
        lane.admit(NOW)
        lane.succeeded(one, NOW, (1, 1), RateLimits(requests_limit=told, requests_left=told))
        assert lane.buckets["requests"].per_min == kept


def test_a_provider_that_is_down_is_left_alone_and_tried_again_by_one_call() -> None:
    lane = Lane(LaneLimits(), NOW)
    for each in offered(lane, *range(BREAKER_FAILURES)):
        lane.admit(NOW)
        lane.failed(each, NOW, ModelFault.TRANSPORT, retry_at=None, limits=None)
    assert lane.breaker.state is BreakerState.OPEN
    probe, other = offered(lane, 10, 11)
    assert lane.admit(NOW + BREAKER_S - 0.1) == []
    assert lane.next_at(NOW) == NOW + BREAKER_S
    assert lane.admit(NOW + BREAKER_S) == [probe], "one"
    lane.failed(probe, NOW + BREAKER_S, ModelFault.TRANSPORT, retry_at=None, limits=None)
    assert lane.next_at(NOW + BREAKER_S) == NOW + BREAKER_S + 2 * BREAKER_S, "longer each time"
    assert lane.admit(NOW + 3 * BREAKER_S) == [other]
    (more,) = offered(lane, 12)
    lane.succeeded(other, NOW + 3 * BREAKER_S, (1, 1), None)
    assert lane.admit(NOW + 3 * BREAKER_S) == [more], "it is closed again"


def test_a_probe_that_its_caller_cut_leaves_the_next_to_try() -> None:
    lane = Lane(LaneLimits(), NOW)
    for each in offered(lane, *range(BREAKER_FAILURES)):
        lane.admit(NOW)
        lane.failed(each, NOW, ModelFault.TRANSPORT, retry_at=None, limits=None)
    probe, other = offered(lane, 10, 11)
    assert lane.admit(NOW + BREAKER_S) == [probe]
    lane.abandoned(probe, NOW + BREAKER_S)
    assert lane.admit(NOW + BREAKER_S) == [other]


def test_a_call_that_is_overdue_goes_in_its_turn_whatever_comes_in_before_it() -> None:
    lane = Lane(LaneLimits(concurrency=1), NOW)
    late = [Ticket((2.0, NOW + n), 1, 1, due_at=NOW + 10 + n) for n in range(3)]
    for each in late:
        lane.offer(each)
    went: list[Ticket] = []
    for number in range(4 * OVERDUE_SHARE):
        lane.offer(Ticket((0.0, NOW + number), 1, 1))  # one better call for each that goes
        went += lane.admit(NOW + number)
        lane.succeeded(went[-1], NOW + number, (1, 1), None)
    assert all(each not in went[:10] for each in late), "before it is overdue the order holds"
    places = [went.index(each) for each in late]
    assert places == sorted(places), "the longest first"
    assert all(b - a == OVERDUE_SHARE for a, b in pairwise(places)), "and the others have the rest"


def test_who_waits_for_a_place_is_not_who_waits_for_tokens_or_for_an_hour() -> None:
    lane = Lane(LaneLimits(concurrency=1, requests_per_min=1), NOW)
    first, second = offered(lane, 0, 1)
    assert lane.admit(NOW) == [first]
    assert lane.waits_for_a_place(NOW) is None, "another request is not there before a minute is over"
    assert lane.waits_for_a_place(NOW + MINUTE_S) is second
    assert lane.ahead_of((1.0,)) == 0
    assert lane.ahead_of((2.0,)) == 1
    lane.park(NOW + 2 * MINUTE_S)
    assert lane.waits_for_a_place(NOW + MINUTE_S) is None
    lane.succeeded(first, NOW + MINUTE_S, (1, 1), None)
    assert lane.waits_for_a_place(NOW + 3 * MINUTE_S) is None, "it only has to go"


def test_a_call_that_was_withdrawn_is_not_waited_for() -> None:
    lane = Lane(LaneLimits(concurrency=1), NOW)
    first, gone, last = offered(lane, 0, 1, 2)
    assert lane.admit(NOW) == [first]
    lane.withdraw(gone)
    assert lane.waiting == 1
    lane.succeeded(first, NOW, (1, 1), None)
    assert lane.admit(NOW) == [last]


ENDS = ("answer", "rate", "overload", "down", "cut", "refused")


@given(
    seed=st.integers(0, 2**32),
    limits=st.builds(
        LaneLimits,
        concurrency=st.none() | st.integers(1, 6),
        requests_per_min=st.none() | st.integers(5, 120),
        tokens_per_min=st.none() | st.integers(300, 20_000),
    ),
)
def test_under_any_load_each_call_goes_once_the_window_holds_and_nobody_idles(seed: int, limits: LaneLimits) -> None:
    source, lane, now = random.Random(seed), Lane(limits, NOW), NOW
    offered_all: list[Ticket] = []
    went: list[Ticket] = []
    for step in range(120):
        now += source.choice((0.0, 0.1, 3.0))
        if source.random() < 0.6:
            one = Ticket((source.randrange(3), float(step)), source.randrange(1, 400), source.randrange(1, 400))
            lane.offer(one)
            offered_all.append(one)
        before = len(lane.in_flight)
        admitted = lane.admit(now)
        went += admitted
        assert before + len(admitted) <= max(before, int(lane.window))
        assert all(a.order <= b.order for a, b in pairwise(admitted)), "in order"
        assert lane.admit(now) == [], "whoever may go has gone"
        if lane.waiting and lane.next_at(now) is None:
            assert lane.in_flight, "only the end of a call can help, so there is one"
        for each in list(lane.in_flight):
            if source.random() < 0.5:
                _end(lane, each, now, source.choice(ENDS), source)
    for _ in range(10_000):  # let it all come to an end
        if not lane.waiting and not lane.in_flight:
            break
        for each in list(lane.in_flight):
            lane.succeeded(each, now, (each.input_tokens, 1), None)
        at = lane.next_at(now)
        now = now if at is None else max(now, at)
        went += lane.admit(now)
    assert len(went) == len(set(went)), "no call goes twice"
    assert set(went) == set(offered_all), "and every one goes"
    assert lane.in_flight == set()
    assert lane.window >= 1


def _end(lane: Lane, one: Ticket, now: float, how: str, source: random.Random) -> None:
    faults = {
        "rate": ModelFault.RATE,
        "overload": ModelFault.OVERLOAD,
        "down": ModelFault.TRANSPORT,
        "refused": ModelFault.AUTH,
    }
    if how == "answer":
        told = RateLimits(requests_limit=60, requests_left=source.randrange(61)) if source.random() < 0.3 else None
        lane.succeeded(one, now, (one.input_tokens, source.randrange(400)), told)
    elif how == "cut":
        lane.abandoned(one, now)
    else:
        retry_at = now + source.choice((0.5, 20.0)) if source.random() < 0.5 else None
        lane.failed(one, now, faults[how], retry_at=retry_at, limits=None)
