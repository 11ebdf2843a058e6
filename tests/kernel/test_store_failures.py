"""A store that cannot be written to for a while stops the work, and loses nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import anyio
import pytest

from aos_mcp.abi.errors import Unavailable
from aos_mcp.hardware import SystemClock
from aos_mcp.ports import Store, Transaction
from aos_mcp.storage.sqlite import open_sqlite
from aos_mcp.testing.kernels import kernel_on
from aos_mcp.testing.model import ScriptedModel, ScriptedModels, calls, says

T = TypeVar("T")


class SickStore:
    """Refuses every write while it is ill, as a full disk does."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.ill = False
        self.refused = 0

    async def write(self, work: Callable[[Transaction], T], *, flush: bool = False, brief: bool = False) -> T:
        if self.ill:
            self.refused += 1
            raise Unavailable("The disk is full.", "Make room.")
        return await self.inner.write(work, flush=flush, brief=brief)

    async def read(self, work: Callable[[Transaction], T], *, brief: bool = False) -> T:
        return await self.inner.read(work, brief=brief)

    async def changed(self, timeout_s: float) -> None:
        await self.inner.changed(timeout_s)


async def test_a_full_disk_refuses_calls_and_agents_go_on_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aos_mcp.kernel.loop.WATCH_S", 0.05)
    busy = anyio.Event()
    model = ScriptedModel("scripted/one", (calls(("page_out", {"content": "x"}), key="a"), says("ok")), gate=busy)
    async with open_sqlite(tmp_path / "kernel.db", SystemClock()) as inner:
        store = SickStore(inner)
        async with kernel_on(tmp_path, ScriptedModels(model), store=store) as k:
            with anyio.fail_after(20):
                pid = (await k.call("spawn_agent", task="x")).pid
                while not model.prompts:
                    await anyio.lowlevel.checkpoint()
                store.ill = True
                busy.set()
                with pytest.raises(Unavailable):
                    await k.call("spawn_agent", task="y")
                while k.machine.running:
                    await anyio.lowlevel.checkpoint()
                store.ill = False
                agent = (await k.call("wait_agent", pids=[pid])).agents[0]
                assert (agent.exit_code, agent.result) == ("done", "ok")
                assert len((await k.call("list_agents")).agents) == 1
        assert store.refused > 1
