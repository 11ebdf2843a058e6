"""What hosts start: relays a host's standard input and output to the daemon, and starts one where none answers.

Owns one connection for one host. Promises to be ready before the host looks, to answer whatever it took even when the
daemon dies, to connect again without the host noticing, and never to send a request twice whose effect might happen
twice. Imports the standard library alone, because a host waits for it. Knows of MCP only what a reconnection needs.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

SOCKET_NAME = "kernel.sock"
START_S = 15.0  # The longest a daemon may take until it listens.
STEP_MIN_S, STEP_MAX_S = 0.005, 0.1  # Between two looks whether it does.
DRAIN_S = 2.0  # What answers under way get once the host has closed its end.
CHUNK_BYTES = 2**16
LINE_BYTES_MAX = 16 * 2**20  # The same bound as the daemon's.
PARSED_BYTES_MAX = 2**16  # A longer line is looked at by its ends only.
EDGE_BYTES = 512
LOG_BYTES_MAX = 8 * 2**20
LOG_SHOWN_BYTES = 2_000
TRIES = 2  # Of one request: the first daemon may have died of it.

# -P: a module in the project the host happens to stand in must not be taken for one of ours.
DAEMON = (sys.executable, "-P", "-m", "aos_mcp", "serve")
LAUNCHER = """\
import os, sys
daemon = os.fork()
if daemon:
    os.write(1, b"%d" % daemon)
else:
    os.dup2(2, 1)
    os.execv(sys.argv[1], sys.argv[1:])
"""
"""A program that starts another one and ends, which leaves that one to the system's first process."""

LOST_UNKNOWN = -31_000
"""JSON-RPC code, outside the reserved range: the daemon died and the request may have taken effect."""
NO_DAEMON = -31_001
"""JSON-RPC code: no daemon could be reached or started."""
INVALID_REQUEST = -32_600

ASK_AGAIN = "Send it again: the next request starts a kernel."
LOOK_FIRST = (
    "Look with list_agents or kernel_status before you send it again; what had an idempotency_key can be sent again "
    "with the same one at once."
)
SEE_LOG = "`aos doctor` looks for the cause; so does daemon.log in AOS_HOME."
"""What to do next, for whoever reads the error."""

READ_ONLY_TOOLS = frozenset({
    "wait_agent", "list_agents", "page_in", "search_pages", "search_tools", "read_audit", "kernel_status",
})  # fmt: skip
"""Calls that may be sent again. They are the rows of the syscall table whose effect is pure."""
READ_ONLY_METHODS = frozenset({
    "ping", "server/discover", "tools/list", "resources/list", "resources/templates/list", "resources/read",
    "resources/subscribe", "resources/unsubscribe", "prompts/list", "prompts/get", "completion/complete", "initialize",
})  # fmt: skip

# Only what must be a member of the outermost object, given that the line is one: the first members, or the last.
HEAD = re.compile(
    rb'^\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?(?:"id"\s*:\s*(?P<id>-?\d{1,18}|"[^"\\]{1,128}")\s*,\s*)?'
    rb'(?:"method"\s*:\s*"(?P<method>[a-zA-Z/_]{1,64})"|"(?P<answer>result|error)"\s*:)'
)
ID_LAST = re.compile(rb'"id"\s*:\s*(?P<id>-?\d{1,18}|"[^"\\]{1,128}")\s*\}\s*$')

Id = str | int
Message = dict[str, Any]
"""A decoded JSON object of the wire; only what a reconnection needs is looked at."""


class NoDaemon(RuntimeError):
    """No daemon could be reached or started; the text says why."""


def home_directory(environ: Mapping[str, str]) -> Path:
    """Return `$AOS_HOME`, by default `~/.aos`."""
    named = environ.get("AOS_HOME")
    return Path(named).expanduser() if named else Path.home() / ".aos"


