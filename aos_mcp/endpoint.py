"""Where HTTP is answered, and who may speak there: an address, a guard, and a server that ends when it is told to.

Promises that a request from another site's page, or with a forged Host, never passes; and that nobody but this machine
is served without a token. Knows nothing of what is served.
"""

from __future__ import annotations

import base64
import hmac
import ipaddress
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal
from urllib.parse import urlsplit

import anyio
import uvicorn
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from aos_mcp.abi.errors import Invalid, Unavailable

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
OPEN_PATHS = frozenset({"/health"})
DRAIN_S = 2
"""What answers under way get when the daemon ends; the SDK's own wait is whole seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where to listen, and the token that is asked for; None asks for none."""

    host: str
    port: int
    token: str | None

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)

    @property
    def url(self) -> str:
        """Return the address as a URL."""
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"


def is_loopback(host: str) -> bool:
    """Return whether `host` names this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def admit(host: str, port: int, token: str | None) -> Endpoint:
    """Return where to listen.

    Raises:
        Invalid: it can be reached from elsewhere, and there is no token.
    """
    endpoint = Endpoint(host=host, port=port, token=token or None)
    if not endpoint.loopback and endpoint.token is None:
        raise Invalid(
            f"{host} can be reached from other machines, and AOS_HTTP_TOKEN is not set.",
            "Set AOS_HTTP_TOKEN to a long random text, or listen on 127.0.0.1.",
        )
    return endpoint


def admit_local(host: str, port: int) -> Endpoint:
    """Return where to listen for this machine alone.

    Raises:
        Invalid: it can be reached from elsewhere.
    """
    endpoint = Endpoint(host=host, port=port, token=None)
    if not endpoint.loopback:
        raise Invalid(
            f"{host} can be reached from other machines, and the gateway is for this one alone.",
            "Listen on 127.0.0.1; from elsewhere come through a tunnel, such as ssh -L.",
        )
    return endpoint


def bind(endpoint: Endpoint) -> tuple[socket.socket, Endpoint]:
    """Listen; return the socket, and the endpoint with the port that was given.

    Raises:
        Unavailable: the address is taken or is not this machine's.
    """
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    try:
        listener = socket.create_server((endpoint.host, endpoint.port), family=family, backlog=128)
    except OSError as error:
        raise Unavailable(
            f"{endpoint.host}:{endpoint.port} cannot be listened on: {error.strerror}.", "Choose another port."
        ) from None
    port = int(listener.getsockname()[1])
    return listener, Endpoint(host=endpoint.host, port=port, token=endpoint.token)


async def serve(app: ASGIApp, listener: socket.socket, *, lifespan: Literal["on", "off"]) -> None:
    """Serve until cancelled; then give answers under way `DRAIN_S` seconds."""
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan=lifespan,
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=DRAIN_S,
    )
    server = _Uvicorn(config)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_shielded, server, listener)
        try:
            await anyio.sleep_forever()
        finally:
            server.should_exit = True


async def _shielded(server: uvicorn.Server, listener: socket.socket) -> None:
    # Cancelled from outside it would leave its lifespan task behind; told to exit it ends within DRAIN_S.
    with anyio.CancelScope(shield=True):
        await server.serve(sockets=[listener])


class _Uvicorn(uvicorn.Server):
    """A server that leaves the signals to the daemon."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Guard:
    """Refuses what comes from another site, under a forged name, or without the token."""

    def __init__(self, app: ASGIApp, endpoint: Endpoint) -> None:
        self._app = app
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an HTTP request on, or answer it with 401, 403 or 421."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        refusal = refuse(self._endpoint, scope["path"], Headers(scope=scope))
        await (self._app if refusal is None else refusal)(scope, receive, send)


def refuse(endpoint: Endpoint, path: str, headers: Headers) -> Response | None:
    """Return the answer to a request that must not pass, None for one that may."""
    host = headers.get("host", "")
    if endpoint.loopback and _name_of(host) not in LOOPBACK_NAMES:
        return PlainTextResponse("Invalid Host header", status_code=HTTPStatus.MISDIRECTED_REQUEST)
    origin = headers.get("origin")
    if origin is not None and not _is_own(origin, host, endpoint):
        return PlainTextResponse("Invalid Origin header", status_code=HTTPStatus.FORBIDDEN)
    if endpoint.token is None or path in OPEN_PATHS or _knows(endpoint.token, headers.get("authorization", "")):
        return None
    # A browser that opens the dashboard asks its user for a password: the token. Clients are told of Bearer only.
    challenge = 'Basic realm="aos-mcp", charset="UTF-8"' if path == "/" else 'Bearer realm="aos-mcp"'
    return PlainTextResponse(
        "AOS_HTTP_TOKEN is asked for", status_code=HTTPStatus.UNAUTHORIZED, headers={"WWW-Authenticate": challenge}
    )


def _name_of(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_own(origin: str, host: str, endpoint: Endpoint) -> bool:
    """Return whether a page of this origin is ours: the very address asked for, or any page of this machine."""
    try:
        split = urlsplit(origin)
    except ValueError:
        return False
    if endpoint.loopback:
        return split.scheme == "http" and split.hostname in LOOPBACK_NAMES
    return split.scheme in {"http", "https"} and split.netloc == host


def _knows(token: str, authorization: str) -> bool:
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).decode().partition(":")[2]
        except ValueError:
            return False
    elif scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(given.strip().encode(), token.encode())
