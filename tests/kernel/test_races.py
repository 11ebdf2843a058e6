"""Signals and cancellations against every phase of a turn: nothing is left open, reserved or blocked after them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest

from aos_mcp.abi.budget import WORKSPACE_ACCOUNT
from aos_mcp.abi.errors import ApprovalRequired, Conflict
from aos_mcp.abi.journal import StepState
from aos_mcp.abi.process import ProcessState
from aos_mcp.abi.settings import Rule, Settings
from aos_mcp.ports import Store, Transaction
from aos_mcp.storage.sqlite import open_sqlite
from aos_mcp.testing.clock import FakeClock
from aos_mcp.testing.devices import RecordingMounts, RecordingSandbox, a_tool
from aos_mcp.testing.kernels import TestKernel, kernel_on
from aos_mcp.testing.model import ScriptedModel, ScriptedModels, calls, says
from tests.kernel.stage import CHILD, DEADLINE_S, NAME, ended, handle_in, models, results_of, the_question, until

T = TypeVar("T")


class HookedStore:
    """A real store that lets a test act just before the unit whose function has a given name is written."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner
        self.hooks: dict[str, Callable[[], Any]] = {}

    async def write(self, work: Callable[[Transaction], T], *, flush: bool = False, brief: bool = False) -> T:
        hook = next((hook for name, hook in self.hooks.items() if name in unit_name(work)), None)
        if hook is not None:
            await hook()
        return await self._inner.write(work, flush=flush, brief=brief)

    async def read(self, work: Callable[[Transaction], T], *, brief: bool = False) -> T:
        return await self._inner.read(work, brief=brief)

    async def changed(self, timeout_s: float) -> None:
        await self._inner.changed(timeout_s)


def unit_name(work: Callable[..., Any]) -> str:
    named = getattr(work, "__qualname__", "")
    code = getattr(work, "__code__", None)
    return f"{named} {' '.join(code.co_names) if code is not None else ''}"


async def steps_of(k: TestKernel, pid: str) -> list[Any]:
    return list((await k.call("read_journal", pid=pid)).steps)


async def nothing_is_reserved(k: TestKernel) -> bool:
    def work(tx: Transaction) -> bool:
        account = tx.account_get(WORKSPACE_ACCOUNT)
        assert account is not None
        return not tx.reservation_list() and (account.reserved_microusd, account.reserved_tokens) == (0, 0)

    return await k.machine.store.read(work)


async def outcomes(k: TestKernel, call: str) -> list[str]:
    log = await k.call("read_audit", verify=True, limit=200)
    return [row.outcome for row in log.records if row.call == call]


async def test_a_kill_while_a_command_runs_leaves_its_step_unknown_and_says_so_in_the_audit(tmp_path: Path) -> None:
    sandbox = RecordingSandbox(gate=anyio.Event())
    async with kernel_on(tmp_path, models(calls(("sandbox_exec", {"command": "x"}), key="a")), sandbox=sandbox) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="x")).pid
            await until(lambda: bool(sandbox.commands))
            await k.call("signal_agent", pid=pid, signal="kill")
            await until(lambda: not k.machine.running)
            assert [step.state for step in await steps_of(k, pid)] == [StepState.DONE, StepState.UNKNOWN]
            assert await outcomes(k, "sandbox_exec") == ["intent", "cancelled"]


async def test_a_kill_settles_the_journal_in_its_own_commit(tmp_path: Path) -> None:
    sandbox = RecordingSandbox(gate=anyio.Event())
    async with kernel_on(tmp_path, models(calls(("sandbox_exec", {"command": "x"}), key="a")), sandbox=sandbox) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="x")).pid
            await until(lambda: bool(sandbox.commands))
            k.machine.running.clear()  # as if the kernel died before it could cut the turn
            await k.call("signal_agent", pid=pid, signal="kill")
            assert [step.state for step in await steps_of(k, pid)] == [StepState.DONE, StepState.UNKNOWN]


async def test_a_wait_that_is_killed_is_not_left_open(tmp_path: Path) -> None:
    never = anyio.Event()
    child = ScriptedModel(CHILD, (says("never"),), gate=never)
    parent = ScriptedModel(
        NAME,
        (
            calls(("spawn_agent", {"task": "c", "model": CHILD}), key="a"),
            lambda p: calls(("wait_agent", {"pids": [handle_in(results_of(p)[-1], "p_")], "timeout_s": 60}), key="b"),
        ),
    )
    async with kernel_on(tmp_path, ScriptedModels(parent, child)) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="x")).pid
            await until(lambda: bool(k.machine.blocked))
            await k.call("signal_agent", pid=pid, signal="kill")
            await until(lambda: not k.machine.running)
            assert StepState.INTENT not in {step.state for step in await steps_of(k, pid)}
            assert await nothing_is_reserved(k)


