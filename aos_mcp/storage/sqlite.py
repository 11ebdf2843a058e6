"""The SQLite driver: one file, one writer task that commits in groups, a few readers that look in groups.

It owns the file, its connections and the threads they are used on. It promises what `ports.Store` promises: a unit is
atomic and isolated, what `write` returned is committed, and a full disk changes nothing.

The standard library's `sqlite3` on worker threads is used, not aiosqlite: a unit of work is a plain function, so one
hop to a thread serves a whole group of units instead of one hop for every statement. A hop costs as much processor time
as thirty statements, so units that only read share it too, and the snapshot with it.

Brief units make no hop at all: they run in the event loop's own thread, where nothing is waited for: neither another
program's lock, nor the medium, nor that the log is copied. After one that was not brief, threads do all for a while.

Two programs on one file are safe: each group begins by taking the write lock, and waits a bounded time for it.
"""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from aos_mcp.abi.errors import Unavailable
from aos_mcp.abi.limits import (
    STORE_BRIEF_COMMITS,
    STORE_BRIEF_GROUP_MAX,
    STORE_GROUP_MAX,
    STORE_QUEUE_MAX,
    STORE_READ_GROUP_MAX,
    STORE_READERS,
    STORE_STALL_S,
    STORE_STALLED_S,
)
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
    """One unit of work on its way: queued, taken by a task, settled. It is run at most once."""

    outcome: T

    def __init__(self, work: Callable[[Transaction], T], *, flush: bool = False, brief: bool = False) -> None:
        self.work = work
        self.flush = flush
        self.brief = brief and not flush
        self.settled = anyio.Event()
        self.taken = False
        self.abandoned = False
        """Its caller was cancelled before a task took it: it is never run."""
        self.error: BaseException | None = None

    def run(self, connection: SqliteConnection) -> None:
        """Run the work inside a savepoint; its own failure undoes it alone. Raises DeviceFailed."""
        with _Savepoint(connection, self):
            self.outcome = self.work(StoreTransaction(connection))

    def look(self, connection: SqliteConnection, nearest: Nearest) -> None:
        """Run work that only reads, on the snapshot that is open or on a new one; its failure is its own."""
        with _Kept(self):
            connection.begin_read()
            self.outcome = self.work(StoreTransaction(connection, nearest))


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


class _Kept:
    """Keeps what a unit's work raised for its caller."""

    def __init__(self, unit: _Unit[Any]) -> None:
        self._unit = unit

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if error is not None:
            self._unit.error = error
        return True


class _Queue:
    """Units on their way to the tasks that run them, oldest first."""

    def __init__(self, group_max: int) -> None:
        self._group_max = group_max
        self._units: MemoryObjectSendStream[_Unit[Any]]
        self.waiting: MemoryObjectReceiveStream[_Unit[Any]]
        self._units, self.waiting = anyio.create_memory_object_stream[_Unit[Any]](STORE_QUEUE_MAX)

    async def settled(self, unit: _Unit[T]) -> T:
        """Have a unit run, and return its outcome.

        A cancelled call leaves nothing under way: the unit was never begun and never will be, or it has come to its
        end before the cancellation goes on.
        """
        try:
            try:
                self._units.send_nowait(unit)
            except anyio.WouldBlock:
                await self._units.send(unit)
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

    def group(self, first: _Unit[Any]) -> list[_Unit[Any]]:
        """Take what waits behind `first`, as far as a group goes; what was abandoned is left out."""
        group, brief = [first], first.brief
        try:
            while len(group) < (STORE_BRIEF_GROUP_MAX if brief else self._group_max):
                group.append(self.waiting.receive_nowait())
                brief = brief and group[-1].brief
        except (anyio.WouldBlock, anyio.EndOfStream):
            pass
        group = [unit for unit in group if not unit.abandoned]
        for unit in group:
            unit.taken = True
        return group

    def stop(self) -> None:
        """Accept no further unit."""
        self._units.close()

    def refuse(self) -> None:
        """Refuse what nobody will take any more."""
        try:
            while True:
                unit = self.waiting.receive_nowait()
                unit.error = _closed()
                unit.settled.set()
        except (anyio.WouldBlock, anyio.EndOfStream, anyio.ClosedResourceError):
            self.waiting.close()


