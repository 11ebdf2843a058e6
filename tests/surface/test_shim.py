"""The real command as hosts start it, with a real daemon behind it."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp import Client, StdioServerParameters

from aos_mcp import shim
from aos_mcp.abi import limits
from aos_mcp.abi.calls import ROWS
from aos_mcp.abi.journal import EffectClass
from tests.surface.conftest import COMMAND, ERAS, LEGACY, MODERN, ROOT, daemon_pid, end_daemon, host

SLOW_REPLY = {"reply": {"text": "slow answer"}, "delay_s": 30}
QUICK_REPLY = {"reply": {"text": "quick answer"}, "delay_s": 0}


def record(home: Path, name: str, *lines: dict[str, Any]) -> str:
    """Write a recording into the home; return the model that plays it."""
    folder = home / "replays"
    folder.mkdir(exist_ok=True)
    head = {"aos_replay": 1, "model": "anthropic/claude", "context_tokens": 200_000}
    (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(line) for line in (head, *lines)), "utf-8")
    return f"replay/{name}"


def test_the_shim_knows_the_same_rows_and_limits_as_the_kernel() -> None:
    assert shim.READ_ONLY_TOOLS == {row.name for row in ROWS if row.tool and row.effect is EffectClass.PURE}
    assert shim.LINE_BYTES_MAX == limits.LINE_BYTES_MAX


def test_the_shim_needs_nothing_but_the_standard_library() -> None:
    code = (
        "import sys, aos_mcp.shim\n"
        "print([m for m in sys.modules if m.partition('.')[0] not in sys.stdlib_module_names"
        " and not m.startswith(('aos_mcp', '__', '_virtualenv', '_distutils'))])\n"
        "print([m for m in sys.modules if m.startswith('aos_mcp.') and m != 'aos_mcp.shim'])"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n[]\n"


def test_the_daemon_imports_nothing_heavy_before_its_first_reply() -> None:
    code = "import sys, aos_mcp.daemon; print(sorted({'openai', 'anthropic', 'docker', 'numpy'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


@ERAS
async def test_a_host_is_served_over_standard_input_and_output(environment: dict[str, str], era: str) -> None:
    command = StdioServerParameters(command=COMMAND[0], args=COMMAND[1:], env=environment)
    with anyio.fail_after(60):
        async with Client(command, mode=era) as client:
            assert len((await client.list_tools()).tools) == 17
            kept = await client.call_tool("page_out", {"content": "kept"})
            read = await client.read_resource(f"aos://page/{kept.structured_content['page_id']}")
    assert read.contents[0].text == "kept"  # type: ignore[union-attr]


async def test_hosts_that_start_together_share_one_kernel(environment: dict[str, str], home: Path) -> None:
    nodes: list[str] = []

    async def one() -> None:
        async with host(environment) as session:
            nodes.append((await session.call("kernel_status", {}))["node"])
            await all_in.wait()

    all_in = anyio.Event()
    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(one)
        with anyio.fail_after(60):
            while len(nodes) < 4:
                await anyio.lowlevel.checkpoint()
        all_in.set()
    assert len(set(nodes)) == 1
    assert stat.S_IMODE((home / "kernel.sock").stat().st_mode) == 0o600


async def test_what_one_host_keeps_another_finds(environment: dict[str, str]) -> None:
    async with host(environment) as first, host(environment) as second:
        kept = await first.call("page_out", {"content": "between hosts"})
        found = await second.call("page_in", {"page_id": kept["page_id"]})
    assert found["content"] == "between hosts"


async def test_an_agent_outlives_the_host_that_spawned_it(environment: dict[str, str], home: Path) -> None:
    model = record(home, "later", {**QUICK_REPLY, "delay_s": 0.3})
    async with host(environment) as first:
        spawned = await first.call("spawn_agent", {"task": "go on alone", "model": model})
    async with host(environment) as second:
        waited = await second.call("wait_agent", {"pids": [spawned["pid"]], "timeout_s": 30})
    assert waited["agents"][0]["result"] == "quick answer"


async def test_the_daemon_does_not_descend_from_the_host_that_started_it(
    environment: dict[str, str], home: Path
) -> None:
    """Some hosts end a server together with all that descends from it."""
    async with host(environment) as session:
        await session.call("kernel_status", {})
        pid = daemon_pid(home)
        assert pid is not None
        assert not {session.process.pid, os.getpid()} & set(ancestors(pid))


def ancestors(pid: int) -> Iterator[int]:
    """Yield the process's parent, its parent, and so on."""
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[1])
        yield pid


