"""The event bus: what is published after a commit. Losing an event loses nothing; listeners re-read the state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from aos_mcp.abi.event import Event, EventKind

LISTENER_BUFFER = 1_024
"""Events a listener may lag behind before it loses some."""


class Bus:
    """Fans events out to listeners, and wakes whoever waits for any change."""

    def __init__(self) -> None:
        self._listeners: dict[MemoryObjectSendStream[Event], None] = {}
        """In the order in which they came: a set's would differ from run to run."""
        self._changed = anyio.Event()
        self._watched = False

    def publish(self, event: Event) -> None:
        """Hand an event to every listener that has room, and wake all waiters."""
        for listener in tuple(self._listeners):
            try:
                listener.send_nowait(event)
            except anyio.WouldBlock:
                continue  # it lags; it will re-read
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                self._listeners.pop(listener, None)
        if self._watched and event.kind is not EventKind.OUTPUT:  # what a model writes changes no state
            self._changed.set()
            self._changed = anyio.Event()
            self._watched = False

    @contextmanager
    def listen(self) -> Iterator[MemoryObjectReceiveStream[Event]]:
        """Give a stream of the events published from now on."""
        send, receive = anyio.create_memory_object_stream[Event](LISTENER_BUFFER)
        self._listeners[send] = None
        try:
            with receive:
                yield receive
        finally:
            self._listeners.pop(send, None)
            send.close()

    def ticket(self) -> anyio.Event:
        """Return what the next publication sets. Take it before reading the state: then no wake-up is lost."""
        self._watched = True
        return self._changed