async def test_an_agent_killed_between_answer_and_settlement_pays_and_reserves_nothing(tmp_path: Path) -> None:
    async with open_sqlite(tmp_path / "kernel.db", FakeClock()) as inner:
        store = HookedStore(inner)
        async with kernel_on(tmp_path, models(says("too late")), store=store) as k:

            async def kill() -> None:
                store.hooks.clear()
                k.machine.running.clear()  # the signal reaches the row, and not yet the turn
                await k.call("signal_agent", pid=spawned.pid, signal="kill")

            k.machine.stopping = True
            with anyio.fail_after(DEADLINE_S):
                spawned = await k.call("spawn_agent", task="x")
                store.hooks["_settle"] = kill
                k.machine.stopping = False
                k.machine.wake()
                agent = await ended(k, spawned.pid)
                await until(lambda: not k.machine.blocked)
                while not await nothing_is_reserved(k):
                    await anyio.lowlevel.checkpoint()
                agent = await ended(k, spawned.pid)
            assert (agent.exit_code, agent.usage.turns, agent.usage.output_tokens) == ("killed", 1, 10)
            assert StepState.INTENT not in {step.state for step in await steps_of(k, spawned.pid)}


async def test_a_turn_cut_while_it_reserves_leaves_no_reservation(tmp_path: Path) -> None:
    async with open_sqlite(tmp_path / "kernel.db", FakeClock()) as inner:
        store = HookedStore(inner)
        async with kernel_on(tmp_path, models(says("never")), store=store) as k:

            async def cut() -> None:
                store.hooks.clear()
                next(iter(k.machine.running.values())).cancel()

            store.hooks["_reserve"] = cut
            with anyio.fail_after(DEADLINE_S):
                await k.call("spawn_agent", task="x")
                await until(lambda: not store.hooks)
                await until(lambda: not k.machine.running)
                assert await nothing_is_reserved(k)


async def test_a_kill_during_generation_charges_the_prompt_that_was_sent(tmp_path: Path) -> None:
    model = ScriptedModel(NAME, (says("never"),), gate=anyio.Event())
    async with kernel_on(tmp_path, ScriptedModels(model)) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="x")).pid
            await until(lambda: bool(model.prompts))
            await k.call("signal_agent", pid=pid, signal="kill")
            await until(lambda: not k.machine.running)
            agent = await ended(k, pid)
            assert agent.usage.input_tokens > 0
            assert agent.usage.usd > 0
            assert await nothing_is_reserved(k)


async def test_a_cancelled_caller_still_gets_its_signal_through(tmp_path: Path) -> None:
    model = ScriptedModel(NAME, (says("never"),), gate=anyio.Event())
    async with open_sqlite(tmp_path / "kernel.db", FakeClock()) as inner:
        store = HookedStore(inner)
        async with kernel_on(tmp_path, ScriptedModels(model), store=store) as k:
            with anyio.fail_after(DEADLINE_S):
                pid = (await k.call("spawn_agent", task="x")).pid
                await until(lambda: bool(model.prompts))
                with anyio.CancelScope() as caller:

                    async def leave() -> None:
                        store.hooks.clear()
                        caller.cancel()

                    store.hooks["Call.commit"] = leave
                    await k.call("signal_agent", pid=pid, signal="kill")
                await until(lambda: not k.machine.running)
                assert (await ended(k, pid)).exit_code == "killed"


async def test_a_denied_wait_leaves_the_agent_running_and_able_to_wait_again(tmp_path: Path) -> None:
    mounts = RecordingMounts({a_tool("files__delete"): lambda arguments: "deleted"})
    script = (
        calls(("files__delete", {"n": 1}), ("files__delete", {"n": 2}), key="a"),
        lambda prompt: says(" | ".join(results_of(prompt))),
    )
    async with kernel_on(tmp_path, models(*script), mounts=mounts) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="x", tools=["files__*"])).pid
            first = await the_question(k)
            await k.call("answer_approval", approval_id=first.approval_id, decision="deny")
            second = await the_question(k)
            await k.call("answer_approval", approval_id=second.approval_id, decision="allow")
            agent = await ended(k, pid)
    assert "denied" in agent.result
    assert "deleted" in agent.result


async def test_stop_does_not_undo_a_request_to_finish(tmp_path: Path) -> None:
    model = ScriptedModel(
        NAME, (calls(("page_out", {"content": "x"}), key="a"), lambda p: says(p.turns[-1].text)), gate=anyio.Event()
    )
    async with kernel_on(tmp_path, ScriptedModels(model)) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="x")).pid
            await until(lambda: bool(model.prompts))
            await k.call("signal_agent", pid=pid, signal="term", reason="lunch")
            await k.call("signal_agent", pid=pid, signal="stop")
            assert model.gate is not None
            model.gate.set()
            agent = await ended(k, pid)
    assert agent.exit_code == "terminated"
    assert "lunch" in agent.result


