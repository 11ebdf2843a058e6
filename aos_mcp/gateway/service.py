"""The gateway's HTTP: which path is which call, streams as they are written, and clients that go away.

Promises that a client that goes away ends its call, which is settled all the same; that an error before the first byte
has its own status; and that nothing is answered but to a key.
"""

from __future__ import annotations

import json
import math
import re
import socket
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from aos_mcp.abi.errors import AosError, Invalid, NotFound
from aos_mcp.abi.guest_results import CountTokensResult, GenerateResult, ModelsResult
from aos_mcp.abi.limits import GATEWAY_PING_S, LINE_BYTES_MAX
from aos_mcp.abi.strict_json import finite
from aos_mcp.endpoint import Endpoint, Guard, serve
from aos_mcp.gateway.chat import Chat
from aos_mcp.gateway.dialect import Asked, Dialect, Fields
from aos_mcp.gateway.faults import RequestTooLarge
from aos_mcp.gateway.messages import Messages
from aos_mcp.hardware import SystemClock, SystemEntropy
from aos_mcp.kernel.guests import KeyRefused
from aos_mcp.kernel.kernel import Kernel
from aos_mcp.ports import Clock, Entropy

CHAT, MESSAGES = Chat(), Messages()
REPLAYED_HEADER = "x-aos-replayed"


async def serve_gateway(kernel: Callable[[], Awaitable[Kernel]], endpoint: Endpoint, listener: socket.socket) -> None:
    """Serve until cancelled; answers under way get a moment then."""
    gateway = Gateway(kernel, SystemClock(), SystemEntropy())
    await serve(gateway.application(endpoint), listener, lifespan="off")


class Gateway:
    """The application. `kernel` is asked for at every call: it may still be recovering."""

    def __init__(self, kernel: Callable[[], Awaitable[Kernel]], clock: Clock, entropy: Entropy) -> None:
        self._kernel = kernel
        self._clock = clock
        self._entropy = entropy

    def application(self, endpoint: Endpoint) -> Starlette:
        """Return the ASGI application for this address."""
        return Starlette(
            routes=[
                Route("/", self._hello, methods=["GET"]),
                Route("/health", self._hello, methods=["GET"]),
                Route("/v1/chat/completions", _Turn(self, CHAT)),
                Route("/v1/messages", _Turn(self, MESSAGES)),
                Route("/v1/messages/count_tokens", self._count, methods=["POST"]),
                Route("/v1/models", self._models, methods=["GET"]),
                Route("/v1/models/{name:path}", self._models, methods=["GET"]),
            ],
            middleware=[Middleware(Guard, endpoint=endpoint)],
            exception_handlers={HTTPStatus.NOT_FOUND: _no_such_path},
        )

    async def call(
        self, secret: str, name: str, arguments: Mapping[str, object], deliver: Callable[[str], None] | None = None
    ) -> Any:
        """Make one call with a key. Raises AosError."""
        if not secret:
            raise KeyRefused("No key was sent.", "Get one with: aos gateway key --name NAME.")
        kernel = await self._kernel()
        return await kernel.guest_call(secret, name, arguments, deliver=deliver)

    def identity(self, dialect: Dialect) -> tuple[str, int]:
        """Return the name of a new answer, and its time in seconds since the epoch."""
        return self._entropy.handle(dialect.id_prefix), int(self._clock.now())

    async def _hello(self, request: Request) -> Response:
        return JSONResponse({"service": "aos-mcp gateway"})

    async def _models(self, request: Request) -> Response:
        dialect = _spoken(request)
        named = request.path_params.get("name")
        try:
            listed = await self.call(dialect.secret(request.headers), "list_models", {})
            assert isinstance(listed, ModelsResult)
            if named is None:
                return JSONResponse(dialect.models(listed))
            if named not in listed.models:
                raise NotFound(f"{named!r} is not listed.", "See GET /v1/models for what is.")
            return JSONResponse(dialect.model(named))
        except AosError as error:
            return failed(dialect, error)

    async def _count(self, request: Request) -> Response:
        try:
            asked = MESSAGES.decode({"max_tokens": 1, **await body_of(request)})
            given = {"model": asked.model, "prompt": asked.arguments["prompt"]}
            counted = await self.call(MESSAGES.secret(request.headers), "count_tokens", given)
            assert isinstance(counted, CountTokensResult)
            return JSONResponse({"input_tokens": counted.tokens})
        except AosError as error:
            return failed(MESSAGES, error)


