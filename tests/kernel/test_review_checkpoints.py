"""Checkpoints against a loop that goes on, and restores that are made again after a crash."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio

from aos_mcp.abi.sandbox import WorkspaceFile
from aos_mcp.abi.settings import Settings
from aos_mcp.hardware import SystemClock
from aos_mcp.kernel.recovery import take_over
from aos_mcp.sandbox.workspace import DirectoryWorkspaces
from aos_mcp.storage.sqlite import open_sqlite
from aos_mcp.testing.devices import RecordingSandbox
from aos_mcp.testing.kernels import TestKernel, kernel_on
from aos_mcp.testing.model import ScriptedModel, ScriptedModels, calls, says
from tests.kernel.stage import CHILD, DEADLINE_S, NAME, ended, handle_in, models, results_of, until
from tests.kernel.test_races import HookedStore, unit_name


class HeldWorkspaces(DirectoryWorkspaces):
    """Workspaces whose scan waits for the test."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.scanning, self.go_on = threading.Event(), threading.Event()

    def scan(
        self, workspace: str, known: Mapping[str, WorkspaceFile], *, hashed: bool = True
    ) -> Mapping[str, WorkspaceFile]:
        self.scanning.set()
        assert self.go_on.wait(DEADLINE_S)
        return super().scan(workspace, known, hashed=hashed)


async def test_an_agent_that_is_being_saved_is_not_claimed_meanwhile(tmp_path: Path) -> None:
    model = ScriptedModel(NAME, (says("done"),))
    async with open_sqlite(tmp_path / "kernel.db", SystemClock()) as inner:
        store = HookedStore(inner)
        async with kernel_on(tmp_path, ScriptedModels(model), store=store) as k, anyio.create_task_group() as group:
            held = k.machine.workspaces = HeldWorkspaces(tmp_path / "workspaces")

            async def save_first() -> None:
                store.hooks.clear()
                group.start_soon(save)
                await until(held.scanning.is_set)

            async def save() -> None:
                await k.call("checkpoint", pid=pid)

            with anyio.fail_after(DEADLINE_S):
                k.machine.stopping = True
                pid = (await k.call("spawn_agent", task="x")).pid
                store.hooks["_claim"] = save_first
                k.machine.stopping = False
                k.machine.wake()
                await until(held.scanning.is_set)
                for _ in range(20):
                    await store.write(lambda tx: None)
                assert (await k.call("list_agents")).agents[0].state == "ready"
                held.go_on.set()
                assert (await ended(k, pid)).result == "done"


async def test_an_agents_wait_does_not_end_while_it_is_being_saved(tmp_path: Path) -> None:
    sandbox = RecordingSandbox()
    script = (
        calls(("wait_agent", {"pids": [], "timeout_s": 3_600}), ("sandbox_exec", {"command": "x"}), key="a"),
        says("done"),
    )
    async with (
        kernel_on(tmp_path, models(*script), sandbox=sandbox) as k,
        anyio.create_task_group() as group,
    ):
        held = k.machine.workspaces = HeldWorkspaces(tmp_path / "workspaces")

        async def save() -> None:
            await k.call("checkpoint", pid=pid)

        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="x")).pid
            await until(lambda: bool(k.machine.blocked))
            group.start_soon(save)
            await until(held.scanning.is_set)
            await k.call("send_message", to=pid, text="go on")
            for _ in range(20):
                await k.machine.store.write(lambda tx: None)
            assert (sandbox.commands, (await k.call("list_agents")).agents[0].state) == ([], "blocked")
            held.go_on.set()
            assert (await ended(k, pid)).result == "done"


async def test_a_restore_that_is_made_again_after_a_crash_gives_the_same_fork(tmp_path: Path) -> None:
    child = ScriptedModel(CHILD, (says("child"),) * 3)

    def parent() -> ScriptedModel:
        return ScriptedModel(
            NAME,
            (
                calls(("spawn_agent", {"task": "c", "model": CHILD, "wait_s": 60}), key="a"),
                lambda p: calls(("checkpoint", {"pid": handle_in(results_of(p)[0], "p_")}), key="b"),
                lambda p: calls(("restore", {"checkpoint_id": handle_in(results_of(p)[1], "ck_")}), key="c"),
                lambda p: says(results_of(p)[2]),
            ),
        )

    async with open_sqlite(tmp_path / "kernel.db", SystemClock()) as inner:
        store = HookedStore(inner)
        async with kernel_on(tmp_path, ScriptedModels(parent(), child), store=store) as k:
            stuck, gone = anyio.Event(), anyio.Event()

            async def die() -> None:
                if await forks(k) and not stuck.is_set():
                    stuck.set()
                    await gone.wait()

            try:
                with anyio.fail_after(DEADLINE_S):
                    store.hooks["_done"] = die
                    pid = (await k.call("spawn_agent", task="x")).pid
                    await stuck.wait()
                    store.hooks.clear()
                    await inner.write(lambda tx: take_over(tx, k.machine, pid))  # as the next kernel does
                    k.machine.running.clear()
                    k.machine.wake()
                    agent = await ended(k, pid)
            finally:
                gone.set()
            assert len(await forks(k)) == 1
            assert (await forks(k))[0] in agent.result


async def forks(k: TestKernel) -> list[str]:
    rows = await k.machine.store.read(lambda tx: tx.process_list(limit=50))
    return [row.pid for row in rows if row.forked_from is not None]


async def test_an_agent_killed_while_its_own_save_is_decided_takes_nothing_else_along(tmp_path: Path) -> None:
    settings = Settings.model_validate({"checkpoints": {"every_turns": 1}})
    script = (calls(("sandbox_exec", {"command": "make"}), key="a"), says("done"))
    async with kernel_on(tmp_path, models(*script), settings=settings) as k:
        machine, inner = k.machine, k.machine.store

        class Store(HookedStore):
            async def read(self, work: Any, *, brief: bool = False) -> Any:
                found = await inner.read(work, brief=brief)
                if "autosave" in unit_name(work):
                    machine.unsaved.clear()  # as the reaper does, once the end is published
                return found

        machine.store = Store(inner)
        with anyio.fail_after(DEADLINE_S):
            assert (await ended(k, (await k.call("spawn_agent", task="x")).pid)).result == "done"
            assert (await ended(k, (await k.call("spawn_agent", task="y")).pid)).result == "done"
