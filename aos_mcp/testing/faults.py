"""Death at a chosen moment: devices that kill their own process at the n-th thing that is asked of them.

No clean-up code runs, as in `kill -9`. Moments are counted at every call to a port, at every SQL statement, and before
and after every commit. Counting first and then dying at each moment in turn covers every state that a crash can leave.
"""

from __future__ import annotations

import inspect
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

from aos_mcp.ports import Clock, LanguageModel, Models, Store, Transaction
from aos_mcp.storage.connection import Row, Value
from aos_mcp.storage.sqlite import SqliteStore, open_sqlite
from aos_mcp.storage.sqlite_connection import SqliteConnection

T = TypeVar("T")
P = TypeVar("P")


class Death:
    """Counts moments, and ends the process at one of them: the only way out that no code can notice."""

    def __init__(self, at: int | None = None, end: Callable[[], None] | None = None) -> None:
        """Die at moment `at`, counted from 1; None lives and counts.

        `end` stands in for the end of the process, where there are to be more lives in it. What goes on after it comes
        to it again, at whatever it asks of a device.
        """
        self._at = at
        self._end = end or kill_tree
        self._lock = threading.Lock()  # statements run on threads of their own
        self.moments: list[str] = []
        """What was about to happen at each moment."""

    def moment(self, what: str) -> None:
        """Note that `what` is about to happen, and die where it is time."""
        with self._lock:
            self.moments.append(what)
            if self._at is not None and len(self.moments) >= self._at:
                self._end()


def kill_tree() -> None:
    """End this process and all of its group at once. What left the group has to notice by itself."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


class MortalStore:
    """Wraps a store. Every write has two moments: before its commit and after it; every read has one."""

    def __init__(self, inner: Store, death: Death) -> None:
        """Take the store, and who counts."""
        self._inner = inner
        self._death = death

    async def write(self, work: Callable[[Transaction], T], *, flush: bool = False, brief: bool = False) -> T:
        """See `ports.Store`."""
        self._death.moment("write begins")
        result = await self._inner.write(work, flush=flush, brief=brief)
        self._death.moment("write is committed")
        return result

    async def read(self, work: Callable[[Transaction], T], *, brief: bool = False) -> T:
        """See `ports.Store`."""
        self._death.moment("read")
        return await self._inner.read(work, brief=brief)

    async def changed(self, timeout_s: float) -> None:
        """See `ports.Store`."""
        await self._inner.changed(timeout_s)


class MortalConnection(SqliteConnection):
    """A connection with a moment before every statement, and one after every commit."""

    def __init__(self, path: Path, queries: Mapping[str, str], *, query_only: bool, death: Death) -> None:
        """See `SqliteConnection`."""
        self._death = death
        super().__init__(path, queries, query_only=query_only)

    def execute(self, name: str, values: Mapping[str, Value]) -> int:
        """See `SqliteConnection`."""
        self._death.moment(f"sql {name}")
        return super().execute(name, values)

    def all(self, name: str, values: Mapping[str, Value]) -> list[Row]:
        """See `SqliteConnection`."""
        self._death.moment(f"sql {name}")
        return super().all(name, values)

    def begin_write(self, *, flush: bool, patient: bool = True) -> None:
        """See `SqliteConnection`."""
        self._death.moment("sql begin")
        super().begin_write(flush=flush, patient=patient)

    def unit_begin(self) -> None:
        """See `SqliteConnection`."""
        self._death.moment("sql unit_begin")
        super().unit_begin()

    def unit_end(self) -> None:
        """See `SqliteConnection`."""
        self._death.moment("sql unit_end")
        super().unit_end()

    def unit_undo(self) -> None:
        """See `SqliteConnection`."""
        self._death.moment("sql unit_undo")
        super().unit_undo()

    def commit(self) -> None:
        """See `SqliteConnection`."""
        self._death.moment("sql commit")
        super().commit()
        self._death.moment("sql committed")


@asynccontextmanager
async def open_mortal_sqlite(path: Path, clock: Clock, death: Death) -> AsyncIterator[SqliteStore]:
    """Open the store at `path` with a moment at every statement, also of its opening and its migrations."""

    def connect(file: Path, queries: Mapping[str, str], *, query_only: bool) -> SqliteConnection:
        return MortalConnection(file, queries, query_only=query_only, death=death)

    async with open_sqlite(path, clock, connect=connect) as store:
        yield store


class _Mortal:
    """Stands before a port: a moment before each of its calls, and another after those that are waited for."""

    def __init__(self, port: object, name: str, death: Death) -> None:
        self._port = port
        self._name = name
        self._death = death

    def __getattr__(self, attribute: str) -> Any:
        part = getattr(self._port, attribute)
        name, death = f"{self._name}.{attribute}", self._death
        if inspect.iscoroutinefunction(part):

            async def awaited(*values: Any, **named: Any) -> Any:
                death.moment(name)
                result = await part(*values, **named)
                death.moment(f"{name} is done")
                return result

            return awaited
        if not callable(part):
            return part

        def called(*values: Any, **named: Any) -> Any:
            death.moment(name)
            return part(*values, **named)

        return called


def mortal(port: P, name: str, death: Death) -> P:
    """Return a port (a sandbox, mounts, workspaces, entropy) with moments at its calls, under `name`."""
    return cast(P, _Mortal(port, name, death))


class MortalModels:
    """Wraps a catalogue: every call to a model has a moment before and after."""

    def __init__(self, inner: Models, death: Death) -> None:
        """Take the catalogue, and who counts."""
        self._inner = inner
        self._death = death

    def resolve(self, name: str) -> LanguageModel:
        """See `ports.Models`."""
        return mortal(self._inner.resolve(name), "model", self._death)

    async def default(self) -> str:
        """See `ports.Models`."""
        return await self._inner.default()

    def warm(self, name: str) -> None:
        """See `ports.Models`."""
        self._inner.warm(name)

    def providers(self) -> Sequence[tuple[str, bool]]:
        """See `ports.Models`."""
        return self._inner.providers()
