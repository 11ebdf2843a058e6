"""One live MCP session with a downstream, in either era, over any transport: the only module that knows the SDK.

Promises: a request is sent once; whether it left is known; foreign errors leave as `abi.errors` (from `call`,
`list_tools`) or as `ConnectionLost` (from `open_connection`); no sampling, roots or elicitation is offered, so a
server that wants one is refused and nothing hangs. Loaded with the first mount that is started: importing the SDK's
client takes longer than everything else the kernel does at start.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from itertools import count
from types import TracebackType
from typing import Any, Self

import anyio
import httpx2
import mcp_types as types
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client import Client
from mcp.client._transport import ReadStream, TransportStreams, WriteStream
from mcp.client.session import ClientSession, IncomingMessage
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import SubscriptionLost
from mcp.shared.dispatcher import ProgressFnT
from mcp.shared.exceptions import MCPError
from mcp.shared.message import SessionMessage
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from pydantic import RootModel, ValidationError

from aos_mcp import __version__
from aos_mcp.abi import limits
from aos_mcp.abi.errors import AosError, Invalid, NotFound, TimedOut, Unavailable, UnknownOutcome
from aos_mcp.abi.mount import ToolOutcome
from aos_mcp.proxy import http_guard
from aos_mcp.proxy.child import Child, LineTooLong, Reaper, spawn
from aos_mcp.proxy.definition import plain
from aos_mcp.proxy.target import Target

Streams = tuple["_Inbox", "_Outbox"]

_REASON_CHARS_MAX = 500
_INBOX_MAX = 64  # Parsed messages that wait for the session: enough to keep it busy, little to hold.
_READ_S = 300.0  # How long an HTTP reply or event stream may be silent, where no call needs longer.
_PRIVATE_META = "io.modelcontextprotocol/"

_FOREIGN = (
    AosError,
    MCPError,
    SubscriptionLost,
    ValidationError,
    httpx2.HTTPError,
    httpx2.InvalidURL,
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.EndOfStream,
)
"""What may come out of the SDK, the transports and the process underneath when a downstream misbehaves."""


class ConnectionLost(Exception):
    """The session could not be opened, or has ended; `reason` is a clause that says why."""

    def __init__(self, reason: str) -> None:
        """Say why, without a full stop."""
        super().__init__(reason)
        self.reason = reason


class _RawResult(RootModel[dict[str, Any]]):
    """A result as it came: the relay must not drop what this SDK's models do not know."""


class _Attempt:
    """Whether the request of the task at hand was handed to the transport."""

    def __init__(self) -> None:
        self.sent = False


_ATTEMPT: ContextVar[_Attempt | None] = ContextVar("aos_mcp_proxy_attempt", default=None)


