"""Servers behind a URL: both transports, refusals, restarts, and what we send."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import anyio
import pytest

from aos_mcp.abi.errors import TimedOut, Unavailable, UnknownOutcome
from aos_mcp.abi.mount import MountState
from aos_mcp.abi.settings import MountSettings
from aos_mcp.testing.mount_checks import check_mounts, mounted, status_of, until, until_up

SERVER = Path(__file__).parent / "servers" / "sdk_server.py"
TEST_S = 90

Started = tuple[int, "subprocess.Popen[str]"]
Start = Callable[..., Started]

BOTH = pytest.mark.parametrize("transport", ["http", "sse"])


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts the server on a port (0 picks one); returns the port and the process."""
    started: list[subprocess.Popen[str]] = []

    def run(transport: str, port: int = 0) -> Started:
        command = [sys.executable, str(SERVER), transport, str(port)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        return int(process.stdout.readline()), process

    yield run
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def remote(transport: str, port: int, **more: object) -> MountSettings:
    path = {"http": "mcp", "sse": "sse"}[transport]
    url = f"http://127.0.0.1:{port}/{path}"
    return MountSettings.model_validate({"url": url, "transport": transport, **more})


@BOTH
async def test_the_driver_keeps_the_contract_over_a_url(start: Start, transport: str) -> None:
    port, _ = start(transport)
    with anyio.fail_after(TEST_S):
        async with mounted({"far": remote(transport, port)}) as table:
            await until_up(table, "far")
            await check_mounts(table, "far__add", {"a": 1, "b": 2})
            assert status_of(table, "far").transport == transport


@BOTH
async def test_list_changes_of_a_far_server_are_followed(start: Start, transport: str) -> None:
    port, _ = start(transport)
    with anyio.fail_after(TEST_S):
        async with mounted({"far": remote(transport, port)}) as table:
            await table.call("far__grow", {}, timeout_s=10)
            await until(table, lambda: table.tool("far__late") is not None)


@BOTH
async def test_a_far_server_that_is_killed_during_a_call_comes_back_by_itself(start: Start, transport: str) -> None:
    port, process = start(transport)

    async def kill(done: float, total: float | None, message: str) -> None:
        process.kill()

    with anyio.fail_after(TEST_S):
        async with mounted({"far": remote(transport, port)}) as table:
            with pytest.raises(UnknownOutcome):
                await table.call("far__slow", {}, timeout_s=30, progress=kill)
            process.wait()
            await until(table, lambda: status_of(table, "far").state is MountState.DOWN)
            start(transport, port)
            await until_up(table, "far")
            assert (await table.call("far__add", {"a": 1, "b": 1}, timeout_s=10)).text


@BOTH
async def test_a_far_call_times_out_and_others_go_on(start: Start, transport: str) -> None:
    port, _ = start(transport)
    with anyio.fail_after(TEST_S):
        async with mounted({"far": remote(transport, port)}) as table:
            with pytest.raises(TimedOut):
                await table.call("far__hang", {}, timeout_s=0.3)
            assert (await table.call("far__add", {"a": 1, "b": 1}, timeout_s=10)).text


async def test_a_dead_far_server_is_known_not_to_have_been_called(start: Start) -> None:
    port, process = start("http")
    with anyio.fail_after(TEST_S):
        async with mounted({"far": remote("http", port)}) as table:
            process.kill()
            process.wait()
            with pytest.raises(Unavailable):
                await table.call("far__add", {"a": 1, "b": 1}, timeout_s=10)


async def test_sixty_four_far_calls_at_once_are_answered_each_with_its_own(start: Start) -> None:
    port, _ = start("http")
    values: dict[int, int] = {}
    with anyio.fail_after(TEST_S):
        async with mounted({"far": remote("http", port)}) as table, anyio.create_task_group() as tasks:

            async def add(n: int) -> None:
                outcome = await table.call("far__add", {"a": n, "b": 1}, timeout_s=60)
                values[n] = json.loads(outcome.result)["structuredContent"]["value"]

            for n in range(64):
                tasks.start_soon(add, n)
    assert values == {n: n + 1 for n in range(64)}


async def test_only_configured_headers_are_sent_and_secrets_are_looked_up(start: Start) -> None:
    port, _ = start("http")
    headers = {"Authorization": "env:FAR_TOKEN", "X-Team": "${TEAM:-red}"}
    with anyio.fail_after(TEST_S):
        async with mounted({"far": remote("http", port, headers=headers)}, {"FAR_TOKEN": "Bearer abc"}) as table:
            meta = {"authorization": "Bearer of the caller"}
            outcome = await table.call("far__headers", {}, timeout_s=10, meta=meta)
            seen = json.loads(outcome.text)
            assert (seen["authorization"], seen["x-team"]) == ("Bearer abc", "red")
            assert "cookie" not in seen


async def test_nobody_at_the_port_is_said_without_the_path() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    settings = MountSettings(url=f"http://127.0.0.1:{port}/mcp?key=hidden")
    with anyio.fail_after(TEST_S):
        async with mounted({"far": settings}) as table:
            error = status_of(table, "far").error
            assert f"no connection to http://127.0.0.1:{port}" in error
            assert "hidden" not in error


class Answering(BaseHTTPRequestHandler):
    """Answers everything with one status and body."""

    status = 401
    body = b"<html>who are you?</html>"
    kind = "text/html"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(self.status)
        self.send_header("content-type", self.kind)
        self.send_header("content-length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_GET = do_POST

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def serving() -> Iterator[Callable[[type[Answering]], int]]:
    """Starts a web server; returns its port."""
    servers: list[ThreadingHTTPServer] = []

    def run(handler: type[Answering]) -> int:
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return int(server.server_address[1])

    yield run
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def answering(serving: Callable[[type[Answering]], int]) -> Callable[..., int]:
    """Starts a web server that is no MCP server; returns its port."""
    return lambda **changes: serving(type("Changed", (Answering,), changes))


async def test_a_server_that_wants_other_credentials_is_down_with_the_status(answering: Callable[..., int]) -> None:
    with anyio.fail_after(TEST_S):
        async with mounted({"far": remote("http", answering())}) as table:
            assert "HTTP 401 Unauthorized" in status_of(table, "far").error


async def test_a_reply_without_end_does_not_fill_the_memory(answering: Callable[..., int]) -> None:
    port = answering(status=200, kind="application/json", body=b" " * (9 * 2**20))
    with anyio.fail_after(TEST_S):
        async with mounted({"far": remote("http", port)}) as table:
            assert "longer than" in status_of(table, "far").error


class Forgetful(Answering):
    """An older server over HTTP with one session at a time, which the tool `forget` ends."""

    forgotten: ClassVar[tuple[int, bytes, str]]
    session = 0

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["content-length"])))
        method, kind = message["method"], type(self)
        result: dict[str, object] = {}
        if method == "initialize":
            kind.session += 1
            info = {"name": "forgetful", "version": "1"}
            result = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": info}
        elif self.headers.get("mcp-session-id") != str(kind.session):
            return self.reply(*self.forgotten)
        elif method == "tools/list":
            result = {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in self.offered()]}
        elif method == "tools/call":
            result = {"content": [{"type": "text", "text": str(kind.session)}]}
            kind.session += message["params"]["name"] == "forget"
        body = {"jsonrpc": "2.0", "id": message.get("id"), "result": result}
        return self.reply(200 if "id" in message else 202, json.dumps(body).encode(), "application/json")

    def offered(self) -> tuple[str, ...]:
        return ("forget", "count")

    def do_GET(self) -> None:
        self.reply(405, b"", "text/plain")

    do_DELETE = do_GET

    def reply(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.send_header("mcp-session-id", str(self.session))
        self.end_headers()
        self.wfile.write(body)


class Growing(Forgetful):
    """One whose list grows just before its stream of notices is open, so that nobody is told."""

    forgotten = (404, b"gone", "text/plain")
    listed, grown = threading.Event(), threading.Event()

    def offered(self) -> tuple[str, ...]:
        self.listed.set()
        return ("first", "second") if self.grown.is_set() else ("first",)

    def do_GET(self) -> None:
        self.listed.wait(TEST_S)
        self.grown.set()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        self.wfile.flush()
        self.rfile.read(1)  # until the client hangs up


async def test_a_change_before_the_stream_of_notices_was_open_is_seen(
    serving: Callable[[type[Answering]], int],
) -> None:
    with anyio.fail_after(TEST_S):
        async with mounted({"far": remote("http", serving(Growing))}) as table:
            await until(table, lambda: table.tool("far__second") is not None)


RPC_ERROR = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"No valid session"}}'


@pytest.mark.parametrize(
    "forgotten",
    [(404, b"gone", "text/plain"), (400, RPC_ERROR, "application/json")],
    ids=["by-the-book", "in-practice"],
)
async def test_a_session_the_server_forgot_is_opened_again(
    serving: Callable[[type[Answering]], int], forgotten: tuple[int, bytes, str]
) -> None:
    port = serving(type("Changed", (Forgetful,), {"forgotten": forgotten}))
    with anyio.fail_after(TEST_S):
        async with mounted({"far": remote("http", port)}) as table:
            assert status_of(table, "far").era == "2025-06-18"
            assert (await table.call("far__forget", {}, timeout_s=10)).text == "1"
            with pytest.raises(Unavailable, match="far"):
                await table.call("far__count", {}, timeout_s=10)
            assert (await table.call("far__count", {}, timeout_s=10)).text == "3"
