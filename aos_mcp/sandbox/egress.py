"""The one way out of a sandbox: a small HTTP proxy on a Unix socket, one for each session that may reach the network.

It speaks CONNECT and plain absolute-form requests, nothing else. A name is brought into one canonical form, decided on
in that form, resolved once, and the address that was checked is the address that is dialled. Every decision is
reported. It is what an escaping program would attack first, so it parses as little as it can.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.abc

from aos_mcp.abi.errors import Invalid
from aos_mcp.abi.limits import EXEC_S_MAX
from aos_mcp.sandbox.box import EGRESS_SOCKET

OnDecision = Callable[[str, str, int, bool], None]
"""Takes (session, host, port, allowed). Must not block."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_HEAD_BYTES_MAX = 16_384
_HEAD_S = 10.0
_DIAL_S = 10.0
_BODY_S = 60.0
_CONNECTIONS_MAX = 64
_ADDRESSES_MAX = 8
_CHUNK = 65_536
_DEFAULT_PORTS = (80, 443)
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_REQUEST = re.compile(r"([A-Z]{1,16}) ([!-~]{1,8192}) HTTP/1\.[01]")
_ABSOLUTE = re.compile(r"http://([^/?#]*)((?:[/?][^#]*)?)", re.IGNORECASE)
_DROPPED_HEADERS = frozenset({"host", "connection", "keep-alive", "proxy-connection", "proxy-authorization", "upgrade"})
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class HostPattern:
    """One entry of an allow list. `host` is a canonical name or address, `*.suffix` or `*`; no port: 80 and 443."""

    host: str
    port: int | None

    def admits(self, host: str, port: int) -> bool:
        """Tell whether a canonical host and port match."""
        if port != self.port and (self.port is not None or port not in _DEFAULT_PORTS):
            return False
        if self.host == "*":
            return True
        if self.host.startswith("*."):
            return host.endswith(self.host[1:]) and len(host) >= len(self.host)
        return host == self.host

    def admits_address(self, address: Address) -> bool:
        """Tell whether what the host resolved to may be dialled: public ones, and those named as such."""
        if is_public(address):
            return True
        if self.host == "localhost":
            return address.is_loopback
        return self.host == str(address)


def canonical_host(text: str) -> str:
    """Return the one form of a host name or address literal.

    Raises Invalid for everything that two parsers could read differently: NUL, non-ASCII, `%`, and addresses written
    as one number, in octal or in hexadecimal.
    """
    literal = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return str(ipaddress.ip_address(literal)) if "%" not in literal else _refuse(text)
    except ValueError:
        pass
    name = text.lower().removesuffix(".")
    labels = name.split(".")
    last_is_number = labels[-1].isdigit() or labels[-1].startswith("0x")
    if not name.isascii() or len(name) > 253 or last_is_number or not all(_LABEL.fullmatch(label) for label in labels):
        return _refuse(text)
    return name


def parse_pattern(text: str) -> HostPattern:
    """Decode an entry of an allow list: `host`, `host:port`, `*.suffix`, `*`, `[v6]:port`. Raises Invalid."""
    host, port = _split_port(text.strip())
    if host == "*":
        return HostPattern("*", port)
    if host.startswith("*."):
        return HostPattern("*." + canonical_host(host[2:]), port)
    return HostPattern(canonical_host(host), port)


def is_public(address: Address) -> bool:
    """Tell whether an address is on the public network, looking through addresses that carry another inside."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not (address.is_multicast or address.is_reserved)


def _refuse(text: str) -> str:
    raise Invalid(f"{text[:80]!r} is not a plain host name or address.", "Write it as `example.com` or `192.0.2.1`.")


def _split_port(text: str) -> tuple[str, int | None]:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]") or (":" in host and not host.endswith("]")):
        return text, None
    if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65_536):
        raise Invalid(f"{text[:80]!r} has no valid port.", "Write it as `example.com:443`.")
    return host, int(port)


@dataclass(frozen=True, slots=True)
class _Request:
    """What a client asked for. `head` is what the server is sent first; empty for a tunnel."""

    host: str
    port: int
    head: bytes
    body_bytes: int


def parse_request(head: bytes) -> _Request:
    """Decode a request's head (without the empty line). Raises Invalid."""
    try:
        lines = head.decode("ascii").split("\r\n")
    except UnicodeDecodeError:
        return _bad("the request is not ASCII")
    match = _REQUEST.fullmatch(lines[0])
    if match is None:
        return _bad("the request line does not parse")
    method, target = match[1], match[2]
    if method == "CONNECT":
        host, port = _split_port(target)
        return _Request(canonical_host(host), port, b"", 0) if port is not None else _bad("CONNECT needs a port")
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or "@" in absolute[1]:
        return _bad("only CONNECT and absolute http:// requests are served")
    host, port = _split_port(absolute[1])
    return _origin_form(method, absolute[2], canonical_host(host), port or 80, lines[1:])


def _origin_form(method: str, path: str, host: str, port: int, headers: Sequence[str]) -> _Request:
    """Rewrite a plain request for its server, so that it can say nothing else than what was decided on."""
    shown = f"[{host}]" if ":" in host else host
    target = path if path.startswith("/") else "/" + path
    kept = [f"{method} {target} HTTP/1.1", f"Host: {shown}" if port == 80 else f"Host: {shown}:{port}"]
    lengths = set()
    for line in headers:
        name, colon, value = line.partition(":")
        if not colon or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or "\r" in value or "\n" in value:
            return _bad("a header does not parse")
        if name.lower() == "transfer-encoding":
            return _bad("a body needs a Content-Length")
        if name.lower() == "content-length":
            lengths.add(value.strip())
        elif name.lower() not in _DROPPED_HEADERS:
            kept.append(line)
    if len(lengths) > 1 or not all(re.fullmatch(r"[0-9]{1,12}", length) for length in lengths):
        return _bad("Content-Length does not parse")
    kept += [f"Content-Length: {length}" for length in lengths] + ["Connection: close", "", ""]
    return _Request(host, port, "\r\n".join(kept).encode("ascii"), int(next(iter(lengths), "0")))


