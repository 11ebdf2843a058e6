"""One downstream server and the task that keeps it up.

Owns the server's state, its present tools and the decision when to try again. Promises: the session is entered and
left in one task; a failure is visible in the status and tried again with growing, jittered pauses; a call is handed
to the session once. How a session works is `connection`'s affair, which is loaded with the first start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from aos_mcp.abi import limits
from aos_mcp.abi.errors import AosError, NotFound, Unavailable
from aos_mcp.abi.mount import MountedTool, MountState, MountStatus, ToolOutcome
from aos_mcp.abi.settings import MountSettings
from aos_mcp.ports import Clock, Entropy, Progress
from aos_mcp.proxy.child import Reaper
from aos_mcp.proxy.definition import Listing, take_listing
from aos_mcp.proxy.target import resolve, transport_of

if TYPE_CHECKING:
    from aos_mcp.proxy.connection import Connection

_NOTHING = Listing((), ())
_START_GROWTH_MAX = 4  # A server that was too slow to start gets up to this many times as long: `npx` may download.


def backoff(failures: int, jitter: float) -> float:
    """Return the pause in seconds after `failures` failures in a row (at least 1); `jitter` in [0, 1) shortens it."""
    full = min(limits.MOUNT_BACKOFF_CAP_S, limits.MOUNT_BACKOFF_BASE_S * 2.0 ** min(failures - 1, 32))
    return full * (1 - jitter / 2)


class ProgressGate:
    """Passes on progress of one call: at most one report every `MOUNT_PROGRESS_S`, one at a time, none afterwards."""

    def __init__(self, progress: Progress, clock: Clock) -> None:
        """Stand before `progress`."""
        self._progress = progress
        self._clock = clock
        self._next = 0.0
        self._open = True

    async def report(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        """Take one report of the server's."""
        now = self._clock.monotonic()
        if not self._open or now < self._next:
            return
        self._next = float("inf")
        try:
            await self._progress(progress, total, message or "")
        finally:
            self._next = self._clock.monotonic() + limits.MOUNT_PROGRESS_S

    def close(self) -> None:
        """Let nothing more through."""
        self._open = False


