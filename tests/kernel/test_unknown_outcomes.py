"""What may have happened is asked about, answered once, and never repeated by itself: by agents, hosts and reboots."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from aos_mcp.abi.capability import Caller, CallerKind
from aos_mcp.abi.completion import Prompt, Reply
from aos_mcp.abi.errors import Conflict, Denied, Invalid, NotFound, UnknownOutcome
from aos_mcp.abi.handle import Pid
from aos_mcp.abi.sandbox import Command, CommandOutcome
from aos_mcp.abi.settings import MountSettings, Rule, Settings
from aos_mcp.hardware import SystemClock, SystemEntropy
from aos_mcp.proxy.mount_table import MountTable
from aos_mcp.testing.devices import RecordingMounts, RecordingSandbox, a_tool
from aos_mcp.testing.kernels import TestKernel, kernel_on
from aos_mcp.testing.model import Answer, calls, says
from tests.kernel.stage import DEADLINE_S, ended, models, results_of, the_question, until

SERVER = Path(__file__).parent / "ledger_server.py"
ALLOWED = Settings(rules=[Rule(effect="allow", tool="bank__*")])
PAY = calls(("bank__pay", {"to": "ann"}), key="pay")


@asynccontextmanager
async def bank(home: Path, *script: Answer) -> AsyncIterator[TestKernel]:
    """A kernel with a real downstream server that dies in the middle of its first payment."""
    server = MountSettings(command=sys.executable, args=[str(SERVER), str(home / "ledger")])
    async with MountTable({"bank": server}, SystemClock(), SystemEntropy(), dict(os.environ)) as table:
        with anyio.fail_after(DEADLINE_S):
            await table.settled(DEADLINE_S)
        async with kernel_on(home, models(*script), settings=ALLOWED, mounts=table) as k:
            yield k


def payments(home: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (home / "ledger").read_text("utf-8").splitlines()]


async def spawned(k: TestKernel) -> Pid:
    return Pid((await k.call("spawn_agent", task="pay ann", tools=["bank__pay", "call_tool"])).pid)


def wait_for_news(prompt: Prompt) -> Reply:
    return calls(("wait_agent", {"pids": [], "timeout_s": 60}), key="wait")


def read_news(prompt: Prompt) -> Reply:
    return says("\n".join([*results_of(prompt), prompt.turns[-1].text]))


async def test_a_server_killed_in_a_call_leaves_a_question_and_the_answer_reaches_the_agent(tmp_path: Path) -> None:
    async with bank(tmp_path, PAY, wait_for_news, read_news) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = await spawned(k)
            question = await the_question(k)
            listed = (await k.call("list_agents")).agents[0]
            status = await k.call("kernel_status")
            await until(lambda: pid in k.machine.blocked)
            answered = await k.call(
                "answer_approval", approval_id=question.approval_id, decision="done", note="it was paid, No. 7"
            )
            agent = await ended(k, pid)
            steps = (await k.call("read_journal", pid=pid)).steps
            with pytest.raises(Conflict):
                await k.call("answer_approval", approval_id=question.approval_id, decision="allow")
    step = next(step for step in steps if step.call == "call_tool")
    assert listed.unknown_steps == [question.step] == [step.number]
    assert [row.approval_id for row in status.approvals] == [question.approval_id]
    assert "bank__pay" in question.question
    assert '"to": "ann"' in question.question
    assert f"reconcile(step={step.number}" in agent.result, "the agent was told what may have happened"
    assert "it was paid, No. 7" in agent.result, "and what was found out"
    assert (step.state, answered.state, agent.unknown_steps) == ("done", "claimed", [])
    assert len(payments(tmp_path)) == 1, "nothing was repeated by itself"


async def test_what_did_not_happen_is_done_by_the_agent_when_a_person_says_so(tmp_path: Path) -> None:
    def again(prompt: Prompt) -> Reply:
        return calls(("bank__pay", {"to": "ann"}), key="again")

    async with bank(tmp_path, PAY, wait_for_news, again, read_news) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = await spawned(k)
            question = await the_question(k)
            await until(lambda: pid in k.machine.blocked and k.machine.mounts.tool("bank__pay") is not None)
            await k.call("answer_approval", approval_id=question.approval_id, decision="allow")
            agent = await ended(k, pid)
    assert "it did not. Do it now, once." in agent.result
    assert "paid" in agent.result
    assert len(payments(tmp_path)) == 2


async def test_an_agent_that_has_looked_reconciles_its_own_step_and_no_other(tmp_path: Path) -> None:
    def number(prompt: Prompt) -> int:
        return int(results_of(prompt)[0].partition("reconcile(step=")[2].partition(",")[0])

    def settle(prompt: Prompt) -> Reply:
        mine: dict[str, object] = {"step": number(prompt), "outcome": "give_up", "note": "the bank is closed"}
        return calls(
            ("reconcile", {**mine, "pid": "p_another"}), ("reconcile", mine), ("reconcile", mine), key="settle"
        )

    async with bank(tmp_path, PAY, settle, read_news) as k:
        with anyio.fail_after(DEADLINE_S):
            agent = await ended(k, await spawned(k))
            left = (await k.call("list_approvals")).approvals
            steps = (await k.call("read_journal", pid=agent.pid)).steps
    assert [step.state for step in steps if step.call == "call_tool"] == ["failed"]
    assert left == []
    assert "An agent reconciles its own steps." in agent.result
    assert "nothing about it is open" in agent.result


async def test_the_step_of_an_agent_that_has_ended_is_settled_but_not_done_again(tmp_path: Path) -> None:
    async with bank(tmp_path, PAY, says("I leave it")) as k:
        with anyio.fail_after(DEADLINE_S):
            agent = await ended(k, await spawned(k))
            (number,) = agent.unknown_steps
            with pytest.raises(Conflict, match="has ended"):
                await k.call("reconcile", pid=agent.pid, step=number, outcome="redo")
            with pytest.raises(NotFound):
                await k.call("reconcile", pid=agent.pid, step=99, outcome="done")
            with pytest.raises(Invalid):
                await k.call("reconcile", step=number, outcome="done")
            (question,) = (await k.call("list_approvals")).approvals
            with pytest.raises(Invalid, match="remember"):
                await k.call("answer_approval", approval_id=question.approval_id, decision="done", remember=True)
            settled = await k.call("reconcile", pid=agent.pid, step=number, outcome="done", note="paid")
            after = (await k.call("wait_agent", pids=[agent.pid])).agents[0]
            left = (await k.call("list_approvals")).approvals
    assert (settled.state, after.unknown_steps, left) == ("done", [], [])


@pytest.mark.parametrize("decision", ["done", "deny"])
async def test_a_step_that_was_cut_ended_then_however_late_the_answer_is(tmp_path: Path, decision: str) -> None:
    async with bank(tmp_path, PAY, says("I leave it")) as k:
        with anyio.fail_after(DEADLINE_S):
            agent = await ended(k, await spawned(k))
            (cut,) = [s for s in (await k.call("read_journal", pid=agent.pid)).steps if s.state == "unknown"]
            question = await the_question(k)
            await k.call("answer_approval", approval_id=question.approval_id, decision=decision, note="I looked")
            (step,) = [s for s in (await k.call("read_journal", pid=agent.pid)).steps if s.number == cut.number]
    assert step.state != "unknown"
    assert step.ended_at == cut.ended_at


async def test_a_question_whether_something_may_be_done_is_not_answered_with_done(tmp_path: Path) -> None:
    ask = Settings(rules=[Rule(effect="ask", tool="sandbox_exec")])
    async with kernel_on(tmp_path, models(calls(("sandbox_exec", {"command": "x"})), says("x")), settings=ask) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="x")).pid
            question = await the_question(k)
            with pytest.raises(Invalid):
                await k.call("answer_approval", approval_id=question.approval_id, decision="done")
            await k.call("answer_approval", approval_id=question.approval_id, decision="allow")
            await ended(k, pid)


async def test_what_a_host_had_cut_off_is_asked_about_too(tmp_path: Path) -> None:
    lost = UnknownOutcome("The supervisor died.", "Look.")
    async with kernel_on(tmp_path, models(says("x")), sandbox=RecordingSandbox(failure=lost)) as k:
        with pytest.raises(UnknownOutcome) as told:
            await k.call("sandbox_exec", command="make")
        (question,) = (await k.call("kernel_status")).approvals
        answered = await k.call("answer_approval", approval_id=question.approval_id, decision="deny")
        assert (await k.call("list_approvals")).approvals == []
    assert question.approval_id in told.value.hint
    assert (question.pid, answered.state) == (None, "denied")


# Death ----------------------------------------------------------------------------------------------------------------


class Executioner(RecordingSandbox):
    """Notes a command outside of the kernel, and kills the kernel in the middle of it."""

    ledger: Path

    async def execute(self, command: Command) -> CommandOutcome:
        with self.ledger.open("a", encoding="utf-8") as file:
            file.write(command.argv[-1] + "\n")
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("dead")


async def bounded(life: Callable[[], Awaitable[None]]) -> None:
    with anyio.fail_after(DEADLINE_S):
        await life()


def run(life: Callable[[], Awaitable[None]]) -> None:
    """Live in a thread of its own: whether the tests before have left a loop in this one is not asked."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(anyio.run, bounded, life).result()


