"""The sandbox the kernel sees: the first configured driver that has proven itself, and its sessions.

A session is one box, started at its first command, replaced when a command asks for another box, ended when idle. When
no driver has passed its proof nothing runs: there is no other way to run a command in this package.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio
import anyio.abc
import anyio.to_thread

from aos_mcp.abi.capability import IsolationLevel
from aos_mcp.abi.errors import Cancelled, Invalid, LimitExceeded, Unavailable
from aos_mcp.abi.limits import (
    EXEC_OUTPUT_BYTES_MAX,
    EXEC_S_MAX,
    EXEC_STDIN_BYTES_MAX,
    SANDBOX_IDLE_S,
    SANDBOX_SESSIONS_MAX,
)
from aos_mcp.abi.sandbox import Command, CommandOutcome, SandboxProof
from aos_mcp.abi.settings import SandboxSettings
from aos_mcp.ports import Clock, Entropy
from aos_mcp.sandbox.box import Box, Driver
from aos_mcp.sandbox.bwrap import Bwrap
from aos_mcp.sandbox.docker import Docker
from aos_mcp.sandbox.egress import EgressProxy, OnDecision, parse_pattern
from aos_mcp.sandbox.probes import prove_driver
from aos_mcp.sandbox.session import Session
from aos_mcp.sandbox.workspace import DirectoryWorkspaces


@dataclass
class _Seat:
    """A session's place: its box while there is one. The lock serialises its commands."""

    lock: anyio.Lock = field(default_factory=anyio.Lock)
    session: Session | None = None
    proxy: anyio.CancelScope | None = None
    used_at: float = 0.0
    waiting: int = 0
    closed: bool = False


