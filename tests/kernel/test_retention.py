"""Words of agents that ended long ago are taken out by themselves; what somebody may still ask for stays."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from aos_mcp.abi.capability import CallerKind
from aos_mcp.abi.errors import NotFound
from aos_mcp.abi.limits import FORGET_LOOK_S, FORGET_MAX, FORGET_REST_S
from aos_mcp.abi.settings import Settings
from aos_mcp.kernel.autosave import AUTOMATIC
from aos_mcp.ports import Models
from aos_mcp.testing.clock import FakeClock
from aos_mcp.testing.kernels import HOST, TestKernel, kernel_on
from aos_mcp.testing.model import Answer, ScriptedModel, ScriptedModels, calls, says
from tests.kernel.stage import CHILD, DEADLINE_S, NAME, ended, models, until

DAY_S = 86_400.0
DAYS = 30
OPERATOR = replace(HOST, kind=CallerKind.OPERATOR)
WORD = "xylophone"
SCRIPT: tuple[Answer, ...] = (
    calls(("page_out", {"content": f"about a {WORD}"}), key="a"),
    lambda prompt: says(f"found: {prompt.turns[0].text}"),
    says("and on"),
)


@dataclass
class Archive:
    """A kernel that keeps words for a month, and the clock it goes by."""

    k: TestKernel
    clock: FakeClock

    async def ran(self, task: str) -> str:
        return str((await ended(self.k, (await self.k.call("spawn_agent", task=task)).pid)).pid)

    async def days_pass(self, days: float) -> None:
        """Let time pass, and the kernel forget whom it will."""
        self.clock.advance(days * DAY_S + FORGET_LOOK_S)
        while await self.k.machine.store.read(
            lambda tx: tx.process_forgettable(
                before=self.clock.now() - DAYS * DAY_S - FORGET_LOOK_S, automatic=AUTOMATIC, limit=1
            )
        ):
            self.clock.advance(FORGET_REST_S)

    async def told(self, pid: str) -> str:
        """Return the first words an agent was told, or that they were erased."""
        page = next(page for page in (await self.k.call("read_context", pid=pid)).pages if page.kind == "task")
        try:
            return str((await self.k.call("page_in", page_id=page.page_id)).content)
        except NotFound as error:
            return error.message

    async def forgotten(self) -> list[str]:
        """Return whom the log says to be forgotten, in this order."""
        assert (await self.k.call("read_audit", verify=True)).verified.ok
        records = await self.k.machine.store.read(lambda tx: tx.audit_list(after=0, limit=9_999))
        return [record.entry.pid for record in records if record.entry.call == "forget"]


@asynccontextmanager
async def archive(
    home: Path, catalogue: Models | None = None, *, days: int | None = DAYS, clock: FakeClock | None = None
) -> AsyncIterator[Archive]:
    settings = Settings.model_validate({"retention": {"ended_days": days} if days is not None else {}})
    clock = clock or FakeClock()
    with anyio.fail_after(2 * DEADLINE_S):
        async with kernel_on(home, catalogue or models(*SCRIPT), settings=settings, clock=clock) as k:
            yield Archive(k, clock)


async def test_who_ended_long_ago_is_forgotten_and_the_log_tells_of_each(tmp_path: Path) -> None:
    async with archive(tmp_path) as a:
        old = await a.ran("old")
        await a.days_pass(20)
        young = await a.ran("young")
        await a.days_pass(11)
        assert "erased" in await a.told(old)
        assert await a.told(young) == "young"
        assert await a.forgotten() == [old]
        assert (await a.k.call("wait_agent", pids=[old])).agents[0].exit_code == "done"
        assert (await a.k.call("wait_agent", pids=[old])).agents[0].result is None
        assert (await a.k.call("wait_agent", pids=[young])).agents[0].result == "found: young"
        assert (await a.k.call("search_pages", query=WORD)).hits != []
        await a.days_pass(20)
        assert await a.forgotten() == [old, young]
        assert (await a.k.call("search_pages", query=WORD)).hits == []


async def test_nothing_is_forgotten_unless_a_time_is_set(tmp_path: Path) -> None:
    clock = FakeClock()
    async with archive(tmp_path, days=None, clock=clock) as a:
        kept = await a.ran("kept")
        clock.advance(10_000 * DAY_S)
        assert await a.told(kept) == "kept"
        assert await a.forgotten() == []


async def test_who_was_saved_by_somebody_is_kept(tmp_path: Path) -> None:
    async with archive(tmp_path) as a:
        saved = await a.ran("saved")
        checkpoint = (await a.k.call("checkpoint", pid=saved, label="as it was")).checkpoint_id
        other = await a.ran("other")
        await a.days_pass(40)
        assert await a.forgotten() == [other]
        assert await a.told(saved) == "saved"
        again = (await a.k.call("restore", checkpoint_id=checkpoint)).pid
        assert (await ended(a.k, again)).exit_code == "done"


async def test_whose_kin_is_alive_is_kept_until_the_whole_tree_has_ended(tmp_path: Path) -> None:
    spawn, look = (
        calls(("spawn_agent", {"task": "child", "model": CHILD}), key="a"),
        calls(("list_agents", {}), key="b"),
    )
    parent, child = ScriptedModel(NAME, (spawn, look, says("never"))), ScriptedModel(CHILD, (says("child done"),))
    async with archive(tmp_path, ScriptedModels(parent, child)) as a:
        top = (await a.k.call("spawn_agent", task="parent")).pid
        await until(lambda: len(parent.prompts) == 1)
        parent.gate = anyio.Event()
        await until(lambda: bool(child.prompts))
        await a.k.call("signal_agent", pid=top, signal="stop", tree=False)
        parent.gate.set()  # what is under way comes to its end first
        while (await a.k.call("read_process", pid=top)).state != "stopped":
            await anyio.lowlevel.checkpoint()
        below = next(row.pid for row in (await a.k.call("list_agents")).agents if row.pid != top)
        await ended(a.k, below)
        await a.days_pass(40)
        assert await a.told(below) == "child"
        await a.k.call("signal_agent", pid=top, signal="kill")
        await a.days_pass(40)
        assert set(await a.forgotten()) == {top, below}
        assert "erased" in await a.told(below)


async def test_what_a_fork_lives_on_goes_with_the_fork(tmp_path: Path) -> None:
    async with archive(tmp_path) as a:
        base = await a.ran("shared past")
        await a.days_pass(20)
        journal = (await a.k.call("read_journal", pid=base)).steps
        fork = (await a.k.call("restore", checkpoint_id=f"{base}@{journal[-1].number}")).pid
        await ended(a.k, fork)
        await a.days_pass(15)
        assert await a.forgotten() == [base]
        assert await a.told(fork) == "shared past", "the fork still reads what it began with"
        await a.days_pass(20)
        assert await a.forgotten() == [base, fork]
        assert "erased" in await a.told(fork)
        assert (await a.k.call("search_pages", query=WORD)).hits == []


async def test_equal_words_go_with_the_last_who_said_them(tmp_path: Path) -> None:
    async with archive(tmp_path) as a:
        first = await a.ran("the same")
        await a.days_pass(20)
        second = await a.ran("the same")
        await a.days_pass(15)
        assert await a.forgotten() == [first]
        assert await a.told(first) == await a.told(second) == "the same"
        await a.days_pass(20)
        assert "erased" in await a.told(first)
        assert "erased" in await a.told(second)


async def test_many_are_forgotten_a_few_at_a_time_and_after_a_restart_too(tmp_path: Path) -> None:
    clock, count = FakeClock(), FORGET_MAX + 8
    async with archive(tmp_path, models(*[says("done")]), days=None, clock=clock) as a:
        for number in range(count):
            await a.ran(f"one of many {number}")
        clock.advance(40 * DAY_S)
        some: Any = await a.k.call("forget_ended", OPERATOR, before=clock.now() - DAYS * DAY_S, limit=5)
        assert (some.agents, some.erased > 0) == (5, True)
        nobody: Any = await a.k.call("forget_ended", OPERATOR, before=clock.now() - 50 * DAY_S)
        assert (nobody.agents, nobody.erased, nobody.shared) == (0, 0, 0)
        with pytest.raises(NotFound):
            await a.k.call("forget_ended", before=clock.now())
    async with archive(tmp_path, models(*[says("done")]), clock=clock) as a:
        await a.days_pass(1)
        assert len(set(await a.forgotten())) == count
