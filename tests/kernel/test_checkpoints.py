"""Checkpoint and restore: a fork of the past with its own files, budget and place, on any model."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio
import pytest

from aos_mcp.abi.completion import Prompt, Reply
from aos_mcp.abi.errors import BudgetExhausted, ModelError, ModelFault, NotFound, Unavailable
from aos_mcp.abi.handle import Pid
from aos_mcp.abi.process import ExitCode, Process
from aos_mcp.abi.settings import Settings
from aos_mcp.hardware import SystemClock
from aos_mcp.kernel import table
from aos_mcp.ports import Store, Transaction
from aos_mcp.sandbox.workspace import DirectoryWorkspaces
from aos_mcp.storage.sqlite import open_sqlite
from aos_mcp.testing.devices import RecordingSandbox
from aos_mcp.testing.kernels import OWNER, kernel_on
from aos_mcp.testing.model import ScriptedModel, ScriptedModels, calls, says
from tests.kernel.stage import CHILD, DEADLINE_S, NAME, ended, family, handle_in, models, results_of, until

OTHER = "scripted/other"
T = TypeVar("T")


class NotingWorkspaces(DirectoryWorkspaces):
    """Notes what is read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.opened: list[str] = []

    def read(self, workspace: str, path: str, *, limit: int) -> bytes:
        self.opened.append(path)
        return super().read(workspace, path, limit=limit)


