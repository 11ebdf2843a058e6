"""The queue in a running kernel: dependents, lent classes, accounting, shares across restarts, and policies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from aos_mcp.abi.capability import Caller, CallerKind
from aos_mcp.abi.errors import Invalid, ModelError, ModelFault, NotFound
from aos_mcp.abi.handle import Pid
from aos_mcp.abi.process import ProcessState
from aos_mcp.abi.scheduling import ALL_OWNERS, OWNER_PREFIX
from aos_mcp.abi.settings import Settings
from aos_mcp.testing.clock import FakeClock
from aos_mcp.testing.kernels import OWNER, TestKernel, kernel_on
from aos_mcp.testing.model import ScriptedModel, ScriptedModels, calls, says
from tests.kernel.stage import CHILD, DEADLINE_S, NAME, ended, handle_in, models, results_of, until

pytestmark = pytest.mark.anyio
OPERATOR = Caller(kind=CallerKind.OPERATOR, principal=OWNER, host="cli")


# Dependents ----------------------------------------------------------------------------------------------------------


async def test_a_dependent_starts_when_all_have_ended_and_reads_their_results(tmp_path: Path) -> None:
    last = ScriptedModel("scripted/last", (says("joined"),))
    gate = anyio.Event()
    slow = ScriptedModel(CHILD, (says("slow result"),), gate=gate)
    catalogue = ScriptedModels(ScriptedModel(NAME, (says("quick result"),)), slow, last)
    async with kernel_on(tmp_path, catalogue) as k:
        with anyio.fail_after(DEADLINE_S):
            one = (await k.call("spawn_agent", task="quick", name="quick")).pid
            two = (await k.call("spawn_agent", task="slow", name="slow", model=CHILD)).pid
            three = await k.call("spawn_agent", task="join", model=last.name, after=[one, two])
            assert three.state is ProcessState.BLOCKED
            await ended(k, one)
            row = await k.call("read_process", pid=three.pid)
            assert row.state is ProcessState.BLOCKED
            assert row.waiting_for == f"to start after {one}, {two}"
            gate.set()
            assert (await ended(k, three.pid)).result == "joined"
            pages = await k.machine.store.read(lambda tx: tx.page_table(Pid(three.pid)))
            result = await k.machine.store.read(lambda tx: tx.process_get(Pid(two)))
    seen = "\n".join(turn.text for turn in last.prompts[0].turns)
    assert "quick result" in seen
    assert "slow result" in seen
    assert f"[slow ({two}), which you start after, has ended: done] Its result:\n\nslow result" in seen
    assert result is not None
    assert result.result in {page.digest for page in pages}, "a result is stored once, whoever reads it"


async def test_an_agent_that_is_named_twice_is_started_after_once(tmp_path: Path) -> None:
    gate = anyio.Event()
    async with kernel_on(tmp_path, ScriptedModels(ScriptedModel(NAME, (says("x"),), gate=gate))) as k:
        with anyio.fail_after(DEADLINE_S):
            first = (await k.call("spawn_agent", task="x")).pid
            second = (await k.call("spawn_agent", task="y", after=[first, first[:12], first])).pid
            assert (await k.call("read_process", pid=second)).waiting_for == f"to start after {first}"
            gate.set()
            assert (await ended(k, second)).exit_code == "done"


async def test_a_ready_set_runs_side_by_side(tmp_path: Path) -> None:
    gate = anyio.Event()
    wide = ScriptedModel(CHILD, (says("part"),), gate=gate)
    async with kernel_on(tmp_path, ScriptedModels(ScriptedModel(NAME, (says("root"),)), wide)) as k:
        with anyio.fail_after(DEADLINE_S):
            root = (await k.call("spawn_agent", task="root")).pid
            parts = [(await k.call("spawn_agent", task="x", model=CHILD, after=[root])).pid for _ in range(5)]
            await until(lambda: len(wide.prompts) == len(parts))
            gate.set()
            for pid in parts:
                assert (await ended(k, pid)).result == "part"


async def test_a_failure_is_a_result_and_the_dependent_is_told(tmp_path: Path) -> None:
    broken = ScriptedModel(CHILD, (ModelError(ModelFault.AUTH, "The key is wrong.", "Set another."),))
    last = ScriptedModel(NAME, (says("noted"),))
    async with kernel_on(tmp_path, ScriptedModels(last, broken)) as k:
        with anyio.fail_after(DEADLINE_S):
            first = (await k.call("spawn_agent", task="x", model=CHILD)).pid
            second = (await k.call("spawn_agent", task="y", after=[first])).pid
            assert (await ended(k, second)).result == "noted"
    seen = "\n".join(turn.text for turn in last.prompts[0].turns)
    assert "The key is wrong." in seen
    assert "It left no result." in seen


async def test_the_time_of_a_dependent_begins_when_what_it_waited_for_has_ended(tmp_path: Path) -> None:
    clock, gate = FakeClock(), anyio.Event()
    slow = ScriptedModel(CHILD, (says("at last"),), gate=gate)
    last = ScriptedModel(NAME, (says("noted"),))
    async with kernel_on(tmp_path, ScriptedModels(last, slow), clock=clock) as k:
        with anyio.fail_after(DEADLINE_S):
            first = (await k.call("spawn_agent", task="x", model=CHILD)).pid
            second = (await k.call("spawn_agent", task="y", after=[first], budget={"wall_s": 60})).pid
            await until(lambda: bool(slow.prompts))
            clock.advance(90)
            gate.set()
            assert (await ended(k, second)).result == "noted"


async def test_a_dependent_survives_a_restart_and_a_kill_of_what_it_waits_for(tmp_path: Path) -> None:
    gate = anyio.Event()
    slow = ScriptedModel(CHILD, (says("never"),), gate=gate)
    last = ScriptedModel(NAME, (says("on my own"),))
    async with kernel_on(tmp_path, ScriptedModels(last, slow)) as k:
        with anyio.fail_after(DEADLINE_S):
            first = (await k.call("spawn_agent", task="x", model=CHILD)).pid
            second = (await k.call("spawn_agent", task="y", after=[first])).pid
            await until(lambda: bool(slow.prompts))
    async with kernel_on(tmp_path, ScriptedModels(last, slow)) as k:
        with anyio.fail_after(DEADLINE_S):
            assert (await k.call("read_process", pid=second)).state is ProcessState.BLOCKED
            await k.call("signal_agent", pid=first, signal="kill")
            assert (await ended(k, second)).result == "on my own"
    assert "killed" in "\n".join(turn.text for turn in last.prompts[0].turns)


async def test_a_fork_of_a_dependent_waits_for_the_same(tmp_path: Path) -> None:
    gate = anyio.Event()
    slow = ScriptedModel(CHILD, (says("the result"),), gate=gate)
    last = ScriptedModel(NAME, (says("read it"),))
    async with kernel_on(tmp_path, ScriptedModels(last, slow)) as k:
        with anyio.fail_after(DEADLINE_S):
            first = (await k.call("spawn_agent", task="x", model=CHILD)).pid
            second = (await k.call("spawn_agent", task="y", after=[first])).pid
            saved = await k.call("checkpoint", pid=second)
            fork = await k.call("restore", checkpoint_id=saved.checkpoint_id)
            assert fork.state is ProcessState.BLOCKED
            gate.set()
            assert (await ended(k, second)).result == "read it"
            assert (await ended(k, fork.pid)).result == "read it"
    assert all("the result" in prompt.turns[1].text for prompt in last.prompts)
    assert len(last.prompts) == 2


async def test_a_dependent_that_is_asked_to_finish_ends_without_a_turn(tmp_path: Path) -> None:
    slow = ScriptedModel(CHILD, (says("x"),), gate=anyio.Event())
    async with kernel_on(tmp_path, ScriptedModels(ScriptedModel(NAME, ()), slow)) as k:
        with anyio.fail_after(DEADLINE_S):
            first = (await k.call("spawn_agent", task="x", model=CHILD)).pid
            second = (await k.call("spawn_agent", task="y", after=[first])).pid
            await k.call("signal_agent", pid=second, signal="term")
            assert (await ended(k, second)).exit_code == "terminated"
            await k.call("signal_agent", pid=first, signal="kill")


async def test_what_has_ended_already_is_not_waited_for(tmp_path: Path) -> None:
    last = ScriptedModel(CHILD, (says("two"),))
    async with kernel_on(tmp_path, ScriptedModels(ScriptedModel(NAME, (says("one"),)), last)) as k:
        with anyio.fail_after(DEADLINE_S):
            first = (await k.call("spawn_agent", task="x")).pid
            await ended(k, first)
            second = await k.call("spawn_agent", task="y", model=CHILD, after=[first])
            assert second.state is ProcessState.READY
            await ended(k, second.pid)
    assert last.prompts[0].turns[1].text.endswith("has ended: done] Its result:\n\none")


async def test_one_can_only_start_after_what_is_there_and_ones_own(tmp_path: Path) -> None:
    """So there are no circles: what a process waits for is older than it, and never above it."""
    script = (
        lambda p: calls(("spawn_agent", {"task": "z", "after": [handle_in(p.turns[0].text, "p_")]}), key="a"),
        lambda p: says(results_of(p)[-1]),
    )
    foreign = Caller(kind=CallerKind.HOST, principal="local:somebody else", host="test")
    gate = anyio.Event()
    slow = ScriptedModel(CHILD, (says("x"),), gate=gate)
    async with kernel_on(tmp_path, ScriptedModels(ScriptedModel(NAME, script), slow)) as k:
        with anyio.fail_after(DEADLINE_S):
            with pytest.raises(NotFound):
                await k.call("spawn_agent", task="x", after=["p_" + "a" * 26])
            mine = (await k.call("spawn_agent", task="x", model=CHILD)).pid
            with pytest.raises(NotFound):
                await k.call("spawn_agent", foreign, task="x", after=[mine])
            other = (await k.call("spawn_agent", task=f"wait for {mine}")).pid
            assert "not_found" in (await ended(k, other)).result
            gate.set()
            await ended(k, mine)


async def test_an_agents_child_does_not_start_after_the_agent(tmp_path: Path) -> None:
    script = (
        calls(("list_agents", {}), key="a"),
        lambda p: calls(("spawn_agent", {"task": "z", "after": [handle_in(results_of(p)[-1], "p_")]}), key="b"),
        lambda p: says(results_of(p)[-1]),
    )
    async with kernel_on(tmp_path, models(*script)) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="x")).pid
            assert "denied" in (await ended(k, pid)).result


# Lending -------------------------------------------------------------------------------------------------------------


async def test_a_batch_child_that_an_interactive_parent_waits_for_passes_a_normal_one(tmp_path: Path) -> None:
    gate = anyio.Event()
    parent = ScriptedModel(
        NAME,
        (
            calls(("spawn_agent", {"task": "c", "model": CHILD, "priority": 90, "name": "lent"}), key="a"),
            lambda p: calls(("wait_agent", {"pids": [handle_in(results_of(p)[-1], "p_")], "timeout_s": 60}), key="b"),
            says("done"),
        ),
    )
    child, other = ScriptedModel(CHILD, (says("x"),)), ScriptedModel("scripted/other", (says("y"),), gate=gate)
    settings = Settings(concurrency=1)
    async with kernel_on(tmp_path, ScriptedModels(parent, child, other), settings=settings) as k:
        with anyio.fail_after(DEADLINE_S):
            held = (await k.call("spawn_agent", task="h", model="scripted/other", priority=0)).pid
            await until(lambda: bool(other.prompts))
            root = (await k.call("spawn_agent", task="r", priority=0)).pid
            rivals = [(await k.call("spawn_agent", task="n", model="scripted/other")).pid for _ in range(3)]
            gate.set()
            for pid in (held, root, *rivals):
                await ended(k, pid)
            timeline = await k.call("read_timeline", OPERATOR)
    names = {agent.pid: agent.name for agent in timeline.agents}
    picks = [(names[pick.pid], pick.why) for pick in timeline.picks]
    lent = next(index for index, (name, _) in enumerate(picks) if name == "lent")
    assert picks[lent][1].startswith("interactive (lent)")
    assert lent < min(index for index, (name, _) in enumerate(picks) if name == "n")
    assert not k.machine.waits


# Accounting ----------------------------------------------------------------------------------------------------------


async def test_an_agents_time_is_accounted_for(tmp_path: Path) -> None:
    clock = FakeClock()
    gate = anyio.Event()
    model = ScriptedModel(NAME, (says("x"),), gate=gate)
    settings = Settings(concurrency=1)
    async with kernel_on(tmp_path, ScriptedModels(model), settings=settings, clock=clock) as k:
        with anyio.fail_after(DEADLINE_S):
            first = (await k.call("spawn_agent", task="x")).pid
            await until(lambda: bool(model.prompts))
            second = (await k.call("spawn_agent", task="y")).pid
            clock.advance(7.0)
            rows = {row.pid: row.times for row in (await k.call("list_agents")).agents}
            assert rows[first].running_s == 7.0
            assert rows[second].waiting_s == 7.0
            gate.set()
            await ended(k, first)
            await ended(k, second)
            times = (await k.call("read_process", pid=second)).times
    assert (times.waiting_s, times.blocked_s, times.attained) == (7.0, 0.0, 120)


async def test_tokens_of_a_call_that_came_to_nothing_are_counted_as_wasted(tmp_path: Path) -> None:
    fault = ModelError(ModelFault.AUTH, "The key is wrong.", "Set another.", output_tokens=9)
    async with kernel_on(tmp_path, models(fault)) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="x")).pid
            await ended(k, pid)
            row = await k.call("read_process", pid=pid)
    assert row.times.wasted_tokens == row.usage.input_tokens + row.usage.output_tokens > 9


# Shares --------------------------------------------------------------------------------------------------------------


async def test_what_was_served_outlives_the_kernel_and_newcomers_start_at_the_floor(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, models(says("x"))) as k:
        with anyio.fail_after(DEADLINE_S):
            pids = [(await k.call("spawn_agent", task="x")).pid for _ in range(3)]
            for pid in pids:
                await ended(k, pid)
    names = [ALL_OWNERS, OWNER_PREFIX + OWNER, *pids]
    async with kernel_on(tmp_path, models(says("x"))) as k:
        with anyio.fail_after(DEADLINE_S):
            before = await k.machine.store.read(lambda tx: tx.share_list(names))
            assert before[OWNER_PREFIX + OWNER].served == 3 * 120
            newcomer = (await k.call("spawn_agent", task="x")).pid
            await ended(k, newcomer)
            after = await k.machine.store.read(lambda tx: tx.share_list([*names, newcomer]))
    assert after[newcomer].served == before[OWNER_PREFIX + OWNER].floor + 120
    assert after[OWNER_PREFIX + OWNER].served == 4 * 120


async def test_owners_take_turns_beside_a_hog(tmp_path: Path) -> None:
    gate = anyio.Event()
    model = ScriptedModel(NAME, (says("x"),), gate=gate)
    meek = Caller(kind=CallerKind.HOST, principal="local:meek", host="test")
    async with kernel_on(tmp_path, ScriptedModels(model), settings=Settings(concurrency=1)) as k:
        with anyio.fail_after(DEADLINE_S):
            hogs = [(await k.call("spawn_agent", task="h")).pid for _ in range(12)]
            await until(lambda: bool(model.prompts))
            pids = [(await k.call("spawn_agent", meek, task="m")).pid for _ in range(4)]
            gate.set()
            for pid in hogs:
                await ended(k, pid)
            picks = await k.machine.store.read(lambda tx: tx.pick_list([], limit=99))
    order = ["meek" if pick.pid in pids else "hog" for pick in picks]
    assert order[1:9].count("meek") == 4, order


async def test_sizes_are_learned_from_those_that_ended_well(tmp_path: Path) -> None:
    script = (calls(("list_agents", {}), key="a"), says("x"))
    async with kernel_on(tmp_path, models(*script)) as k:
        with anyio.fail_after(DEADLINE_S):
            await ended(k, (await k.call("spawn_agent", task="x")).pid)
            hint = await k.machine.store.read(lambda tx: tx.hint_get("", NAME))
    assert hint is not None
    assert (hint.turns, hint.turn_units, hint.runs) == (2.0, 120.0, 1)


# Policies ------------------------------------------------------------------------------------------------------------


async def test_the_policy_is_switched_while_agents_run_and_stays_so(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, models(says("x")), settings=Settings(scheduler="rr")) as k:
        with anyio.fail_after(DEADLINE_S):
            assert (await k.call("kernel_status")).policy == "rr"
            answer = await k.call("set_policy", OPERATOR, policy="fifo")
            assert (answer.policy, answer.configured) == ("fifo", "rr")
            pid = (await k.call("spawn_agent", task="x")).pid
            await ended(k, pid)
            assert [pick.why for pick in (await k.call("read_timeline", OPERATOR)).picks] == ["oldest"]
    async with kernel_on(tmp_path, models(says("x")), settings=Settings(scheduler="rr")) as k:
        with anyio.fail_after(DEADLINE_S):
            assert k.machine.policy == "fifo"
            assert (await k.call("set_policy", OPERATOR)).policy == "rr"
            with pytest.raises(Invalid):
                await k.call("set_policy", OPERATOR, policy="lottery")


async def test_only_the_operator_switches_the_policy(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, models(says("x"))) as k:
        with anyio.fail_after(DEADLINE_S), pytest.raises(NotFound):
            await k.call("set_policy", policy="fifo")


async def test_the_timeline_tells_turns_and_steps_of_ones_own(tmp_path: Path) -> None:
    foreign = replace(OPERATOR, principal="local:somebody else")
    async with kernel_on(tmp_path, models(calls(("list_agents", {}), key="a"), says("x"))) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="x", name="one")).pid
            await ended(k, pid)
            line = await k.call("read_timeline", OPERATOR, pids=[pid])
            assert (await k.call("read_timeline", foreign)).picks == []
    assert [pick.pid for pick in line.picks] == [pid, pid]
    assert all(pick.why.startswith("normal, alone") for pick in line.picks)
    assert [step.call for step in line.agents[0].steps] == ["model", "list_agents", "model"]
    assert all(pick.since <= pick.at for pick in line.picks)


async def test_the_queue_is_right_even_where_nothing_was_heard(tmp_path: Path) -> None:
    """What a lost hint made ready is found by the look that comes anyway."""
    async with kernel_on(tmp_path, models(says("x"))) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = await silently(k)
            assert (await ended(k, pid)).result == "x"


async def silently(k: TestKernel) -> str:
    """Make a process ready without a word to the loop."""
    pid = (await k.call("spawn_agent", task="x")).pid
    await k.call("signal_agent", pid=pid, signal="stop")
    await until(lambda: not k.machine.running)
    row = await k.machine.store.read(lambda tx: tx.process_get(Pid(pid)))
    if row is not None and row.state is ProcessState.STOPPED:
        await k.machine.store.write(lambda tx: tx.process_put(replace(row, state=ProcessState.READY)))
    return str(pid)
