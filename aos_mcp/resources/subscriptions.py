"""Who follows which resource, in both eras.

Owns the subscriptions of sessions with a handshake; 2026-07-28 streams are the SDK's, fed through its bus. Promises
that a slow reader never holds up another, that changes in quick succession become one notification, and that only the
owner's changes are told. A lost notification loses nothing: whoever cares reads again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

import anyio
from anyio.abc import TaskGroup, TaskStatus
from anyio.streams.memory import MemoryObjectReceiveStream
from mcp.server.session import ServerSession
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ResourcesListChanged, ResourceUpdated

from aos_mcp.abi import limits
from aos_mcp.abi.errors import LimitExceeded
from aos_mcp.abi.event import Event, EventKind

PROCESSES_KNOWN_MAX = 4_096
"""Processes remembered as already announced; forgetting one costs a superfluous notification."""


@dataclass(eq=False)
class _Session:
    """One session with a handshake. `due` is what it has still to be told, oldest first."""

    session: ServerSession
    uris: set[str] = field(default_factory=set)
    due: dict[str | None, None] = field(default_factory=dict)
    wake: anyio.Event = field(default_factory=anyio.Event)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    def tell(self, uri: str | None) -> None:
        """Note a change: of a resource, or (None) of the list."""
        self.due[uri] = None
        self.wake.set()

    async def run(self) -> None:
        """Send what is due until the session is dropped."""
        with self.scope:
            while True:
                await self.wake.wait()
                self.wake = anyio.Event()
                while self.due:
                    uri = next(iter(self.due))
                    del self.due[uri]
                    await self._send(uri)

    async def _send(self, uri: str | None) -> None:
        if uri is None:
            await self.session.send_resource_list_changed()
        else:
            await self.session.send_resource_updated(uri)


class Hub:
    """Spreads the kernel's events to whoever follows a resource."""

    def __init__(self, owner: str) -> None:
        """`owner`: the principal whose changes are told."""
        self._owner = owner
        self._bus = InMemorySubscriptionBus()
        self._sessions: OrderedDict[Hashable, _Session] = OrderedDict()
        self._announced: OrderedDict[str, None] = OrderedDict()
        self._tasks: TaskGroup | None = None
        self.listen = ListenHandler(self._bus)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve sessions until cancelled."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            task_status.started()
            await anyio.sleep_forever()

    async def follow(self, events: MemoryObjectReceiveStream[Event]) -> None:
        """Spread events until the stream ends."""
        async for event in events:
            batch = [event]
            while events.statistics().current_buffer_used:
                batch.append(events.receive_nowait())
            await self._spread([e for e in batch if e.owner in {"", self._owner}])
            await anyio.sleep(limits.COALESCE_S)

    def join(self, key: Hashable, session: ServerSession) -> None:
        """Take a session in: it is told when the list of resources changes."""
        if key in self._sessions or self._tasks is None:
            return
        if len(self._sessions) >= limits.SESSIONS_MAX:
            _, oldest = self._sessions.popitem(last=False)
            oldest.scope.cancel()
        joined = _Session(session)
        self._sessions[key] = joined
        self._tasks.start_soon(joined.run)

    def drop(self, key: Hashable) -> None:
        """Forget a session that has ended."""
        session = self._sessions.pop(key, None)
        if session is not None:
            session.scope.cancel()

    def subscribe(self, key: Hashable, session: ServerSession, uri: str) -> None:
        """Tell this session of changes of `uri`.

        Raises:
            LimitExceeded: it follows as many as it may.
        """
        self.join(key, session)
        joined = self._sessions.get(key)
        if joined is None:
            return  # nothing is served any more
        if len(joined.uris) >= limits.SUBSCRIPTIONS_MAX and uri not in joined.uris:
            raise LimitExceeded(
                f"A session may follow {limits.SUBSCRIPTIONS_MAX} resources.", "Unsubscribe from some first."
            )
        joined.uris.add(uri)

    def unsubscribe(self, key: Hashable, uri: str) -> None:
        """Tell this session no more of `uri`."""
        joined = self._sessions.get(key)
        if joined is not None:
            joined.uris.discard(uri)

    async def _spread(self, events: Iterable[Event]) -> None:
        uris = dict.fromkeys(uri for event in events for uri in event.uris)
        for uri in uris:
            for session in tuple(self._sessions.values()):
                if uri in session.uris:
                    session.tell(uri)
            await self._bus.publish(ResourceUpdated(uri=uri))
        news = [event for event in events if self._is_news(event)]
        if news:
            for session in tuple(self._sessions.values()):
                session.tell(None)
            await self._bus.publish(ResourcesListChanged())

    def _is_news(self, event: Event) -> bool:
        """Return whether the event concerns a process that was not listed before."""
        if event.kind is not EventKind.PROCESS or event.subject in self._announced:
            return False
        self._announced[event.subject] = None
        if len(self._announced) > PROCESSES_KNOWN_MAX:
            self._announced.popitem(last=False)
        return True
