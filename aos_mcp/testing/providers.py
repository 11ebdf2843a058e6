"""A model provider on loopback: both dialects, streamed or not, behaving as it is told.

For tests of drivers, of the kernel and of programs that use it, where a real provider would cost money and could not be
made to fail on demand. It owns a socket and a script; it knows nothing of the kernel.

    async with provider_server() as server:
        server.script(Behaviour(text="Hello"), Behaviour(status=429, headers={"retry-after": "2"}))
        # base_url: server.url + "/v1" for Chat Completions, server.url for Messages

`POST …/chat/completions` and `POST …/v1/messages` take the first scripted behaviour whose `when` is found in the
request; a behaviour is used up unless it says `repeat`. With nothing left, the last user text comes back. What a script
cannot know beforehand, a handle that a tool gave for instance, stands in `text` or `arguments` as `${last:REGEX}`, as
in a recording (see `aos_mcp.llm.replay`); where nothing in the request fits, the answer is status 400. `GET /stats`,
`GET /requests` and `POST /script` (a JSON list of behaviours) steer a server in another process:

    python -m aos_mcp.testing.providers --port 8001 --script behaviours.json

A last message that is an assistant's is a beginning: the answer goes on from it, and repeats it where the server's
`manners` say so. With manners the server refuses what the provider they are taken from would (see `testing.manners`).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
from anyio.abc import SocketAttribute
from pydantic import TypeAdapter

from aos_mcp.abi.completion import Turn
from aos_mcp.abi.errors import ModelError
from aos_mcp.llm.replay import fill_in
from aos_mcp.testing.dialects import (
    Answer,
    answer_body,
    answer_events,
    cut_at_stop,
    embeddings_body,
    error_body,
    last_user_text,
    texts,
)
from aos_mcp.testing.manners import Manners, beginning, limit_headers, progress, refusal
from aos_mcp.testing.prompt_cache import MARKS_MAX, WireCache, marks_in

_HEAD_BYTES_MAX = 64 * 2**10
_BODY_BYTES_MAX = 64 * 2**20
RETRY_AFTER_S = 0.2
"""What a server without a free place says: about as long as a call of a benchmark takes."""
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 429: "Too Many Requests", 529: "Overloaded"}


@dataclass(frozen=True, kw_only=True)
class Call:
    """A tool call to answer with. `arguments` is sent as it is, well formed or not."""

    name: str
    arguments: str = "{}"
    request_id: str = ""
    """Empty: `call_N`, counted over the server's life."""


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """One answer. Without `text`, calls or an error it echoes the last user text."""

    when: str = ""
    """A regular expression that must be found in the request's JSON text."""
    repeat: bool = False
    text: str | None = None
    reasoning: str = ""
    calls: tuple[Call, ...] = ()
    stop: str | None = None
    """The dialect's own stop reason; None: the natural one."""
    input_tokens: int | None = None
    """All prompt tokens, cached and written included; None: a quarter of the request's characters."""
    cached_tokens: int = 0
    written_tokens: int = 0
    output_tokens: int | None = None
    usage: bool = True
    """Whether tokens are reported at all."""
    streams: bool = True
    """False: answer in one piece whatever the client asked for."""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None
    """Sent as it is instead of an answer, of the content type that `headers` say; None: an answer of the dialect."""
    error_type: str = ""
    error_code: str = ""
    error_message: str = "scripted"
    first_byte_delay_s: float = 0.0
    piece_delay_s: float = 0.0
    """Pause before every piece of text; a piece is a word."""
    cut_after: int | None = None
    """Break the connection after so many pieces; the text must have more."""
    error_after: int | None = None
    """Send an error event after so many pieces."""
    hang_after: int | None = None
    """Say nothing more after so many pieces, until the client goes away."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a client sent."""

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]


@dataclass(kw_only=True)
class Stats:
    """Counters of model calls. `disconnects` are clients that went away before the end of an answer.

    `refused` are those that found no place.
    """

    requests: int = 0
    completed: int = 0
    disconnects: int = 0
    refused: int = 0
    in_flight: int = 0
    in_flight_max: int = 0


