"""What every driver of downstream servers keeps, as a function; and the few lines a test of one begins with."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import anyio

from aos_mcp.abi.errors import NotFound
from aos_mcp.abi.mount import MountState, MountStatus
from aos_mcp.abi.settings import MountSettings
from aos_mcp.hardware import SystemClock, SystemEntropy
from aos_mcp.ports import Mounts
from aos_mcp.proxy.mount_table import MountTable

START_S = 60.0
"""Longer than any server of a test takes to start on a busy machine."""


async def check_mounts(mounts: Mounts, name: str, arguments: Mapping[str, object]) -> None:
    """Assert the contract of `ports.Mounts`; `name` is a tool of a server that is up, `arguments` suit it."""
    await mounts.settled(START_S)
    servers = [status.server for status in mounts.status()]
    assert servers == sorted(servers)
    tools = [tool.name for tool in mounts.tools()]
    assert tools == sorted(tools)
    assert name in tools
    tool = mounts.tool(name)
    assert tool is not None
    assert tool.name == f"{tool.server}__{tool.tool}"
    assert tool.server in servers
    assert json.loads(tool.input_schema)["type"] == "object"
    assert mounts.tool(f"{tool.server}__no-such-tool") is None
    outcome = await mounts.call(name, arguments, timeout_s=START_S)
    result = json.loads(outcome.result)
    assert outcome.is_error is result.get("isError", False)
    assert all(part["text"] in outcome.text for part in result["content"] if part["type"] == "text")
    for missing in (f"{tool.server}__no-such-tool", "no-such-server__tool", "no-separator"):
        try:
            await mounts.call(missing, {}, timeout_s=START_S)
        except NotFound:
            continue
        raise AssertionError(f"{missing} was called")


@asynccontextmanager
async def mounted(
    mounts: Mapping[str, MountSettings], environ: Mapping[str, str] | None = None
) -> AsyncIterator[MountTable]:
    """Mount real servers for the length of the block, each tried at least once, in this process's environment."""
    table = MountTable(mounts, SystemClock(), SystemEntropy(), os.environ if environ is None else environ)
    async with table:
        await table.settled(START_S)
        yield table


def status_of(mounts: Mounts, server: str) -> MountStatus:
    """Return one server's status."""
    return next(status for status in mounts.status() if status.server == server)


async def until(mounts: Mounts, done: Callable[[], bool]) -> None:
    """Return once `done()`, which is asked again at every change `mounts` tells of."""
    told = [anyio.Event()]

    def notify(_: str) -> None:
        told.append(anyio.Event())
        told[-2].set()

    mounts.on_change(notify)
    while not done():
        await told[-1].wait()


async def until_up(mounts: Mounts, server: str) -> None:
    """Return once a server is up."""
    await until(mounts, lambda: status_of(mounts, server).state is MountState.UP)
