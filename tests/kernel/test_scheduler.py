"""The scheduler's choice: pure, in order, fair, and nobody waits for ever."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aos_mcp.abi.handle import Pid
from aos_mcp.abi.process import Candidate, SchedClass, sched_class
from aos_mcp.kernel.scheduler import (
    LEAD_UNITS,
    OVERDUE_S,
    OVERDUE_SHARE,
    POLICIES,
    Shares,
    Wait,
    choose,
    inherited,
    lend,
    pick,
    rank,
)

NOW = 1_000_000.0
EVERY_POLICY = pytest.mark.parametrize("policy", sorted(POLICIES))


def candidate(name: str, *, waited_s: float = 0.0, **changes: object) -> Candidate:
    since = NOW - waited_s
    plain = Candidate(pid=Pid(name), program=Pid(name), owner="o", priority=50, ready_at=since, created_at=since)
    return replace(plain, **changes)  # type: ignore[arg-type]


names = st.text("abcdefgh", min_size=1, max_size=6)
crowds = st.lists(
    st.builds(
        candidate,
        names,
        program=st.sampled_from([Pid(f"t{n}") for n in range(6)]),
        owner=st.sampled_from(["ada", "bob", "cyd"]),
        priority=st.integers(0, 100),
        waited_s=st.integers(0, 2_000).map(float),
        turn_units=st.integers(1, 300_000).map(float),
        units_left=st.integers(0, 10**6).map(float),
    ),
    min_size=1,
    max_size=30,
    unique_by=lambda c: c.pid,
).map(lambda crowd: [replace(c, program=Pid(f"{c.owner}/{c.program}")) for c in crowd])
shares_of_any = st.builds(
    Shares,
    owners=st.dictionaries(st.sampled_from(["ada", "bob"]), st.integers(0, 10**6).map(float)),
    programs=st.dictionaries(
        st.sampled_from([Pid(f"{o}/t{n}") for o in ("ada", "bob", "cyd") for n in range(6)]),
        st.integers(0, 10**6).map(float),
    ),
    owners_floor=st.just(7.0),
    programs_floors=st.just({"ada": 11.0}),
)


def served(ready: list[Candidate], policy: str, shares: Shares | None = None) -> list[Pid]:
    """Return the order in which a crowd is served one by one, each charged what it was expected to take."""
    shares = shares or Shares()
    shares.admit((c.owner, c.program) for c in ready)
    waiting, order = list(ready), list[Pid]()
    while waiting:
        chosen = pick(waiting, NOW, policy, shares=shares, picks=len(order))
        assert chosen is not None
        waiting.remove(chosen)
        order.append(chosen.pid)
        shares.charge(chosen.owner, chosen.program, chosen.turn_units)
    return order


@EVERY_POLICY
def test_nobody_ready_is_nobody_picked(policy: str) -> None:
    assert pick([], NOW, policy) is None


@EVERY_POLICY
@given(crowd=crowds, count=st.integers(0, 40), shares=shares_of_any, picks=st.integers(0, 9))
def test_no_place_stays_empty_while_somebody_is_ready(
    policy: str, crowd: list[Candidate], count: int, shares: Shares, picks: int
) -> None:
    chosen = choose(crowd, NOW, policy, count, shares=shares, picks=picks)
    assert len({choice.candidate.pid for choice in chosen}) == len(chosen) == min(count, len(crowd))
    assert all(choice.why for choice in chosen)


@EVERY_POLICY
@given(crowd=crowds, shares=shares_of_any, data=st.data())
def test_the_order_of_the_queue_does_not_matter(
    policy: str, crowd: list[Candidate], shares: Shares, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(crowd))
    assert choose(crowd, NOW, policy, 30, shares=shares) == choose(shuffled, NOW, policy, 30, shares=shares)


@EVERY_POLICY
@given(crowd=crowds)
def test_ties_go_to_the_smaller_pid(policy: str, crowd: list[Candidate]) -> None:
    same = [candidate(c.pid, program=Pid("one")) for c in crowd]
    assert served(same, policy) == sorted(c.pid for c in crowd)


@EVERY_POLICY
@given(crowd=crowds, count=st.integers(0, 40))
def test_several_at_once_are_those_that_would_be_picked_one_by_one(
    policy: str, crowd: list[Candidate], count: int
) -> None:
    shares = Shares()
    shares.admit((c.owner, c.program) for c in crowd)
    assert [c.pid for c in rank(crowd, NOW, policy, count, shares=shares)] == served(crowd, policy)[:count]


def slowly(crowd: Sequence[Candidate], count: int, shares: Shares, picks: int) -> list[Pid]:
    """The default policy as its sentences say it, one candidate at a time, with nothing kept between two."""
    left, order = list(crowd), []
    owners = {c.owner: shares.owners.get(c.owner, shares.owners_floor) for c in crowd}
    programs = {c.program: shares.programs.get(c.program, shares.programs_floors.get(c.owner, 0.0)) for c in crowd}
    for number in range(picks, picks + min(count, len(crowd))):
        late = [c for c in left if NOW - c.ready_at >= OVERDUE_S[c.sched_class]]
        if late and number % OVERDUE_SHARE == 0:
            chosen = min(late, key=lambda c: (c.ready_at, c.pid))
        else:
            best = min(c.sched_class for c in left)
            of_class = [c for c in left if c.sched_class == best]
            owner = min({c.owner for c in of_class}, key=lambda name: (owners[name], name))
            own = [c for c in of_class if c.owner == owner]
            least = min(programs[c.program] for c in own)
            may = [c for c in own if programs[c.program] <= least + LEAD_UNITS]
            chosen = min(may, key=lambda c: (c.units_left, c.ready_at, c.pid))
        left.remove(chosen)
        order.append(chosen.pid)
        programs[chosen.program] += chosen.turn_units
        owners[chosen.owner] += chosen.turn_units
    return order


@given(crowd=crowds, count=st.integers(0, 40), shares=shares_of_any, picks=st.integers(0, 9))
def test_the_default_is_what_its_sentences_say(crowd: list[Candidate], count: int, shares: Shares, picks: int) -> None:
    chosen = rank(crowd, NOW, "default", count, shares=shares, picks=picks)
    assert [c.pid for c in chosen] == slowly(crowd, count, shares, picks)


@given(crowd=crowds)
def test_among_those_that_are_not_overdue_the_class_decides(crowd: list[Candidate]) -> None:
    chosen = pick([replace(c, ready_at=NOW) for c in crowd], NOW)
    assert chosen is not None
    assert chosen.sched_class == min(c.sched_class for c in crowd)


def test_priorities_make_three_classes() -> None:
    classes = [sched_class(priority) for priority in (0, 29, 30, 69, 70, 100)]
    assert classes == [SchedClass.INTERACTIVE] * 2 + [SchedClass.NORMAL] * 2 + [SchedClass.BATCH] * 2


# Fair shares ---------------------------------------------------------------------------------------------------------


@given(
    costs=st.lists(st.tuples(st.integers(1, 5_000), st.integers(1, 5_000)), min_size=1, max_size=200),
    guess=st.integers(0, 5_000),
    crowd_size=st.integers(1, 8),
)
def test_owners_that_always_have_work_are_served_within_one_turn_of_each_other(
    costs: list[tuple[int, int]], guess: int, crowd_size: int
) -> None:
    """The bound for one call at a time: the larger of both owners' largest turns, whatever was expected of them."""
    shares, got = Shares(), {"hog": 0, "meek": 0}
    ready = [candidate(f"h{n}", owner="hog", turn_units=float(guess)) for n in range(crowd_size)]
    ready.append(candidate("m", owner="meek", turn_units=float(guess)))
    for number, (hog, meek) in enumerate(costs):
        shares.admit((c.owner, c.program) for c in ready)
        chosen = pick(ready, NOW, shares=shares, picks=number)
        assert chosen is not None
        cost = hog if chosen.owner == "hog" else meek
        shares.charge(chosen.owner, chosen.program, cost)
        got[chosen.owner] += cost
        assert abs(got["hog"] - got["meek"]) <= max(max(pair) for pair in costs)