_BEHAVIOURS = TypeAdapter(list[Behaviour])


class ProviderServer:
    """The server; made by `provider_server`."""

    def __init__(
        self, manners: Manners | None = None, places: int | None = None, cache: WireCache | None = None
    ) -> None:
        self.manners = manners
        self.cache = cache
        self.places = places
        self.port = 0
        self.requests: list[Request] = []
        self.stats = Stats()
        self._script: list[Behaviour] = []
        self._calls = 0
        self._thoughtful: set[str] = set()
        self._changed = anyio.Event()

    @property
    def url(self) -> str:
        """The origin: no path, no slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def script(self, *behaviours: Behaviour) -> None:
        """Add behaviours behind those that wait."""
        self._script += behaviours

    async def settled(self) -> None:
        """Return once no model call is in flight."""
        while self.stats.in_flight:
            await self._changed.wait()

    async def started(self, requests: int) -> None:
        """Return once at least so many model calls have come in."""
        while self.stats.requests < requests:
            await self._changed.wait()

    def _note(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def serve(self, connection: anyio.abc.SocketStream) -> None:
        """Answer one connection, request after request."""
        buffer = bytearray()
        async with connection:
            try:
                while (request := await _read_request(connection, buffer)) is not None:
                    if not await self._answer(connection, buffer, *request):
                        return
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                return

    async def _answer(
        self, connection: anyio.abc.SocketStream, buffer: bytearray, method: str, request: Request
    ) -> bool:
        """Answer one request; return whether the connection goes on."""
        if request.path.endswith(("/chat/completions", "/v1/messages")):
            return await self._model_call(connection, buffer, request)
        if request.path.endswith("/embeddings"):
            await _send(connection, 200, json.dumps(embeddings_body(request.body)).encode())
            return True
        shown: Mapping[str, object] = {}
        if method == "GET":
            shown = {"/stats": asdict(self.stats), "/requests": [asdict(r) for r in self.requests]}
        elif request.path == "/script":
            self.script(*_BEHAVIOURS.validate_python(request.body["behaviours"]))
            shown = {"/script": {"waiting": len(self._script)}}
        known = request.path in shown
        await _send(connection, 200 if known else 404, json.dumps(shown.get(request.path, {})).encode())
        return True

    async def _model_call(self, connection: anyio.abc.SocketStream, buffer: bytearray, request: Request) -> bool:
        stats = self.stats
        self.requests.append(request)
        stats.requests += 1
        stats.in_flight += 1
        stats.in_flight_max = max(stats.in_flight_max, stats.in_flight)
        self._note()
        finished = goes_on = False
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(_watch, connection, buffer, group.cancel_scope)
                goes_on = await self._behave(connection, request, self._choose(request))
                finished = True
                group.cancel_scope.cancel()
        except* (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass
        finally:
            stats.completed += finished
            stats.disconnects += not finished
            stats.in_flight -= 1
            self._note()
        return goes_on

    def _choose(self, request: Request) -> Behaviour:
        text = json.dumps(request.body, ensure_ascii=False)
        for index, behaviour in enumerate(self._script):
            if re.search(behaviour.when, text):
                return behaviour if behaviour.repeat else self._script.pop(index)
        return Behaviour()

    async def _behave(self, connection: anyio.abc.SocketStream, request: Request, behaviour: Behaviour) -> bool:
        dialect = "anthropic" if request.path.endswith("/v1/messages") else "openai"
        headers = {**limit_headers(self.manners.limits if self.manners else ""), **behaviour.headers}
        if self.places is not None and self.stats.in_flight > self.places:
            return await self._refuse(connection, dialect)
        await anyio.sleep(behaviour.first_byte_delay_s)
        if behaviour.body is not None:
            await _send(connection, behaviour.status, behaviour.body.encode(), headers)
            return True
        if behaviour.status != 200:
            body = error_body(dialect, behaviour.error_type, behaviour.error_code, behaviour.error_message)
            await _send(connection, behaviour.status, json.dumps(body).encode(), headers)
            return True
        refused = self._refusal(dialect, request)
        if refused is not None:
            body = error_body(dialect, "invalid_request_error", "", refused)
            await _send(connection, 400, json.dumps(body).encode())
            return True
        try:
            answer = self._compose(dialect, request, behaviour)
        except ModelError as error:
            body = error_body(dialect, "invalid_request_error", "", str(error))
            await _send(connection, 400, json.dumps(body).encode())
            return True
        if not (request.body.get("stream") and behaviour.streams):
            await _send(connection, 200, json.dumps(answer_body(dialect, answer)).encode(), headers)
            return True
        await _send_head(connection, 200, {"content-type": "text/event-stream", **headers})
        return await self._stream(connection, dialect, answer, behaviour)

    async def _refuse(self, connection: anyio.abc.SocketStream, dialect: str) -> bool:
        self.stats.refused += 1
        body = error_body(dialect, "rate_limit_error", "rate_limit_exceeded", f"{self.places} calls at once")
        await _send(connection, 429, json.dumps(body).encode(), {"retry-after": f"{RETRY_AFTER_S:g}"})
        return True

    def _refusal(self, dialect: str, request: Request) -> str | None:
        if marks_in(request.body) > MARKS_MAX:
            return f"a maximum of {MARKS_MAX} blocks may be marked for the cache"
        if self.manners is None:
            return None
        return refusal(dialect, request.path, request.body, self.manners, frozenset(self._thoughtful))

    async def _stream(
        self, connection: anyio.abc.SocketStream, dialect: str, answer: Answer, behaviour: Behaviour
    ) -> bool:
        """Send the events; return False where the script breaks the stream off."""
        pieces = 0
        for is_piece, event in answer_events(dialect, answer):
            if is_piece:
                if await self._breaks_at(connection, dialect, pieces, behaviour):
                    return False
                pieces += 1
            await _send_chunk(connection, event)
        await connection.send(b"0\r\n\r\n")
        return True

    async def _breaks_at(
        self, connection: anyio.abc.SocketStream, dialect: str, pieces: int, behaviour: Behaviour
    ) -> bool:
        """Do what the script wants before piece number `pieces`; return whether the stream ends here."""
        await anyio.sleep(behaviour.piece_delay_s)
        if behaviour.hang_after == pieces:
            await anyio.sleep_forever()
        if behaviour.error_after == pieces:
            body = error_body(dialect, behaviour.error_type, behaviour.error_code, behaviour.error_message)
            prefix = b"event: error\n" if dialect == "anthropic" else b""
            await _send_chunk(connection, prefix + b"data: " + json.dumps(body).encode() + b"\n\n")
            await connection.send(b"0\r\n\r\n")
        return pieces in {behaviour.cut_after, behaviour.error_after}

    def _compose(self, dialect: str, request: Request, behaviour: Behaviour) -> Answer:
        turns = [Turn(role="user", text=text) for text in texts(request.body)]
        calls = []
        for call in behaviour.calls:
            self._calls += 1
            identity = call.request_id or f"call_{self._calls}"
            calls.append((identity, call.name, fill_in(call.arguments, turns)))
            if behaviour.reasoning:
                self._thoughtful.add(identity)
        if behaviour.text is None:
            text = "" if calls else last_user_text(request.body)
        else:
            text = fill_in(behaviour.text, turns)
        text, ended_by = cut_at_stop(request.body, text)
        written = len(text) + len(behaviour.reasoning) + sum(len(name) + len(args) for _, name, args in calls)
        count_in, count_out = behaviour.input_tokens, behaviour.output_tokens
        cached, put = behaviour.cached_tokens, behaviour.written_tokens
        if self.cache is not None:
            count_in, cached, put = self.cache.read(request.body, anyio.current_time())
        manners = self.manners or Manners()
        if manners.prefix_echo:
            text = beginning(dialect, request.body) + text
        asked = bool(request.body.get("stream_options", {}).get("include_usage")) or not manners.usage_asked
        return Answer(
            number=self.stats.requests,
            model=str(request.body.get("model", "")),
            text=text,
            reasoning=behaviour.reasoning,
            calls=tuple(calls),
            stop=behaviour.stop,
            stop_text=ended_by,
            input_tokens=len(json.dumps(request.body)) // 4 if count_in is None else count_in,
            cached_tokens=cached,
            written_tokens=put,
            output_tokens=max(1, written // 4) if count_out is None else count_out,
            usage=behaviour.usage and asked,
            reasoning_field=self.manners.reasoning_field if self.manners else None,
            cached_path=manners.cached_tokens,
            progress=progress(request.body, manners),
        )


async def _watch(connection: anyio.abc.SocketStream, buffer: bytearray, scope: anyio.CancelScope) -> None:
    """End the answer when the client goes away. What it sends early is the next request and is kept."""
    try:
        while await _more(connection, buffer):
            pass
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass
    scope.cancel()


async def _read_request(connection: anyio.abc.SocketStream, buffer: bytearray) -> tuple[str, Request] | None:
    """Return the next request; None when the client has closed."""
    while b"\r\n\r\n" not in buffer:
        if len(buffer) > _HEAD_BYTES_MAX or not await _more(connection, buffer):
            return None
    head, _, rest = bytes(buffer).partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {n.strip().lower(): v.strip() for n, _, v in (line.partition(":") for line in lines)}
    length = min(int(headers.get("content-length", "0")), _BODY_BYTES_MAX)
    buffer[:] = rest
    while len(buffer) < length:
        if not await _more(connection, buffer):
            return None
    body = json.loads(bytes(buffer[:length]) or b"{}")
    del buffer[:length]
    fields = {"behaviours": body} if isinstance(body, list) else body
    return method, Request(path=path.partition("?")[0], headers=headers, body=fields)


async def _more(connection: anyio.abc.SocketStream, buffer: bytearray) -> bool:
    try:
        buffer += await connection.receive()
    except anyio.EndOfStream:
        return False
    return True


async def _send(
    connection: anyio.abc.SocketStream, status: int, body: bytes, headers: Mapping[str, str] | None = None
) -> None:
    plain = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    await connection.send(_head(status, plain) + body)


async def _send_head(connection: anyio.abc.SocketStream, status: int, headers: Mapping[str, str]) -> None:
    await connection.send(_head(status, {"transfer-encoding": "chunked", **headers}))


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Scripted')}", *(f"{n}: {v}" for n, v in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _send_chunk(connection: anyio.abc.SocketStream, data: bytes) -> None:
    await connection.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")


@asynccontextmanager
async def provider_server(
    port: int = 0,
    script: Sequence[Behaviour] = (),
    manners: Manners | None = None,
    places: int | None = None,
    cache: WireCache | None = None,
) -> AsyncIterator[ProviderServer]:
    """Serve on loopback until the block ends; port 0 takes a free one. Calls beyond `places` at once are refused.

    With a `cache` every prompt is counted, and billed by what of it the cache holds, whatever the script says.
    """
    server = ProviderServer(manners, places, cache)
    server.script(*script)
    async with await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port) as listener:
        server.port = listener.extra(SocketAttribute.local_port)
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, server.serve)
            yield server
            group.cancel_scope.cancel()


async def _main(port: int, script: str | None, places: int | None) -> None:
    text = await anyio.Path(script).read_text("utf-8") if script else "[]"
    async with provider_server(port, _BEHAVIOURS.validate_json(text), places=places) as server:
        sys.stdout.write(f"{server.port}\n")
        sys.stdout.flush()
        await anyio.sleep_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A scripted model provider on loopback.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one; it is printed")
    parser.add_argument("--script", type=Path, help="JSON list of behaviours")
    parser.add_argument("--places", type=int, help="calls at once; others are refused")
    options = parser.parse_args()
    anyio.run(_main, options.port, str(options.script) if options.script else None, options.places)
