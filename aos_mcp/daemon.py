"""The daemon: one kernel for each user, behind a Unix socket and, if asked, HTTP.

Owns `$AOS_HOME/kernel.sock`, `daemon.lock` and `daemon.json`. Promises that there is one of it for each home, that it
listens before the kernel recovers, serves nobody but its own user, ends when nobody needs it, and is gone
`SHUTDOWN_S` after it was told to end. Knows nothing of what a call does.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import signal
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import SocketAttribute, SocketListener, SocketStream, TaskGroup

from aos_mcp import __version__
from aos_mcp.abi import limits
from aos_mcp.abi.capability import Caller, CallerKind
from aos_mcp.abi.errors import AosError, Conflict, Invalid, Unavailable
from aos_mcp.abi.settings import Settings
from aos_mcp.boot import boot
from aos_mcp.endpoint import Endpoint, admit, admit_local, bind
from aos_mcp.gateway.service import serve_gateway
from aos_mcp.hardware import collect_seldom, local_principal
from aos_mcp.kernel.kernel import Kernel
from aos_mcp.server import KernelSlot, Surface, load_state_key
from aos_mcp.transport import Lines, TooLong, message_streams, stdio
from aos_mcp.web import serve_http

logger = logging.getLogger(__name__)

SOCKET_NAME = "kernel.sock"
SOCKET_PATH_BYTES_MAX = 107  # sun_path of Linux, less its final NUL
HELLO_S = 10.0  # A shim says who it is at once.
PATH_CHARS_MAX = 4_096  # As the system has it.
IDLE_LOOK_S = 15.0  # How often the daemon looks whether anybody still needs it.
CLAIM_STEP_S = 0.05
LINGER_S = 10.0  # How long a daemon whose kernel did not start tells its clients why,
ARRIVE_S = 2.0  # and waits for the first of them: whoever started it is on the way.


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonStatus:
    """A running daemon. `http` and `gateway` are URLs, empty where it serves none."""

    pid: int
    version: str
    http: str
    gateway: str = ""


@dataclass(frozen=True, slots=True)
class Hello:
    """What a shim or the command line says of itself: for display and audit, never proof of anything."""

    host: str = ""
    session: str = ""
    project: str = ""
    operator: bool = False


def read_status(home: Path) -> DaemonStatus | None:
    """Return the daemon that serves this home, None where none runs."""
    try:
        with (home / "daemon.lock").open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                pass  # somebody holds it: it runs
            else:
                return None
        facts: object = json.loads((home / "daemon.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    match facts:
        case {"pid": int() as pid, "version": str() as version, "http": str() as http, **more}:
            return DaemonStatus(pid=pid, version=version, http=http, gateway=str(more.get("gateway", "")))
    return None


def parse_hello(line: bytes) -> Hello | None:
    """Return what the first line says, None when it is no hello (a client without shim)."""
    try:
        said: object = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict) or "aos" not in said:
        return None
    host = said.get("host")
    facts = host if isinstance(host, dict) else {}
    return Hello(
        host=_word(facts.get("name")),
        session=_word(facts.get("session")),
        project=_folder(facts.get("project")) or _folder(facts.get("cwd")),
        operator=facts.get("role") == "operator",
    )


def _folder(value: object) -> str:
    fits = isinstance(value, str) and value.startswith("/") and len(value) <= PATH_CHARS_MAX and value.isprintable()
    return str(value) if fits else ""


def _word(value: object) -> str:
    return value[: limits.NAME_CHARS_MAX] if isinstance(value, str) and value.isprintable() else ""


Service = Callable[[], Coroutine[Any, Any, None]]

Address = tuple[str, int]
"""Host and port to serve HTTP on; port 0 takes a free one."""


def serve_forever(
    settings: Settings,
    environ: Mapping[str, str],
    home: Path,
    address: Address | None = None,
    gateway: Address | None = None,
) -> int:
    """Be the daemon of `home` until told to end or idle; return the exit code. Raises as `serve`."""
    _log_to_stderr()
    collect_seldom()
    anyio.run(serve, settings, environ, home, address, gateway)
    return 0


def run_standalone(settings: Settings, environ: Mapping[str, str], home: Path) -> int:
    """Serve one host from a kernel inside this process; return the exit code. Raises as `serve_standalone`."""
    _log_to_stderr()
    collect_seldom()
    anyio.run(serve_standalone, settings, environ, home)
    return 0


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


async def serve(
    settings: Settings,
    environ: Mapping[str, str],
    home: Path,
    address: Address | None = None,
    gateway: Address | None = None,
) -> None:
    """Be the daemon of `home` until told to end or idle; with `address`, serve HTTP too, with `gateway` the gateway.

    Raises:
        Conflict: another daemon serves this home.
        Invalid: the address needs a token; the gateway's can be reached from elsewhere; the home's path is too long for
            a socket.
        Unavailable: the home or the address cannot be used.
        AosError: whatever keeps the kernel from starting.
    """
    endpoint = admit(*address, environ.get("AOS_HTTP_TOKEN")) if address is not None else None
    if gateway is None and settings.gateway.enabled:
        gateway = (settings.gateway.host, settings.gateway.port)
    door = admit_local(*gateway) if gateway is not None else None
    prepare_home(home)
    async with claimed(home):
        surface = Surface(KernelSlot(), local_principal(), load_state_key(home))
        await _Daemon(settings, environ, home, surface).run(endpoint, door)


async def serve_standalone(settings: Settings, environ: Mapping[str, str], home: Path) -> None:
    """Serve standard input and output from a kernel inside this process, until the input ends.

    Raises:
        Conflict: a daemon serves this home.
        AosError: whatever keeps the kernel from starting.
    """
    prepare_home(home)
    async with claimed(home):
        surface = Surface(KernelSlot(), local_principal(), load_state_key(home))
        caller = Caller(
            kind=CallerKind.HOST, principal=surface.principal, session=environ.get("CLAUDE_CODE_SESSION_ID", "")
        )
        failed: list[AosError] = []
        async with stdio() as stream, anyio.create_task_group() as tasks:
            await tasks.start(surface.run)
            tasks.start_soon(_boot_beside, surface, settings, environ, home, failed)
            server = surface.server(caller, "stdio")
            async with message_streams(stream, Lines(stream)) as (read, write):
                await server.run(read, write, server.create_initialization_options())
            tasks.cancel_scope.cancel()
    if failed:
        raise failed[0]


async def _boot_beside(
    surface: Surface, settings: Settings, environ: Mapping[str, str], home: Path, failed: list[AosError]
) -> None:
    try:
        async with boot(settings, environ, home) as kernel:
            surface.slot.fill(kernel)
            await anyio.sleep_forever()
    except* AosError as group:
        error = _first(group)
        logger.error("The kernel did not start: %s", error)
        failed.append(error)
        surface.slot.fail(error)


def _first(group: BaseExceptionGroup[AosError]) -> AosError:
    """Return the first error in a group: a task group wraps what it was left with."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def prepare_home(home: Path) -> None:
    """Make the home, for its owner alone; everything made from here on is too.

    Raises:
        Unavailable: it cannot be made.
        Invalid: a socket in it would have too long a path.
    """
    os.umask(0o077)
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"{home} cannot be made: {error.strerror}.", "Set AOS_HOME to a place you own.") from None
    if len(os.fsencode(home / SOCKET_NAME)) > SOCKET_PATH_BYTES_MAX:
        raise Invalid(f"{home} is too long a path for a socket.", "Set AOS_HOME to a shorter one.")


