"""All downstream servers: keeps `ports.Mounts`.

Owns one supervised task per server and one reaper for all their processes. Promises: what is asked about is answered
from memory; one server's trouble is never another's; leaving the block ends every process. A table without servers
loads nothing and starts nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import anyio

from aos_mcp.abi.errors import Invalid, NotFound
from aos_mcp.abi.mount import MountedTool, MountState, MountStatus, ToolOutcome
from aos_mcp.abi.settings import MountSettings
from aos_mcp.ports import Clock, Entropy, Progress
from aos_mcp.proxy.child import start_reaper
from aos_mcp.proxy.definition import SEPARATOR, server_name
from aos_mcp.proxy.mount import Mount


class MountTable:
    """The downstream MCP servers. Enter it to start them, leave it (in the same task) to end them."""

    def __init__(
        self, mounts: Mapping[str, MountSettings], clock: Clock, entropy: Entropy, environ: Mapping[str, str]
    ) -> None:
        """Take what is configured; nothing is started yet.

        `environ` is where variables and references are looked up, and what the six inherited variables come from.

        Raises:
            Invalid: two names become one, or a server's settings contradict themselves.
        """
        self._listeners: list[Callable[[str], None]] = []
        self._mounts: dict[str, Mount] = {}
        self._stack = AsyncExitStack()
        for key, settings in mounts.items():
            name = server_name(key)
            if name in self._mounts:
                raise Invalid(f"Two servers are both named {name!r}.", "Rename one of them.")
            self._mounts[name] = Mount(name, settings, clock, entropy, environ, self._changed)

    async def __aenter__(self) -> Self:
        """Start every server that is not disabled; does not wait for them."""
        wanted = [m for m in self._mounts.values() if m.status.state is not MountState.DISABLED]
        async with AsyncExitStack() as stack:
            reaper = None
            if any(mount.transport == "stdio" for mount in wanted):
                reaper = await stack.enter_async_context(start_reaper())
            tasks = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(tasks.cancel_scope.cancel)
            for mount in wanted:
                tasks.start_soon(mount.run, reaper)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """End every server: end of input, then SIGTERM, then SIGKILL."""
        return await self._stack.__aexit__(kind, error, trace)

    def status(self) -> Sequence[MountStatus]:
        """Return every configured downstream, by name."""
        return [self._mounts[name].status for name in sorted(self._mounts)]

    def tools(self) -> Sequence[MountedTool]:
        """Return the tools of all that are up, by name."""
        return sorted((t for m in self._mounts.values() for t in m.tools.values()), key=lambda tool: tool.name)

    def tool(self, name: str) -> MountedTool | None:
        """Return one tool."""
        mount = self._mounts.get(name.partition(SEPARATOR)[0])
        return mount.tools.get(name) if mount is not None else None

    async def settled(self, timeout_s: float) -> None:
        """Return once every downstream was tried at least once, or after `timeout_s`."""
        with anyio.move_on_after(timeout_s):
            for mount in self._mounts.values():
                await mount.tried()

    async def call(
        self,
        name: str,
        arguments: Mapping[str, object],
        *,
        timeout_s: float,
        progress: Progress | None = None,
        meta: Mapping[str, object] | None = None,
    ) -> ToolOutcome:
        """Call one tool once. A server that is down is woken, and waited for up to `limits.MOUNT_WAKE_S`.

        Raises:
            NotFound: no server offers such a tool.
            Invalid: the server refused the arguments.
            Unavailable: the server was down before the call was sent, or answered with a protocol error.
            TimedOut: no answer in time; the server was told to stop.
            UnknownOutcome: the connection was lost after the call was sent.
        """
        server = name.partition(SEPARATOR)[0]
        mount = self._mounts.get(server)
        if mount is None:
            raise NotFound(f"There is no server {server!r}.", "Look for a tool with search_tools.")
        return await mount.call(name, arguments, timeout_s=timeout_s, progress=progress, meta=meta or {})

    def on_change(self, notify: Callable[[str], None]) -> None:
        """Call `notify(server)` whenever a server's state or tool list changed."""
        self._listeners.append(notify)

    def _changed(self, server: str) -> None:
        for notify in self._listeners:
            notify(server)