class Mount:
    """One downstream server: `run` keeps it up, the rest asks about it and uses it."""

    def __init__(
        self,
        server: str,
        settings: MountSettings,
        clock: Clock,
        entropy: Entropy,
        environ: Mapping[str, str],
        changed: Callable[[str], None],
    ) -> None:
        """Stand for a server that is not started yet; `changed` is told its name when state or tools change.

        Raises:
            Invalid: the settings contradict themselves.
        """
        self.server = server
        self.transport = transport_of(settings, server)
        self._settings = settings
        self._clock = clock
        self._entropy = entropy
        self._environ = environ
        self._tell = changed
        self._state = MountState.DISABLED if settings.disabled else MountState.STARTING
        self._listing = _NOTHING
        self._tools: dict[str, MountedTool] = {}
        self._connection: Connection | None = None
        self._error = ""
        self._starts = 0
        self._failed_starts = 0
        self._legacy = False
        self._unopened = 0
        self._turn = anyio.Event()
        self._wake = anyio.Event()

    @property
    def status(self) -> MountStatus:
        """Where the server stands now."""
        live = self._live
        lost = live is None and self._state is MountState.UP
        return MountStatus(
            server=self.server,
            transport=self.transport,
            state=MountState.DOWN if lost else self._state,
            tools=len(self.tools),
            restarts=max(0, self._starts - 1),
            error=self._error,
            pid=live.pid if live is not None else None,
            era=live.era if live is not None else "",
        )

    @property
    def tools(self) -> Mapping[str, MountedTool]:
        """What it offers while it is up, by full name."""
        return self._tools if self._live is not None else {}

    @property
    def _live(self) -> Connection | None:
        """The session, unless it is over and its task has just not seen it yet."""
        connection = self._connection
        return connection if connection is not None and not connection.lost.is_set() else None

    async def tried(self) -> None:
        """Return once the first attempt to start it has ended, either way."""
        while self._state is MountState.STARTING:
            await self._turn.wait()

    async def run(self, reaper: Reaper | None) -> None:
        """Keep the server up until cancelled. A stdio server needs a reaper."""
        # The SDK's client takes a second to import: in a thread, so that the kernel goes on meanwhile.
        await anyio.to_thread.run_sync(import_module, "aos_mcp.proxy.connection")
        failures = 0
        while True:
            self._starts += 1
            began = self._clock.monotonic()
            reason = await self._attempt(reaper)
            was_up = self._unopened == 0
            self._failed_starts += not was_up
            lasted = self._clock.monotonic() - began
            failures = 1 if was_up and lasted >= limits.MOUNT_STABLE_S else failures + 1
            self._went_down(reason)
            await self._rest(backoff(failures, self._entropy.random()))

    async def call(
        self,
        name: str,
        arguments: Mapping[str, object],
        *,
        timeout_s: float,
        progress: Progress | None,
        meta: Mapping[str, object],
    ) -> ToolOutcome:
        """Call a tool by its full name; see `ports.Mounts.call`. The operator's own timeout goes before `timeout_s`."""
        connection = await self._reached()
        tool = self._tools.get(name)
        if tool is None:
            raise NotFound(f"Server {self.server!r} offers no tool {name!r}.", "Look for one with search_tools.")
        gate = ProgressGate(progress, self._clock) if progress is not None else None
        try:
            return await connection.call(
                tool.tool,
                arguments,
                timeout_s=self._settings.timeout_s or timeout_s,
                report=gate.report if gate is not None else None,
                meta=meta,
            )
        finally:
            if gate is not None:
                gate.close()

    async def _reached(self) -> Connection:
        """Return the live session; a server that is down is started at once, and waited for a little."""
        if self._state is MountState.DISABLED:
            raise Unavailable(f"Server {self.server!r} is disabled.", "Enable it in the configuration.")
        if self._live is None:
            self._wake.set()
            failed = self._failed_starts
            with anyio.move_on_after(limits.MOUNT_WAKE_S):
                while self._live is None and self._failed_starts == failed:
                    await self._turn.wait()
        live = self._live
        if live is None:
            why = f"down: {self._error}" if self._error else "still starting."
            raise Unavailable(
                f"Server {self.server!r} is {why}", "Nothing was called. It is tried again by itself; see aos://mounts."
            )
        return live

    async def _attempt(self, reaper: Reaper | None) -> str:
        """Have one session, from start to end; return why it ended."""
        # Loaded by now; at the top of the file it would load the SDK into every kernel.
        from aos_mcp.proxy.connection import ConnectionLost, open_connection

        self._unopened += 1
        try:
            async with open_connection(
                self.server,
                await resolve(self._settings, self.server, self._environ),
                reaper if self.transport == "stdio" else None,
                # Some servers of the older eras choke on the probe for the newest: every other try goes without it.
                legacy=self._legacy or self._unopened % 2 == 0,
                start_s=limits.MOUNT_START_S * min(self._unopened, _START_GROWTH_MAX),
                read_s=self._settings.timeout_s or limits.MOUNT_CALL_S,
            ) as connection:
                await self._serve(connection)
        except ConnectionLost as lost:
            self._legacy = self._legacy and self._unopened == 0  # What it spoke last time it may have unlearned.
            return lost.reason
        except AosError as error:
            return f"{error.message.rstrip('.')} ({error.hint.rstrip('.')})"
        return "the connection was closed"

    async def _serve(self, connection: Connection) -> None:
        """Offer the server's tools and follow their changes until the session is lost."""
        self._take(await connection.list_tools())
        self._legacy, self._unopened = connection.is_legacy, 0
        self._connection = connection
        self._turned(MountState.UP)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(connection.follow_changes, self._pause)
                tasks.start_soon(self._list_again, connection)
                await connection.lost.wait()
                tasks.cancel_scope.cancel()
        finally:
            self._connection = None
        self._went_down(connection.reason)  # Ending its process may take a while; what is known is told now.

    async def _list_again(self, connection: Connection) -> None:
        while True:
            await connection.changed.wait()
            await self._clock.sleep_until(self._clock.now() + limits.MOUNT_QUIET_S)
            connection.changed = anyio.Event()
            before = self._listing
            try:
                self._take(await connection.list_tools())
            except AosError as error:
                self._error = error.message  # The old list stands until the server tells of another change.
                self._tell(self.server)
                continue
            if self._listing != before:
                self._tell(self.server)

    def _take(self, definitions: list[Mapping[str, object]]) -> None:
        self._listing = take_listing(self.server, definitions, self._settings.tools)
        self._tools = {tool.name: tool for tool in self._listing.tools}
        self._error = self._listing.note

    def _went_down(self, reason: str) -> None:
        self._listing, self._tools = _NOTHING, {}
        self._error = f"{reason}."
        self._turned(MountState.DOWN)

    def _turned(self, state: MountState) -> None:
        self._state = state
        self._turn.set()
        self._turn = anyio.Event()
        self._tell(self.server)

    async def _pause(self, failures: int) -> None:
        await self._clock.sleep_until(self._clock.now() + backoff(failures, self._entropy.random()))

    async def _rest(self, pause_s: float) -> None:
        """Wait before the next attempt. A call cuts it short, but never below the shortest back-off."""
        began = self._clock.now()
        await self._clock.sleep_until(began + min(pause_s, limits.MOUNT_BACKOFF_BASE_S))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._woken, tasks.cancel_scope)
            await self._clock.sleep_until(began + pause_s)
            tasks.cancel_scope.cancel()
        self._wake = anyio.Event()

    async def _woken(self, rest: anyio.CancelScope) -> None:
        await self._wake.wait()
        rest.cancel()
