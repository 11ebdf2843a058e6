"""The SQLite driver: one file, one writer task that commits in groups, a few readers on snapshots.

It owns the file, its connections and the threads they are used on. It promises what `ports.Store` promises: a unit is
atomic and isolated, what `write` returned is committed, and a full disk changes nothing.

The standard library's `sqlite3` on worker threads is used, not aiosqlite: a unit of work is a plain function, so one
hop to a thread serves a whole group of units instead of one hop for every statement.

Two programs on one file are safe: each group begins by taking the write lock, and waits a bounded time for it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

import anyio
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from aos_mcp.abi.errors import Unavailable
from aos_mcp.abi.limits import STORE_GROUP_MAX, STORE_QUEUE_MAX, STORE_READERS
from aos_mcp.ports import Clock, Transaction
from aos_mcp.storage.connection import DeviceFailed
from aos_mcp.storage.queries import load_queries
from aos_mcp.storage.retrieval import Nearest
from aos_mcp.storage.schema import load_migrations, missing_migrations
from aos_mcp.storage.sqlite_connection import SqliteConnection
from aos_mcp.storage.store import StoreTransaction

T = TypeVar("T")

QUERIES = Path(__file__).parent / "sql" / "sqlite"
MIGRATIONS = Path(__file__).parent / "migrations" / "sqlite"

_SQLITE_NEEDED = (3, 37, 0)
"""The release with STRICT tables."""


class _Unit(Generic[T]):
    """One unit of work on its way: queued, taken by the writer, settled. It is run at most once."""

    outcome: T

    def __init__(self, work: Callable[[Transaction], T], *, flush: bool) -> None:
        self.work = work
        self.flush = flush
        self.settled = anyio.Event()
        self.taken = False
        self.abandoned = False
        """Its caller was cancelled before the writer took it: it is never run."""
        self.error: BaseException | None = None

    def run(self, connection: SqliteConnection) -> None:
        """Run the work inside a savepoint; its own failure undoes it alone. Raises DeviceFailed."""
        with _Savepoint(connection, self):
            self.outcome = self.work(StoreTransaction(connection))


class _Savepoint:
    """Undoes a unit whose work failed and keeps the failure for its caller; lets a failure of the device through."""

    def __init__(self, connection: SqliteConnection, unit: _Unit[Any]) -> None:
        self._connection = connection
        self._unit = unit

    def __enter__(self) -> None:
        self._connection.unit_begin()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if error is None:
            self._connection.unit_end()
            return False
        if isinstance(error, DeviceFailed):
            return False
        self._connection.unit_undo()
        self._unit.error = error
        return True


class SqliteStore:
    """`ports.Store` on one SQLite file. Made by `open_sqlite`."""

    def __init__(self, writer: SqliteConnection, readers: list[SqliteConnection], clock: Clock) -> None:
        """Take over open connections."""
        self._writer = writer
        self._idle = readers
        self._clock = clock
        self._nearest = Nearest()
        # Limiters of its own: a pool of threads that is full of other work never holds up the store.
        self._writing = anyio.CapacityLimiter(1)
        self._reading = anyio.CapacityLimiter(len(readers))
        self._closed = False
        self._units: MemoryObjectSendStream[_Unit[Any]]
        self._queue: MemoryObjectReceiveStream[_Unit[Any]]
        self._units, self._queue = anyio.create_memory_object_stream[_Unit[Any]](STORE_QUEUE_MAX)

    async def write(self, work: Callable[[Transaction], T], *, flush: bool = False) -> T:
        """Run a unit and commit it, see `ports.Store.write`.

        A cancelled call leaves nothing under way: the unit was never begun and never will be, or it has come to its
        end before the cancellation goes on.
        """
        unit = _Unit(work, flush=flush)
        try:
            await self._enqueue(unit)
            await unit.settled.wait()
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            raise _closed() from None
        except anyio.get_cancelled_exc_class():
            unit.abandoned = True
            if unit.taken:
                with anyio.CancelScope(shield=True):
                    await unit.settled.wait()
            raise
        if unit.error is not None:
            raise unit.error
        return unit.outcome

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Run a unit that only reads, see `ports.Store.read`."""
        if self._closed:
            raise _closed()
        return await anyio.to_thread.run_sync(self._read, work, limiter=self._reading)

    async def changed(self, timeout_s: float) -> None:
        """Return after `timeout_s`: one kernel has this file to itself, so nobody else changes it."""
        await self._clock.sleep_until(self._clock.now() + timeout_s)

    async def serve(self) -> None:
        """Be the writer until `close`: commit what is queued, group by group, and settle every unit."""
        try:
            async for first in self._queue:
                group = self._take(first)
                try:
                    await anyio.to_thread.run_sync(self._commit, group, limiter=self._writing)
                finally:
                    for unit in group:
                        unit.settled.set()
        finally:
            self._closed = True
            self._refuse_queued()

    def stop(self) -> None:
        """Accept no further unit; the writer ends once it has settled those it has."""
        self._units.close()

    async def close(self) -> None:
        """Close the connections, once no unit runs any more."""
        self._closed = True
        for _ in range(int(self._reading.total_tokens)):
            await self._reading.acquire_on_behalf_of(object())
        await anyio.to_thread.run_sync(self._close_connections, limiter=self._writing)

    async def _enqueue(self, unit: _Unit[Any]) -> None:
        try:
            self._units.send_nowait(unit)
        except anyio.WouldBlock:
            await self._units.send(unit)

    def _take(self, first: _Unit[Any]) -> list[_Unit[Any]]:
        group = [first]
        try:
            while len(group) < STORE_GROUP_MAX:
                group.append(self._queue.receive_nowait())
        except (anyio.WouldBlock, anyio.EndOfStream):
            pass
        group = [unit for unit in group if not unit.abandoned]
        for unit in group:
            unit.taken = True
        return group

    def _commit(self, group: list[_Unit[Any]]) -> None:
        """Run a group in one transaction, on a worker thread. What fails the commit fails every unit in it.

        That holds also for a unit that had failed by itself: what it decided by may have been another's undone write.
        """
        try:
            self._writer.begin_write(flush=any(unit.flush for unit in group))
            for unit in group:
                unit.run(self._writer)
            self._writer.commit()
        except DeviceFailed as failure:
            for unit in group:
                unit.error = failure.again()

    def _read(self, work: Callable[[Transaction], T]) -> T:
        if self._closed:
            raise _closed()
        connection = self._idle.pop()
        try:
            with connection.snapshot():
                return work(StoreTransaction(connection, self._nearest))
        finally:
            self._idle.append(connection)

    def _refuse_queued(self) -> None:
        try:
            while True:
                unit = self._queue.receive_nowait()
                unit.error = _closed()
                unit.settled.set()
        except (anyio.WouldBlock, anyio.EndOfStream):
            self._queue.close()

    def _close_connections(self) -> None:
        for reader in self._idle:
            reader.close()
        self._writer.close()