def _bad(why: str) -> _Request:
    raise Invalid(f"The proxy cannot serve this: {why}.", "Use CONNECT, or a plain absolute http:// request.")


class EgressProxy:
    """The proxy of one session. Its socket lies alone in `directory`, which is what the sandbox is given."""

    def __init__(self, session: str, directory: Path, allow: Sequence[str], on_decision: OnDecision) -> None:
        """Take the allow list. Raises Invalid for a pattern that does not decode."""
        self._session = session
        self._directory = directory
        self._patterns = tuple(parse_pattern(text) for text in allow)
        self._on_decision = on_decision
        self._slots = anyio.CapacityLimiter(_CONNECTIONS_MAX)

    async def serve(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; started once the socket accepts."""
        listener = await self._listen()
        async with listener:
            task_status.started()
            await listener.serve(self._serve_client)

    async def _listen(self) -> anyio.abc.SocketListener:
        # A socket's path may have 107 bytes only; through the folder's descriptor any folder will do.
        folder = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return await anyio.create_unix_listener(
                f"/proc/self/fd/{folder}/{EGRESS_SOCKET}", mode=0o666, backlog=_CONNECTIONS_MAX
            )
        finally:
            os.close(folder)

    async def _serve_client(self, client: anyio.abc.SocketStream) -> None:
        async with client:
            try:
                self._slots.acquire_nowait()
            except anyio.WouldBlock:
                return
            try:
                with anyio.move_on_after(EXEC_S_MAX):  # No command lives longer, so no connection of one does.
                    await self._serve_request(client)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, OSError):
                return  # Either side hung up: there is nobody left to tell.
            finally:
                self._slots.release()

    async def _serve_request(self, client: anyio.abc.SocketStream) -> None:
        head, rest = await _read_head(client)
        try:
            request = parse_request(head)
        except Invalid as error:
            await _reply(client, 400, error.message)
            return
        server = await self._dial(request)
        if isinstance(server, str):
            await _reply(client, 403 if server == _REFUSED else 502, server)
            return
        async with server:
            if request.head:
                await server.send(request.head)
                await _carry_body(client, server, rest, request.body_bytes)
                await _pump(server, client)
            else:
                await client.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
                if rest:
                    await server.send(rest)
                async with anyio.create_task_group() as both:
                    both.start_soon(_pump, client, server)
                    both.start_soon(_pump, server, client)

    async def _dial(self, request: _Request) -> anyio.abc.SocketStream | str:
        """Decide, report, resolve, check and connect. Returns a sentence when there is no connection."""
        patterns = [pattern for pattern in self._patterns if pattern.admits(request.host, request.port)]
        addresses = await _resolve(request.host, request.port) if patterns else []
        allowed = bool(addresses) and all(any(p.admits_address(a) for p in patterns) for a in addresses)
        self._on_decision(self._session, request.host, request.port, allowed)
        if patterns and not addresses:
            return f"{request.host} cannot be resolved."
        if not allowed:
            return _REFUSED
        for address in addresses[:_ADDRESSES_MAX]:
            try:
                with anyio.fail_after(_DIAL_S):
                    return await anyio.connect_tcp(str(address), request.port)
            except (OSError, TimeoutError):
                continue
        return f"{request.host} does not answer."


_REFUSED = "This host is not on the sandbox's allow list."


async def _resolve(host: str, port: int) -> list[Address]:
    try:
        return [ipaddress.ip_address(host)]
    except ValueError:
        pass
    try:
        with anyio.fail_after(_DIAL_S):
            found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError):
        return []
    return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]


async def _read_head(client: anyio.abc.SocketStream) -> tuple[bytes, bytes]:
    data = b""
    with anyio.fail_after(_HEAD_S):
        while b"\r\n\r\n" not in data and len(data) <= _HEAD_BYTES_MAX:
            data += await client.receive(4096)
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


async def _carry_body(client: anyio.abc.SocketStream, server: anyio.abc.SocketStream, first: bytes, left: int) -> None:
    """Send exactly the body that was announced: a second request cannot ride behind it."""
    data = first[:left]
    while True:
        if data:
            await server.send(data)
        left -= len(data)
        if left <= 0:
            return
        with anyio.fail_after(_BODY_S):
            data = (await client.receive(_CHUNK))[:left]


async def _pump(source: anyio.abc.SocketStream, target: anyio.abc.SocketStream) -> None:
    """Carry one direction until its end, then pass the end on; a break ends both."""
    try:
        while True:
            await target.send(await source.receive(_CHUNK))
    except anyio.EndOfStream:
        with contextlib.suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            await target.send_eof()
    except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
        await source.aclose()
        await target.aclose()


async def _reply(client: anyio.abc.SocketStream, status: int, sentence: str) -> None:
    reason = {400: "Bad Request", 403: "Forbidden", 502: "Bad Gateway"}[status]
    body = (sentence + "\n").encode("ascii", "replace")
    head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
    await client.send(head.encode("ascii") + b"Connection: close\r\n\r\n" + body)
