"""A small synchronous MCP client for the kernel's socket, modern era (2026-07-28) only.

Owns one connection. Promises that every request ends: with an answer, with a `CliError`, or at its deadline, when the
server is told to stop. Imports nothing but the standard library, because `import mcp` alone takes longer than a whole
command may. Does not know what the calls mean.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aos_mcp import __version__, shim
from aos_mcp.abi import limits
from aos_mcp.abi.errors import ErrorCode
from aos_mcp.cli.failure import CliError, error_code

PROTOCOL_VERSION = "2026-07-28"
CALL_S = 60.0  # What a call that waits for nothing may take; a loaded machine needs a fraction of it.
GRACE_S = 30.0  # How much longer than the kernel's own deadline a client waits before it gives up.
RECEIVE_BYTES = 65_536
INVALID_PARAMS = -32602
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid of SO_PEERCRED

Json = dict[str, Any]
"""A decoded JSON object. What stands in it is described by `abi.results`."""

OnProgress = Callable[[float, float | None, str], None]
"""Takes (done, total or None, a sentence)."""


class Client:
    """One connection to a kernel."""

    def __init__(self, connection: socket.socket) -> None:
        """Speak over `connection`, which has passed its hello line already. Takes ownership of it."""
        self._connection = connection
        self._received = bytearray()
        self._searched = 0
        self._last_id = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def peer_pid(self) -> int:
        """Return the operating-system process at the other end. Raises CliError where the system does not tell."""
        if not hasattr(socket, "SO_PEERCRED"):
            raise CliError(
                ErrorCode.UNAVAILABLE, "This system does not tell whose socket it is.", "End the kernel by a signal."
            )
        credentials = self._connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid: int = _CREDENTIALS.unpack(credentials)[0]
        return pid

    def call(
        self,
        name: str,
        arguments: Mapping[str, object],
        *,
        on_progress: OnProgress | None = None,
        timeout_s: float = CALL_S,
    ) -> Json:
        """Call a tool and return its structured result (a result model of `abi.results`).

        Raises:
            CliError: with the code the kernel named, `timed_out` after `timeout_s`, `unavailable` when the connection
                is lost.
        """
        params = {"name": name, "arguments": {k: v for k, v in arguments.items() if v is not None}}
        result = self.request("tools/call", params, on_progress=on_progress, timeout_s=timeout_s)
        structured = result.get("structuredContent")
        if result.get("isError"):
            raise _tool_failure(structured, result)
        if not isinstance(structured, dict):
            raise CliError(ErrorCode.INTERNAL, f"The kernel answered {name} without a structured result.")
        return structured

    def read(self, uri: str, *, timeout_s: float = CALL_S) -> str:
        """Read a resource and return its text. Raises CliError as `call`."""
        try:
            result = self.request("resources/read", {"uri": uri}, timeout_s=timeout_s)
        except CliError as error:
            if error.code is not ErrorCode.INVALID:
                raise
            raise CliError(ErrorCode.NOT_FOUND, f"There is no {uri}, or it is not yours.", "See `aos ps -a`.") from None
        contents = result.get("contents")
        if not (isinstance(contents, list) and contents and isinstance(contents[0].get("text"), str)):
            raise CliError(ErrorCode.INTERNAL, f"The kernel answered {uri} without text.")
        text: str = contents[0]["text"]
        return text

    def read_json(self, uri: str, *, timeout_s: float = CALL_S) -> Json:
        """Read a resource that holds a JSON object."""
        value = json.loads(self.read(uri, timeout_s=timeout_s))
        if not isinstance(value, dict):
            raise CliError(ErrorCode.INTERNAL, f"{uri} does not hold a JSON object.")
        return value

    def request(
        self,
        method: str,
        params: Mapping[str, object],
        *,
        on_progress: OnProgress | None = None,
        timeout_s: float = CALL_S,
    ) -> Json:
        """Send one request and return its result. Raises CliError as `call`."""
        self._last_id += 1
        request_id = self._last_id
        meta: dict[str, object] = {
            "io.modelcontextprotocol/protocolVersion": PROTOCOL_VERSION,
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": {"name": "aos-cli", "version": __version__},
        }
        if on_progress is not None:
            meta["progressToken"] = request_id
        deadline = time.monotonic() + timeout_s
        self._send(
            {"jsonrpc": "2.0", "id": request_id, "method": method, "params": {**params, "_meta": meta}}, deadline
        )
        try:
            return self._answer(request_id, on_progress, deadline)
        except TimeoutError:
            self._give_up(request_id)
            raise CliError(
                ErrorCode.TIMED_OUT,
                f"The kernel did not answer {method} within {timeout_s:g} s.",
                "See `aos status`; the work itself may go on.",
            ) from None
        except KeyboardInterrupt:
            self._give_up(request_id)
            raise

    def _answer(self, request_id: int, on_progress: OnProgress | None, deadline: float) -> Json:
        while True:
            message = self._receive(deadline)
            if message.get("method") == "notifications/progress" and on_progress is not None:
                progress = message.get("params", {})
                if progress.get("progressToken") == request_id:
                    on_progress(progress.get("progress", 0.0), progress.get("total"), progress.get("message") or "")
            if message.get("id") != request_id or "method" in message:
                continue
            if "error" in message:
                raise _protocol_failure(message["error"])
            result = message.get("result")
            return result if isinstance(result, dict) else {}

    def _give_up(self, request_id: int) -> None:
        """Tell the server that nobody waits for this answer any more."""
        params = {"requestId": request_id, "reason": "the client stopped waiting"}
        try:
            self._send(
                {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}, time.monotonic() + 1.0
            )
        except CliError:
            return  # the connection is gone, and with it the request

    def _send(self, message: Mapping[str, object], deadline: float) -> None:
        line = json.dumps(message, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n"
        encoded = _encoded(line)
        try:
            self._connection.settimeout(_left(deadline))
            self._connection.sendall(encoded)
        except OSError as error:
            raise _lost(error) from None

    def _receive(self, deadline: float) -> Json:
        while True:
            line = self._line(deadline)
            try:
                message = json.loads(line)
            except ValueError:
                raise CliError(ErrorCode.INTERNAL, "The kernel sent a line that is not JSON.") from None
            if isinstance(message, dict):
                return message

    def _line(self, deadline: float) -> bytes:
        while (end := self._received.find(b"\n", self._searched)) < 0:
            self._searched = len(self._received)
            if self._searched > limits.LINE_BYTES_MAX:
                raise CliError(ErrorCode.LIMIT_EXCEEDED, "The kernel sent a line beyond the limit.")
            self._connection.settimeout(_left(deadline))
            try:
                piece = self._connection.recv(RECEIVE_BYTES)
            except TimeoutError:
                raise
            except OSError as error:
                raise _lost(error) from None
            if not piece:
                raise _lost(None)
            self._received += piece
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        self._searched = 0
        return line


def connect(home: Path, *, start: bool = True) -> Client:
    """Connect to the kernel of `home`, as the operator; start a daemon if none answers and `start` is set.

    Raises:
        CliError: `unavailable` when there is no kernel, or it could not be started.
    """
    hello = {"aos": 1, "host": {"name": "aos-cli", "role": "operator"}}
    try:
        return Client(shim.connect(home, start=start, hello=hello))
    except shim.NoDaemon as error:
        hint = "`aos doctor` looks for the cause."
        raise CliError(ErrorCode.UNAVAILABLE, f"There is no kernel for {home}. {error}", hint) from None
    except OSError:
        hint = "`aos serve` starts it; so does any command that needs it."
        raise CliError(ErrorCode.UNAVAILABLE, f"No kernel runs for {home}.", hint) from None


def _encoded(line: str) -> bytes:
    """Return a line as bytes. Where the locale is not UTF-8, an argument's bytes come as escapes: they are taken back.

    Raises:
        CliError: an argument was not UTF-8.
    """
    try:
        encoded = line.encode("utf-8", "surrogateescape")
        if not line.isascii():
            encoded.decode("utf-8")
    except UnicodeError:
        raise CliError(ErrorCode.INVALID, "An argument is not UTF-8 text.", "Encode it as UTF-8.") from None
    return encoded


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _lost(error: OSError | None) -> CliError:
    why = f" ({error})" if error is not None else ""
    return CliError(
        ErrorCode.UNAVAILABLE, f"The connection to the kernel was lost{why}.", "Try again; see `aos status`."
    )


def _tool_failure(structured: object, result: Mapping[str, Any]) -> CliError:
    if isinstance(structured, dict) and "code" in structured:
        return CliError(
            error_code(structured["code"]), str(structured.get("message", "")), str(structured.get("hint", ""))
        )
    content = result.get("content")
    texts = [str(part.get("text", "")) for part in content] if isinstance(content, list) else []
    return CliError(ErrorCode.INTERNAL, " ".join(texts) or "The kernel failed without a reason.")


def _protocol_failure(error: object) -> CliError:
    fields = error if isinstance(error, dict) else {}
    message = str(fields.get("message", "The kernel refused the request."))
    data = fields.get("data")
    if isinstance(data, dict) and "code" in data:
        hint = str(data.get("hint", ""))
        return CliError(error_code(data["code"]), message.removesuffix(hint).rstrip(), hint)
    return CliError(ErrorCode.INVALID if fields.get("code") == INVALID_PARAMS else ErrorCode.INTERNAL, message)