@asynccontextmanager
async def open_sqlite(path: Path, clock: Clock) -> AsyncIterator[SqliteStore]:
    """Open the store in the file `path`, made with its directory when they are not there.

    Raises:
        Unavailable: the file cannot be opened, is not a store, is damaged, or was written by a newer release.
    """
    writer, readers = await anyio.to_thread.run_sync(_open, path, clock.now())
    store = SqliteStore(writer, readers, clock)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_serve, store)
            try:
                yield store
            finally:
                store.stop()
    finally:
        with anyio.CancelScope(shield=True):
            await store.close()


async def _serve(store: SqliteStore) -> None:
    # Shielded: whoever shuts down in a cancelled scope may still write until the store is closed.
    with anyio.CancelScope(shield=True):
        await store.serve()


def _open(path: Path, now: float) -> tuple[SqliteConnection, list[SqliteConnection]]:
    if sqlite3.sqlite_version_info < _SQLITE_NEEDED:
        raise Unavailable(
            f"Python was built with SQLite {sqlite3.sqlite_version}; the store needs 3.37 or newer.",
            "Use a newer Python, or a system with a newer SQLite.",
        )
    _make_file(path)
    queries = load_queries(QUERIES)
    with ExitStack() as opened:
        writer = SqliteConnection(path, queries, query_only=False)
        opened.callback(writer.close)
        writer.keep_log()
        _migrate(writer, now)
        readers = []
        for _ in range(STORE_READERS):
            reader = SqliteConnection(path, queries, query_only=True)
            opened.callback(reader.close)
            readers.append(reader)
        opened.pop_all()
    return writer, readers


def _make_file(path: Path) -> None:
    """Make the file for its user alone; SQLite gives its log the same mode."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise Unavailable(
            f"The store's database file {path} cannot be opened: {error.strerror}.",
            "Check that AOS_HOME is a directory that belongs to the user that runs the kernel.",
        ) from error


def _migrate(writer: SqliteConnection, now: float) -> None:
    """Bring the schema up to this release, all of it or nothing; two kernels that start at once take turns."""
    writer.begin_write(flush=True)
    try:
        for migration in missing_migrations(writer, load_migrations(MIGRATIONS)):
            for statement in migration.statements:
                writer.migrate(statement)
            writer.execute(
                "migration_insert", {"name": migration.name, "checksum": migration.checksum, "applied_at": now}
            )
        writer.commit()
    finally:
        writer.rollback()


def _closed() -> Unavailable:
    return Unavailable("The store is closed.", "The kernel is shutting down; start it again.")
