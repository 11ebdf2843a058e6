"""The kernel over HTTP: Streamable HTTP at /mcp, SSE at /sse, /health, /metrics and the dashboard at /.

Promises that a request from another site's page, or with a forged Host, never reaches the kernel; that nothing but
/health is answered without the token where one is set; and that nobody but this machine is served without one.
"""

from __future__ import annotations

import base64
import hmac
import ipaddress
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

import anyio
import uvicorn
from mcp.server.sse import SseServerTransport
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from aos_mcp import __version__, dashboard
from aos_mcp.abi import limits
from aos_mcp.abi.capability import Caller, CallerKind
from aos_mcp.abi.errors import AosError, Invalid, Unavailable
from aos_mcp.abi.results import MetricsResult
from aos_mcp.server import Surface

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
OPEN_PATHS = frozenset({"/health"})
DRAIN_S = 2
"""What answers under way get when the daemon ends; the SDK's own wait is whole seconds."""

UNGUARDED = TransportSecuritySettings(enable_dns_rebinding_protection=False)
"""For the SDK's transports: `Guard` has looked at Host and Origin before they see a request, on every path."""


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


async def serve_http(surface: Surface, endpoint: Endpoint, listener: socket.socket) -> None:
    """Serve until cancelled; then give answers under way `DRAIN_S` seconds."""
    config = uvicorn.Config(
        application(surface, endpoint),
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="on",
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


def application(surface: Surface, endpoint: Endpoint) -> Starlette:
    """Return the ASGI application."""
    caller = Caller(kind=CallerKind.HOST, principal=surface.principal)
    operator = Caller(kind=CallerKind.OPERATOR, principal=surface.principal, host="dashboard")
    size = limits.LINE_BYTES_MAX  # one bound for a message, whatever carries it
    manager = StreamableHTTPSessionManager(
        surface.server(caller, "http"), security_settings=UNGUARDED, max_request_body_size=size
    )
    messages = SseServerTransport("/messages/", security_settings=UNGUARDED, max_request_body_size=size)
    web = _Web(surface, operator)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with manager.run():
            yield

    return Starlette(
        routes=[
            Route("/mcp", StreamableHTTPASGIApp(manager)),
            Route("/sse", _Sse(surface, messages, caller)),
            Mount("/messages/", messages.handle_post_message),
            Route("/health", web.health, methods=["GET"]),
            Route("/metrics", web.metrics, methods=["GET"]),
            *dashboard.routes(web.act, may_answer=endpoint.token is not None),
        ],
        middleware=[Middleware(Guard, endpoint=endpoint)],
        lifespan=lifespan,
    )


class _Web:
    def __init__(self, surface: Surface, operator: Caller) -> None:
        self._surface = surface
        self._operator = operator

    async def act(self, call: str, arguments: Mapping[str, object]) -> BaseModel:
        return await self._surface.syscall(self._operator, call, arguments)

    async def health(self, request: Request) -> Response:
        state = "ok" if self._surface.slot.peek() is not None else "starting"
        return JSONResponse({"status": state, "version": __version__})

    async def metrics(self, request: Request) -> Response:
        try:
            result = await self._surface.syscall(self._operator, "read_metrics", {})
        except AosError as error:
            return PlainTextResponse(f"{error}\n", status_code=HTTPStatus.SERVICE_UNAVAILABLE)
        assert isinstance(result, MetricsResult), type(result)
        return PlainTextResponse(result.text, media_type="text/plain; version=0.0.4")


class _Sse:
    """One connection of the old SSE transport for each GET."""

    def __init__(self, surface: Surface, transport: SseServerTransport, caller: Caller) -> None:
        self._surface = surface
        self._transport = transport
        self._caller = caller

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "GET":
            return await Response(status_code=405, headers={"Allow": "GET"})(scope, receive, send)
        key = object()
        server = self._surface.server(self._caller, key)
        try:
            async with self._transport.connect_sse(scope, receive, send) as (read, write):
                await server.run(read, write, server.create_initialization_options())
        finally:
            self._surface.closed(key)


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
