from __future__ import annotations

import json
import os
import signal
from collections.abc import Awaitable, Callable

import anyio
import pytest

from aos_mcp.abi import limits
from aos_mcp.abi.errors import Invalid, NotFound, TimedOut, Unavailable, UnknownOutcome
from aos_mcp.abi.mount import MountState, MountStatus, ToolOutcome
from aos_mcp.abi.settings import MountSettings
from aos_mcp.proxy.mount_table import MountTable

Raw = Callable[..., MountSettings]
StatusOf = Callable[[MountTable, str], MountStatus]
Until = Callable[[MountTable, Callable[[], bool]], Awaitable[None]]
Up = Callable[[MountTable, str], Awaitable[None]]


async def test_tools_of_an_older_server_are_listed_over_all_pages_and_called(mounted, raw: Raw, status: StatusOf):
    async with mounted(old=raw()) as table:
        told = status(table, "old")
        assert (told.state, told.tools, told.era, told.transport) == (MountState.UP, 11, "2025-06-18", "stdio")
        assert table.tool("old__echo") in table.tools()
        outcome = await table.call("old__echo", {"a": None, "b": [1]}, timeout_s=10)
        assert json.loads(outcome.text)["arguments"] == {"a": None, "b": [1]}
        assert not outcome.is_error


async def test_a_result_is_passed_on_with_all_that_we_do_not_know(mounted, raw: Raw):
    async with mounted(old=raw()) as table:
        outcome = await table.call("old__echo", {}, timeout_s=10)
        assert json.loads(outcome.result)["vendorField"] == [None, 1]


async def test_a_server_of_the_newest_revision_is_spoken_to_in_it(mounted, modern: MountSettings, status: StatusOf):
    async with mounted(new=modern) as table:
        assert status(table, "new").era == "2026-07-28"
        outcome = await table.call("new__add", {"a": 2, "b": 3}, timeout_s=10)
        assert json.loads(outcome.result)["structuredContent"] == {"value": 5}
        tool = table.tool("new__add")
        assert tool is not None
        assert tool.description == "Adds two numbers."
        assert "\u202e" in json.loads(tool.definition)["description"]


async def test_list_changes_are_followed_in_both_eras(mounted, raw: Raw, modern: MountSettings, until: Until):
    async with mounted(old=raw(), new=modern) as table:
        for server in ("old", "new"):
            assert table.tool(f"{server}__late") is None
            await table.call(f"{server}__grow", {}, timeout_s=10)
        await until(table, lambda: None not in {table.tool("old__late"), table.tool("new__late")})


async def test_a_killed_server_leaves_the_call_unknown_and_is_started_again(
    mounted, raw: Raw, status: StatusOf, until: Until, up: Up
):
    async with mounted(old=raw()) as table:
        first = status(table, "old").pid
        assert first is not None
        async with anyio.create_task_group() as tasks:

            async def kill_once_asked(done: float, total: float | None, message: str) -> None:
                os.kill(first, signal.SIGKILL)

            with pytest.raises(UnknownOutcome) as caught:
                await table.call("old__progress", {}, timeout_s=30, progress=_killer(first))
            tasks.cancel_scope.cancel()
        assert "old" in caught.value.message
        await up(table, "old")
        told = status(table, "old")
        assert told.pid != first
        assert told.restarts == 1
        assert (await table.call("old__echo", {}, timeout_s=10)).text


def _killer(pid: int):
    async def kill(done: float, total: float | None, message: str) -> None:
        os.kill(pid, signal.SIGKILL)

    return kill