class Connection:
    """An open session. `changed` is set when the server's list of tools changed, `lost` when the session is over."""

    def __init__(self, server: str, target: Target) -> None:
        """Stand for a session that `open_connection` is about to open."""
        self.changed = anyio.Event()
        self.lost = anyio.Event()
        self.reason = ""
        self._server = server
        self.target = target
        self._client: Client | None = None
        self._session: ClientSession | None = None
        self.child: Child | None = None

    @property
    def era(self) -> str:
        """The protocol revision both sides speak."""
        return self._open.protocol_version or ""

    @property
    def is_open(self) -> bool:
        """Whether the handshake was done."""
        return self._session is not None

    @property
    def is_legacy(self) -> bool:
        """Whether the session began with the handshake of the older revisions."""
        return self.era in HANDSHAKE_PROTOCOL_VERSIONS

    @property
    def pid(self) -> int | None:
        """The server's process, where there is one."""
        return self.child.pid if self.child is not None else None

    @property
    def _open(self) -> ClientSession:
        assert self._session is not None, "used before it was opened"
        return self._session

    def opened(self, client: Client) -> None:
        """Take the client once the handshake is done."""
        self._client, self._session = client, client.session

    def lose(self, reason: str) -> None:
        """Declare the session over; the first reason stays."""
        if not self.lost.is_set():
            self.reason = reason
            self.lost.set()

    async def list_tools(self) -> list[Mapping[str, object]]:
        """Return the wire form of every tool, over all pages."""
        found: list[Mapping[str, object]] = []
        cursor: str | None = None
        for _ in range(limits.MOUNT_PAGES_MAX):
            page = await self._listed(cursor)
            found += (tool.model_dump(by_alias=True, mode="json", exclude_none=True) for tool in page.tools)
            cursor = page.next_cursor
            if cursor is None:
                return found
        raise Unavailable(
            f"Server {self._server!r} has more than {limits.MOUNT_PAGES_MAX} pages of tools.", "Tell its maker."
        )

    async def _listed(self, cursor: str | None) -> types.ListToolsResult:
        try:
            with anyio.fail_after(limits.MOUNT_START_S):
                return await self._open.list_tools(params=types.PaginatedRequestParams(cursor=cursor))
        except TimeoutError:
            raise Unavailable(
                f"{self._named()} did not list its tools within {limits.MOUNT_START_S:g} s.", "Look at its log."
            ) from None
        except MCPError as error:
            raise Unavailable(
                f"{self._named()} did not list its tools: {self._said(error)}.", "Look at its log."
            ) from None
        except ValidationError:
            raise Unavailable(f"{self._named()} lists a tool that is not valid MCP.", "Tell its maker.") from None

    async def follow_changes(self, pause: Callable[[int], Awaitable[None]]) -> None:
        """Set `changed` at every list change, for as long as this runs.

        Servers of the older revisions tell it unasked; the others are asked for a stream, again when it breaks,
        after `pause(n)` for the n-th time.
        """
        assert self._client is not None
        capabilities = self._open.server_capabilities
        if self.is_legacy or capabilities is None or capabilities.tools is None or not capabilities.tools.list_changed:
            return
        for broken in count(1):
            try:
                async with self._client.listen(tools_list_changed=True) as events:
                    # Whatever changed before the stream was there is seen by listing once more.
                    self.changed.set()
                    async for _ in events:
                        self.changed.set()
            except MCPError as error:
                if error.code in {types.METHOD_NOT_FOUND, types.INVALID_PARAMS, types.INVALID_REQUEST}:
                    return  # It cannot; its list stands until the next start.
            except SubscriptionLost:
                pass  # Asked for again below.
            await pause(broken)

    def listening(self) -> None:
        """Take note that the stream of an older server is open: what changed before is seen by listing once more."""
        self.changed.set()

    async def heard(self, message: IncomingMessage) -> None:
        """Take a message the server sent unasked."""
        if isinstance(message, types.ToolListChangedNotification):
            self.changed.set()

    async def call(
        self,
        tool: str,
        arguments: Mapping[str, object],
        *,
        timeout_s: float,
        report: ProgressFnT | None,
        meta: Mapping[str, object],
    ) -> ToolOutcome:
        """Call a tool once; `tool` is the server's own name for it. Errors are those of `ports.Mounts.call`."""
        attempt = _Attempt()
        token = _ATTEMPT.set(attempt)
        try:
            with anyio.move_on_after(timeout_s):
                return self._outcome(tool, await self._request(tool, arguments, report, meta))
        except MCPError as error:
            raise self._failed(tool, error, sent=attempt.sent) from None
        except ValidationError:
            raise UnknownOutcome(
                f"{self._named()} answered {tool!r} with something that is not a tool result.",
                "The tool has probably run: find out what it did before calling it again.",
            ) from None
        finally:
            _ATTEMPT.reset(token)
        raise TimedOut(
            f"{self._named()} did not answer {tool!r} within {timeout_s:g} s; it was told to stop.",
            "It may have taken effect: look before calling it again, or allow it more time with timeout_s.",
        )

    async def _request(
        self, tool: str, arguments: Mapping[str, object], report: ProgressFnT | None, meta: Mapping[str, object]
    ) -> Mapping[str, Any]:
        passed = {key: value for key, value in meta.items() if not _is_private(key)}
        params = types.CallToolRequestParams.model_validate(
            {"name": tool, "arguments": dict(arguments), "_meta": passed or None}, by_alias=True
        )
        # Not `session.call_tool`: that one checks the result against the tool's schema and drops unknown fields.
        request = types.CallToolRequest(params=params)
        return (await self._open.send_request(request, _RawResult, progress_callback=report)).root

    def _outcome(self, tool: str, result: Mapping[str, Any]) -> ToolOutcome:
        kind = result.get("resultType", "complete")
        if kind != "complete":
            raise Unavailable(
                f"{tool!r} of server {self._server!r} asks for input in the middle of a call ({kind}), "
                "which is not supported yet.",
                "Give it all it needs as arguments, or use another tool.",
            )
        return ToolOutcome(
            result=json.dumps(result, ensure_ascii=False, separators=(",", ":")),
            is_error=result.get("isError") is True,
            text=_text_of(result),
        )

    def _failed(self, tool: str, error: MCPError, *, sent: bool) -> AosError:
        said = self._said(error)
        match error.code:
            case types.CONNECTION_CLOSED | types.PARSE_ERROR | http_guard.BROKEN if sent:
                return UnknownOutcome(
                    f"The connection to server {self._server!r} was lost while {tool!r} ran: {said}.",
                    "It may have taken effect or not: find out before calling it again.",
                )
            case types.CONNECTION_CLOSED | types.PARSE_ERROR | http_guard.BROKEN | http_guard.REFUSED:
                if error.code == types.CONNECTION_CLOSED:
                    self.lose(said)
                return Unavailable(
                    f"{self._named()} did not take {tool!r}: {said}.", "Nothing was called. Try again in a moment."
                )
            case types.INVALID_PARAMS:
                return Invalid(f"{self._named()} refused the arguments of {tool!r}: {said}.", "Check the schema.")
            case types.METHOD_NOT_FOUND:
                return NotFound(f"{self._named()} has no tool {tool!r}: {said}.", "Look for another with search_tools.")
            case types.HEADER_MISMATCH:
                self.changed.set()
                return Unavailable(
                    f"The definition of {tool!r} has changed: {said}.", "Read it again, then call again."
                )
            case _:
                return Unavailable(f"{self._named()} answered {tool!r} with an error: {said}.", "Read the message.")

    def _named(self) -> str:
        return f"Server {self._server!r}"

    def _said(self, error: MCPError) -> str:
        text = self.reason if self.lost.is_set() else plain(self.target.censor(error.message), _REASON_CHARS_MAX)
        return text.rstrip(". ") or f"error {error.code}"