class FullStore:
    """A store whose disk has no room for files."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner
        self.full = False

    async def write(self, work: Callable[[Transaction], T], *, flush: bool = False, brief: bool = False) -> T:
        if self.full and isinstance(work, partial) and "bodies" in work.keywords:
            raise Unavailable("The disk is full.", "Free some space.")
        return await self._inner.write(work, flush=flush, brief=brief)

    async def read(self, work: Callable[[Transaction], T], *, brief: bool = False) -> T:
        return await self._inner.read(work, brief=brief)

    async def changed(self, timeout_s: float) -> None:
        await self._inner.changed(timeout_s)


async def test_a_checkpoint_goes_on_with_another_model_where_the_first_one_stood(tmp_path: Path) -> None:
    one = ScriptedModel(NAME, (calls(("page_out", {"content": "x", "title": "found"})), says("one says")))
    other = ScriptedModel(OTHER, (says("never"), says("never"), lambda prompt: says(prompt.turns[-1].text)))
    async with kernel_on(tmp_path, ScriptedModels(one, other)) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="the task", wait_s=10)).pid
            saved = await k.call("checkpoint", pid=pid)
            fork = (await k.call("restore", checkpoint_id=saved.checkpoint_id, model=OTHER, name="again")).pid
            await k.call("send_message", to=fork, text="now you")
            agent = await ended(k, fork)
            process = await k.call("read_process", pid=fork)
    assert "now you" in agent.result
    assert (process.model, process.name, process.forked_from) == (OTHER, "again", saved.checkpoint_id)
    said = [turn.text for turn in other.prompts[0].turns]
    assert said[0].startswith("the task")
    assert "one says" in said, "the past of the first is the past of the fork"


async def test_a_fork_has_the_files_of_that_moment_and_its_own_from_then_on(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, models(calls(("sandbox_exec", {"command": "x"})), says("done"))) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="x", wait_s=10)).pid
            disk, mine = k.machine.workspaces, (await k.call("read_process", pid=pid)).workspace
            disk.write(mine, "src/a.txt", b"as it was\x00\xff")
            saved = await k.call("checkpoint", pid=pid)
            disk.write(mine, "src/a.txt", b"changed since")
            disk.write(mine, "b.txt", b"new since")
            fork = (await k.call("restore", checkpoint_id=saved.checkpoint_id)).pid
            theirs = (await k.call("read_process", pid=fork)).workspace
            assert disk.read(theirs, "src/a.txt", limit=100) == b"as it was\x00\xff"
            with pytest.raises(NotFound):
                disk.read(theirs, "b.txt", limit=100)
            disk.write(theirs, "src/a.txt", b"the fork's own")
            assert disk.read(mine, "src/a.txt", limit=100) == b"changed since"
            assert (await k.call("read_checkpoint", checkpoint_id=saved.checkpoint_id)).files >= 1


async def test_what_a_fork_has_not_changed_is_not_read_again(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, models(says("x"))) as k:
        disk = k.machine.workspaces = NotingWorkspaces(tmp_path / "workspaces")
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="x", wait_s=10)).pid
            disk.write(pid.replace("p_", "w-"), "same.txt", b"same")
            disk.write(pid.replace("p_", "w-"), "other.txt", b"one")
            saved = (await k.call("checkpoint", pid=pid)).checkpoint_id
            k.machine.stopping = True
            fork = (await k.call("restore", checkpoint_id=saved)).pid
            disk.write(fork.replace("p_", "w-"), "other.txt", b"another")
            disk.opened.clear()
            again = await k.call("checkpoint", pid=fork)
            kept = (await k.call("read_checkpoint", checkpoint_id=again.checkpoint_id)).files
    assert (disk.opened, kept) == (["other.txt"], 2)


async def test_a_full_disk_refuses_a_checkpoint_in_so_many_words(tmp_path: Path) -> None:
    async with open_sqlite(tmp_path / "kernel.db", SystemClock()) as inner:
        store = FullStore(inner)
        async with kernel_on(tmp_path, models(says("x")), store=store) as k:
            with anyio.fail_after(DEADLINE_S):
                pid = (await k.call("spawn_agent", task="x", wait_s=10)).pid
                k.machine.workspaces.write(pid.replace("p_", "w-"), "a.txt", b"a")
                store.full = True
                with pytest.raises(Unavailable):
                    await k.call("checkpoint", pid=pid)
                assert (await k.call("read_process", pid=pid)).checkpoints == []


async def test_an_agent_saves_itself_and_is_forked_by_itself(tmp_path: Path) -> None:
    def save(prompt: Prompt) -> Reply:
        return calls(("list_agents", {}), key="a")

    def checkpoint(prompt: Prompt) -> Reply:
        own = handle_in(results_of(prompt)[-1], "p_")
        return calls(("checkpoint", {"pid": own, "label": "before"}), ("page_out", {"content": "beside it"}), key="b")

    def fork(prompt: Prompt) -> Reply:
        if "belongs to the run this one was forked from" in results_of(prompt)[-2]:
            return says("I am the fork")
        saved = handle_in(results_of(prompt)[-2], "ck_")
        return calls(("restore", {"checkpoint_id": saved}), key="c")

    def wait(prompt: Prompt) -> Reply:
        return calls(("wait_agent", {"pids": [handle_in(results_of(prompt)[-1], "p_")]}), key="d")

    script = (save, checkpoint, fork, wait, lambda prompt: says(results_of(prompt)[-1]))
    async with kernel_on(tmp_path, models(*script)) as k:
        with anyio.fail_after(DEADLINE_S):
            agent = await ended(k, (await k.call("spawn_agent", task="x")).pid)
            fork_row = next(row for row in (await k.call("list_agents")).agents if row.pid != agent.pid)
            process = await k.call("read_process", pid=fork_row.pid)
    assert "I am the fork" in agent.result
    assert (process.parent, process.program, process.depth) == (agent.pid, agent.pid, 1)


async def test_a_childs_past_restored_by_the_host_is_a_tree_of_its_own(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, family(says("child done"))) as k:
        with anyio.fail_after(DEADLINE_S):
            parent = await ended(k, (await k.call("spawn_agent", task="p", tools=["spawn_agent"])).pid)
            child = (await k.call("read_process", pid=parent.pid)).children[0]
            saved = await k.call("checkpoint", pid=child)
            fork = await k.call("read_process", pid=(await k.call("restore", checkpoint_id=saved.checkpoint_id)).pid)
            original = await k.call("read_process", pid=child)
    assert (fork.parent, fork.program, fork.depth) == (None, fork.pid, 0)
    assert fork.tools == original.tools, "a restore does not widen what it may do"
    assert fork.model == CHILD


async def test_a_fork_gets_a_budget_of_its_own_and_no_more_than_there_is(tmp_path: Path) -> None:
    settings = Settings.model_validate({"workspace_budget": {"usd": 2}})
    async with kernel_on(tmp_path, models(says("x")), settings=settings) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="x", budget={"usd": 0.25}, wait_s=10)).pid
            saved = (await k.call("checkpoint", pid=pid)).checkpoint_id
            with pytest.raises(BudgetExhausted):
                await k.call("restore", checkpoint_id=saved, budget={"usd": 5})
            k.machine.stopping = True
            fork = await k.call("restore", checkpoint_id=saved, budget={"usd": 0.125})
            process = await k.call("read_process", pid=fork.pid)
    assert process.budget["usd"] == 0.125
    assert process.usage.turns == 0


async def test_a_checkpoint_waits_for_the_turn_under_way(tmp_path: Path) -> None:
    busy = anyio.Event()
    script = (calls(("page_out", {"content": "written in the turn", "title": "late"})), says("done"))
    model = ScriptedModel(NAME, script, gate=busy)
    async with kernel_on(tmp_path, ScriptedModels(model)) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="x")).pid
            await until(lambda: bool(model.prompts))
            saved: list[str] = []

            async def save() -> None:
                saved.append((await k.call("checkpoint", pid=pid)).checkpoint_id)

            async with anyio.create_task_group() as group:
                group.start_soon(save)
                await anyio.wait_all_tasks_blocked()
                assert saved == [], "a turn is saved whole"
                busy.set()
            await ended(k, pid)
            k.machine.stopping = True
            fork = (await k.call("restore", checkpoint_id=saved[0])).pid
            titles = [page.title for page in (await k.call("read_context", pid=fork)).pages]
    assert "late" in titles


async def test_a_restored_agent_repeats_no_effect_of_its_past(tmp_path: Path) -> None:
    sandbox = RecordingSandbox()
    script = (calls(("sandbox_exec", {"command": "pay"})), says("paid"), says("looked at it again"))
    async with kernel_on(tmp_path, models(*script), sandbox=sandbox) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="x", wait_s=10)).pid
            saved = await k.call("checkpoint", pid=pid)
            fork = await ended(k, (await k.call("restore", checkpoint_id=saved.checkpoint_id)).pid)
    assert fork.exit_code == "done"
    assert len(sandbox.commands) == 1


async def test_a_restored_agent_reads_the_same_bytes_as_the_run_it_comes_from(tmp_path: Path) -> None:
    script = (calls(("page_out", {"content": "z" * 400, "title": "kept"})), says("one says"), says("again"))
    other = ScriptedModel(OTHER, (says("never"), says("never"), says("at last")))
    one = ScriptedModel(NAME, script)
    async with kernel_on(tmp_path, ScriptedModels(one, other)) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="the task", wait_s=10)).pid
            saved = await k.call("checkpoint", pid=pid)
            k.machine.stopping = True
            fork = (await k.call("restore", checkpoint_id=saved.checkpoint_id)).pid
            mine, theirs = [(await k.call("read_context", pid=each)).pages for each in (pid, fork)]
            task = next(page.page_id for page in theirs if page.kind == "task")
            read = await k.call("page_in", page_id=task)
    assert mine == theirs, "the very pages, under the very names that its context calls them by"
    assert read.content == "the task"


async def test_a_fork_has_the_mail_that_waited_and_reads_it_for_itself(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, models(says("x"), lambda prompt: says(prompt.turns[-1].text))) as k:
        with anyio.fail_after(DEADLINE_S):
            k.machine.stopping = True
            pid = (await k.call("spawn_agent", task="x")).pid
            await k.call("send_message", to=pid, text="for whoever goes on")
            saved = await k.call("checkpoint", pid=pid)
            await k.call("send_message", to=pid, text="too late for the fork")
            fork = (await k.call("restore", checkpoint_id=saved.checkpoint_id)).pid
            waiting = await k.machine.store.read(lambda tx: tx.message_waiting(fork, OWNER, limit=9))
            kept = await k.machine.store.read(lambda tx: tx.message_count(pid, OWNER))
    assert [message.text for message in waiting] == ["for whoever goes on"]
    assert kept == 2, "the original's own mail stays where it is"


async def test_a_fork_gets_what_was_left_of_the_budget_at_that_moment(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, models(says("x"))) as k:
        with anyio.fail_after(DEADLINE_S):
            budget = {"usd": 0.25, "turns": 3, "tokens": 50_000, "wall_s": 600}
            pid = (await k.call("spawn_agent", task="x", budget=budget, wait_s=10)).pid
            saved = (await k.call("checkpoint", pid=pid)).checkpoint_id
            k.machine.stopping = True
            fork = await k.call("read_process", pid=(await k.call("restore", checkpoint_id=saved)).pid)
            spent = (await k.call("spawn_agent", task="x", budget={"turns": 1})).pid
            k.machine.stopping = False
            k.machine.wake()
            await ended(k, spent)
            late = (await k.call("checkpoint", pid=spent)).checkpoint_id
            with pytest.raises(BudgetExhausted) as refused:
                await k.call("restore", checkpoint_id=late)
            given = await k.call("restore", checkpoint_id=late, budget={"turns": 2})
    assert fork.budget["turns"] == 2
    assert fork.budget["usd"] == pytest.approx(0.25 - 0.0002)
    assert fork.budget["tokens"] == 50_000 - 110
    assert 0 < fork.budget["wall_s"] < 600
    assert "turns" in refused.value.hint
    assert given.pid


async def test_a_restore_that_is_refused_leaves_no_files_behind(tmp_path: Path) -> None:
    settings = Settings.model_validate({"workspace_budget": {"usd": 1}})
    async with kernel_on(tmp_path, models(says("x")), settings=settings) as k:
        pid = (await k.call("spawn_agent", task="x", wait_s=10)).pid
        k.machine.workspaces.write(pid.replace("p_", "w-"), "a.txt", b"a")
        saved = (await k.call("checkpoint", pid=pid)).checkpoint_id
        with pytest.raises(BudgetExhausted):
            await k.call("restore", checkpoint_id=saved, budget={"usd": 5}, count=3)
        assert os.listdir(tmp_path / "workspaces") == [pid.replace("p_", "w-")]


async def test_an_agent_goes_on_from_any_earlier_step_of_its_journal(tmp_path: Path) -> None:
    one = ScriptedModel(
        NAME,
        (
            calls(("page_out", {"content": "a", "title": "first"}), key="a"),
            calls(("page_out", {"content": "b", "title": "second"}), key="b"),
            says("done"),
        ),
    )
    other = ScriptedModel(OTHER, (says("never"), says("from the second turn")))
    async with kernel_on(tmp_path, ScriptedModels(one, other)) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="the task", wait_s=10)).pid
            steps = (await k.call("read_journal", pid=pid)).steps
            second = [step.number for step in steps if step.call == "model"][1]
            made = await k.call("restore", checkpoint_id=f"{pid}@{second}", model=OTHER)
            fork = await ended(k, made.pid)
            tool = next(step.number for step in steps if step.call == "page_out")
            k.machine.stopping = True
            inside = (await k.call("restore", checkpoint_id=f"{pid}@{tool}")).pid
            texts = [
                (await k.call("page_in", page_id=page.page_id)).content
                for page in (await k.call("read_context", pid=inside)).pages
            ]
            with pytest.raises(NotFound):
                await k.call("restore", checkpoint_id=f"{pid}@99")
    assert fork.result == "from the second turn"
    assert other.prompts[0].turns == one.prompts[1].turns, "the prompt of that step, to the byte"
    assert other.prompts[0].turn == 1
    assert made.files_step is None
    assert "belongs to the run" in texts[-1], "a call that was under way is not made by the fork"


async def test_the_first_of_a_race_that_is_done_ends_the_others_and_their_files_stay(tmp_path: Path) -> None:
    slow = anyio.Event()
    one = ScriptedModel(NAME, (calls(("sandbox_exec", {"command": "x"})), says("the original")))

    def race(prompt: Prompt) -> Reply:
        return says("first") if "now you" in prompt.turns[-1].text else calls(("sandbox_exec", {"command": "busy"}))

    racing = ScriptedModel(OTHER, (says("never"), says("never"), race))
    sandbox = RecordingSandbox()
    async with kernel_on(tmp_path, ScriptedModels(one, racing), sandbox=sandbox) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="x", wait_s=10)).pid
            k.machine.workspaces.write((await k.call("read_process", pid=pid)).workspace, "a.txt", b"the past")
            saved = (await k.call("checkpoint", pid=pid)).checkpoint_id
            sandbox.gate = slow
            made = await k.call("restore", checkpoint_id=saved, model=OTHER, count=3, race=True)
            winner, *losers = made.pids
            await until(lambda: len(sandbox.commands) == 4)
            slow_ones = await k.call("restore", checkpoint_id=saved, model=OTHER)  # not in the race
            await k.call("send_message", to=slow_ones.pid, text="now you")
            for each in losers:
                await k.call("signal_agent", pid=each, signal="stop")
            first = await k.machine.store.write(lambda tx: win(tx, winner))
            k.machine.process_changed(first)
            ends = [await ended(k, each) for each in losers]
            await until(lambda: not set(losers) & set(k.machine.running))
            kept = [k.machine.workspaces.read(each.replace("p_", "w-"), "a.txt", limit=99) for each in made.pids]
            outside = await k.call("read_process", pid=slow_ones.pid)
    assert {each.exit_code for each in ends} == {"killed"}
    assert all(winner in each.reason and each.pid.replace("p_", "w-") in each.reason for each in ends)
    assert kept == [b"the past"] * 3
    assert outside.exit_code != "killed"


async def test_a_race_goes_on_after_a_crash_and_still_has_one_winner(tmp_path: Path) -> None:
    script = (says("the original"), lambda prompt: says("first") if "now you" in prompt.turns[-1].text else never())

    def never() -> Reply:
        return calls(("wait_agent", {"pids": [], "timeout_s": 3_600}))

    async with kernel_on(tmp_path, models(*script)) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="x", wait_s=10)).pid
            saved = (await k.call("checkpoint", pid=pid)).checkpoint_id
            k.machine.stopping = True
            one, two = (await k.call("restore", checkpoint_id=saved, count=2, race=True)).pids
            await k.call("send_message", to=two, text="now you")
    async with kernel_on(tmp_path, models(*script)) as k:
        with anyio.fail_after(DEADLINE_S):
            lost, won = [await ended(k, each) for each in (one, two)]
            await until(lambda: not k.machine.running)
    assert (won.exit_code, won.result) == ("done", "first")
    assert (lost.exit_code, two in lost.reason) == ("killed", True)


def win(tx: Transaction, pid: str) -> Process:
    """End a process as its own turn does when it is done."""
    process = tx.process_get(Pid(pid))
    assert process is not None
    return table.end(tx, process, now=process.updated_at, code=ExitCode.DONE, reason="finished")


async def test_files_are_saved_by_themselves_while_commands_run_and_only_the_last_are_kept(tmp_path: Path) -> None:
    command = [calls(("sandbox_exec", {"command": str(n)}), key=f"c{n}") for n in range(6)]
    settings = Settings.model_validate({"checkpoints": {"every_turns": 2, "keep": 2}})
    talk = [calls(("list_agents", {}), key=f"t{n}") for n in range(4)]
    script = (*talk, *command, says("done"))
    async with kernel_on(tmp_path, models(*script), settings=settings) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="x")).pid
            disk = k.machine.workspaces
            disk.write(pid.replace("p_", "w-"), "a.txt", b"there from the start")
            await ended(k, pid)
            process = await k.call("read_process", pid=pid)
            rows = [await k.call("read_checkpoint", checkpoint_id=each) for each in process.checkpoints]
            first_talk = [s.number for s in (await k.call("read_journal", pid=pid)).steps if s.call == "list_agents"]
            last = [s.number for s in (await k.call("read_journal", pid=pid)).steps if s.call == "model"][-1]
            k.machine.stopping = True
            fork = await k.call("restore", checkpoint_id=f"{pid}@{last}")
            files = disk.read(fork.pid.replace("p_", "w-"), "a.txt", limit=99)
    assert [row.label for row in rows] == ["automatic"] * 2
    assert [row.files for row in rows] == [1, 1]
    assert all(row.step > first_talk[-1] for row in rows), "nothing is saved while no command runs"
    assert fork.files_step == rows[0].step
    assert files == b"there from the start"


async def test_what_was_saved_while_it_backed_off_goes_on_after_the_same_pause(tmp_path: Path) -> None:
    busy = ModelError(ModelFault.RATE, "Too many.", "Wait.", retry_after_s=3_000)
    model = ScriptedModel(NAME, (says("x"),), failures=[busy])
    async with kernel_on(tmp_path, ScriptedModels(model)) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="x")).pid
            await until(lambda: bool(model.prompts) and not k.machine.running)
            saved = (await k.call("checkpoint", pid=pid)).checkpoint_id
            fork = (await k.call("restore", checkpoint_id=saved)).pid
            row = await k.machine.store.read(lambda tx: tx.process_get(fork))
    assert row is not None
    assert row.wake_at is not None
    assert 2_900 < row.wake_at - row.created_at <= 3_000