@given(costs=st.lists(st.integers(1, 40_000), min_size=1, max_size=150))
def test_a_program_gets_ahead_of_another_by_the_leeway_and_one_turn_at_most(costs: list[int]) -> None:
    """The shorter one is favoured, but not for ever."""
    shares, got = Shares(), {"short": 0, "long": 0}
    ready = [candidate("short", units_left=1.0), candidate("long", units_left=1e9)]
    for number, cost in enumerate(costs):
        shares.admit((c.owner, c.program) for c in ready)
        chosen = pick(ready, NOW, shares=shares, picks=number)
        assert chosen is not None
        shares.charge(chosen.owner, chosen.program, cost)
        got[chosen.program] += cost
        assert -max(costs) <= got["short"] - got["long"] <= LEAD_UNITS + max(costs)


@given(
    before=st.lists(st.integers(1, 1_000), max_size=50),
    idle=st.lists(st.integers(1, 1_000), max_size=100),
    after=st.lists(st.integers(1, 1_000), min_size=1, max_size=100),
)
def test_idling_earns_no_credit(before: list[int], idle: list[int], after: list[int]) -> None:
    """Whoever comes back is served like the others from then on: it neither catches up nor is made to pay."""
    shares = Shares()
    stayed, away = candidate("s", owner="stayed"), candidate("a", owner="away")
    for ready, costs in (([stayed, away], before), ([stayed], idle), ([stayed, away], after)):
        got = {"stayed": 0, "away": 0}
        for cost in costs:
            shares.admit((c.owner, c.program) for c in ready)
            chosen = pick(ready, NOW, shares=shares)
            assert chosen is not None
            shares.charge(chosen.owner, chosen.program, cost)
            got[chosen.owner] += cost
    largest = max([*before, *idle, *after])
    assert abs(got["stayed"] - got["away"]) <= 2 * largest


