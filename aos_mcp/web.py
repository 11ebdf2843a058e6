"""The kernel over HTTP: Streamable HTTP at /mcp, SSE at /sse, /health, /metrics and the dashboard at /.

Promises that a request from another site's page, or with a forged Host, never reaches the kernel; that nothing but
/health is answered without the token where one is set; and that nobody but this machine is served without one.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus

from mcp.server.sse import SseServerTransport
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from aos_mcp import __version__, dashboard
from aos_mcp.abi import limits
from aos_mcp.abi.capability import Caller, CallerKind
from aos_mcp.abi.errors import AosError
from aos_mcp.abi.results import MetricsResult
from aos_mcp.endpoint import Endpoint, Guard, serve
from aos_mcp.server import Surface

UNGUARDED = TransportSecuritySettings(enable_dns_rebinding_protection=False)
"""For the SDK's transports: `Guard` has looked at Host and Origin before they see a request, on every path."""


async def serve_http(surface: Surface, endpoint: Endpoint, listener: socket.socket) -> None:
    """Serve until cancelled; then give answers under way `DRAIN_S` seconds."""
    await serve(application(surface, endpoint), listener, lifespan="on")


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
