"""A surface over a whole kernel, and real daemons in homes of their own."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream
from mcp import Client

from aos_mcp.abi.capability import Caller, CallerKind
from aos_mcp.abi.settings import Settings
from aos_mcp.daemon import read_status
from aos_mcp.server import AosServer, KernelSlot, Surface
from aos_mcp.testing.kernels import OWNER, TestKernel, kernel_on
from aos_mcp.testing.model import Answer, ScriptedModel, ScriptedModels

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
async def serving(home: Path, *script: Answer, settings: Settings | None = None, **parts: Any) -> AsyncIterator[Served]:
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
    status = read_status(home)
    return status.pid if status is not None else None


def end_daemon(home: Path, with_signal: int = signal.SIGTERM) -> None:
    """Signal the daemon and wait until its process is gone."""
    pid = daemon_pid(home)
    if pid is None:
        return
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        os.kill(pid, with_signal)
        ended, _, _ = select.select([process], [], [], 20)
        assert ended, "the daemon did not end"
    finally:
        os.close(process)


class Host:
    """A host that speaks raw lines to the command it started."""

    def __init__(self, process: anyio.abc.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self._input = process.stdin
        self._output = BufferedByteReceiveStream(process.stdout)
        self._last_id = 0

    async def send(self, message: object) -> None:
        line = message if isinstance(message, bytes) else json.dumps(message).encode()
        await self._input.send(line + b"\n")

    async def receive(self) -> dict[str, Any]:
        line = await self._output.receive_until(b"\n", 64 * 2**20)
        message: dict[str, Any] = json.loads(line)
        return message

    async def ask(self, method: str, modern: bool = True, **params: Any) -> int:
        """Send a request; return its id."""
        self._last_id += 1
        if modern:
            params["_meta"] = {
                "io.modelcontextprotocol/protocolVersion": MODERN,
                "io.modelcontextprotocol/clientCapabilities": {},
            }
        await self.send({"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": params})
        return self._last_id

    async def answer(self, request_id: int) -> dict[str, Any]:
        """Return the answer to a request, passing over what else comes."""
        while True:
            message = await self.receive()
            if message.get("id") == request_id and "method" not in message:
                return message

    async def request(self, method: str, modern: bool = True, **params: Any) -> dict[str, Any]:
        return await self.answer(await self.ask(method, modern, **params))

    async def call(self, name: str, arguments: dict[str, Any], modern: bool = True) -> Any:
        """Call a tool; return its structured result."""
        reply = await self.request("tools/call", modern, name=name, arguments=arguments)
        assert "result" in reply, reply
        return reply["result"]["structuredContent"]

    async def shake_hands(self, capabilities: dict[str, Any] | None = None) -> None:
        info = {"name": "raw", "version": "1"}
        given = {"protocolVersion": "2025-11-25", "capabilities": capabilities or {}, "clientInfo": info}
        assert "result" in await self.request("initialize", False, **given)
        await self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    async def close(self) -> None:
        await self._input.aclose()


@asynccontextmanager
async def host(environment: dict[str, str], *arguments: str) -> AsyncIterator[Host]:
    """Start the command as a host does, and end it as a host does: by closing its input."""
    command = [*COMMAND, *arguments]
    async with await anyio.open_process(command, env=environment, stderr=None) as process:
        started = Host(process)
        try:
            with anyio.fail_after(60):
                yield started
        finally:
            with anyio.move_on_after(10, shield=True):
                await started.close()
                await process.wait()
