"""A surface over a whole kernel, and real daemons in homes of their own."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client

from aos_mcp.abi.capability import Caller, CallerKind
from aos_mcp.abi.settings import Settings
from aos_mcp.server import AosServer, KernelSlot, Surface
from aos_mcp.testing.kernels import OWNER, TestKernel, kernel_on
from aos_mcp.testing.model import ScriptedModel, ScriptedModels

STATE_KEY = bytes(range(32))
ROOT = Path(__file__).parents[2]
MODERN, LEGACY = "2026-07-28", "legacy"
ERAS = pytest.mark.parametrize("era", [MODERN, LEGACY])


@dataclass
class Served:
    """A surface, its kernel and servers on it."""

    surface: Surface
    kernel: TestKernel

    def server(self) -> AosServer:
        return self.surface.server(Caller(kind=CallerKind.HOST, principal=OWNER, host="test"), object())

    def client(self, era: str, **options: Any) -> Client:
        return Client(self.server(), mode=era, **options)


@asynccontextmanager
async def serving(home: Path, *script: object, settings: Settings | None = None, **parts: Any) -> AsyncIterator[Served]:
    """Serve a kernel whose model answers by `script`."""
    models = ScriptedModels(ScriptedModel("scripted/one", script))
    async with kernel_on(home, models, settings=settings, **parts) as kernel:
        slot = KernelSlot()
        surface = Surface(slot, OWNER, STATE_KEY)
        slot.fill(kernel.kernel)
        async with anyio.create_task_group() as tasks:
            await tasks.start(surface.run)
            yield Served(surface, kernel)
            tasks.cancel_scope.cancel()


@pytest.fixture
def home() -> Iterator[Path]:
    """A home with a path short enough for a socket in it; its daemon is ended afterwards."""
    path = Path(tempfile.mkdtemp(prefix="aos-"))
    yield path
    end_daemon(path)
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def environment(home: Path) -> dict[str, str]:
    """What a host gives the command: nothing of the developer's own keys or settings."""
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "LANG", "PYTHONPYCACHEPREFIX"}}
    (home / "aos.toml").write_text("[sandbox]\ndrivers = []\n", "utf-8")
    return {**kept, "HOME": str(home), "AOS_HOME": str(home), "PYTHONPATH": str(ROOT)}


COMMAND = [sys.executable, "-P", "-m", "aos_mcp"]


def daemon_pid(home: Path) -> int | None:
    """Return the daemon's process, None where none runs."""
    from aos_mcp.daemon import read_status

    status = read_status(home)
    return status.pid if status is not None else None


def end_daemon(home: Path) -> None:
    import signal
    from contextlib import suppress

    pid = daemon_pid(home)
    if pid is None:
        return
    descriptor = None
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        os.kill(pid, signal.SIGTERM)
    if descriptor is not None:
        import select

        select.select([descriptor], [], [], 15)
        os.close(descriptor)