class SqliteStore:
    """`ports.Store` on one SQLite file. Made by `open_sqlite`."""

    def __init__(
        self,
        writer: SqliteConnection,
        readers: Sequence[SqliteConnection],
        clock: Clock,
        connect: Callable[[], SqliteConnection],
    ) -> None:
        """Take over open connections. `connect` makes one more that reads."""
        self._connect = connect
        self._writer = writer
        self._own, *self._readers = readers
        """The one that the event loop's thread reads with, and those of the others."""
        self._own.never_wait()
        self._clock = clock
        self._nearest = Nearest()
        self._stalled_until = -math.inf
        self._brief_commits = 0
        """In a row."""
        self._stopped = False
        # Limiters of its own: a pool of threads that is full of other work never holds up the store.
        self._writing = anyio.CapacityLimiter(1)
        self._reading = anyio.CapacityLimiter(len(self._readers))
        self._writes = _Queue(STORE_GROUP_MAX)
        self._looks = _Queue(STORE_READ_GROUP_MAX)

    async def write(self, work: Callable[[Transaction], T], *, flush: bool = False, brief: bool = False) -> T:
        """Run a unit and commit it, see `ports.Store.write`."""
        return await self._writes.settled(_Unit(work, flush=flush, brief=brief))

    async def read(self, work: Callable[[Transaction], T], *, brief: bool = False) -> T:
        """Run a unit that only reads, see `ports.Store.read`."""
        if brief and not self._is_stalled and not self._stopped:
            await anyio.lowlevel.checkpoint_if_cancelled()
            unit = _Unit(work)
            with self._watched():
                self._look(self._own, [unit])
            if unit.error is None:
                return unit.outcome
            if not isinstance(unit.error, DeviceFailed):
                raise unit.error
        return await self._looks.settled(_Unit(work))

    async def changed(self, timeout_s: float) -> None:
        """Return after `timeout_s`: one kernel has this file to itself, so nobody else changes it."""
        await self._clock.sleep_until(self._clock.now() + timeout_s)

    async def backup(self, path: str) -> int:
        """Copy the store to a file, see `ports.StoreFile`."""
        return await anyio.to_thread.run_sync(self._copy, Path(path))

    async def compact(self) -> None:
        """Give back what is not used, see `ports.StoreFile`. Writes wait meanwhile, reads do not."""
        await anyio.to_thread.run_sync(self._shrink, limiter=self._writing)

    async def serve(self) -> None:
        """Be the writer and the readers until `stop`: run what is queued, group by group, and settle every unit."""
        try:
            async with anyio.create_task_group() as tasks:
                for reader in self._readers:
                    tasks.start_soon(self._serve_reads, reader)
                await self._serve_writes()
        finally:
            self.stop()
            self._writes.refuse()
            self._looks.refuse()

    async def _serve_writes(self) -> None:
        async for first in self._writes.waiting:
            group = self._writes.group(first)
            try:
                if not self._committed_here(group):
                    await anyio.to_thread.run_sync(self._commit, group, limiter=self._writing)
            finally:
                for unit in group:
                    unit.settled.set()

    async def _serve_reads(self, reader: SqliteConnection) -> None:
        with self._looks.waiting.clone() as waiting:
            async for first in waiting:
                group = self._looks.group(first)
                try:
                    await anyio.to_thread.run_sync(self._look, reader, group, limiter=self._reading)
                finally:
                    for unit in group:
                        unit.settled.set()

    def stop(self) -> None:
        """Accept no further unit; the tasks end once they have settled those there are."""
        self._stopped = True
        self._writes.stop()
        self._looks.stop()

    async def close(self) -> None:
        """Close the connections, once no unit runs any more."""
        await anyio.to_thread.run_sync(self._close_connections, limiter=self._writing)

    @property
    def _is_stalled(self) -> bool:
        return self._clock.monotonic() < self._stalled_until

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Notice when what should have been brief was not."""
        began = self._clock.monotonic()
        yield
        now = self._clock.monotonic()
        if now - began > STORE_STALL_S:
            self._stalled_until = now + STORE_STALLED_S

    def _committed_here(self, group: list[_Unit[Any]]) -> bool:
        """Run a group in this thread; False where it is a thread's: it is not brief, or would have to wait."""
        free = self._writing.available_tokens > 0  # the upkeep of the file has the connection sometimes
        often = self._brief_commits >= STORE_BRIEF_COMMITS
        if often or not free or self._is_stalled or not all(unit.brief for unit in group):
            return False
        with self._watched():
            try:
                self._writer.begin_write(flush=False, patient=False)
            except DeviceFailed:
                return False
            self._run(group)
        self._brief_commits += 1
        return True

    def _commit(self, group: list[_Unit[Any]]) -> None:
        """Run a group in one transaction, on a worker thread."""
        self._brief_commits = 0
        try:
            self._writer.begin_write(flush=any(unit.flush for unit in group))
        except DeviceFailed as failure:
            _fail(group, failure)
        else:
            self._run(group)

    def _run(self, group: list[_Unit[Any]]) -> None:
        """Run a group in the transaction that has begun. What fails the commit fails every unit in it.

        That holds also for a unit that had failed by itself: what it decided by may have been another's undone write.
        """
        try:
            for unit in group:
                unit.run(self._writer)
            self._writer.commit()
        except DeviceFailed as failure:
            _fail(group, failure)

    def _look(self, reader: SqliteConnection, group: list[_Unit[Any]]) -> None:
        """Run units that only read on one snapshot."""
        for unit in group:
            unit.look(reader, self._nearest)
        if group:
            with _Kept(group[-1]):
                reader.rollback()

    def _copy(self, target: Path) -> int:
        with closing(self._connect()) as source:
            return source.copy_to(target)

    def _shrink(self) -> None:
        self._writer.rollback()
        for name in ("page_text_merge", "store_compact", "log_truncate"):
            self._writer.all(name, {})

    def _close_connections(self) -> None:
        for reader in (self._own, *self._readers):
            reader.close()
        self._writer.close()


