"""The HTTP client the SDK's transports use towards a downstream: failures answered one by one, bodies bounded.

Without it one refused connection ends every call under way, a reply has no size limit, and nobody can tell a request
that never left from one whose answer was lost. Loaded with the first mount that is started, never before.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from http import HTTPStatus

import httpx2
from httpx2 import AsyncByteStream, Request, Response
from mcp_types import CONNECTION_CLOSED

from aos_mcp.abi import limits

REFUSED = -31_001
"""JSON-RPC code of our own making: the request did nothing, because it did not arrive or was turned away."""
BROKEN = -31_002
"""JSON-RPC code of our own making: the request left, and what became of it is not known."""

_UNSENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
    httpx2.LocalProtocolError,
)
_ERROR_BYTES_MAX = 64 * 2**10  # An error page is read only to see whether it is a JSON-RPC error.
_CONNECT_S = 30.0
_SESSION_HEADER = "mcp-session-id"

# At its level INFO the library logs every request with its whole URL, which may hold a secret.
logging.getLogger("httpx2").setLevel(logging.WARNING)


def guarded_client(
    headers: Mapping[str, str],
    *,
    proxy: str | None,
    read_s: float,
    answer: bool,
    lost: Callable[[str], None],
    listening: Callable[[], None],
) -> httpx2.AsyncClient:
    """Return a client that sends the configured headers only; `read_s` is how long a reply may be silent."""
    return httpx2.AsyncClient(
        headers={**headers, "Accept-Encoding": "identity"},
        timeout=httpx2.Timeout(_CONNECT_S, read=read_s),
        transport=GuardedTransport(proxy=proxy, answer=answer, lost=lost, listening=listening),
        trust_env=False,
    )


class GuardedTransport(httpx2.AsyncBaseTransport):
    """A transport around httpx2's own. `lost` is told, once or more, why the connection should be made anew.

    `listening` is called when a stream of what the server tells unasked is open: it has nothing of what came before.

    With `answer` a failed POST is answered by a JSON-RPC error (`REFUSED`, `BROKEN`), so that the other calls go on;
    without it (the SDK's SSE client, which posts and reads on different requests) the failure is passed on.
    """

    def __init__(
        self, *, proxy: str | None, answer: bool, lost: Callable[[str], None], listening: Callable[[], None]
    ) -> None:
        """Build a transport; `proxy` is the URL of one to go through."""
        # As many connections as there are calls: the kernel bounds those.
        self._inner = httpx2.AsyncHTTPTransport(proxy=proxy, limits=httpx2.Limits(max_connections=None))
        self._answer = answer
        self._lost = lost
        self._listening = listening

    async def handle_async_request(self, request: Request) -> Response:
        """Send one request, as the base class does; see the class for what differs."""
        try:
            response = await self._inner.handle_async_request(request)
        except httpx2.TransportError as error:
            reason, unsent = _reason(error, request), isinstance(error, _UNSENT)
            if unsent or request.method == "POST":
                self._lost(reason)
            if not self._answer or request.method != "POST":
                raise
            return _failure(request, REFUSED if unsent else BROKEN, reason)
        if request.method == "POST" and response.status_code >= 400:
            return await self._turned_away(request, response)
        if request.method == "GET" and response.is_success:
            self._listening()
        response.stream = _Bounded(response)
        return response

    async def aclose(self) -> None:
        """Close all connections."""
        await self._inner.aclose()

    async def _turned_away(self, request: Request, response: Response) -> Response:
        status = response.status_code
        reason = f"the server answered HTTP {status} {_phrase(status)}".rstrip()
        try:
            body = b"".join([chunk async for chunk in _Bounded(response, _ERROR_BYTES_MAX)])
        except httpx2.StreamError:
            body = b""
        finally:
            await response.aclose()
        error = _rpc_error(body)
        # A session the server has forgotten is a 404 by the book, and a 400 with its general code in practice.
        generic = error is None or error.get("code") == CONNECTION_CLOSED
        forgotten = status in {HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND} and generic
        session_ended = forgotten and _SESSION_HEADER in request.headers
        if session_ended or not self._answer or status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            self._lost(reason)  # Secrets are read again, and a session that ended is opened again.
        if not self._answer:
            # Not the SDK's own error for a status: that one says the whole URL.
            raise httpx2.RemoteProtocolError(reason, request=request)
        if error is None or session_ended:
            unknown = status >= 500 and status != HTTPStatus.SERVICE_UNAVAILABLE
            return _failure(request, BROKEN if unknown else REFUSED, reason)
        return Response(status, headers=response.headers, content=body, request=request)


class _Bounded(AsyncByteStream):
    """A reply's body. One that is not an event stream ends in `StreamError` beyond `bytes_max`, or when it breaks.

    Event streams are bounded event by event, by the SDK.
    """

    def __init__(self, response: Response, bytes_max: int = limits.MOUNT_LINE_BYTES_MAX) -> None:
        assert isinstance(response.stream, AsyncByteStream)
        self._inner = response.stream
        self._events = response.headers.get("content-type", "").lower().startswith("text/event-stream")
        self._packed = response.headers.get("content-encoding", "identity").lower() != "identity"
        self._bytes_max = bytes_max

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._packed:
            raise httpx2.StreamError("the reply is compressed, which was not asked for and cannot be bounded")
        size = 0
        try:
            async for chunk in self._inner:
                size += len(chunk)
                if size > self._bytes_max and not self._events:
                    raise httpx2.StreamError(f"the reply is longer than {self._bytes_max} bytes")
                yield chunk
        except httpx2.TransportError as error:
            if self._events:
                raise
            raise httpx2.StreamError(f"the reply broke off ({type(error).__name__})") from None

    async def aclose(self) -> None:
        await self._inner.aclose()


def _failure(request: Request, code: int, reason: str) -> Response:
    """Return what the SDK takes for the server's own JSON-RPC error; it puts the request's id in."""
    body = {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": reason}}
    return Response(HTTPStatus.BAD_GATEWAY, json=body, request=request)


def _rpc_error(body: bytes) -> Mapping[str, object] | None:
    try:
        message = json.loads(body)
    except ValueError:
        return None
    error = message.get("error") if isinstance(message, dict) and "jsonrpc" in message else None
    return error if isinstance(error, dict) else None


def _reason(error: httpx2.TransportError, request: Request) -> str:
    # Scheme, host and port only: a path or a query may hold a secret.
    where = f"{request.url.scheme}://{request.url.netloc.decode('ascii', 'replace')}"
    if isinstance(error, _UNSENT):
        return f"no connection to {where} ({type(error).__name__})"
    return f"the connection to {where} broke ({type(error).__name__})"


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
