"""JSON-RPC lines over a byte stream: standard input and output, or a Unix socket.

Promises that whatever arrives is answered or fed on: a line that is too long, no JSON or no JSON-RPC gets an error
with its id where it has one, and the connection lives on. Reading never buffers more than one line of
`LINE_BYTES_MAX`. Knows nothing of MCP's methods.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

import anyio
import anyio.lowlevel
import mcp_types as types
from anyio.abc import ByteStream, ObjectReceiveStream, ObjectSendStream
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from pydantic import ValidationError

from aos_mcp.abi import limits

CHUNK_BYTES = 2**16
EDGE_BYTES = 512
"""Kept of either end of a line that is too long, to find its id."""

# Only where it must be a member of the outermost object, given that the line is an object: among the first members, or
# as the last one.
ID_FIRST = re.compile(rb'^\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*(-?\d{1,18}|"[^"\\]{1,128}")\s*[,}]')
ID_LAST = re.compile(rb'"id"\s*:\s*(-?\d{1,18}|"[^"\\]{1,128}")\s*\}\s*$')

Streams = tuple[MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]]


@dataclass(frozen=True, slots=True)
class TooLong:
    """A line beyond the limit: both of its ends, and how long it was in bytes."""

    head: bytes
    tail: bytes
    size: int


class Lines:
    """Splits a byte stream into lines. Use from one task."""

    def __init__(self, stream: ByteStream, limit: int = limits.LINE_BYTES_MAX) -> None:
        self._stream = stream
        self._limit = limit
        self._buffer = bytearray()
        self._searched = 0
        self._returned: bytes | TooLong | None = None

    def put_back(self, line: bytes | TooLong) -> None:
        """Give a line back; it is the next one again."""
        assert self._returned is None
        self._returned = line

    async def next(self) -> bytes | TooLong | None:
        """Return the next line without its end, `TooLong` for one beyond the limit, None at the end of the stream."""
        if self._returned is not None:
            line, self._returned = self._returned, None
            return line
        while True:
            end = self._buffer.find(b"\n", self._searched)
            if end >= 0:
                return self._take(end)
            if len(self._buffer) > self._limit:
                return await self._skip()
            self._searched = len(self._buffer)
            if not await self._fill():
                return self._rest()

    async def _fill(self) -> bool:
        try:
            self._buffer += await self._stream.receive(CHUNK_BYTES)
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            return False
        return True

    def _take(self, end: int) -> bytes | TooLong:
        line = bytes(memoryview(self._buffer)[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        if len(line) > self._limit:
            return TooLong(line[:EDGE_BYTES], line[-EDGE_BYTES:], len(line))
        return line

    def _rest(self) -> bytes | None:
        line, self._buffer = bytes(self._buffer), bytearray()
        self._searched = 0
        return line or None

    async def _skip(self) -> TooLong:
        head, size = bytes(self._buffer[:EDGE_BYTES]), 0
        while True:
            end = self._buffer.find(b"\n")
            if end >= 0:
                tail, size = bytes(self._buffer[max(0, end - EDGE_BYTES) : end]), size + end
                del self._buffer[: end + 1]
                break
            keep = min(EDGE_BYTES, len(self._buffer))
            size += len(self._buffer) - keep
            del self._buffer[: len(self._buffer) - keep]
            if not await self._fill():
                tail, size, self._buffer = bytes(self._buffer), size + len(self._buffer), bytearray()
                break
        self._searched = 0
        return TooLong(head, tail, size)


def id_at_edges(head: bytes, tail: bytes) -> str | int | None:
    """Return the id of a JSON-RPC message of which only the ends are known; None where they do not tell."""
    found = ID_FIRST.search(head) or ID_LAST.search(tail)
    return None if found is None else cast("str | int", json.loads(found.group(1)))


@dataclass(frozen=True, slots=True)
class Refusal:
    """What is answered to a line that is fed on to nobody."""

    answer: types.JSONRPCError


def decode(line: bytes | TooLong) -> types.JSONRPCMessage | Refusal:
    """Return the message in a line, or the refusal to answer instead.

    A lone surrogate is no reason to leave a request without answer: such a line is read leniently, and whoever
    decodes the arguments refuses it.
    """
    if isinstance(line, TooLong):
        words = f"The line has {line.size} bytes; the limit is {limits.LINE_BYTES_MAX}."
        return _refusal(id_at_edges(line.head, line.tail), types.INVALID_REQUEST, words)
    try:
        return types.jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValidationError:
        pass
    try:
        value: object = json.loads(line)
    except (ValueError, RecursionError):
        return _refusal(id_at_edges(line[:EDGE_BYTES], line[-EDGE_BYTES:]), types.PARSE_ERROR, "The line is not JSON.")
    try:
        return types.jsonrpc_message_adapter.validate_python(value, by_name=False)
    except ValidationError:
        given = value.get("id") if isinstance(value, dict) else None
        known = given if isinstance(given, str | int) and not isinstance(given, bool) else None
        return _refusal(known, types.INVALID_REQUEST, "The line is no JSON-RPC message.")


def _refusal(request_id: str | int | None, code: int, words: str) -> Refusal:
    error = types.ErrorData(code=code, message=words)
    return Refusal(types.JSONRPCError(jsonrpc="2.0", id=request_id, error=error))


@asynccontextmanager
async def message_streams(stream: ByteStream, lines: Lines) -> AsyncIterator[Streams]:
    """Give the two streams `Server.run` wants, over `stream`; `lines` reads it and may have read some already."""
    to_server, from_client = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    to_client, from_server = anyio.create_memory_object_stream[SessionMessage](0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_read, lines, to_server, to_client.clone())
        tasks.start_soon(_write, stream, from_server)
        try:
            yield from_client, to_client
        finally:
            tasks.cancel_scope.cancel()
            for end in (to_server, from_client, to_client, from_server):
                end.close()


async def _read(
    lines: Lines,
    to_server: ObjectSendStream[SessionMessage | Exception],
    to_client: ObjectSendStream[SessionMessage],
) -> None:
    async with to_server, to_client:
        while (line := await lines.next()) is not None:
            if line == b"" or line == b"\r":
                continue
            message = decode(line)
            try:
                if isinstance(message, Refusal):
                    await to_client.send(SessionMessage(message.answer))
                else:
                    await to_server.send(SessionMessage(message))
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                return  # the server has ended


async def _write(stream: ByteStream, messages: ObjectReceiveStream[SessionMessage]) -> None:
    async with messages:
        async for item in messages:
            try:
                await stream.send(_encode(item.message))
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                return  # the client is gone; the reader sees the end


def _encode(message: types.JSONRPCMessage) -> bytes:
    try:
        return message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
    except ValueError:
        # Text that was read leniently and comes back in an answer: escapes carry what UTF-8 cannot.
        return json.dumps(message.model_dump(by_alias=True, exclude_unset=True)).encode() + b"\n"


class _Pipes(ByteStream):
    """Two descriptors as one stream. They are non-blocking while in use."""

    def __init__(self, source: int, sink: int) -> None:
        self._source = source
        self._sink = sink

    async def receive(self, max_bytes: int = CHUNK_BYTES) -> bytes:
        await anyio.lowlevel.checkpoint_if_cancelled()
        while True:
            try:
                chunk = os.read(self._source, max_bytes)
            except BlockingIOError:
                await anyio.wait_readable(self._source)
                continue
            except OSError:
                raise anyio.BrokenResourceError from None
            if not chunk:
                raise anyio.EndOfStream
            return chunk

    async def send(self, item: bytes) -> None:
        await anyio.lowlevel.checkpoint_if_cancelled()
        rest = memoryview(item)
        while rest:
            try:
                rest = rest[os.write(self._sink, rest) :]
            except BlockingIOError:
                await anyio.wait_writable(self._sink)
            except OSError:
                raise anyio.BrokenResourceError from None

    async def send_eof(self) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()


@asynccontextmanager
async def stdio() -> AsyncIterator[ByteStream]:
    """Give standard input and output as one stream.

    Meanwhile descriptor 0 is the null device and 1 is standard error, so that neither a stray print nor a child's
    output can corrupt the wire.
    """
    source, sink = os.dup(0), os.dup(1)
    were = os.get_blocking(source), os.get_blocking(sink)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    os.set_blocking(source, False)
    os.set_blocking(sink, False)
    try:
        yield _Pipes(source, sink)
    finally:
        # The other holders of these open files expect them as they were.
        os.set_blocking(source, were[0])
        os.set_blocking(sink, were[1])
        os.dup2(source, 0)
        os.dup2(sink, 1)
        os.close(source)
        os.close(sink)


@asynccontextmanager
async def unix_client(path: str, hello: bytes) -> AsyncIterator[Streams]:
    """Connect to a daemon's socket as `mcp.Client` wants it; `hello` is the line that says who connects.

    Raises:
        OSError: nobody listens there.
    """
    async with await anyio.connect_unix(path) as stream:
        await stream.send(hello)
        async with message_streams(stream, Lines(stream)) as streams:
            yield streams
