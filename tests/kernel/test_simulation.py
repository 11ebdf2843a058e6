"""Whole runs of simulated agents on the kernel's scheduler, lanes and retries: what must hold whatever comes in."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aos_mcp.abi.handle import Pid
from aos_mcp.bench.workloads import crowd
from aos_mcp.kernel.lane import LaneLimits
from aos_mcp.kernel.scheduler import OUTPUT_WEIGHT, OVERDUE_S, OVERDUE_SHARE, POLICIES
from aos_mcp.testing.simulation import CLAIRVOYANT, Act, Hints, Job, Provider, Simulation, jain

acts = st.lists(
    st.builds(
        Act,
        output_tokens=st.integers(1, 2_000),
        result_tokens=st.integers(0, 2_000),
        tool_s=st.floats(0, 30, allow_nan=False),
    ),
    min_size=1,
    max_size=6,
)


@st.composite
def workloads(draw: st.DrawFn) -> list[Job]:
    number = draw(st.integers(1, 25))
    return [
        Job(
            pid=Pid(f"p_{index:02}"),
            kind="any",
            owner=draw(st.sampled_from(["ann", "bob", "eve"])),
            priority=draw(st.sampled_from([0, 10, 50, 90])),
            created_at=draw(st.floats(0, 100, allow_nan=False)),
            context_tokens=draw(st.integers(1, 20_000)),
            acts=tuple(draw(acts)),
        )
        for index in range(number)
    ]


providers = st.builds(
    Provider,
    slots=st.integers(1, 6),
    overload_share=st.sampled_from([0.0, 0.1]),
    cut_share=st.sampled_from([0.0, 0.1]),
    requests_per_min=st.sampled_from([None, 30]),
    tells=st.booleans(),
)
sound = st.builds(Provider, slots=st.integers(1, 6))
policies = st.sampled_from(sorted([*POLICIES, CLAIRVOYANT]))
seeds = st.integers(0, 99)


@given(workloads(), providers, policies, seeds)
@settings(deadline=None, max_examples=60)
def test_each_call_is_answered_once_whatever_the_provider_does(
    jobs: list[Job], provider: Provider, policy: str, seed: int
) -> None:
    run = Simulation(jobs, provider, policy, seed=seed, known=LaneLimits()).run()
    given_up = [agent for agent in run.agents if agent.gave_up]
    assert all(agent.done == len(agent.job.acts) for agent in run.agents if not agent.gave_up)
    assert run.calls == sum(agent.done for agent in run.agents)
    assert run.sent == run.calls + run.wasted
    assert all(agent.faults > 0 and agent.finished_at is None for agent in given_up)


@given(workloads(), providers, policies, seeds)
@settings(deadline=None, max_examples=40)
def test_a_provider_that_only_says_wait_loses_no_agent(
    jobs: list[Job], provider: Provider, policy: str, seed: int
) -> None:
    run = Simulation(jobs, replace(provider, cut_share=0.0), policy, seed=seed, known=LaneLimits()).run()
    assert all(agent.finished_at is not None for agent in run.agents)


@given(workloads(), sound, st.booleans(), st.integers(1, 300), seeds)
@settings(deadline=None, max_examples=60)
def test_a_call_that_gives_its_place_away_is_still_answered_once_and_whole(
    jobs: list[Job], provider: Provider, continues: bool, slice_tokens: int, seed: int
) -> None:
    provider = replace(provider, continues=continues)
    run = Simulation(jobs, provider, "default", seed=seed, guess=Hints(0.5, seed), slice_tokens=slice_tokens).run()
    assert all(agent.finished_at is not None for agent in run.agents)
    assert run.calls == sum(len(job.acts) for job in jobs)
    assert run.sent == run.calls + run.preempted
    assert run.idle_s == pytest.approx(0.0, abs=1e-6)
    assert run.in_flight_max <= provider.slots


def test_preemption_pays_for_those_who_wait_behind_long_generations() -> None:
    def job(name: str, priority: int, outputs: int, at: float) -> Job:
        act = Act(outputs, 0, 0.0)
        return Job(pid=Pid(name), kind=name, priority=priority, created_at=at, context_tokens=10, acts=(act,))

    jobs = [job("p_long", 90, 6_000, 0.0), job("p_short", 10, 60, 20.0)]
    ends = {}
    for slice_tokens in (None, 64):
        run = Simulation(jobs, Provider(slots=1), "default", slice_tokens=slice_tokens).run()
        ends[slice_tokens] = {agent.job.pid: agent.turnaround_s for agent in run.agents}
        assert run.preempted == (slice_tokens is not None)
    assert ends[64][Pid("p_short")] < 0.1 * ends[None][Pid("p_short")]
    assert ends[64][Pid("p_long")] < 1.1 * ends[None][Pid("p_long")], "what it had written was kept"


@given(workloads(), sound, policies, seeds)
@settings(deadline=None, max_examples=60)
def test_no_place_is_free_while_somebody_waits(jobs: list[Job], provider: Provider, policy: str, seed: int) -> None:
    run = Simulation(jobs, provider, policy, seed=seed).run()
    assert run.idle_s == pytest.approx(0.0, abs=1e-6)
    assert run.in_flight_max <= provider.slots
    assert run.wasted == 0


@given(workloads(), sound, seeds)
@settings(deadline=None, max_examples=40)
def test_what_is_charged_is_what_was_used_under_every_policy(jobs: list[Job], provider: Provider, seed: int) -> None:
    written = sum(OUTPUT_WEIGHT * act.output_tokens for job in jobs for act in job.acts)
    totals = {
        policy: sum(Simulation(jobs, provider, policy, seed=seed).run().served().values())
        for policy in [*POLICIES, CLAIRVOYANT]
    }
    assert all(total >= written + sum(job.context_tokens for job in jobs) for total in totals.values())
    assert len(set(totals.values())) == 1, "an order changes who pays first, not what"


@given(workloads(), sound, st.floats(0.1, 2.0), seeds)
@settings(deadline=None, max_examples=40)
def test_nobody_waits_beyond_the_stated_bound(jobs: list[Job], provider: Provider, spread: float, seed: int) -> None:
    provider = replace(provider, output_per_s=2.0)  # calls of minutes: the queue is long enough to be overdue in
    run = Simulation(jobs, provider, "default", seed=seed, guess=Hints(spread, seed)).run()
    context = max(job.context_tokens + sum(act.output_tokens + act.result_tokens for act in job.acts) for job in jobs)
    longest_s = provider.call_s(context, 0.0, max(act.output_tokens for job in jobs for act in job.acts))
    bound_s = max(OVERDUE_S.values()) + OVERDUE_SHARE * (len(jobs) + 1) * longest_s
    assert max(wait for agent in run.agents for wait in agent.waits) <= bound_s


@given(workloads(), providers, policies, seeds)
@settings(deadline=None, max_examples=20)
def test_the_same_seed_gives_the_same_run(jobs: list[Job], provider: Provider, policy: str, seed: int) -> None:
    first = Simulation(jobs, provider, policy, seed=seed).run()
    again = Simulation(list(reversed(jobs)), provider, policy, seed=seed).run()
    assert first.calls + first.wasted == first.sent
    if not provider.overload_share and not provider.cut_share and len({job.created_at for job in jobs}) == len(jobs):
        ends = {agent.job.pid: agent.finished_at for agent in again.agents}
        assert {agent.job.pid: agent.finished_at for agent in first.agents} == ends, "the order of a list says nothing"


def test_equal_shares_have_index_one_and_a_monopoly_one_part_of_it() -> None:
    assert jain([5.0, 5.0, 5.0, 5.0]) == 1.0
    assert jain([8.0, 0.0, 0.0, 0.0]) == 0.25


def test_owners_beside_a_hog_are_served_alike() -> None:
    act = Act(output_tokens=300, result_tokens=100, tool_s=0.5)
    jobs = [
        Job(
            pid=Pid(f"p_{owner}_{number:02}"),
            kind="any",
            owner=owner,
            priority=50,
            created_at=0.0,
            context_tokens=1_000,
            acts=(act,) * 200,
        )
        for owner, agents in (("hog", 40), ("ann", 3), ("bob", 3), ("eve", 3))
        for number in range(agents)
    ]
    served = Simulation(jobs, Provider(slots=4), "default").run(until=600.0).served()
    assert jain(list(served.values())) > 0.99


def test_whoever_is_known_to_be_short_goes_before_whoever_is_long() -> None:
    def job(name: str, outputs: int, at: float) -> Job:
        return Job(
            pid=Pid(name), kind=name, priority=50, created_at=at, context_tokens=10, acts=(Act(outputs, 0, 0.0),)
        )

    jobs = [job("p_first", 1_000, 0.0), job("p_long", 5_000, 0.1), job("p_short", 50, 0.2)]
    ends = {
        agent.job.pid: agent.turnaround_s
        for agent in Simulation(jobs, Provider(slots=1), "default", guess=Hints(0.0)).run().agents
    }
    assert ends[Pid("p_short")] < ends[Pid("p_long")]


@pytest.mark.parametrize("told", [True, False])
def test_tokens_a_minute_are_used_up_whether_they_are_told_or_found(told: bool) -> None:
    per_min, jobs = 200_000, crowd(0, agents=16)
    known = LaneLimits(tokens_per_min=per_min if told else None)
    run = Simulation(jobs, Provider(slots=64, tokens_per_min=per_min), "default", known=known).run()
    assert len(run.of_kind()) == len(jobs)
    asked = 0
    for job in jobs:
        context = job.context_tokens
        for act in job.acts:
            asked += context + act.output_tokens
            context += act.output_tokens + act.result_tokens
    assert run.ends_at <= 1.05 * 60 * (asked - per_min) / per_min, "a minute's worth goes at once"
    assert run.wasted <= 0.1 * run.sent
