"""The scheduler's pick: pure, in order, fair, and nobody waits for ever."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aos_mcp.abi.handle import Pid
from aos_mcp.abi.process import Candidate
from aos_mcp.kernel.scheduler import AGING_S, POLICIES, pick, rank

NOW = 1_000_000.0
EVERY_POLICY = pytest.mark.parametrize("policy", sorted(POLICIES))


def candidate(name: str, *, priority: int = 50, waited_s: float = 0.0, attained: int = 0) -> Candidate:
    since = NOW - waited_s
    return Candidate(
        pid=Pid(name),
        program=Pid(name),
        owner="o",
        priority=priority,
        ready_at=since,
        created_at=since,
        attained=attained,
    )


crowds = st.lists(
    st.builds(
        candidate,
        st.text("abcdefgh", min_size=1, max_size=6),
        priority=st.integers(0, 100),
        waited_s=st.integers(0, 2_000).map(float),
        attained=st.integers(0, 10**7),
    ),
    min_size=1,
    max_size=30,
    unique_by=lambda c: c.pid,
)


def served(ready: list[Candidate], policy: str) -> list[Pid]:
    """Return the order in which a crowd is served when nobody comes and no time passes."""
    waiting, order = list(ready), []
    while waiting:
        chosen = pick(waiting, NOW, policy)
        assert chosen is not None
        waiting.remove(chosen)
        order.append(chosen.pid)
    return order


@EVERY_POLICY
def test_nobody_ready_is_nobody_picked(policy: str) -> None:
    assert pick([], NOW, policy) is None


@EVERY_POLICY
@given(crowd=crowds, data=st.data())
def test_the_order_of_the_queue_does_not_matter(policy: str, crowd: list[Candidate], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(crowd))
    assert served(crowd, policy) == served(shuffled, policy)


@EVERY_POLICY
@given(crowd=crowds)
def test_ties_go_to_the_smaller_pid(policy: str, crowd: list[Candidate]) -> None:
    same = [replace(c, priority=1, ready_at=NOW, created_at=NOW, attained=0) for c in crowd]
    assert served(same, policy) == sorted(c.pid for c in crowd)


@EVERY_POLICY
@given(crowd=crowds, count=st.integers(0, 40))
def test_several_at_once_are_those_that_would_be_picked_one_by_one(
    policy: str, crowd: list[Candidate], count: int
) -> None:
    assert [c.pid for c in rank(crowd, NOW, policy, count)] == served(crowd, policy)[:count]


@given(crowd=crowds)
def test_among_those_that_wait_equally_long_priority_decides(crowd: list[Candidate]) -> None:
    fresh = [replace(c, ready_at=NOW) for c in crowd]
    chosen = pick(fresh, NOW)
    assert chosen is not None
    assert chosen.priority == min(c.priority for c in fresh)


@given(crowd=crowds)
def test_within_a_class_the_program_served_least_goes_first(crowd: list[Candidate]) -> None:
    equal = [replace(c, priority=50, ready_at=NOW) for c in crowd]
    chosen = pick(equal, NOW)
    assert chosen is not None
    assert chosen.attained == min(c.attained for c in equal)


@given(mine=st.integers(0, 100), rivals=st.lists(st.integers(0, 100), max_size=10), attained=st.integers(0, 10**9))
def test_nobody_starves_under_a_stream_of_better_ones(mine: int, rivals: list[int], attained: int) -> None:
    """The bound: whoever waited one step longer than its distance to the best class beats every newcomer."""
    bound_s = (mine + 1) * AGING_S
    starving = candidate("starving", priority=mine, waited_s=bound_s, attained=attained)
    stream = [candidate(f"rival{n}", priority=priority) for n, priority in enumerate(rivals)]
    assert pick([*stream, starving], NOW) == starving


def test_a_stream_of_newcomers_delays_the_last_class_no_longer_than_the_bound() -> None:
    starving = candidate("starving", priority=100, attained=10**9)
    for second in range(10_000):
        now = NOW + second
        newcomer = replace(candidate(f"new{second}", priority=0), ready_at=now, created_at=now)
        if pick([newcomer, starving], now) == starving:
            assert second <= 101 * AGING_S
            return
    raise AssertionError("it starved")


def test_two_programs_of_one_class_share_what_there_is() -> None:
    """Each turn is charged to its program; one with large turns gets fewer of them."""
    attained, cost = {"big": 0, "small": 0}, {"big": 900, "small": 100}
    turns = {"big": 0, "small": 0}
    for _ in range(1_000):
        ready = [candidate(name, attained=attained[name]) for name in attained]
        chosen = pick(ready, NOW)
        assert chosen is not None
        attained[chosen.program] += cost[chosen.program]
        turns[chosen.program] += 1
    assert abs(attained["big"] - attained["small"]) <= max(cost.values())
    assert turns["small"] > 8 * turns["big"]


def test_a_tree_counts_as_one_program() -> None:
    crowd = [replace(candidate(f"child{n}", attained=500), program=Pid("tree")) for n in range(10)]
    lone = candidate("lone", attained=400)
    assert pick([*crowd, lone], NOW) == lone


@given(crowd=crowds)
def test_first_come_first_served_is_by_birth(crowd: list[Candidate]) -> None:
    chosen = pick(crowd, NOW, "fifo")
    assert chosen is not None
    assert chosen.created_at == min(c.created_at for c in crowd)


@given(crowd=crowds)
def test_round_robin_serves_whoever_waited_longest(crowd: list[Candidate]) -> None:
    chosen = pick(crowd, NOW, "rr")
    assert chosen is not None
    assert chosen.ready_at == min(c.ready_at for c in crowd)


@given(crowd=crowds)
def test_strict_priority_knows_no_aging(crowd: list[Candidate]) -> None:
    chosen = pick(crowd, NOW, "priority")
    assert chosen is not None
    assert chosen.priority == min(c.priority for c in crowd)
