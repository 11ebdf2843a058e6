from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
import pytest

from aos_mcp.abi.capability import IsolationLevel
from aos_mcp.abi.errors import Invalid
from aos_mcp.ports import Workspaces
from aos_mcp.sandbox.egress import EgressProxy, canonical_host, is_public, parse_pattern, parse_request
from aos_mcp.testing.sandbox_checks import command
from tests.sandbox.conftest import make_sandbox

Decision = tuple[str, str, int, bool]


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("Example.COM", "example.com"),
        ("example.com.", "example.com"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("192.0.2.1", "192.0.2.1"),
        ("[2001:DB8::1]", "2001:db8::1"),
        ("localhost", "localhost"),
    ],
)
def test_a_host_has_one_form(text: str, host: str) -> None:
    assert canonical_host(text) == host


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "a..b", "attacker.example\0.good.example", "good.example%2e", "user@good.example", "bücher.example",
        "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "127.0.0.1.", "0x7f.1", "a.0x1", "[::1", "::1%lo",
        "[::1%lo]", "good.example/..", "good.example:80", "-a.example", "a" * 64, "a." * 130, " good.example",
        "good.example\n", "１２７.0.0.1",
    ],
)  # fmt: skip
def test_what_two_parsers_could_read_differently_is_no_host(text: str) -> None:
    with pytest.raises(Invalid):
        canonical_host(text)