async def test_an_agent_that_finishes_does_not_wait(tmp_path: Path) -> None:
    never = anyio.Event()
    child = ScriptedModel(CHILD, (says("never"),), gate=never)
    gate = anyio.Event()
    parent = ScriptedModel(
        NAME,
        (
            calls(("spawn_agent", {"task": "c", "model": CHILD}), key="a"),
            lambda p: calls(("wait_agent", {"pids": [handle_in(results_of(p)[0], "p_")], "timeout_s": 3600}), key="b"),
            lambda p: calls(("wait_agent", {"pids": [handle_in(results_of(p)[0], "p_")], "timeout_s": 3600}), key="c"),
        ),
        gate=gate,
    )
    async with kernel_on(tmp_path, ScriptedModels(parent, child)) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="x")).pid
            gate.set()
            await until(lambda: bool(child.prompts))
            await k.call("signal_agent", pid=pid, signal="term", tree=False)
            assert (await ended(k, pid)).exit_code == "terminated"
            state = (await k.call("list_agents", parent=pid)).agents[0].state
    assert state == ProcessState.RUNNING


async def test_a_failure_beside_another_call_keeps_its_name(tmp_path: Path) -> None:
    async with open_sqlite(tmp_path / "kernel.db", FakeClock()) as inner:
        store = HookedStore(inner)
        script = (calls(("page_out", {"content": "x"}), ("page_out", {"content": "y"}), key="a"), says("never"))
        async with kernel_on(tmp_path, models(*script), store=store) as k:

            async def fail() -> None:
                raise Conflict("The test says no.", "None.")

            store.hooks["Requests._keep"] = fail
            with anyio.fail_after(DEADLINE_S):
                pid = (await k.call("spawn_agent", task="x")).pid
                agent = await ended(k, pid)
    assert agent.reason == "conflict: The test says no. None."


async def test_an_allowed_answer_that_has_expired_is_not_claimed(tmp_path: Path) -> None:
    clock = FakeClock()
    settings = Settings(rules=[Rule(effect="ask", tool="page_out", agent="host")])
    from aos_mcp.abi.errors import ApprovalRequired

    async with kernel_on(tmp_path, models(says("x")), settings=settings, clock=clock) as k:
        with anyio.fail_after(DEADLINE_S):
            with pytest.raises(ApprovalRequired) as first:
                await k.call("page_out", content="x")
            await k.call("answer_approval", approval_id=first.value.approval_id, decision="allow")
            clock.advance(40 * 86_400.0)
            with pytest.raises(ApprovalRequired) as second:
                await k.call("page_out", content="x")
    assert second.value.approval_id != first.value.approval_id


async def test_a_dead_agents_question_is_asked_no_longer(tmp_path: Path) -> None:
    mounts = RecordingMounts({a_tool("files__delete"): lambda arguments: "deleted"})
    async with kernel_on(tmp_path, models(calls(("files__delete", {}), key="a")), mounts=mounts) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="x", tools=["files__*"])).pid
            question = await the_question(k)
            await k.call("signal_agent", pid=pid, signal="kill")
            assert (await k.call("list_approvals")).approvals == []
            with pytest.raises(Conflict):
                await k.call("answer_approval", approval_id=question.approval_id, decision="allow")


async def test_a_long_call_within_its_own_deadline_is_no_hang(tmp_path: Path) -> None:
    clock = FakeClock()
    sandbox = RecordingSandbox(gate=anyio.Event())
    script = (calls(("sandbox_exec", {"command": "x", "timeout_s": 3600}), key="a"), says("survived"))
    async with kernel_on(tmp_path, models(*script), sandbox=sandbox, clock=clock) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="x")).pid
            await until(lambda: bool(sandbox.commands))
            clock.advance(1_800.0)
            await the_watchdog_looked(k)
            assert sandbox.gate is not None
            sandbox.gate.set()
            assert (await ended(k, pid)).result == "survived"


async def test_a_blocked_agent_ends_when_its_time_is_over(tmp_path: Path) -> None:
    clock = FakeClock()
    script = (calls(("wait_agent", {"pids": [], "timeout_s": 3600}), key="a"),)
    async with kernel_on(tmp_path, models(*script), clock=clock) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="x", budget={"wall_s": 60})).pid
            await until(lambda: bool(k.machine.blocked))
            clock.advance(70.0)
            agent = await ended(k, pid)
            assert agent.exit_code == "budget_exhausted"
            assert "wall_s" in agent.reason
            await until(lambda: not k.machine.running)


async def test_questions_nobody_answered_do_not_hide_new_ones(tmp_path: Path) -> None:
    clock = FakeClock()
    settings = Settings(rules=[Rule(effect="ask", tool="page_out", agent="host")])
    async with kernel_on(tmp_path, models(says("x")), settings=settings, clock=clock) as k:
        with anyio.fail_after(DEADLINE_S):
            for number in range(101):
                with pytest.raises(ApprovalRequired):
                    await k.call("page_out", content=f"old {number}")
            clock.advance(2 * 86_400.0)
            await the_watchdog_looked(k)
            with pytest.raises(ApprovalRequired) as fresh:
                await k.call("page_out", content="new")
            open_ones = (await k.call("list_approvals")).approvals
    assert [row.approval_id for row in open_ones] == [fresh.value.approval_id]


async def the_watchdog_looked(k: TestKernel) -> None:
    """Return once the watchdog has gone round: it hears of the new hour at once, and its writes follow."""
    for _ in range(20):
        await k.machine.store.write(lambda tx: tx.process_counts())
        await anyio.lowlevel.checkpoint()