@ERAS
async def test_a_killed_server_is_started_again(environment: dict[str, str], home: Path, era: str) -> None:
    modern = era == MODERN
    async with host(environment) as session:
        if not modern:
            await session.shake_hands()
        kept = await session.call("page_out", {"content": "before"}, modern)
        killed = daemon_pid(home)
        end_daemon(home, signal.SIGKILL)
        back = await session.call("page_in", {"page_id": kept["page_id"]}, modern)
        assert back["content"] == "before"
        assert daemon_pid(home) not in {None, killed}


async def test_a_read_that_was_under_way_is_repeated(environment: dict[str, str], home: Path) -> None:
    model = record(home, "slow", SLOW_REPLY)
    async with host(environment) as session:
        spawned = await session.call("spawn_agent", {"task": "be slow", "model": model})
        waiting = await session.ask("tools/call", name="wait_agent", arguments={"pids": [spawned["pid"]]})
        end_daemon(home, signal.SIGKILL)
        await session.call("signal_agent", {"pid": spawned["pid"], "signal": "kill"})
        answer = await session.answer(waiting)
    assert answer["result"]["structuredContent"]["agents"][0]["exit_code"] == "killed"


async def test_an_act_that_was_under_way_is_answered_as_unknown_with_what_to_do_next(
    environment: dict[str, str], home: Path
) -> None:
    model = record(home, "slow", SLOW_REPLY)
    async with host(environment) as session:
        arguments = {"task": "be slow", "model": model, "wait_s": 60}
        spawning = await session.ask("tools/call", name="spawn_agent", arguments=arguments)
        async with host(environment) as other:
            while not (await other.call("list_agents", {}))["agents"]:
                pass
        end_daemon(home, signal.SIGKILL)
        answer = await session.answer(spawning)
        assert answer["error"]["code"] == shim.LOST_UNKNOWN
        told = answer["error"]["message"]
        assert all(word in told for word in ("list_agents", "kernel_status", "idempotency_key")), "what to do next"
        assert len((await session.call("list_agents", {}))["agents"]) == 1


async def test_an_open_stream_ends_and_resource_updates_go_on_after_a_crash(
    environment: dict[str, str], home: Path
) -> None:
    async with host(environment) as modern, host(environment) as legacy:
        await modern.call("kernel_status", {})
        stream = await modern.ask("subscriptions/listen", notifications={"resourcesListChanged": True})
        assert (await modern.receive())["method"] == "notifications/subscriptions/acknowledged"
        await legacy.shake_hands()
        assert "result" in await legacy.request("resources/subscribe", False, uri="aos://approvals")
        end_daemon(home, signal.SIGKILL)
        assert (await modern.answer(stream))["result"]["resultType"] == "complete"
        assert "result" in await legacy.request("ping", False)


async def test_a_line_that_is_too_long_is_refused_and_the_next_one_served(environment: dict[str, str]) -> None:
    async with host(environment) as session:
        head = b'{"jsonrpc": "2.0", "id": 77, "method": "tools/call", "params": {"x": "'
        await session.send(head + b"x" * limits.LINE_BYTES_MAX + b'"}}')
        assert (await session.answer(77))["error"]["code"] == -32600
        assert "result" in await session.request("tools/list")


@pytest.mark.parametrize(
    ("line", "code", "request_id"),
    [
        (b"not json", -32700, None),
        (b'{"jsonrpc": "2.0", "id": 9, "method": ', -32700, 9),
        (b"[]", -32600, None),
        (b'{"id": 5}', -32600, 5),
        (b"[" * 100_000, -32700, None),
    ],
)
async def test_what_is_no_message_is_answered(
    environment: dict[str, str], line: bytes, code: int, request_id: int | None
) -> None:
    async with host(environment) as session:
        assert "result" in await session.request("tools/list")
        await session.send(line)
        refused = await session.receive()
        assert (refused["error"]["code"], refused.get("id")) == (code, request_id)
        assert "result" in await session.request("tools/list")


async def test_a_lone_surrogate_is_refused_by_code(environment: dict[str, str]) -> None:
    async with host(environment) as session:
        refused = await session.call("page_out", {"content": "\ud800"})
        assert refused["code"] == "invalid"


async def test_a_broken_configuration_is_told_to_the_host(environment: dict[str, str], home: Path) -> None:
    (home / "aos.toml").write_text("modle = 'x'\n", "utf-8")
    async with host(environment) as session:
        refused = await session.request("tools/list")
    assert refused["error"]["code"] == shim.NO_DAEMON
    assert "modle" in refused["error"]["message"] or "model" in refused["error"]["message"]


async def test_a_kernel_that_cannot_start_says_why(environment: dict[str, str], home: Path) -> None:
    (home / "kernel.db").mkdir()
    async with host(environment) as session:
        refused = await session.request("tools/call", name="kernel_status", arguments={})
    assert "cannot be opened" in json.dumps(refused)