@asynccontextmanager
async def open_connection(
    server: str, target: Target, reaper: Reaper | None, *, legacy: bool, start_s: float, read_s: float
) -> AsyncIterator[Connection]:
    """Keep a session open for as long as the block lasts. Enter and leave it in one task.

    `legacy` begins with the handshake and spares a server that does not know better the probe for the newer era;
    `start_s` bounds the opening, `read_s` is how long a call may take. A stdio target needs a reaper.

    Raises:
        ConnectionLost: it could not be opened in time, or was lost before or after the block ended.
    """
    connection = Connection(server, target)
    fault: BaseException | None = None
    with anyio.CancelScope(deadline=anyio.current_time() + start_s) as scope:
        try:
            async with AsyncExitStack() as stack:
                if reaper is not None:
                    connection.child = await stack.enter_async_context(spawn(target, reaper))
                client = Client(
                    _watched(await _transport(stack, connection, read_s), connection),
                    mode="legacy" if legacy else "auto",
                    message_handler=connection.heard,
                    client_info=types.Implementation(name="aos-mcp", version=__version__),
                    cache=None,
                )
                connection.opened(await stack.enter_async_context(client))
                scope.deadline = math.inf
                yield connection
                scope.deadline = anyio.current_time() + limits.MOUNT_STOP_S
        except* _FOREIGN as group:
            fault = group
    if fault is None and scope.cancelled_caught and not connection.is_open:
        fault = TimeoutError(f"it did not answer within {start_s:g} s")
    if fault is not None or connection.lost.is_set():
        raise ConnectionLost(_why(connection, fault))


async def _transport(
    stack: AsyncExitStack, connection: Connection, read_s: float
) -> AbstractAsyncContextManager[TransportStreams]:
    target = connection.target
    if connection.child is not None:
        return _stdio_streams(connection.child, connection)

    def client(
        headers: object = None, timeout: object = None, auth: object = None, *, answer: bool = False
    ) -> httpx2.AsyncClient:
        """Stand for the SDK's own factory, whose arguments it has from us."""
        return http_guard.guarded_client(
            target.headers,
            proxy=target.proxy,
            read_s=max(_READ_S, read_s),
            answer=answer,
            lost=connection.lose,
            listening=connection.listening,
        )

    if target.transport == "sse":
        return sse_client(target.url, httpx_client_factory=client)
    return streamable_http_client(
        target.url,
        http_client=await stack.enter_async_context(client(answer=True)),
        max_sse_event_size=limits.MOUNT_LINE_BYTES_MAX,
    )


@asynccontextmanager
async def _stdio_streams(
    child: Child, connection: Connection
) -> AsyncIterator[
    tuple[MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]]
]:
    """Newline-delimited JSON-RPC over a child's pipes.

    The SDK's own transport reads lines of any length, in quadratic time.
    """
    to_session, inbound = anyio.create_memory_object_stream[SessionMessage | Exception](_INBOX_MAX)
    outbound, from_session = anyio.create_memory_object_stream[SessionMessage](limits.MOUNT_OUTBOX_MAX)
    async with to_session, inbound, outbound, from_session, anyio.create_task_group() as tasks:
        tasks.start_soon(_read_messages, child, to_session, connection)
        tasks.start_soon(_write_messages, child, from_session, connection)
        tasks.start_soon(_watch_process, child, connection)
        yield inbound, outbound
        tasks.cancel_scope.cancel()