def life_that_ends(life: Callable[[], Awaitable[None]]) -> None:
    """Live in a process of its own, which is killed."""
    pid = os.fork()
    if pid == 0:
        try:
            run(life)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def dying(home: Path, *script: Answer, mounts: RecordingMounts | None = None) -> Any:
    sandbox = Executioner()
    sandbox.ledger = home / "ledger"
    return kernel_on(home, models(*script), sandbox=sandbox, mounts=mounts, settings=ALLOWED)


def test_a_kernel_killed_in_a_hosts_command_asks_about_it_at_the_next_boot(tmp_path: Path) -> None:
    async def life() -> None:
        async with dying(tmp_path, says("x")) as k:
            await k.call("sandbox_exec", command="pay")

    async def after() -> None:
        async with kernel_on(tmp_path, models(says("x"))) as k:
            (question,) = (await k.call("kernel_status")).approvals
            assert "sandbox_exec" in question.question
            assert "A host called" in question.question
            await k.call("answer_approval", approval_id=question.approval_id, decision="done", note="it ran")
        async with kernel_on(tmp_path, models(says("x"))) as k:
            assert (await k.call("kernel_status")).approvals == []

    life_that_ends(life)
    run(after)
    assert (tmp_path / "ledger").read_text("utf-8").split() == ["pay"]