def connect(home: Path, *, start: bool, hello: Message) -> socket.socket:
    """Connect to the daemon of `home` and say hello; start one if none answers and `start` is set.

    Raises:
        OSError: nobody listens, and none was to be started.
        NoDaemon: it did not start in `START_S`, or the one that listens is another user's.
    """
    try:
        connection = _dial(home)
    except OSError:
        if not start:
            raise
        connection = _start(home)
    try:
        connection.sendall(json.dumps(hello).encode() + b"\n")
    except OSError as error:
        connection.close()
        raise NoDaemon(f"The daemon closed the connection at once ({error.strerror}).") from None
    return connection


def _dial(home: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(os.fspath(home / SOCKET_NAME))
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    except OSError:
        connection.close()
        raise
    pid, uid, _ = struct.unpack("3i", credentials)
    if uid != os.getuid():
        connection.close()
        raise NoDaemon(f"The daemon of {home} runs as another user ({uid}).")
    if _is_ending(pid):
        connection.close()
        raise ConnectionRefusedError("the daemon is just ending")
    return connection


def _is_ending(pid: int) -> bool:
    """Return whether a process is on its way out.

    The system closes the files of a killed process one by one: its connections may be gone while its socket still takes
    new ones, which nobody will ever serve. Its memory goes first of all, and its command line with it.
    """
    try:
        return pid > 0 and not Path(f"/proc/{pid}/cmdline").read_bytes()  # 0: it lives in another namespace
    except OSError:
        return True


def _start(home: Path) -> socket.socket:
    """Start a daemon under the lock, so that hosts that start together start one."""
    with _starting(home):
        with suppress(OSError):
            return _dial(home)  # another shim was faster
        ended = _launch(home)
        try:
            return _until_listening(home, ended)
        finally:
            os.close(ended)


def _launch(home: Path) -> int:
    """Start a daemon as nobody's child; return a descriptor that is readable once it has ended.

    Some hosts end a server together with every process they find below it, and agents outlive their hosts.
    """
    with _log(home) as log:
        launcher = subprocess.run(
            [sys.executable, "-I", "-S", "-c", LAUNCHER, *DAEMON],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            check=False,
        )
    try:
        return os.pidfd_open(int(launcher.stdout))
    except (ValueError, OSError):
        raise NoDaemon(f"The daemon did not start: {_last_words(home)}") from None


def _until_listening(home: Path, ended: int) -> socket.socket:
    deadline, step = time.monotonic() + START_S, STEP_MIN_S
    while True:
        has_ended = bool(select.select([ended], [], [], step)[0])
        with suppress(OSError):
            return _dial(home)
        if has_ended:
            raise NoDaemon(f"The daemon ended at once: {_last_words(home)}")
        if time.monotonic() > deadline:
            raise NoDaemon(f"The daemon did not listen within {START_S:g} s: {_last_words(home)}")
        step = min(step * 1.5, STEP_MAX_S)


@contextmanager
def _starting(home: Path) -> Iterator[None]:
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(home / "start.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise NoDaemon(f"{home} cannot be used ({error.strerror}); set AOS_HOME to a place you own.") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _log(home: Path) -> Iterator[BinaryIO]:
    path = home / "daemon.log"
    with suppress(FileNotFoundError):
        if path.stat().st_size > LOG_BYTES_MAX:
            path.replace(home / "daemon.log.1")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "ab") as log:
        yield log


def _last_words(home: Path) -> str:
    try:
        with (home / "daemon.log").open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_SHOWN_BYTES))
            lines = log.read().decode(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1] if lines else f"see {home / 'daemon.log'}"


def hello_of(environ: Mapping[str, str]) -> Message:
    """Return the first line: who the host is, for display and audit."""
    try:
        folder = os.getcwd()
    except FileNotFoundError:
        folder = ""
    host = {
        "name": _parent_name(),
        "pid": os.getppid(),
        "cwd": folder,
        "session": environ.get("CLAUDE_CODE_SESSION_ID", ""),
        "project": environ.get("CLAUDE_PROJECT_DIR", ""),
    }
    return {"aos": 1, "host": host}