async def _read_messages(
    child: Child, to_session: MemoryObjectSendStream[SessionMessage | Exception], connection: Connection
) -> None:
    noise = 0
    async with to_session:
        while noise <= limits.MOUNT_NOISE_LINES_MAX:
            try:
                line = await child.receive_line()
            except anyio.EndOfStream:
                return connection.lose("the connection was closed")
            except LineTooLong:
                return connection.lose(f"it sent a line longer than {limits.MOUNT_LINE_BYTES_MAX} bytes")
            try:
                message = types.jsonrpc_message_adapter.validate_json(line, by_name=False)
            except ValueError:
                noise += bool(line.strip())  # A banner, a stray print: not ours, and not fatal.
                continue
            noise = 0
            try:
                await to_session.send(SessionMessage(message))
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                return None
        connection.lose("it writes text to its standard output where MCP messages belong")


async def _write_messages(
    child: Child, from_session: MemoryObjectReceiveStream[SessionMessage], connection: Connection
) -> None:
    async with from_session:
        async for item in from_session:
            line = item.message.model_dump_json(by_alias=True, exclude_unset=True)
            try:
                await child.send_line(line.encode())
            except anyio.BrokenResourceError:
                return connection.lose("it closed its input")


async def _watch_process(child: Child, connection: Connection) -> None:
    await child.wait()
    # What it left in the pipe is read first; a grandchild that holds the pipe open is not waited for.
    with anyio.move_on_after(limits.MOUNT_STOP_S):
        await connection.lost.wait()
    connection.lose("its process ended")


class _Inbox:
    """A transport's reading stream; its end is the end of the session."""

    def __init__(self, inner: ReadStream[SessionMessage | Exception], connection: Connection) -> None:
        self._inner = inner
        self._connection = connection

    async def receive(self) -> SessionMessage | Exception:
        try:
            return await self._inner.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            self._connection.lose("the connection was closed")
            raise

    async def aclose(self) -> None:
        await self._inner.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class _Outbox:
    """A transport's writing stream; it notes on the sender's `_Attempt` that the message was taken."""

    def __init__(self, inner: WriteStream[SessionMessage]) -> None:
        self._inner = inner

    async def send(self, item: SessionMessage, /) -> None:
        attempt = _ATTEMPT.get()
        before = attempt.sent if attempt is not None else False
        if attempt is not None:
            attempt.sent = True  # Set first: a send that is cancelled may have handed the message over.
        try:
            await self._inner.send(item)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            if attempt is not None:
                attempt.sent = before
            raise

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


@asynccontextmanager
async def _watched(
    transport: AbstractAsyncContextManager[TransportStreams], connection: Connection
) -> AsyncIterator[Streams]:
    async with transport as (inbound, outbound):
        yield _Inbox(inbound, connection), _Outbox(outbound)


def _why(connection: Connection, fault: BaseException | None) -> str:
    """Return the clause for a session that failed: what the process did beats what the SDK made of it."""
    child = connection.child
    told = connection.reason or plain(connection.target.censor(_first(fault)), _REASON_CHARS_MAX)
    if child is None:
        return told
    reason, words = child.fate or told, child.last_words.rstrip(". ")
    return f"{reason}; its last words: {words}" if words else reason


def _first(fault: BaseException | None) -> str:
    """Return the text of the first error that is not a group."""
    while isinstance(fault, BaseExceptionGroup):
        fault = fault.exceptions[0]
    if isinstance(fault, AosError):
        return fault.message.rstrip(".")
    return f"{fault}".rstrip(". ") or type(fault).__name__


def _is_private(key: str) -> bool:
    return key == "progressToken" or key.startswith(_PRIVATE_META)


def _text_of(result: Mapping[str, Any]) -> str:
    """Return what a reader of text gets of a result; blocks that are not text are named."""
    blocks: Iterable[Mapping[str, Any]] = result.get("content") or ()
    text = "\n".join(_block_text(block) for block in blocks)
    structured = result.get("structuredContent")
    return text if text or structured is None else json.dumps(structured, ensure_ascii=False)


def _block_text(block: Mapping[str, Any]) -> str:
    match block:
        case {"type": "text", "text": str() as text}:
            return text
        case {"type": "resource", "resource": {"text": str() as text}}:
            return text
        case {"type": "resource", "resource": {"uri": str() as uri}}:
            return f"[resource {uri}]"
        case {"type": "resource_link", "uri": str() as uri}:
            return f"[resource {uri}]"
        case {"type": kind, "mimeType": mime}:
            return f"[{kind} {mime}]"
        case _:
            return f"[{block.get('type')}]"