class ProvenSandbox:
    """ports.Sandbox over the drivers of this machine. An async context manager: leaving it ends every session."""

    def __init__(
        self,
        settings: SandboxSettings,
        workspaces_root: Path,
        runtime_dir: Path,
        clock: Clock,
        entropy: Entropy,
        node: str,
        *,
        on_egress: OnDecision = lambda _session, _host, _port, _allowed: None,
    ) -> None:
        """Take what to use; nothing is started or tried before `prove` or the first command.

        `runtime_dir` holds sockets and the probes' files and belongs to this kernel alone. `on_egress` is told every
        decision of the egress proxies: (session, host, port, allowed).
        """
        self._workspaces = DirectoryWorkspaces(workspaces_root)
        self._runtime_dir = runtime_dir
        self._clock = clock
        self._entropy = entropy
        self._on_egress = on_egress
        makers: Mapping[str, Callable[[], Driver]] = {
            "bwrap": Bwrap,
            "docker+runc": lambda: Docker("runc", settings.image, runtime_dir, node),
            "docker+runsc": lambda: Docker("runsc", settings.image, runtime_dir, node),
        }
        self._drivers: Mapping[str, Driver] = {name: makers[name]() for name in settings.drivers}
        self._proofs: Sequence[SandboxProof] = ()
        self._proving = anyio.Lock()
        self._seats: dict[str, _Seat] = {}
        self._stack = AsyncExitStack()
        self._tasks: anyio.abc.TaskGroup | None = None

    async def __aenter__(self) -> Self:
        """Start the task group that holds the egress proxies and the watch over idle sessions."""
        self._tasks = await self._stack.enter_async_context(anyio.create_task_group())
        self._tasks.start_soon(self._watch_idle)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """End every session."""
        with anyio.CancelScope(shield=True):
            await self.shutdown()
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()
        return await self._stack.__aexit__(kind, error, trace)

    async def prove(self) -> Sequence[SandboxProof]:
        """Run every configured driver's probes; see `ports.Sandbox.prove`."""
        async with self._proving:
            self._proofs = [await self._prove(driver) for driver in self._drivers.values()]
            return self._proofs

    def proven(self) -> SandboxProof | None:
        """Return the proof of the driver in use."""
        return next((proof for proof in self._proofs if proof.passed), None)

    async def execute(self, command: Command) -> CommandOutcome:
        """Run one command; see `ports.Sandbox.execute`. Proves the drivers first if nobody has.

        Raises Invalid or LimitExceeded for a command that no box could take.
        """
        _check(command)
        driver = await self._driver()
        seat = await self._seat(command.session)
        seat.waiting += 1
        try:
            async with seat.lock:
                return await self._execute(seat, driver, command)
        finally:
            seat.waiting -= 1
            seat.used_at = self._clock.monotonic()

    async def close(self, session: str) -> None:
        """End a session and everything in it, the running command included."""
        seat = self._seats.pop(session, None)
        if seat is not None:
            seat.closed = True
            await self._vacate(seat)

    async def shutdown(self) -> None:
        """End all sessions."""
        async with anyio.create_task_group() as tasks:
            for session in list(self._seats):
                tasks.start_soon(self.close, session)

    async def _prove(self, driver: Driver) -> SandboxProof:
        folder = self._runtime_dir / self._entropy.handle("proof_")
        await anyio.to_thread.run_sync(lambda: folder.mkdir(parents=True, mode=0o700))
        try:
            return await prove_driver(driver, folder, self._clock, lambda: self._entropy.handle("box_"))
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(lambda: shutil.rmtree(folder, ignore_errors=True))

    async def _driver(self) -> Driver:
        if not self._proofs:
            async with self._proving:
                pass  # Somebody is at it.
            if not self._proofs:
                await self.prove()
        proof = self.proven()
        if proof is not None:
            return self._drivers[proof.driver]
        reasons = " ".join(f"{proof.driver}: {proof.reason}" for proof in self._proofs)
        repairs = " ".join(f"{proof.driver}: {proof.repair}" for proof in self._proofs)
        raise Unavailable(f"No sandbox works on this machine, so nothing was run. {reasons}", repairs)

    async def _seat(self, session: str) -> _Seat:
        """Return the session's seat, making room for it when all are taken."""
        seat = self._seats.get(session)
        if seat is not None:
            return seat
        if len(self._seats) >= SANDBOX_SESSIONS_MAX:
            idle = [(seat.used_at, name) for name, seat in self._seats.items() if not seat.waiting]
            if not idle:
                raise LimitExceeded(
                    f"{SANDBOX_SESSIONS_MAX} sandboxes are busy.", "Wait for commands of other agents to end."
                )
            await self.close(min(idle)[1])
        return self._seats.setdefault(session, _Seat(used_at=self._clock.monotonic()))

    async def _execute(self, seat: _Seat, driver: Driver, command: Command) -> CommandOutcome:
        wanted = await self._box(command)
        if seat.closed:
            raise _closed()
        session = seat.session
        if session is not None and not session.dead and session.box == wanted and session.driver is driver:
            try:
                return await session.run(command)
            except Unavailable:
                pass  # It had died while idle and the command never started: a new box may take it.
        await self._vacate(seat)
        session = await self._occupy(seat, driver, wanted)
        return await session.run(command)

    async def _box(self, command: Command) -> Box:
        networked = command.level is IsolationLevel.NETWORK and bool(command.network)
        name = self._entropy.handle("box_")
        path = await anyio.to_thread.run_sync(self._workspaces.path, command.workspace)
        return Box(
            session=command.session,
            workspace=Path(path),
            writable=command.level is not IsolationLevel.READ_ONLY,
            memory_bytes=command.limits.memory_bytes,
            pids_max=command.limits.pids_max,
            allow=command.network if networked else (),
            name=name,
            egress=self._runtime_dir / name if networked else None,
        )

    async def _occupy(self, seat: _Seat, driver: Driver, box: Box) -> Session:
        """Start a box in an empty seat, its proxy first."""
        try:
            if box.egress is not None:
                await self._start_proxy(seat, box, box.egress)
            seat.session = await Session.open(driver, box, self._clock)
        finally:
            if seat.session is None:
                with anyio.CancelScope(shield=True):
                    await self._vacate(seat)
        if seat.closed:
            await self._vacate(seat)
            raise _closed()
        return seat.session

    async def _start_proxy(self, seat: _Seat, box: Box, folder: Path) -> None:
        assert self._tasks is not None, "use the sandbox as an async context manager"
        proxy = EgressProxy(box.session, folder, box.allow, self._on_egress)
        seat.proxy = anyio.CancelScope()
        try:
            await anyio.to_thread.run_sync(_make_public, folder)
            await self._tasks.start(self._serve_proxy, proxy, folder, seat.proxy)
        except OSError as error:
            raise Unavailable(
                f"The egress proxy could not be started: {error}.", "Check the runtime directory."
            ) from None

    async def _serve_proxy(
        self,
        proxy: EgressProxy,
        folder: Path,
        scope: anyio.CancelScope,
        *,
        task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        try:
            with scope:
                await proxy.serve(task_status=task_status)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    async def _vacate(self, seat: _Seat) -> None:
        session, seat.session = seat.session, None
        proxy, seat.proxy = seat.proxy, None
        if session is not None:
            await session.destroy()
        if proxy is not None:
            proxy.cancel()

    async def _watch_idle(self) -> None:
        """End sessions that nobody has used for a while."""
        while True:
            await self._clock.sleep_until(self._clock.now() + SANDBOX_IDLE_S / 4)
            before = self._clock.monotonic() - SANDBOX_IDLE_S
            for name, seat in list(self._seats.items()):
                if not seat.waiting and seat.used_at <= before:
                    await self.close(name)


def _closed() -> Cancelled:
    return Cancelled("The sandbox was closed before the command started.", "Run it again if it is still wanted.")


def _make_public(folder: Path) -> None:
    """Make the folder that holds a proxy's socket: it lies below a private one, and the box's user has to enter it."""
    folder.mkdir(parents=True)
    folder.chmod(0o755)


def _check(command: Command) -> None:
    """Refuse what no box could take."""
    if not command.argv or any("\0" in part for part in command.argv):
        raise Invalid("A command needs a program, and no NUL bytes.", "Give a list such as ['sh', '-c', 'ls'].")
    if len(command.stdin) > EXEC_STDIN_BYTES_MAX:
        raise LimitExceeded(
            f"Standard input may have {EXEC_STDIN_BYTES_MAX} bytes.", "Write a file to the workspace and read that."
        )
    limits = command.limits
    if not 0 < limits.timeout_s <= EXEC_S_MAX or not 0 <= limits.output_bytes_max <= EXEC_OUTPUT_BYTES_MAX:
        raise LimitExceeded(
            f"A command may run {EXEC_S_MAX:.0f} s and return {EXEC_OUTPUT_BYTES_MAX} bytes of each output.",
            "Ask for less; let it write large output to a file.",
        )
    for pattern in command.network:
        parse_pattern(pattern)