def test_a_kernel_killed_in_an_agents_command_does_it_again_only_when_told_to(tmp_path: Path) -> None:
    script = (calls(("sandbox_exec", {"command": "pay"})), lambda prompt: says(results_of(prompt)[-1]))

    async def life() -> None:
        busy = RecordingSandbox(gate=anyio.Event())
        async with kernel_on(tmp_path, models(*script), sandbox=busy) as k:
            pid = (await k.call("spawn_agent", task="pay", name="payer")).pid
            await until(lambda: bool(busy.commands))
            await k.call("signal_agent", pid=pid, signal="stop")  # so that the next life leaves it where it is
            os.kill(os.getpid(), signal.SIGKILL)

    async def after() -> None:
        async with kernel_on(tmp_path, models(*script), sandbox=(sandbox := RecordingSandbox())) as k:
            with anyio.fail_after(DEADLINE_S):
                while (row := (await k.call("list_agents")).agents[0]).state != "stopped":
                    continue
                assert row.unknown_steps
                await k.call("reconcile", pid=row.pid, step=row.unknown_steps[0], outcome="redo")
                assert sandbox.commands == []
                await k.call("signal_agent", pid=row.pid, signal="cont")
                agent = await ended(k, row.pid)
                steps = [s for s in (await k.call("read_journal", pid=row.pid)).steps if s.call == "sandbox_exec"]
            assert [step.state for step in steps] == ["failed", "done"]
            assert "exit code 0" in agent.result, "the call that the model had made is answered with what came of it"
            assert len(sandbox.commands) == 1

    life_that_ends(life)
    run(after)


def test_a_call_made_again_after_a_crash_has_the_key_of_the_first(tmp_path: Path) -> None:
    async def life() -> None:
        mounts = RecordingMounts({a_tool("bank__note", idempotent=True): lambda _: killed()})
        async with dying(tmp_path, calls(("bank__note", {"n": 1})), says("x"), mounts=mounts) as k:
            await k.call("spawn_agent", task="x", tools=["bank__*"])
            await anyio.sleep_forever()

    def killed() -> str:
        (tmp_path / "first").touch()
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("dead")

    async def after() -> None:
        mounts = RecordingMounts({a_tool("bank__note", idempotent=True): lambda _: "noted"})
        parts = models(calls(("bank__note", {"n": 1})), says("done"))
        async with kernel_on(tmp_path, parts, mounts=mounts, settings=ALLOWED) as k:
            with anyio.fail_after(DEADLINE_S):
                pid = (await k.call("list_agents")).agents[0].pid
                await ended(k, pid)
                steps = await k.machine.store.read(lambda tx: tx.step_list(pid, limit=99))
        made = [step for step in steps if step.call == "call_tool"]
        assert len(made) == 2, "an idempotent call is made again"
        assert made[0].idempotency_key == made[1].idempotency_key
        assert mounts.metas == [{"aos-mcp/idempotency-key": made[0].idempotency_key}]

    life_that_ends(life)
    run(after)


async def test_a_tool_with_a_place_for_a_key_gets_it_and_keeps_one_it_was_given(tmp_path: Path) -> None:
    own = calls(("bank__pay", {"to": "ann", "idempotency_key": "mine"}), key="own")
    async with bank(tmp_path, PAY, wait_for_news, PAY, own, says("done")) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = await spawned(k)
            question = await the_question(k)
            await until(lambda: pid in k.machine.blocked and k.machine.mounts.tool("bank__pay") is not None)
            await k.call("answer_approval", approval_id=question.approval_id, decision="done", note="it was paid")
            await ended(k, pid)
            steps = await k.machine.store.read(lambda tx: tx.step_list(pid, limit=99))
    keys = [step.idempotency_key for step in steps if step.call == "call_tool"]
    assert len(set(keys)) == 3
    made = payments(tmp_path)
    assert [each["meta"]["aos-mcp/idempotency-key"] for each in made] == keys
    assert [each["arguments"]["idempotency_key"] for each in made] == [*keys[:2], "mine"]


async def test_an_agent_does_not_answer_the_question_about_its_own_step(tmp_path: Path) -> None:
    async with bank(tmp_path, PAY, wait_for_news, read_news) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = await spawned(k)
            question = await the_question(k)
            agent = Caller(kind=CallerKind.AGENT, principal="local:test", pid=pid)
            with pytest.raises(Denied):
                await k.kernel.syscall(
                    agent, "answer_approval", {"approval_id": question.approval_id, "decision": "done"}
                )
