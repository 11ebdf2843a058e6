"""Servers as child processes: both eras, and everything a process can do wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from aos_mcp.abi import limits
from aos_mcp.abi.errors import Invalid, NotFound, TimedOut, Unavailable, UnknownOutcome
from aos_mcp.abi.mount import MountState, ToolOutcome
from aos_mcp.abi.settings import MountSettings
from aos_mcp.testing.mount_checks import check_mounts, mounted, status_of, until, until_up

SERVERS = Path(__file__).parent / "servers"
VENV = Path(sys.executable).parent
TEST_S = 90
"""No test takes that long; one that hangs does not hang the suite."""


def handmade(*words: str, **more: object) -> MountSettings:
    arguments = ["-u", str(SERVERS / "handmade_server.py"), *words]
    return MountSettings.model_validate({"command": sys.executable, "args": arguments, **more})


def sdk() -> MountSettings:
    return MountSettings(command=sys.executable, args=[str(SERVERS / "sdk_server.py"), "stdio"])


async def test_the_driver_keeps_the_contract() -> None:
    with anyio.fail_after(TEST_S):
        async with mounted({"old": handmade(), "new": sdk()}) as table:
            await check_mounts(table, "old__echo", {"a": 1})
            await check_mounts(table, "new__add", {"a": 1, "b": 2})


async def test_an_older_server_is_listed_over_all_pages_and_called() -> None:
    with anyio.fail_after(TEST_S):
        async with mounted({"old": handmade()}) as table:
            status = status_of(table, "old")
            assert (status.state, status.tools, status.era) == (MountState.UP, 12, "2025-06-18")
            outcome = await table.call("old__echo", {"a": None, "b": [1]}, timeout_s=10)
            assert json.loads(outcome.text)["arguments"] == {"a": None, "b": [1]}


async def test_a_result_is_passed_on_with_all_that_we_do_not_know() -> None:
    with anyio.fail_after(TEST_S):
        async with mounted({"old": handmade()}) as table:
            outcome = await table.call("old__echo", {}, timeout_s=10)
            assert json.loads(outcome.result)["vendorField"] == [None, 1]


async def test_meta_is_passed_on_but_for_what_is_between_the_caller_and_us() -> None:
    meta = {"traceparent": "00-1-2-01", "progressToken": "mine", "io.modelcontextprotocol/clientInfo": {"name": "x"}}
    with anyio.fail_after(TEST_S):
        async with mounted({"old": handmade()}) as table:
            outcome = await table.call("old__echo", {}, timeout_s=10, meta=meta)
            assert json.loads(outcome.text)["meta"] == {"traceparent": "00-1-2-01"}


async def test_a_server_of_the_newest_revision_is_spoken_to_in_it() -> None:
    with anyio.fail_after(TEST_S):
        async with mounted({"new": sdk()}) as table:
            assert status_of(table, "new").era == "2026-07-28"
            outcome = await table.call("new__add", {"a": 2, "b": 3}, timeout_s=10)
            assert json.loads(outcome.result)["structuredContent"] == {"value": 5}


async def test_list_changes_are_followed_in_both_eras() -> None:
    with anyio.fail_after(TEST_S):
        async with mounted({"old": handmade(), "new": sdk()}) as table:
            for server in ("old", "new"):
                assert table.tool(f"{server}__late") is None
                await table.call(f"{server}__grow", {}, timeout_s=10)
            await until(table, lambda: None not in {table.tool("old__late"), table.tool("new__late")})


async def test_a_killed_server_leaves_the_call_unknown_and_is_started_again() -> None:
    with anyio.fail_after(TEST_S):
        async with mounted({"new": sdk()}) as table:
            before = status_of(table, "new").pid
            assert before is not None

            async def kill(done: float, total: float | None, message: str) -> None:
                os.kill(before, signal.SIGKILL)

            with pytest.raises(UnknownOutcome, match="slow"):
                await table.call("new__slow", {}, timeout_s=30, progress=kill)
            await until_up(table, "new")
            status = status_of(table, "new")
            assert status.pid != before
            assert (status.restarts, status.era) == (1, "2026-07-28")
            assert (await table.call("new__add", {"a": 1, "b": 1}, timeout_s=10)).text


async def test_a_call_to_a_server_that_was_just_killed_waits_for_its_successor() -> None:
    with anyio.fail_after(TEST_S):
        async with mounted({"old": handmade()}) as table:
            pid = status_of(table, "old").pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await until(table, lambda: status_of(table, "old").state is MountState.DOWN)
            assert (await table.call("old__echo", {}, timeout_s=10)).text


async def test_a_server_that_never_answers_times_out_and_is_told_to_stop() -> None:
    with anyio.fail_after(TEST_S):
        async with mounted({"old": handmade()}) as table:
            with pytest.raises(TimedOut):
                await table.call("old__hang", {}, timeout_s=0.2)
            told = (await table.call("old__cancelled", {}, timeout_s=10)).text
            assert len(json.loads(told)) == 1


async def test_the_operators_timeout_goes_before_the_callers() -> None:
    with anyio.fail_after(TEST_S):
        async with mounted({"old": handmade(timeout_s=0.2)}) as table:
            with pytest.raises(TimedOut, match="0.2 s"):
                await table.call("old__hang", {}, timeout_s=60)


async def test_a_cancelled_call_is_cancelled_at_the_server() -> None:
    with anyio.fail_after(TEST_S):
        async with mounted({"old": handmade()}) as table:
            with anyio.move_on_after(0.2):
                await table.call("old__hang", {}, timeout_s=60)
            assert len(json.loads((await table.call("old__cancelled", {}, timeout_s=10)).text)) == 1


async def test_a_line_of_twenty_megabytes_costs_the_connection_and_not_the_kernel() -> None:
    with anyio.fail_after(TEST_S):
        async with mounted({"old": handmade(), "other": handmade()}) as table:
            with pytest.raises(UnknownOutcome, match="longer than"):
                await table.call("old__flood", {"bytes": 20 * 2**20}, timeout_s=30)
            assert (await table.call("other__echo", {}, timeout_s=10)).text
            await until_up(table, "old")


async def test_a_line_of_five_megabytes_arrives() -> None:
    with anyio.fail_after(TEST_S):
        async with mounted({"old": handmade()}) as table:
            outcome = await table.call("old__flood", {"bytes": 5 * 2**20}, timeout_s=30)
            assert len(outcome.text) == 5 * 2**20


async def test_a_server_that_exits_at_once_is_down_with_its_last_words_and_no_secret() -> None:
    with anyio.fail_after(TEST_S):
        async with mounted(
            {"bad": handmade("exit", env={"TOKEN": "env:MY_TOKEN"})}, {"MY_TOKEN": "hunter2hunter2"}
        ) as t:
            status = status_of(t, "bad")
            assert status.state is MountState.DOWN
            assert "status 1" in status.error
            assert "the configuration is missing, token ***" in status.error
            assert not t.tools()


async def test_a_command_that_does_not_exist_is_named() -> None:
    with anyio.fail_after(TEST_S):
        async with mounted({"bad": MountSettings(command="no-such-command-at-all")}) as table:
            assert "no-such-command-at-all: No such file" in status_of(table, "bad").error


async def test_a_folder_that_does_not_exist_is_named() -> None:
    with anyio.fail_after(TEST_S):
        async with mounted({"bad": handmade(cwd="/no/such/folder")}) as table:
            assert "/no/such/folder" in status_of(table, "bad").error


async def test_a_call_to_a_server_that_is_down_says_why() -> None:
    with anyio.fail_after(TEST_S):
        async with mounted({"bad": handmade("exit")}) as table:
            with pytest.raises(Unavailable, match="configuration is missing"):
                await table.call("bad__echo", {}, timeout_s=10)


async def test_text_among_the_messages_is_passed_over() -> None:
    with anyio.fail_after(TEST_S):
        async with mounted({"noisy": handmade("noise")}) as table:
            assert (await table.call("noisy__echo", {}, timeout_s=10)).text


async def test_a_program_that_only_writes_text_is_no_server() -> None:
    with anyio.fail_after(TEST_S):
        async with mounted({"babble": handmade("babble")}) as table:
            assert "standard output" in status_of(table, "babble").error


async def test_a_server_that_chokes_on_the_probe_comes_up_without_it() -> None:
    with anyio.fail_after(TEST_S):
        async with mounted({"old": handmade(env={"CHOKE": "1"})}) as table:
            await until_up(table, "old")
            assert status_of(table, "old").restarts == 1


async def test_a_variable_that_is_not_set_is_named_and_the_server_not_started() -> None:
    with anyio.fail_after(TEST_S):
        async with mounted({"old": handmade(env={"KEY": "${AOS_NO_SUCH}"})}) as table:
            status = status_of(table, "old")
            assert status.state is MountState.DOWN
            assert "AOS_NO_SUCH" in status.error


async def test_a_child_sees_six_variables_and_what_was_configured() -> None:
    environ = {**os.environ, "OPENAI_API_KEY": "secret", "LANGUAGE": "en"}
    with anyio.fail_after(TEST_S):
        async with mounted({"old": handmade(env={"MINE": "${LANGUAGE}-x"})}, environ) as table:
            seen = json.loads((await table.call("old__environment", {}, timeout_s=10)).text)
            assert seen["MINE"] == "en-x"
            assert set(seen) - {"MINE", "LC_CTYPE"} <= {"HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER"}


async def test_a_server_that_asks_its_user_is_refused_and_nothing_hangs() -> None:
    with anyio.fail_after(TEST_S):
        async with mounted({"old": handmade(), "new": sdk()}) as table:
            asked = await table.call("old__ask", {}, timeout_s=10)
            assert asked.is_error
            assert "not supported" in asked.text
            with pytest.raises(Unavailable, match=r"input|elicitation"):
                await table.call("new__confirm", {"what": "it"}, timeout_s=10)


async def test_errors_of_the_server_keep_their_kind() -> None:
    with anyio.fail_after(TEST_S):
        async with mounted({"old": handmade()}) as table:
            with pytest.raises(Invalid, match="b must be a number"):
                await table.call("old__refuse", {}, timeout_s=10)
            with pytest.raises(NotFound):
                await table.call("old__unknown", {}, timeout_s=10)
            with pytest.raises(Unavailable, match="the disk is full"):
                await table.call("old__fail", {}, timeout_s=10)
            with pytest.raises(UnknownOutcome, match="not a tool result"):
                await table.call("old__odd", {}, timeout_s=10)


async def test_an_error_the_tool_reports_is_a_result() -> None:
    with anyio.fail_after(TEST_S):
        async with mounted({"new": sdk()}) as table:
            assert (await table.call("new__add", {"a": "no number", "b": 1}, timeout_s=10)).is_error


async def test_progress_is_passed_on_at_a_bounded_rate() -> None:
    seen: list[tuple[float, float | None, str]] = []

    async def note(done: float, total: float | None, message: str) -> None:
        seen.append((done, total, message))

    with anyio.fail_after(TEST_S):
        async with mounted({"old": handmade(), "new": sdk()}) as table:
            await table.call("new__slow", {}, timeout_s=10, progress=note)
            assert seen == [(0.0, 3.0, "step 0"), (1.0, 3.0, "step 1"), (2.0, 3.0, "step 2")]
            seen.clear()
            await table.call("old__progress", {}, timeout_s=10, progress=note)
            assert 1 <= len(seen) < 100


async def test_sixty_four_calls_at_once_are_answered_each_with_its_own() -> None:
    with anyio.fail_after(TEST_S):
        async with mounted({"old": handmade(), "new": sdk()}) as table:
            outcomes: dict[int, ToolOutcome] = {}

            async def add(n: int) -> None:
                outcomes[n] = await table.call("new__add", {"a": n, "b": 1}, timeout_s=60)
                await table.call("old__echo", {"n": n}, timeout_s=60)

            async with anyio.create_task_group() as tasks:
                for n in range(64):
                    tasks.start_soon(add, n)
            assert {n: json.loads(o.result)["structuredContent"]["value"] for n, o in outcomes.items()} == {
                n: n + 1 for n in range(64)
            }


async def test_only_the_offered_tools_can_be_called() -> None:
    with anyio.fail_after(TEST_S):
        async with mounted({"old": handmade(tools=["e*", "hang"])}) as table:
            assert [tool.tool for tool in table.tools()] == ["echo", "environment", "hang"]
            with pytest.raises(NotFound):
                await table.call("old__flood", {"bytes": 1}, timeout_s=10)


async def test_a_server_with_too_many_tools_offers_the_first_and_says_so() -> None:
    with anyio.fail_after(TEST_S):
        async with mounted({"old": handmade(env={"EXTRA_TOOLS": "300"})}) as table:
            status = status_of(table, "old")
            assert (status.state, status.tools) == (MountState.UP, limits.MOUNT_TOOLS_MAX)
            assert "left out" in status.error


async def test_a_disabled_server_is_shown_and_not_started() -> None:
    with anyio.fail_after(TEST_S):
        async with mounted({"off": handmade(disabled=True)}) as table:
            status = status_of(table, "off")
            assert (status.state, status.pid) == (MountState.DISABLED, None)
            with pytest.raises(Unavailable, match="disabled"):
                await table.call("off__echo", {}, timeout_s=10)


async def test_servers_from_the_package_index_work(tmp_path: Path) -> None:
    await anyio.run_process(["git", "init", "-q", str(tmp_path)])
    (tmp_path / "new.txt").write_text("x", "utf-8")
    git = MountSettings(command=str(VENV / "mcp-server-git"), args=["--repository", str(tmp_path)])
    time = MountSettings(command=str(VENV / "mcp-server-time"), args=["--local-timezone", "UTC"])
    with anyio.fail_after(TEST_S):
        async with mounted({"git": git, "time": time}) as table:
            assert "new.txt" in (await table.call("git__git_status", {"repo_path": str(tmp_path)}, timeout_s=20)).text
            assert "UTC" in (await table.call("time__get_current_time", {"timezone": "UTC"}, timeout_s=20)).text


def test_a_table_without_servers_loads_no_sdk() -> None:
    program = """
import sys, anyio
from aos_mcp.hardware import SystemClock, SystemEntropy
from aos_mcp.proxy.host_config import import_mounts
from aos_mcp.proxy.mount_table import MountTable
async def main():
    async with MountTable({}, SystemClock(), SystemEntropy(), {}) as table:
        await table.settled(1)
        assert table.status() == table.tools() == []
anyio.run(main)
assert not {"mcp", "mcp_types", "httpx2"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])