@pytest.mark.parametrize(
    ("pattern", "host", "port", "admitted"),
    [
        ("good.example", "good.example", 443, True),
        ("good.example", "good.example", 80, True),
        ("good.example", "good.example", 22, False),
        ("good.example:22", "good.example", 22, True),
        ("good.example:22", "good.example", 443, False),
        ("good.example", "a.good.example", 443, False),
        ("good.example", "good.example.evil.example", 443, False),
        ("good.example", "notgood.example", 443, False),
        ("*.good.example", "a.b.good.example", 443, True),
        ("*.good.example", "good.example", 443, False),
        ("*.good.example", "notgood.example", 443, False),
        ("*", "any.example", 443, True),
        ("*", "any.example", 25, False),
        ("[::1]:8080", "::1", 8080, True),
    ],
)
def test_a_pattern_admits_what_it_names(pattern: str, host: str, port: int, admitted: bool) -> None:
    assert parse_pattern(pattern).admits(host, port) is admitted


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "::", "::1", "fe80::1", "fd00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
        "2002:7f00:1::", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
    ],
)  # fmt: skip
def test_only_the_public_network_may_be_dialled_by_name(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    assert not parse_pattern("*").admits_address(ipaddress.ip_address(address))


def test_public_addresses_are_public() -> None:
    assert all(is_public(ipaddress.ip_address(a)) for a in ("1.1.1.1", "2606:4700::1111", "64:ff9b::101:101"))


def test_an_address_that_the_operator_named_may_be_dialled() -> None:
    assert parse_pattern("127.0.0.1:80").admits_address(ipaddress.ip_address("127.0.0.1"))
    assert not parse_pattern("127.0.0.1:80").admits_address(ipaddress.ip_address("127.0.0.2"))
    assert parse_pattern("localhost:80").admits_address(ipaddress.ip_address("::1"))
    assert not parse_pattern("localhost:80").admits_address(ipaddress.ip_address("10.0.0.1"))


@pytest.mark.parametrize(
    "head",
    [
        b"", b"GET / HTTP/1.1", b"CONNECT good.example HTTP/1.1", b"CONNECT good.example:0 HTTP/1.1",
        b"CONNECT good.example:99999 HTTP/1.1", b"GET ftp://good.example/ HTTP/1.1",
        b"GET https://good.example/ HTTP/1.1", b"GET http://user@good.example/ HTTP/1.1",
        b"GET http://evil.example\\@good.example/ HTTP/1.1",
        b"GET http://good.example/ HTTP/2", b"GET http://good.example/ x HTTP/1.1",
        b"\xff http://good.example/ HTTP/1.1",
        b"POST http://good.example/ HTTP/1.1\r\nTransfer-Encoding: chunked",
        b"POST http://good.example/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2",
        b"POST http://good.example/ HTTP/1.1\r\nContent-Length: +1", b"GET http://good.example/ HTTP/1.1\r\n folded",
        b"GET http://good.example/ HTTP/1.1\r\nA : b", b"GET http://good.example/ HTTP/1.1\r\nA: b\nHost: evil.example",
    ],
)  # fmt: skip
def test_a_request_that_is_not_plain_is_refused(head: bytes) -> None:
    with pytest.raises(Invalid):
        parse_request(head)


def test_the_server_is_told_the_host_that_was_decided_on() -> None:
    request = parse_request(
        b"GET http://Good.Example:8080?q=1 HTTP/1.1\r\nhost: evil.example\r\nProxy-Authorization: x\r\nAccept: */*"
    )
    assert (request.host, request.port, request.body_bytes) == ("good.example", 8080, 0)
    assert request.head == (
        b"GET /?q=1 HTTP/1.1\r\nHost: good.example:8080\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )


@asynccontextmanager
async def origin() -> AsyncIterator[tuple[int, list[bytes]]]:
    """An HTTP server on loopback that answers `hello` and keeps what it was sent."""
    heard: list[bytes] = []

    async def serve(client: anyio.abc.SocketStream) -> None:
        async with client:
            data = b""
            while b"\r\n\r\n" not in data:
                data += await client.receive()
            heard.append(data)
            await client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield listener.extra(anyio.abc.SocketAttribute.local_port), heard
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def proxy(folder: Path, *allow: str) -> AsyncIterator[tuple[Path, list[Decision]]]:
    decisions: list[Decision] = []
    made = EgressProxy("s", folder, allow, lambda *decision: decisions.append(decision))
    async with anyio.create_task_group() as tasks:
        await tasks.start(made.serve)
        yield folder / "proxy.sock", decisions
        tasks.cancel_scope.cancel()


async def ask(path: Path, request: bytes) -> bytes:
    async with await anyio.connect_unix(path) as stream:
        await stream.send(request)
        answer = b""
        with anyio.fail_after(20):
            while True:
                try:
                    answer += await stream.receive()
                except anyio.EndOfStream:
                    return answer


async def test_the_proxy_lets_through_what_is_listed_and_reports_every_decision(tmp_path: Path) -> None:
    async with origin() as (port, heard), proxy(tmp_path, f"127.0.0.1:{port}") as (path, decisions):
        plain = await ask(path, f"GET http://127.0.0.1:{port}/x HTTP/1.1\r\nHost: evil.example\r\n\r\n".encode())
        assert plain.endswith(b"\r\n\r\nhello")
        assert f"Host: 127.0.0.1:{port}".encode() in heard[0] and b"evil" not in heard[0]
        tunnel = await ask(path, f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n".encode())
        assert tunnel.startswith(b"HTTP/1.1 200 ") and tunnel.endswith(b"hello")
        for target in (f"127.0.0.1:{port + 1}", "169.254.169.254:80", f"localhost:{port}", f"[::ffff:7f00:1]:{port}"):
            assert (await ask(path, f"CONNECT {target} HTTP/1.1\r\n\r\n".encode())).startswith(b"HTTP/1.1 403 ")
        assert (await ask(path, b"GET / HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
        assert len(heard) == 2
    assert decisions == [
        ("s", "127.0.0.1", port, True),
        ("s", "127.0.0.1", port, True),
        ("s", "127.0.0.1", port + 1, False),
        ("s", "169.254.169.254", 80, False),
        ("s", "localhost", port, False),
        ("s", "::ffff:7f00:1", port, False),
    ]


async def test_a_listed_name_that_resolves_to_this_machine_is_refused(tmp_path: Path) -> None:
    """The stand-in for a rebound name: `localhost` resolves here, and only `*` lists it."""
    async with origin() as (port, heard), proxy(tmp_path, f"*:{port}") as (path, decisions):
        assert (await ask(path, f"CONNECT localhost:{port} HTTP/1.1\r\n\r\n".encode())).startswith(b"HTTP/1.1 403 ")
        assert (await ask(path, f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n".encode())).startswith(b"HTTP/1.1 403 ")
    assert heard == [] and [allowed for *_, allowed in decisions] == [False, False]


async def test_a_second_request_cannot_ride_behind_the_first(tmp_path: Path) -> None:
    async with origin() as (port, heard), proxy(tmp_path, f"127.0.0.1:{port}") as (path, _):
        first = f"GET http://127.0.0.1:{port}/ HTTP/1.1\r\n\r\n".encode()
        await ask(path, first + b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        assert len(heard) == 1 and b"evil" not in heard[0]


async def test_the_socket_may_lie_deeper_than_a_socket_path_is_long(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    async with proxy(folder) as (path, _):
        assert path.is_socket()


async def test_a_sandboxed_command_reaches_the_listed_host_only(
    driver: str, place: Path, workspaces: Workspaces
) -> None:
    decisions: list[Decision] = []
    script = (
        "curl -sS -m 10 http://$1/a; curl -sS -m 10 -p http://$1/b; curl -sS -m 5 http://$2/;"
        " curl -m 5 --noproxy '*' http://$1/"
    )
    async with origin() as (port, heard):
        allowed, other = f"127.0.0.1:{port}", "169.254.169.254:80"

        def note(session: str, host: str, to: int, verdict: bool) -> None:
            decisions.append((session, host, to, verdict))

        async with make_sandbox(place, driver, on_egress=note) as sandbox:
            argv = ("sh", "-c", script, "sh", allowed, other)
            run = command(*argv, session="net", level=IsolationLevel.NETWORK, network=(allowed,))
            with anyio.fail_after(60):
                outcome = await sandbox.execute(run)
            assert outcome.stdout == b"hellohelloThis host is not on the sandbox's allow list.\n", outcome
            assert outcome.exit_code == 7 and len(heard) == 2
            for unlisted in (command("curl", "-m", "5", f"http://{allowed}/", level=IsolationLevel.NETWORK),
                             command("curl", "-m", "5", f"http://{allowed}/", network=(allowed,))):  # fmt: skip
                assert (await sandbox.execute(unlisted)).exit_code == 7
    assert decisions == [("net", "127.0.0.1", port, True)] * 2 + [("net", "169.254.169.254", 80, False)]