async def test_a_second_daemon_for_the_same_home_is_refused(environment: dict[str, str]) -> None:
    async with host(environment) as session:
        await session.call("kernel_status", {})
        with anyio.fail_after(30):
            second = await anyio.run_process([*COMMAND, "serve"], env=environment, check=False)
        assert second.returncode != 0
        assert b"already" in second.stderr


async def test_a_daemon_nobody_needs_ends_by_itself(environment: dict[str, str], home: Path) -> None:
    (home / "aos.toml").write_text("idle_exit_s = 0.2\n[sandbox]\ndrivers = []\n", "utf-8")
    async with host(environment) as session:
        await session.call("kernel_status", {})
        pid = daemon_pid(home)
        assert pid is not None
    process = os.pidfd_open(pid)
    with anyio.fail_after(30):
        await anyio.wait_readable(process)
    os.close(process)
    assert not (home / "kernel.sock").exists()


async def test_a_daemon_told_to_end_takes_its_socket_away(environment: dict[str, str], home: Path) -> None:
    async with host(environment) as session:
        await session.call("kernel_status", {})
        end_daemon(home)
        assert not (home / "kernel.sock").exists()
        assert not (home / "daemon.json").exists()
        assert (await session.call("kernel_status", {}))["version"]


async def test_a_daemon_told_to_end_is_not_started_again_for_what_was_under_way(
    environment: dict[str, str], home: Path
) -> None:
    model = record(home, "slow", SLOW_REPLY)
    async with host(environment) as session:
        spawned = await session.call("spawn_agent", {"task": "be slow", "model": model})
        waiting = await session.ask("tools/call", name="wait_agent", arguments={"pids": [spawned["pid"]]})
        assert "result" in await session.request("tools/list")
        end_daemon(home)
        told = (await session.answer(waiting))["error"]
        assert (told["code"], told["message"]) == (shim.NO_DAEMON, f"The kernel was stopped. {shim.ASK_AGAIN}")
        assert daemon_pid(home) is None


async def test_a_person_is_asked_through_the_shim(environment: dict[str, str], home: Path) -> None:
    rule = '[[rules]]\neffect = "ask"\ntool = "page_out"\n[sandbox]\ndrivers = []\n'
    (home / "aos.toml").write_text(rule, "utf-8")
    asked: list[str] = []

    async def person(context: object, params: types.ElicitRequestParams) -> types.ElicitResult:
        asked.append(params.message)
        return types.ElicitResult(action="accept", content={"decision": "allow"})

    command = StdioServerParameters(command=COMMAND[0], args=COMMAND[1:], env=environment)
    with anyio.fail_after(60):
        for era in (MODERN, LEGACY):
            async with Client(command, mode=era, elicitation_callback=person) as client:
                kept = await client.call_tool("page_out", {"content": f"with leave, {era}"})
                assert not kept.is_error
    assert len(asked) == 2


async def test_an_answer_to_a_question_of_a_dead_daemon_reaches_no_other(
    environment: dict[str, str], home: Path
) -> None:
    rule = '[[rules]]\neffect = "ask"\ntool = "page_out"\n[sandbox]\ndrivers = []\n'
    (home / "aos.toml").write_text(rule, "utf-8")
    async with host(environment) as session:
        await session.shake_hands({"elicitation": {}})
        arguments = {"name": "page_out", "arguments": {"content": "first"}}
        first = await session.ask("tools/call", False, **arguments)
        old = await session.receive()
        assert old["method"] == "elicitation/create"
        end_daemon(home, signal.SIGKILL)
        assert (await session.answer(first))["error"]["code"] == shim.LOST_UNKNOWN
        second = await session.ask("tools/call", False, **arguments)
        new = await session.receive()
        assert new["method"] == "elicitation/create"
        yes = {"action": "accept", "content": {"decision": "allow"}}
        await session.send({"jsonrpc": "2.0", "id": old["id"], "result": yes})
        await session.send({"jsonrpc": "2.0", "id": new["id"], "result": {"action": "decline"}})
        refused = (await session.answer(second))["result"]["structuredContent"]
    assert old["id"] != new["id"]
    assert refused["code"] == "denied"


async def test_the_kernel_can_be_inside_the_process_a_host_starts(environment: dict[str, str], home: Path) -> None:
    async with host(environment, "--standalone") as session:
        kept = await session.call("page_out", {"content": "inside"})
        assert (await session.call("page_in", {"page_id": kept["page_id"]}))["content"] == "inside"
        assert not (home / "kernel.sock").exists()
