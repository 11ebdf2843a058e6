"""Bounds and budgets: what is refused, before it happens, and in which words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from aos_mcp.abi.completion import Prompt, Reply
from aos_mcp.abi.errors import BudgetExhausted, LimitExceeded, NotFound
from aos_mcp.abi.handle import Pid
from aos_mcp.abi.limits import HANG_S, PROCESS_CHILDREN_MAX, PROCESS_DEPTH_MAX, PROCESS_LIVE_MAX
from aos_mcp.abi.settings import Settings
from aos_mcp.ports import Transaction
from aos_mcp.testing.clock import FakeClock
from aos_mcp.testing.devices import RecordingSandbox
from aos_mcp.testing.kernels import kernel_on
from aos_mcp.testing.model import ScriptedModel, ScriptedModels, calls, says
from tests.kernel.stage import CHILD, DEADLINE_S, NAME, ended, family, handle_in, models, results_of, until

LOOSE = Settings.model_validate({"budget": {"turns": 1_000, "tool_calls": 10_000}})


async def test_agents_nest_only_so_deep(tmp_path: Path) -> None:
    def delegate(prompt: Prompt) -> Reply:
        return calls(("spawn_agent", {"task": "deeper"}), key="a")

    def wait_or_tell(prompt: Prompt) -> Reply:
        answer = results_of(prompt)[-1]
        if answer.startswith("limit_exceeded"):
            return says(answer)
        return calls(("wait_agent", {"pids": [handle_in(answer, "p_")], "timeout_s": 60}), key="b")

    script = (delegate, wait_or_tell, lambda prompt: says(results_of(prompt)[-1]))
    async with kernel_on(tmp_path, models(*script), settings=LOOSE) as k:
        with anyio.fail_after(DEADLINE_S):
            await ended(k, (await k.call("spawn_agent", task="top")).pid)
            agents = (await k.call("list_agents", limit=200)).agents
            depths = [(await k.call("read_process", pid=agent.pid)).depth for agent in agents]
            deepest = await k.call("wait_agent", pids=[agents[0].pid])
    assert sorted(depths) == list(range(PROCESS_DEPTH_MAX + 1))
    assert deepest.agents[0].result.startswith(f"limit_exceeded: Agents nest at most {PROCESS_DEPTH_MAX} deep.")


def add_copies(tx: Transaction, pid: str, count: int, *, parent: str | None) -> None:
    row = tx.process_get(Pid(pid))
    assert row is not None
    for number in range(count):
        above = Pid(parent) if parent is not None else None
        tx.process_insert(replace(row, pid=Pid(f"p_copy{number}"), parent=above, version=0, wake_at=4e9))


async def test_a_parent_has_only_so_many_children_at_once(tmp_path: Path) -> None:
    busy = anyio.Event()
    script = (calls(("spawn_agent", {"task": "one too many"})), lambda prompt: says(results_of(prompt)[-1]))
    model = ScriptedModel(NAME, script, gate=busy)
    async with kernel_on(tmp_path, ScriptedModels(model), settings=LOOSE) as k:
        with anyio.fail_after(DEADLINE_S):
            k.machine.stopping = True
            other = (await k.call("spawn_agent", task="a row to copy")).pid
            await k.call("signal_agent", pid=other, signal="stop")
            k.machine.stopping = False
            pid = (await k.call("spawn_agent", task="x")).pid
            await until(lambda: bool(model.prompts))
            await k.machine.store.write(lambda tx: add_copies(tx, other, PROCESS_CHILDREN_MAX, parent=pid))
            busy.set()
            done = await ended(k, pid)
    assert done.result.startswith(f"limit_exceeded: {PROCESS_CHILDREN_MAX} children are alive.")


async def test_only_so_many_agents_are_alive(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, models(says("x"))) as k:
        with anyio.fail_after(DEADLINE_S):
            k.machine.stopping = True
            pid = (await k.call("spawn_agent", task="x")).pid
            await k.call("signal_agent", pid=pid, signal="stop")
            await k.machine.store.write(lambda tx: add_copies(tx, pid, PROCESS_LIVE_MAX - 1, parent=None))
            with pytest.raises(LimitExceeded, match="agents are alive"):
                await k.call("spawn_agent", task="one too many")


async def test_a_spawn_with_a_known_key_gives_the_same_agent(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, models(says("x"))) as k:
        with anyio.fail_after(DEADLINE_S):
            pids: set[str] = set()

            async def spawn() -> None:
                pids.add((await k.call("spawn_agent", task="once", idempotency_key="order-7")).pid)

            async with anyio.create_task_group() as crowd:
                for _ in range(8):
                    crowd.start_soon(spawn)
            other = (await k.call("spawn_agent", task="once", idempotency_key="order-8")).pid
    assert len(pids) == 1
    assert other not in pids


async def test_a_spawn_that_is_sent_again_is_told_how_its_agent_ended_though_its_model_is_gone(tmp_path: Path) -> None:
    spawn = {"task": "once", "model": NAME, "idempotency_key": "order-7"}
    async with kernel_on(tmp_path, models(says("42"))) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", **spawn)).pid
            await ended(k, pid)
    async with kernel_on(tmp_path, ScriptedModels(ScriptedModel("scripted/other", (says("x"),)))) as k:
        with anyio.fail_after(DEADLINE_S):
            again = await k.call("spawn_agent", **spawn)
            with pytest.raises(NotFound):
                await k.call("spawn_agent", **{**spawn, "idempotency_key": "order-8"})
            with pytest.raises(NotFound):
                await k.call("spawn_agent", task="x", agent="nobody", idempotency_key="order-9")
            named = await k.call("spawn_agent", task="once", agent="nobody", idempotency_key="order-7")
    assert (again.pid, again.state, again.exit_code, again.result) == (pid, "exited", "done", "42")
    assert named == again


async def test_several_states_are_listed_at_once_and_page_by_page(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, models(says("x"))) as k:
        with anyio.fail_after(DEADLINE_S):
            over = await ended(k, (await k.call("spawn_agent", task="over")).pid)
            k.machine.stopping = True
            ready, stopped = [(await k.call("spawn_agent", task=task)).pid for task in ("ready", "stopped")]
            await k.call("signal_agent", pid=stopped, signal="stop")
            live = await k.call("list_agents", state=["ready", "stopped"], limit=1)
            rest = await k.call("list_agents", state=["ready", "stopped"], limit=1, cursor=live.next_cursor)
            assert [row.pid for row in (*live.agents, *rest.agents)] == [stopped, ready]
            assert [row.pid for row in (await k.call("list_agents", state="exited")).agents] == [over.pid]


async def test_a_key_of_one_agent_is_not_the_key_of_another(tmp_path: Path) -> None:
    spawn = calls(("spawn_agent", {"task": "c", "model": CHILD, "idempotency_key": "the-key"}), key="a")
    again = calls(("spawn_agent", {"task": "c", "model": CHILD, "idempotency_key": "the-key"}), key="b")
    parent = ScriptedModel(NAME, (spawn, again, lambda prompt: says("\n".join(results_of(prompt)))))
    async with kernel_on(tmp_path, ScriptedModels(parent, ScriptedModel(CHILD, (says("x"),)))) as k:
        with anyio.fail_after(DEADLINE_S):
            of_host = (await k.call("spawn_agent", task="c", model=CHILD, idempotency_key="the-key")).pid
            one, other = [await ended(k, (await k.call("spawn_agent", task="p")).pid) for _ in range(2)]
    first, again_first = (handle_in(line, "p_") for line in one.result.splitlines())
    assert first == again_first
    assert len({of_host, first, handle_in(other.result, "p_")}) == 3


async def test_the_turns_of_a_budget_are_counted_and_the_next_is_refused(tmp_path: Path) -> None:
    script = [calls(("page_out", {"content": "x"}), key=f"t{n}") for n in range(9)]
    model = ScriptedModel(NAME, script)
    async with kernel_on(tmp_path, ScriptedModels(model)) as k:
        with anyio.fail_after(DEADLINE_S):
            agent = await ended(k, (await k.call("spawn_agent", task="x", budget={"turns": 3})).pid)
    assert (agent.exit_code, len(model.prompts), agent.usage.turns) == ("budget_exhausted", 3, 3)
    assert "turns budget" in agent.reason


async def test_calls_side_by_side_do_not_share_the_last_turn(tmp_path: Path) -> None:
    one = ScriptedModel(CHILD, (says("an answer"),))
    asks = [("complete", {"prompt": f"question {n}", "model": CHILD}) for n in range(6)]
    parent = ScriptedModel(NAME, (calls(*asks), says("never")))
    async with kernel_on(tmp_path, ScriptedModels(parent, one)) as k:
        with anyio.fail_after(DEADLINE_S):
            agent = await ended(k, (await k.call("spawn_agent", task="x", budget={"turns": 3})).pid)
            refused = [s.state for s in (await k.call("read_journal", pid=agent.pid)).steps if s.call == "complete"]
    assert agent.exit_code == "budget_exhausted"
    assert agent.usage.turns == 3
    assert len(one.prompts) == 2
    assert sorted(refused) == ["done"] * 2 + ["failed"] * 4


async def test_the_tool_calls_of_a_budget_are_counted_and_the_next_is_refused(tmp_path: Path) -> None:
    sandbox = RecordingSandbox()
    script = (calls(*[("sandbox_exec", {"command": f"step {n}"}) for n in range(5)]), says("never"))
    async with kernel_on(tmp_path, models(*script), sandbox=sandbox) as k:
        with anyio.fail_after(DEADLINE_S):
            agent = await ended(k, (await k.call("spawn_agent", task="x", budget={"tool_calls": 3})).pid)
    assert (agent.exit_code, len(sandbox.commands), agent.usage.tool_calls) == ("budget_exhausted", 3, 3)
    assert "tool_calls budget" in agent.reason


async def test_an_exit_is_possible_when_no_tool_call_is_left(tmp_path: Path) -> None:
    script = (calls(("page_out", {"content": "x"}), key="a"), calls(("exit", {"result": "in time"}), key="b"))
    async with kernel_on(tmp_path, models(*script)) as k:
        with anyio.fail_after(DEADLINE_S):
            agent = await ended(k, (await k.call("spawn_agent", task="x", budget={"tool_calls": 1})).pid)
    assert (agent.exit_code, agent.result) == ("done", "in time")


async def test_the_tokens_of_a_budget_bound_what_the_next_turn_may_write(tmp_path: Path) -> None:
    model = ScriptedModel(NAME, (says("x"),))
    async with kernel_on(tmp_path, ScriptedModels(model)) as k:
        with anyio.fail_after(DEADLINE_S):
            agent = await ended(k, (await k.call("spawn_agent", task="x", budget={"tokens": 9_000})).pid)
            refused = await ended(k, (await k.call("spawn_agent", task="x", budget={"tokens": 500})).pid)
    assert agent.exit_code == "done"
    assert model.prompts[0].max_output_tokens <= 4_096
    assert (refused.exit_code, len(model.prompts)) == ("budget_exhausted", 1)
    assert "500 left" in refused.reason


async def test_a_child_spends_its_parents_budget_too(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, family(says("child done"))) as k:
        with anyio.fail_after(DEADLINE_S):
            agent = await ended(k, (await k.call("spawn_agent", task="p", budget={"usd": 0.5})).pid)
            child = next(a for a in (await k.call("list_agents")).agents if a.parent == agent.pid)
            status = await k.call("kernel_status")
    assert child.usage.turns == 1
    assert agent.usage.turns == 4
    assert agent.usage.usd == pytest.approx(4 * 0.0002)
    assert status.budget.usd == pytest.approx(agent.usage.usd)


async def test_a_spawn_asks_for_no_more_than_the_workspace_has(tmp_path: Path) -> None:
    settings = Settings.model_validate({"workspace_budget": {"usd": 0.5}})
    async with kernel_on(tmp_path, models(says("x")), settings=settings) as k:
        with anyio.fail_after(DEADLINE_S):
            with pytest.raises(BudgetExhausted, match=r"2 usd were asked for; 0\.5 are left"):
                await k.call("spawn_agent", task="x", budget={"usd": 2})
            assert (await k.call("list_agents")).agents == [], "nothing half-done remains"


async def test_wall_time_runs_from_the_spawn_and_refuses_the_next_turn(tmp_path: Path) -> None:
    clock, busy = FakeClock(), anyio.Event()
    model = ScriptedModel(NAME, (calls(("page_out", {"content": "x"})), says("never")), gate=busy)
    async with kernel_on(tmp_path, ScriptedModels(model), clock=clock) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="x", budget={"wall_s": 60})).pid
            await until(lambda: bool(model.prompts))
            clock.advance(61)
            busy.set()
            agent = await ended(k, pid)
    assert (agent.exit_code, len(model.prompts)) == ("budget_exhausted", 1)
    assert "wall_s budget" in agent.reason


async def test_a_child_gets_no_more_wall_time_than_its_parent_has(tmp_path: Path) -> None:
    clock, busy = FakeClock(), anyio.Event()
    child_script = (calls(("page_out", {"content": "x"})), says("never"))
    catalogue = family(*child_script, budget={"wall_s": 5_000}, gate=busy)
    child = catalogue.resolve(CHILD)
    assert isinstance(child, ScriptedModel)
    async with kernel_on(tmp_path, catalogue, clock=clock) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="p", budget={"wall_s": 60})).pid
            await until(lambda: bool(child.prompts))
            clock.advance(61)
            busy.set()
            await ended(k, pid)
            rows = [await ended(k, row.pid) for row in (await k.call("list_agents")).agents]
    assert [row.exit_code for row in rows] == ["budget_exhausted"] * 2
    assert len(child.prompts) == 1


async def test_a_turn_that_shows_no_sign_of_life_is_ended_and_named(tmp_path: Path) -> None:
    clock = FakeClock()
    silent = ScriptedModel(NAME, (says("never"),), gate=anyio.Event())
    async with kernel_on(tmp_path, ScriptedModels(silent), clock=clock) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="x", budget={"wall_s": 10 * HANG_S})).pid
            await until(lambda: bool(silent.prompts))
            clock.advance(HANG_S - 1)
            await anyio.wait_all_tasks_blocked()
            assert (await k.call("list_agents")).agents[0].state == "running"
            clock.advance(10)
            agent = await ended(k, pid)
    assert (agent.exit_code, agent.reason) == ("hung", f"No sign of life for {HANG_S:g} s.")


async def test_an_agent_that_waits_for_a_person_is_not_taken_for_hung(tmp_path: Path) -> None:
    clock = FakeClock()
    script = (calls(("wait_agent", {"pids": [], "timeout_s": 3_600})), lambda prompt: says("patient"))
    async with kernel_on(tmp_path, models(*script), clock=clock) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="x")).pid
            await until(lambda: bool(k.machine.blocked))
            clock.advance(2 * HANG_S)
            await anyio.wait_all_tasks_blocked()
            await k.call("send_message", to=pid, text="here I am")
            agent = await ended(k, pid)
    assert (agent.exit_code, agent.result) == ("done", "patient")
