"""The client, against a kernel that plays a script."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from aos_mcp import __version__
from aos_mcp.abi import limits
from aos_mcp.abi.errors import ErrorCode
from aos_mcp.cli import session
from aos_mcp.cli.client import Client, connect
from aos_mcp.cli.failure import CliError

Message = dict[str, Any]
Script = Callable[[Message], list[Message | bytes]]


@contextmanager
def scripted(script: Script) -> Iterator[tuple[Client, list[Message]]]:
    """Give a client of a server that answers each message by `script`, and the list of all messages it got."""
    ours, theirs = socket.socketpair()
    got: list[Message] = []

    def serve() -> None:
        with contextlib.suppress(BrokenPipeError), theirs, theirs.makefile("rb") as lines:
            for line in lines:
                got.append(json.loads(line))
                for reply in script(got[-1]):
                    if reply == b"":
                        return
                    theirs.sendall(reply if isinstance(reply, bytes) else json.dumps(reply).encode() + b"\n")

    server = threading.Thread(target=serve)
    server.start()
    try:
        with Client(ours) as client:
            yield client, got
    finally:
        ours.close()
        server.join(timeout=30)
        assert not server.is_alive()


def result(message: Message, **fields: Any) -> Message:
    """Return the answer to `message`."""
    return {"jsonrpc": "2.0", "id": message["id"], "result": {"resultType": "complete", **fields}}


def error(message: Message, code: int, text: str, data: object = None) -> Message:
    """Return the protocol error that answers `message`."""
    return {"jsonrpc": "2.0", "id": message["id"], "error": {"code": code, "message": text, "data": data}}


def answering(**fields: Any) -> Script:
    return lambda message: [result(message, **fields)]


def test_a_call_carries_the_envelope_and_returns_the_structured_result() -> None:
    with scripted(answering(structuredContent={"agents": []}, content=[])) as (client, got):
        assert client.call("list_agents", {"limit": 5, "state": None}) == {"agents": []}
    params = got[0]["params"]
    assert (params["name"], params["arguments"]) == ("list_agents", {"limit": 5})
    assert params["_meta"] == {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "aos-cli", "version": __version__},
    }


def test_an_error_result_raises_with_its_code_sentence_and_hint() -> None:
    body = {"code": "budget_exhausted", "message": "Nothing is left.", "hint": "Give it more."}
    with scripted(answering(structuredContent=body, isError=True)) as (client, _), pytest.raises(CliError) as caught:
        client.call("spawn_agent", {"task": "x"})
    assert (caught.value.code, caught.value.message) == (ErrorCode.BUDGET_EXHAUSTED, "Nothing is left.")
    assert caught.value.hint == "Give it more."


def test_an_error_code_of_a_newer_kernel_counts_as_internal() -> None:
    body = {"code": "brand_new", "message": "x", "hint": ""}
    with scripted(answering(structuredContent=body, isError=True)) as (client, _), pytest.raises(CliError) as caught:
        client.call("kernel_status", {})
    assert caught.value.code is ErrorCode.INTERNAL


def test_a_protocol_error_keeps_the_kernels_code() -> None:
    def script(message: Message) -> list[Message | bytes]:
        return [error(message, 1_000, "It is away. Wait.", {"code": "unavailable", "hint": "Wait."})]

    with scripted(script) as (client, _), pytest.raises(CliError) as caught:
        client.read("aos://mounts")
    assert (caught.value.code, caught.value.message, caught.value.hint) == ("unavailable", "It is away.", "Wait.")


def test_a_resource_that_is_not_there_is_not_found() -> None:
    with (
        scripted(lambda m: [error(m, -32602, "Resource not found", {"uri": "aos://proc/p_x"})]) as (client, _),
        pytest.raises(CliError) as caught,
    ):
        client.read_json("aos://proc/p_x")
    assert caught.value.code is ErrorCode.NOT_FOUND


def test_a_resource_is_read_as_text_and_as_json() -> None:
    with scripted(answering(contents=[{"uri": "aos://approvals", "text": '{"approvals": []}'}])) as (client, got):
        assert client.read("aos://approvals") == '{"approvals": []}'
        assert client.read_json("aos://approvals") == {"approvals": []}
    assert got[0]["method"] == "resources/read"


def test_progress_is_handed_over_and_other_messages_are_passed_over() -> None:
    def script(message: Message) -> list[Message | bytes]:
        token = message["params"]["_meta"]["progressToken"]
        progress = {"method": "notifications/progress", "jsonrpc": "2.0"}
        return [
            {**progress, "params": {"progressToken": token, "progress": 1.0, "total": 2.0, "message": "half"}},
            {**progress, "params": {"progressToken": "another", "progress": 9.0}},
            {"jsonrpc": "2.0", "method": "notifications/resources/list_changed"},
            {"jsonrpc": "2.0", "id": 999, "result": {}},
            result(message, structuredContent={"done": True}),
        ]

    seen: list[tuple[float, float | None, str]] = []
    with scripted(script) as (client, _):
        answer = client.call("wait_agent", {}, on_progress=lambda *report: seen.append(report))
    assert (answer, seen) == ({"done": True}, [(1.0, 2.0, "half")])


def test_an_answer_that_comes_in_pieces_is_put_together() -> None:
    text = "ä" * 200_000

    def script(message: Message) -> list[Message | bytes]:
        line = json.dumps(result(message, structuredContent={"content": text}), ensure_ascii=False).encode() + b"\n"
        return [line[i : i + 70_001] for i in range(0, len(line), 70_001)]

    with scripted(script) as (client, _):
        assert client.call("page_in", {}) == {"content": text}


def test_when_time_runs_out_the_kernel_is_told_to_stop() -> None:
    with scripted(lambda message: []) as (client, got):
        with pytest.raises(CliError) as caught:
            client.call("wait_agent", {}, timeout_s=0.05)
        assert caught.value.code is ErrorCode.TIMED_OUT
    assert got[1]["method"] == "notifications/cancelled"
    assert got[1]["params"]["requestId"] == got[0]["id"]


def test_a_late_answer_does_not_disturb_the_next_call() -> None:
    held: list[Message] = []

    def script(message: Message) -> list[Message | bytes]:
        if message["method"] == "notifications/cancelled":
            return [result(held[0], structuredContent={"late": True})]
        held.append(message)
        return [] if len(held) == 1 else [result(message, structuredContent={"late": False})]

    with scripted(script) as (client, _):
        with pytest.raises(CliError):
            client.call("wait_agent", {}, timeout_s=0.05)
        assert client.call("kernel_status", {}) == {"late": False}


def test_a_lost_connection_is_unavailable() -> None:
    with scripted(lambda message: [b""]) as (client, _), pytest.raises(CliError) as caught:
        client.call("kernel_status", {})
    assert caught.value.code is ErrorCode.UNAVAILABLE


def test_a_line_without_end_is_refused() -> None:
    with (
        scripted(lambda message: [b"x" * (limits.LINE_BYTES_MAX + 2**20), b""]) as (client, _),
        pytest.raises(CliError) as caught,
    ):
        client.call("kernel_status", {})
    assert caught.value.code is ErrorCode.LIMIT_EXCEEDED


@pytest.mark.parametrize("fields", [{}, {"content": [{"type": "text", "text": "hi"}]}, {"structuredContent": [1]}])
def test_an_answer_of_another_shape_is_a_defect_of_the_kernel(fields: dict[str, Any]) -> None:
    with scripted(answering(**fields)) as (client, _), pytest.raises(CliError) as caught:
        client.call("kernel_status", {})
    assert caught.value.code is ErrorCode.INTERNAL


def test_without_a_kernel_a_connection_that_may_not_start_one_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(CliError) as caught:
        connect(tmp_path, start=False)
    assert caught.value.code is ErrorCode.UNAVAILABLE
    assert list(tmp_path.iterdir()) == []


def test_an_agent_whose_turn_begins_meanwhile_is_among_those_that_live() -> None:
    state = "ready"

    def kernel(message: Message) -> list[Message | bytes]:
        nonlocal state
        arguments = message["params"]["arguments"]
        if message["params"]["name"] == "kernel_status":
            return [result(message, structuredContent={"agents": {"ready": 1, "running": 1}}, content=[])]
        asked = arguments["state"] if isinstance(arguments["state"], list) else [arguments["state"]]
        rows = [{"pid": "p_b", "state": state}, {"pid": "p_a", "state": "running"}]
        found = [row for row in rows if row["state"] in asked]
        state = "running" if state == "ready" else "ready"  # it is somewhere else at every look
        return [result(message, structuredContent={"agents": found}, content=[])]

    with scripted(kernel) as (client, got):
        assert [row["pid"] for row in session.live_agents(client)] == ["p_a", "p_b"], "running ones first"
    assert len(got) == 1, "one read sees all"