@asynccontextmanager
async def open_sqlite(
    path: Path, clock: Clock, *, connect: Callable[..., SqliteConnection] = SqliteConnection
) -> AsyncIterator[SqliteStore]:
    """Open the store in the file `path`, made with its directory when they are not there.

    `connect` makes each connection, as `SqliteConnection` does: tests pass one that fails.

    Raises:
        Unavailable: the file cannot be opened, is not a store, is damaged, or was written by a newer release.
    """
    writer, readers = await anyio.to_thread.run_sync(_open, path, clock.now(), connect)
    another = partial(connect, path, load_queries(QUERIES), query_only=True)
    store = SqliteStore(writer, readers, clock, another)
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


def _open(
    path: Path, now: float, connect: Callable[..., SqliteConnection]
) -> tuple[SqliteConnection, list[SqliteConnection]]:
    if sqlite3.sqlite_version_info < _SQLITE_NEEDED:
        raise Unavailable(
            f"Python was built with SQLite {sqlite3.sqlite_version}; the store needs 3.37 or newer.",
            "Use a newer Python, or a system with a newer SQLite.",
        )
    _make_file(path)
    queries = load_queries(QUERIES)
    with ExitStack() as opened:
        writer = connect(path, queries, query_only=False)
        opened.callback(writer.close)
        writer.keep_log()
        _migrate(writer, now)
        readers = []
        for _ in range(1 + STORE_READERS):
            reader = connect(path, queries, query_only=True)
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
            "Check that AOS_HOME is a directory of the user that runs the kernel, on a disk mounted for writing.",
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


def _fail(group: list[_Unit[Any]], failure: DeviceFailed) -> None:
    for unit in group:
        unit.error = failure.again()


def _closed() -> Unavailable:
    return Unavailable("The store is closed.", "The kernel is shutting down; start it again.")