def _parent_name() -> str:
    try:
        return Path(f"/proc/{os.getppid()}/comm").read_text("utf-8", "replace").strip()
    except OSError:
        return ""


class Relay:
    """Carries lines between a host and whichever daemon there is.

    Two threads: `from_host` reads the host and writes the daemon, `from_daemon` the other way and connects again when
    the daemon is lost. `_lock` guards what both know; nothing is written to a daemon under it but what restores a
    session.
    """

    def __init__(self, home: Path, hello: Message, source: BinaryIO, sink: int) -> None:
        self._home = home
        self._hello = hello
        self._source = source
        self._sink = sink
        self._lock = threading.Condition()
        self._sink_lock = threading.Lock()
        self._daemon: socket.socket | None = None
        self._generation = 0
        self._ending = False
        self._unserved = False
        self._open: dict[Id, _Open] = {}
        self._initialize: bytes | None = None
        self._handshaken = False
        self._initialized: bytes | None = None
        self._followed: dict[str, Message] = {}
        self._swallowed: set[Id] = set()

    def run(self) -> int:
        """Relay until the host closes its end; return the exit code."""
        back = threading.Thread(target=self._from_daemon, daemon=True)
        back.start()
        self._from_host()
        with self._lock:
            self._lock.wait_for(self._is_drained, DRAIN_S)
            self._ending = True
            daemon = self._daemon
            self._lock.notify_all()
        if daemon is not None:
            with suppress(OSError):
                daemon.shutdown(socket.SHUT_WR)
        back.join(DRAIN_S)
        return 1 if self._unserved else 0

    def _is_drained(self) -> bool:
        return all(waiting.method == "subscriptions/listen" for waiting in self._open.values())

    # Host to daemon

    def _from_host(self) -> None:
        while line := self._source.readline(LINE_BYTES_MAX + 1):
            if not line.endswith(b"\n") and len(line) > LINE_BYTES_MAX:
                self._refuse_long(line)
                continue
            if line.strip():
                self._forward(line if line.endswith(b"\n") else line + b"\n")

    def _refuse_long(self, head: bytes) -> None:
        tail = b""
        while piece := self._source.readline(CHUNK_BYTES):
            tail = (tail + piece)[-2 * EDGE_BYTES :]
            if piece.endswith(b"\n"):
                break
        first, last = HEAD.search(head[:EDGE_BYTES]), ID_LAST.search(tail[-EDGE_BYTES:])
        given = (first["id"] if first else None) or (last["id"] if last else None)
        words = f"The line is longer than {LINE_BYTES_MAX} bytes."
        self._tell(json.loads(given) if given else None, INVALID_REQUEST, words)

    def _forward(self, line: bytes) -> None:
        peek = _peek(line)
        with self._lock:
            if peek.is_answer:
                mapped = self._unmap(line)
                if mapped is None:
                    return  # it answers a daemon that is gone
                line = mapped
            try:
                daemon = self._daemon or self._connect()
            except (OSError, NoDaemon) as error:
                if peek.method is not None and peek.id is not None:
                    self._unserved = True
                    self._tell(peek.id, NO_DAEMON, f"aos-mcp has no kernel. {error}")
                return
            self._unserved = False
            self._note(line, peek)
        with suppress(OSError):
            daemon.sendall(line)  # a failure shows on the other thread, which settles what is open

    def _note(self, line: bytes, peek: _Peek) -> None:
        if peek.method is None:
            return
        if peek.id is None:
            if peek.method == "notifications/initialized":
                self._initialized = line
            return
        self._open[peek.id] = _Open(line, peek.method, peek.repeatable)
        if peek.method == "initialize":
            self._initialize, self._handshaken = line, False
        elif peek.uri is not None and peek.method == "resources/subscribe":
            self._followed[peek.uri] = {"method": peek.method, "params": {"uri": peek.uri}}
        elif peek.uri is not None and peek.method == "resources/unsubscribe":
            self._followed.pop(peek.uri, None)

    # Daemon to host

    def _from_daemon(self) -> None:
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._daemon is not None or self._ending)
                daemon = self._daemon
                if daemon is None:
                    return
            for line in _lines(daemon):
                self._deliver(line)
            daemon.close()
            with self._lock:
                self._daemon = None
                if self._ending:
                    return
                self._settle()

    def _deliver(self, line: bytes) -> None:
        peek = _peek(line)
        if peek.id is not None and peek.method is not None:
            line = self._map(line)  # the daemon asks the host
        elif peek.id is not None:
            with self._lock:
                if peek.id in self._swallowed:
                    self._swallowed.discard(peek.id)
                    return
                done = self._open.pop(peek.id, None)
                if done is not None and done.method == "initialize" and peek.has_result:
                    self._handshaken = True
                if self._is_drained():
                    self._lock.notify_all()
        self._write(line)

    def _settle(self) -> None:
        """Answer or repeat what the lost daemon had not answered. Under the lock.

        A daemon that was told to end has taken its socket away first; one that died has left it. What was told to end
        is not started again for what was under way, only for what the host asks next.
        """
        died = (self._home / SOCKET_NAME).exists()
        self._swallowed.clear()
        repeated: dict[Id, _Open] = {}
        for key, waiting in tuple(self._open.items()):
            waiting.tries += 1
            if not died and (waiting.repeatable or waiting.method == "subscriptions/listen"):
                self._tell(key, NO_DAEMON, f"The kernel was stopped. {ASK_AGAIN}")
            elif waiting.method == "subscriptions/listen":
                self._end_stream(key)
            elif not waiting.repeatable:
                words = "The kernel stopped meanwhile; whether this took effect is unknown."
                self._tell(key, LOST_UNKNOWN, f"{words} {LOOK_FIRST}")
            elif waiting.tries >= TRIES:
                words = "The kernel stopped while it answered this, more than once."
                self._tell(key, LOST_UNKNOWN, f"{words} {SEE_LOG}")
            else:
                repeated[key] = waiting
        self._open = repeated
        self._lock.notify_all()
        if not repeated:
            return  # a new daemon is started when the host asks for something
        try:
            daemon = self._connect()
            for waiting in repeated.values():
                if waiting.method != "initialize" or not self._handshaken:
                    daemon.sendall(waiting.line)
        except (OSError, NoDaemon) as error:
            for key in repeated:
                self._tell(key, NO_DAEMON, f"aos-mcp has no kernel. {error}")
            self._open = {}

    def _connect(self) -> socket.socket:
        """Connect, and restore the session there was. Under the lock."""
        daemon = connect(self._home, start=True, hello=self._hello)
        self._generation += 1
        if self._handshaken and self._initialize is not None:
            opening = {**json.loads(self._initialize), "id": self._own_id("initialize")}
            self._replay(daemon, opening)
            if self._initialized is not None:
                daemon.sendall(self._initialized)
            for uri, request in self._followed.items():
                self._replay(daemon, {"jsonrpc": "2.0", "id": self._own_id(uri), **request})
        self._daemon = daemon
        self._lock.notify_all()
        return daemon

    def _own_id(self, what: str) -> str:
        return f"aos-shim/{self._generation}/{what}"

    def _replay(self, daemon: socket.socket, request: Message) -> None:
        self._swallowed.add(request["id"])
        daemon.sendall(json.dumps(request).encode() + b"\n")

    def _map(self, line: bytes) -> bytes:
        """Mark a daemon's request with its generation: an answer must never reach a later daemon's question."""
        request: Message = json.loads(line)
        request["id"] = f"aos-ask/{self._generation}/{json.dumps(request['id'])}"
        return json.dumps(request).encode() + b"\n"

    def _unmap(self, line: bytes) -> bytes | None:
        try:
            answer: Message = json.loads(line)
            mark, generation, given = str(answer["id"]).split("/", 2)
        except (ValueError, KeyError):
            return None
        if mark != "aos-ask" or generation != str(self._generation) or self._daemon is None:
            return None
        answer["id"] = json.loads(given)
        return json.dumps(answer).encode() + b"\n"

    # To the host

    def _end_stream(self, key: Id) -> None:
        meta = {"io.modelcontextprotocol/subscriptionId": key}
        self._write_message({"jsonrpc": "2.0", "id": key, "result": {"resultType": "complete", "_meta": meta}})

    def _tell(self, key: Id | None, code: int, words: str) -> None:
        self._write_message({"jsonrpc": "2.0", "id": key, "error": {"code": code, "message": words}})

    def _write_message(self, message: Message) -> None:
        self._write(json.dumps(message).encode() + b"\n")

    def _write(self, line: bytes) -> None:
        with self._sink_lock:
            rest = memoryview(line)
            try:
                while rest:
                    rest = rest[os.write(self._sink, rest) :]
            except OSError:
                os._exit(0)  # the host is gone, and nobody is left to tell