@asynccontextmanager
async def claimed(home: Path) -> AsyncIterator[None]:
    """Hold the home's lock. A daemon that is just ending is waited for.

    Raises:
        Conflict: another daemon holds it.
    """
    descriptor = os.open(home / "daemon.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with anyio.move_on_after(limits.SHUTDOWN_S):
            while not _lock(descriptor):
                if read_status(home) is not None and (home / SOCKET_NAME).exists():
                    break  # it listens: it is not ending
                await anyio.sleep(CLAIM_STEP_S)
        if not _lock(descriptor):
            running = read_status(home)
            who = f"process {running.pid}" if running else "another process"
            raise Conflict(f"A kernel serves {home} already ({who}).", "Use it, or stop it with: aos stop")
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class _Daemon:
    """One run of the daemon."""

    def __init__(self, settings: Settings, environ: Mapping[str, str], home: Path, surface: Surface) -> None:
        self._settings = settings
        self._environ = environ
        self._home = home
        self._surface = surface
        self._stop = anyio.Event()
        self._connections = 0
        self._came, self._left = anyio.Event(), anyio.Event()

    async def run(self, endpoint: Endpoint | None, gateway: Endpoint | None) -> None:
        """Listen, then start the kernel, then serve until told to end."""
        services: list[Service] = []
        told = {"http": "", "gateway": ""}
        if endpoint is not None:
            listening, at = bind(endpoint)
            services.append(partial(serve_http, self._surface, at, listening))
            told["http"] = at.url
        if gateway is not None:
            listening, at = bind(gateway)
            services.append(partial(serve_gateway, self._surface.slot.get, at, listening))
            told["gateway"] = at.url
        listener = await anyio.create_unix_listener(self._home / SOCKET_NAME, mode=0o600, backlog=128)
        self._tell(told)
        failure: AosError | None = None
        try:
            async with anyio.create_task_group() as tasks:
                await tasks.start(self._surface.run)
                front = await tasks.start(self._serve_front, listener, services)
                tasks.start_soon(self._until_signal, tasks)
                failure = await self._with_kernel(front, stays=bool(services))
                tasks.cancel_scope.cancel()
        finally:
            self._withdraw()
        if failure is not None:
            raise failure

    async def _with_kernel(self, front: anyio.CancelScope, *, stays: bool) -> AosError | None:
        failure: AosError | None = None
        try:
            async with boot(self._settings, self._environ, self._home) as kernel:
                self._surface.slot.fill(kernel)
                if stays:
                    await self._stop.wait()
                else:
                    await self._until_idle(kernel)
                self._withdraw()
                front.cancel()
        except* AosError as group:
            failure = _first(group)
        if failure is not None:
            logger.error("The kernel did not start: %s", failure)
            self._surface.slot.fail(failure)
            await self._linger()
        return failure

    async def _serve_front(
        self,
        listener: SocketListener,
        services: Sequence[Service],
        *,
        task_status: anyio.abc.TaskStatus[anyio.CancelScope],
    ) -> None:
        with anyio.CancelScope() as scope:
            async with listener, anyio.create_task_group() as tasks:
                for service in services:
                    tasks.start_soon(service)
                task_status.started(scope)
                await listener.serve(self._serve_connection)

    async def _serve_connection(self, stream: SocketStream) -> None:
        self._connections += 1
        self._came.set()
        try:
            async with stream:
                if _peer_uid(stream) == os.getuid() and self._connections <= limits.CONNECTIONS_MAX:
                    await self._converse(stream)
        except* (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError) as group:
            logger.debug("a connection broke: %s", group.exceptions)
        finally:
            self._connections -= 1
            self._left.set()

    async def _converse(self, stream: SocketStream) -> None:
        lines = Lines(stream)
        first: bytes | TooLong | None = None
        with anyio.move_on_after(HELLO_S):
            first = await lines.next()
        if first is None:
            return
        hello = None if isinstance(first, TooLong) else parse_hello(first)
        if hello is None:
            lines.put_back(first)
        said = hello or Hello()
        kind = CallerKind.OPERATOR if said.operator else CallerKind.HOST
        caller = Caller(
            kind=kind,
            principal=self._surface.principal,
            host=said.host,
            session=said.session,
            project=said.project,
        )
        key = object()
        server = self._surface.server(caller, key)
        try:
            async with message_streams(stream, lines) as (read, write):
                await server.run(read, write, server.create_initialization_options())
        finally:
            self._surface.closed(key)

    async def _until_signal(self, tasks: TaskGroup) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                # Whatever hangs from here on ends with the process: the journal bears it.
                signal.setitimer(signal.ITIMER_REAL, limits.SHUTDOWN_S)
                self._stop.set()
                if self._surface.slot.peek() is None:
                    tasks.cancel_scope.cancel()

    async def _until_idle(self, kernel: Kernel) -> None:
        """Return once nobody was connected and no agent had anything to do for `idle_exit_s`, or when told to end."""
        limit = self._settings.idle_exit_s
        needed_at = anyio.current_time()
        while not self._stop.is_set():
            if self._connections or kernel.busy():
                needed_at = anyio.current_time()
            elif anyio.current_time() - needed_at >= limit:
                return
            with anyio.move_on_after(min(IDLE_LOOK_S, limit)):
                await self._stop.wait()

    async def _linger(self) -> None:
        """Let whoever is connected, or about to be, learn why the kernel did not start."""
        with anyio.move_on_after(ARRIVE_S):
            await self._came.wait()
        with anyio.move_on_after(LINGER_S):
            while self._connections:
                self._left = anyio.Event()
                await self._left.wait()

    def _tell(self, urls: Mapping[str, str]) -> None:
        facts = {"pid": os.getpid(), "version": __version__, **urls}
        fresh = self._home / "daemon.json.new"
        fresh.write_text(json.dumps(facts), "utf-8")
        fresh.replace(self._home / "daemon.json")

    def _withdraw(self) -> None:
        """Take the socket away, so that the next client starts a new daemon. We hold the lock: it is ours."""
        for name in (SOCKET_NAME, "daemon.json"):
            with contextlib.suppress(FileNotFoundError):
                (self._home / name).unlink()


def _peer_uid(stream: SocketStream) -> int:
    connection = stream.extra(SocketAttribute.raw_socket)
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return int(uid)
