from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import anyio
import pytest

from aos_mcp.abi.mount import MountState, MountStatus
from aos_mcp.abi.settings import MountSettings
from aos_mcp.hardware import SystemClock, SystemEntropy
from aos_mcp.proxy.mount_table import MountTable

SERVERS = Path(__file__).parent / "servers"

Mounted = Callable[..., AbstractAsyncContextManager[MountTable]]
Listening = Callable[..., tuple[int, "subprocess.Popen[str]"]]


@asynccontextmanager
async def _mounted(environ: Mapping[str, str] | None = None, **mounts: MountSettings) -> AsyncIterator[MountTable]:
    table = MountTable(mounts, SystemClock(), SystemEntropy(), os.environ if environ is None else environ)
    with anyio.fail_after(90):
        async with table:
            await table.settled(60)
            yield table


@pytest.fixture
def mounted() -> Mounted:
    """Mounts servers for the length of a block, each tried at least once."""
    return _mounted


@pytest.fixture
def raw() -> Callable[..., MountSettings]:
    """Settings of the server written by hand."""

    def settings(*words: str, **more: object) -> MountSettings:
        return MountSettings.model_validate(
            {"command": sys.executable, "args": ["-u", str(SERVERS / "raw.py"), *words], **more}
        )

    return settings


@pytest.fixture
def modern() -> MountSettings:
    """Settings of the server on the SDK, over stdio."""
    return MountSettings(command=sys.executable, args=[str(SERVERS / "modern.py"), "stdio"])


@pytest.fixture
def listening() -> Iterator[Listening]:
    """Starts the server on the SDK on a port; returns the port and the process."""
    started: list[subprocess.Popen[str]] = []

    def start(transport: str, port: int = 0) -> tuple[int, subprocess.Popen[str]]:
        process = subprocess.Popen(
            [sys.executable, str(SERVERS / "modern.py"), transport, str(port)], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        return int(process.stdout.readline()), process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def status_of(table: MountTable, server: str) -> MountStatus:
    return next(status for status in table.status() if status.server == server)


@pytest.fixture
def status() -> Callable[[MountTable, str], MountStatus]:
    """Picks one server's status."""
    return status_of


@pytest.fixture
def until() -> Callable[[MountTable, Callable[[], bool]], object]:
    """Waits for something to become true of a table, looking at each change it tells of."""

    async def wait(table: MountTable, done: Callable[[], bool]) -> None:
        told = anyio.Event()

        def notify(server: str) -> None:
            nonlocal told
            told.set()
            told = anyio.Event()

        table.on_change(notify)
        while not done():
            await told.wait()

    return wait


@pytest.fixture
def up(until: Callable[..., object]) -> Callable[..., object]:
    """Waits for a server to be up."""

    async def wait(table: MountTable, server: str) -> None:
        await until(table, lambda: status_of(table, server).state is MountState.UP)  # type: ignore[misc]

    return wait