class _Turn:
    """One dialect's endpoint for a model turn."""

    def __init__(self, gateway: Gateway, dialect: Dialect) -> None:
        self._gateway = gateway
        self._dialect = dialect

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            return await Response(status_code=405, headers={"Allow": "POST"})(scope, receive, send)
        request = Request(scope, receive)
        try:
            asked = self._dialect.decode(await body_of(request))
        except ClientDisconnect:
            return None
        except AosError as error:
            return await failed(self._dialect, error)(scope, receive, send)
        secret = self._dialect.secret(request.headers)
        async with anyio.create_task_group() as group:
            group.start_soon(_until_gone, receive, group.cancel_scope)
            if asked.stream:
                await _Stream(self._gateway, self._dialect, asked, secret).answer(scope, receive, send)
            else:
                await (await self._whole(asked, secret))(scope, receive, send)
            group.cancel_scope.cancel()

    async def _whole(self, asked: Asked, secret: str) -> Response:
        identity, created = self._gateway.identity(self._dialect)
        try:
            result = await self._gateway.call(secret, "generate", asked.arguments)
            assert isinstance(result, GenerateResult)
            body = self._dialect.answer(identity, created, result)
        except AosError as error:
            return failed(self._dialect, error)
        headers = {**_unheeded(asked), REPLAYED_HEADER: "true"} if result.replayed else _unheeded(asked)
        return JSONResponse(body, headers=headers)


class _Stream:
    """One streamed answer: what the model writes goes out at once."""

    def __init__(self, gateway: Gateway, dialect: Dialect, asked: Asked, secret: str) -> None:
        self._gateway = gateway
        self._dialect = dialect
        self._asked = asked
        self._secret = secret
        self._writer = dialect.writer(*gateway.identity(dialect), asked)
        self._outcome: GenerateResult | AosError | None = None
        self._begun = False

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the whole answer; until something is there to say, an error still has its own status."""
        # Without a bound: it never holds more than the one answer, and a model is not made to wait for a client.
        written, pieces = anyio.create_memory_object_stream[str](math.inf)
        async with written, pieces, anyio.create_task_group() as group:
            group.start_soon(self._call, written)
            await self._pass_on(pieces, send)
        assert self._outcome is not None, "a call returns or raises"
        if isinstance(self._outcome, AosError):
            if not self._begun:
                return await failed(self._dialect, self._outcome)(scope, receive, send)
            ending = self._writer.error(self._outcome)
        else:
            await self._begin(send)
            ending = self._writer.end(self._outcome)
        await send({"type": "http.response.body", "body": ending, "more_body": False})

    async def _call(self, written: MemoryObjectSendStream[str]) -> None:
        with written:
            try:
                call = self._gateway.call
                self._outcome = await call(self._secret, "generate", self._asked.arguments, written.send_nowait)
            except AosError as error:
                self._outcome = error

    async def _pass_on(self, pieces: MemoryObjectReceiveStream[str], send: Send) -> None:
        while True:
            body = None
            with anyio.move_on_after(GATEWAY_PING_S):
                try:
                    body = self._writer.piece(await pieces.receive())
                except anyio.EndOfStream:
                    return
            await self._begin(send)
            await send({"type": "http.response.body", "body": body or self._writer.ping(), "more_body": True})

    async def _begin(self, send: Send) -> None:
        if self._begun:
            return
        self._begun = True
        headers = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-store"}
        headers |= _unheeded(self._asked)
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": HTTPStatus.OK, "headers": raw})
        await send({"type": "http.response.body", "body": self._writer.begin(), "more_body": True})


async def _until_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def body_of(request: Request) -> Fields:
    """Return the JSON object of a request.

    Raises:
        Invalid: it is none.
        RequestTooLarge: it is too large.
    """
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > LINE_BYTES_MAX:
            raise RequestTooLarge(f"A request has at most {LINE_BYTES_MAX} bytes.", "Send less.")
    try:
        fields: object = json.loads(body, parse_constant=finite, parse_float=finite)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise Invalid("The body is no JSON object.", "Send the request as JSON.")
    return fields


def failed(dialect: Dialect, error: AosError) -> Response:
    """Return an error as the dialect has it."""
    fault = dialect.fault(error)
    return JSONResponse(fault.body, status_code=fault.status, headers=dict(fault.headers))


def _spoken(request: Request) -> Dialect:
    """Return the dialect of a request whose path does not tell: only one of them names its version."""
    return MESSAGES if "anthropic-version" in request.headers else CHAT


async def _no_such_path(request: Request, error: Exception) -> Response:
    dialect = _spoken(request)
    served = "/v1/chat/completions, /v1/messages, /v1/messages/count_tokens and /v1/models"
    return failed(dialect, NotFound(f"{request.url.path} is not served here.", f"There are {served}."))


def _unheeded(asked: Asked) -> dict[str, str]:
    names = [name for name in asked.unheeded if re.fullmatch(r"\w{1,64}", name, re.ASCII)]
    return {"x-aos-unheeded": ",".join(names)} if names else {}