def test_a_tree_counts_as_one_program() -> None:
    shares = Shares(programs={Pid("tree"): 2.0 * LEAD_UNITS, Pid("lone"): 0.0})
    crowd = [candidate(f"child{n}", program=Pid("tree")) for n in range(10)]
    lone = candidate("lone", units_left=10**9)
    assert pick([*crowd, lone], NOW, shares=shares) == lone


def test_several_places_at_once_are_shared_too() -> None:
    crowd = [candidate(f"h{n}", owner="hog", turn_units=100.0) for n in range(50)]
    crowd += [candidate(f"m{n}", owner="meek", turn_units=100.0) for n in range(50)]
    assert sum(c.owner == "hog" for c in rank(crowd, NOW, "default", 20)) == 10


# Waiting -------------------------------------------------------------------------------------------------------------


@given(
    priority=st.integers(0, 100),
    rivals=st.integers(0, 12),
    early=st.integers(0, 40),
    chance=st.randoms(use_true_random=False),
)
def test_nobody_waits_longer_than_the_bound_whatever_comes_in(
    priority: int, rivals: int, early: int, chance: random.Random
) -> None:
    """Shorter, better, less served newcomers come at every pick, and whoever was served comes back at once."""
    shares = Shares(programs={Pid("victim"): 10.0**9})
    victim = candidate("victim", priority=priority, units_left=1e9)
    ready = [victim, *(candidate(f"before{n}", priority=0, waited_s=1.0) for n in range(rivals))]
    bound = early + OVERDUE_SHARE * (rivals + 1)
    for number in range(bound + 1):
        now = NOW + 0.001 * (number + 1) + (OVERDUE_S[victim.sched_class] if number >= early else 0.0)
        for n in range(chance.randrange(3)):
            newcomer = candidate(f"new{number}.{n}", priority=chance.randrange(101), program=Pid(f"p{n}"))
            ready.append(replace(newcomer, ready_at=now, created_at=now))
        chosen = pick(ready, now, shares=shares, picks=number)
        assert chosen is not None
        if chosen == victim:
            return
        ready[ready.index(chosen)] = replace(chosen, ready_at=now)
    raise AssertionError(f"it was not among the first {bound}")


def test_an_overload_does_not_turn_the_default_into_first_come_first_served() -> None:
    old = [candidate(f"old{n:02}", priority=100, waited_s=5_000.0) for n in range(40)]
    new = [candidate(f"new{n:02}", priority=0) for n in range(40)]
    chosen = rank([*old, *new], NOW, "default", 40, picks=1)
    assert sum(c.priority == 0 for c in chosen) == 40 - 40 // OVERDUE_SHARE


# Lending -------------------------------------------------------------------------------------------------------------

FAMILY = {"b": "a", "c": "b", "d": "c", "x": None, "y": "x", "a": None}


def lineage(pid: Pid) -> list[Pid]:
    line: list[Pid] = []
    link: str | None = pid
    while link is not None:
        line.append(Pid(link))
        link = FAMILY[link]
    return line


def test_a_waiting_parent_lends_its_class_to_its_child_and_below() -> None:
    lent = lend({Pid("a"): Wait(SchedClass.INTERACTIVE, (Pid("b"),))}, lineage)
    for name in ("b", "c", "d"):
        assert inherited(candidate(name, priority=90), lent, lineage(Pid(name))).sched_class is SchedClass.INTERACTIVE
    assert inherited(candidate("y", priority=90), lent, lineage(Pid("y"))).sched_class is SchedClass.BATCH


def test_what_was_lent_is_lent_on() -> None:
    waits = {
        Pid("a"): Wait(SchedClass.INTERACTIVE, (Pid("b"),)),
        Pid("c"): Wait(SchedClass.BATCH, (Pid("y"),)),
    }
    assert lend(waits, lineage)[Pid("y")] is SchedClass.INTERACTIVE


def test_a_class_is_lent_upwards_only_and_ends_with_the_wait() -> None:
    batch = {Pid("a"): Wait(SchedClass.BATCH, (Pid("b"),))}
    own = candidate("b", priority=10)
    assert inherited(own, lend(batch, lineage), lineage(Pid("b"))) == own
    lifted = replace(own, priority=90, lent=SchedClass.NORMAL)
    assert inherited(lifted, lend({}, lineage), lineage(Pid("b"))).sched_class is SchedClass.BATCH


pids = st.sampled_from([Pid(name) for name in FAMILY])


@given(waits=st.dictionaries(pids, st.builds(Wait, st.sampled_from(SchedClass), st.lists(pids, max_size=3).map(tuple))))
def test_lending_settles_even_in_circles(waits: dict[Pid, Wait]) -> None:
    """At rest: everybody that is waited for has at least the class of each that waits, lent classes included."""
    lent = lend(waits, lineage)
    best = {pid: min([wait.sched_class, *(lent[a] for a in lineage(pid) if a in lent)]) for pid, wait in waits.items()}
    for pid, wait in waits.items():
        assert all(lent[target] <= best[pid] for target in wait.targets)
    assert all(level in {wait.sched_class for wait in waits.values()} for level in lent.values())


# The other policies --------------------------------------------------------------------------------------------------


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