class _Open:
    """A request the host waits for."""

    __slots__ = ("line", "method", "repeatable", "tries")

    def __init__(self, line: bytes, method: str, repeatable: bool) -> None:
        self.line = line
        self.method = method
        self.repeatable = repeatable
        self.tries = 0


class _Peek:
    """What of a line a reconnection needs to know."""

    __slots__ = ("has_result", "id", "is_answer", "method", "repeatable", "uri")

    def __init__(self, message: Message) -> None:
        key, method = message.get("id"), message.get("method")
        self.id: Id | None = key if isinstance(key, str | int) and not isinstance(key, bool) else None
        self.method: str | None = method if isinstance(method, str) else None
        self.is_answer = self.method is None and ("result" in message or "error" in message)
        self.has_result = "result" in message
        params = message.get("params")
        given = params if isinstance(params, dict) else {}
        uri = given.get("uri")
        self.uri: str | None = uri if isinstance(uri, str) else None
        self.repeatable = self.method in READ_ONLY_METHODS or (
            self.method == "tools/call" and given.get("name") in READ_ONLY_TOOLS
        )


def _peek(line: bytes) -> _Peek:
    if len(line) > PARSED_BYTES_MAX:
        head, last = HEAD.search(line[:EDGE_BYTES]), ID_LAST.search(line[-EDGE_BYTES:])
        given = (head["id"] if head else None) or (last["id"] if last else None)
        if head is not None and given is not None:
            kind = {"method": head["method"].decode()} if head["method"] else {head["answer"].decode(): None}
            return _Peek({"id": json.loads(given), **kind})
    try:
        message: object = json.loads(line)
    except (ValueError, RecursionError):
        message = None
    return _Peek(message if isinstance(message, dict) else {})


def _lines(connection: socket.socket) -> Iterator[bytes]:
    buffer = bytearray()
    searched = 0
    while True:
        try:
            piece = connection.recv(CHUNK_BYTES)
        except OSError:
            return
        if not piece:
            return
        buffer += piece
        while (end := buffer.find(b"\n", searched)) >= 0:
            yield bytes(memoryview(buffer)[: end + 1])
            del buffer[: end + 1]
            searched = 0
        searched = len(buffer)


def main() -> int:
    """Be the shim of this process's host; return the exit code."""
    sink = os.dup(1)
    os.dup2(2, 1)  # a stray print must not reach the wire
    with open(os.dup(0), "rb", buffering=CHUNK_BYTES) as source:
        return Relay(home_directory(os.environ), hello_of(os.environ), source, sink).run()
