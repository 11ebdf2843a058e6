"""One SQLite connection: the adapter of `storage.connection`, its transactions, and SQLite's errors by code."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from aos_mcp.abi.errors import AosError, Conflict, Internal, Invalid, LimitExceeded, Unavailable
from aos_mcp.storage.connection import DeviceFailed, Row, Value

_KEY_EXISTS = frozenset(
    {
        sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY,
        sqlite3.SQLITE_CONSTRAINT_UNIQUE,
        sqlite3.SQLITE_CONSTRAINT_ROWID,
    }
)

_DAMAGED = (
    "The store's database file is damaged.",
    "If its disk failed or was away, bring it back and start the kernel again; else restore a backup.",
)

_DEVICE = {
    sqlite3.SQLITE_FULL: (
        "The disk that holds the store is full.",
        "Free some space and try again; nothing of this was written.",
    ),
    sqlite3.SQLITE_IOERR: (
        "The disk that holds the store does not read or write.",
        "Check the disk, whether it is mounted read-only, its free space and the limits on file size, and try again; "
        "nothing of this was written.",
    ),
    sqlite3.SQLITE_READONLY: (
        "The store's database file may not be written.",
        "Make the file and its directory writable for the user that runs the kernel.",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "The store's database file cannot be opened.",
        "Check that AOS_HOME exists, is a directory, and belongs to the user that runs the kernel.",
    ),
    sqlite3.SQLITE_PERM: (
        "The store's database file may not be used.",
        "Check that AOS_HOME belongs to the user that runs the kernel.",
    ),
    sqlite3.SQLITE_BUSY: (
        "Another program holds the store.",
        "End the other program (`aos status` names a second kernel), then try again.",
    ),
    sqlite3.SQLITE_LOCKED: (
        "Another connection holds the store.",
        "Try again in a moment.",
    ),
    sqlite3.SQLITE_PROTOCOL: (
        "The file system does not lock the store's files as SQLite needs it.",
        "Move AOS_HOME to a local disk.",
    ),
    sqlite3.SQLITE_NOLFS: (
        "The file system cannot hold a file as large as the store.",
        "Move AOS_HOME to another disk.",
    ),
    sqlite3.SQLITE_NOMEM: (
        "There is no memory left for the store.",
        "End other programs or give the kernel more memory, and try again.",
    ),
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
}
"""What the device below may do to a transaction, by primary result code: a sentence and a hint."""


def translated(error: sqlite3.Error, name: str) -> AosError:
    """Return the error of `abi.errors` for what SQLite said about the statement `name`, by its code."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE)
    if code in _KEY_EXISTS:
        return Conflict(
            f"The store holds a row with this key already ({name}).",
            "Read it and go on from there, or use another key.",
        )
    primary = code & 0xFF
    if primary in _DEVICE:
        return _device_failure(error)
    if primary == sqlite3.SQLITE_TOOBIG:
        return LimitExceeded("A value is too large for the store.", "Split it, or keep it in a workspace file.")
    return Internal(f"The store refused the statement {name} (SQLite code {code}).", "Report this with the log.")


def _device_failure(error: sqlite3.Error) -> DeviceFailed:
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE)
    unknown = (f"The store's transaction failed (SQLite code {code}).", "Try again; restart the kernel if it persists.")
    return DeviceFailed(*_DEVICE.get(code & 0xFF, unknown))


class SqliteConnection:
    """A connection used by one thread at a time, not always the same one.

    `query_only` refuses every statement that writes.
    """

    def __init__(self, path: Path, queries: Mapping[str, str], *, query_only: bool) -> None:
        """Open the file, which exists, and set what a connection keeps. Raises DeviceFailed."""
        self._queries = queries
        self._query_only = query_only
        self._flushing = False
        self._patient = True
        self._doubtful = False
        """A commit failed: of the log, what was thought to be on its way to the medium may never get there."""
        with _translation("open"):
            self._db = sqlite3.connect(
                path,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=len(queries),
            )
        self._columns: dict[str, tuple[str, ...]] = {}
        for name in ("connection_wait", "connection_cache", "connection_sort_in_memory"):
            self.all(name, {})
        if query_only:
            self.all("connection_query_only", {})

    def execute(self, name: str, values: Mapping[str, Value]) -> int:
        """Run a statement that writes; return how many rows it touched."""
        try:
            return self._db.execute(self._queries[name], values).rowcount
        except (sqlite3.Error, UnicodeEncodeError, OverflowError) as error:
            raise self._failure(error, name) from error

    def one(self, name: str, values: Mapping[str, Value]) -> Row | None:
        """Run a statement; return its first row, if it has one."""
        rows = self.all(name, values)
        return rows[0] if rows else None

    def all(self, name: str, values: Mapping[str, Value]) -> list[Row]:
        """Run a statement; return its rows."""
        try:
            cursor = self._db.execute(self._queries[name], values)
            found = cursor.fetchall()
        except (sqlite3.Error, UnicodeEncodeError, OverflowError) as error:
            raise self._failure(error, name) from error
        if not found:
            return []
        columns = self._columns.get(name, ())
        if len(columns) != len(found[0]):
            columns = self._columns[name] = tuple(column[0] for column in cursor.description)
        # Not sqlite3.Row: that searches all names for each value, and wide rows are what is read most.
        return [dict(zip(columns, row, strict=True)) for row in found]

    def migrate(self, statement: str) -> None:
        """Run one statement of a migration."""
        with _translation("migration"):
            self._db.execute(statement)

    def keep_log(self) -> None:
        """Turn the write-ahead log on: readers never wait for the writer. Raises DeviceFailed where it cannot be."""
        mode = self.one("connection_wal", {})
        if mode is None or mode["journal_mode"] != "wal":
            raise DeviceFailed(*_DEVICE[sqlite3.SQLITE_PROTOCOL])
        for name in ("connection_wal_keep", "connection_checkpoint_pages", "connection_no_flush"):
            self.all(name, {})

    def begin_write(self, *, flush: bool, patient: bool = True) -> None:
        """Take the write lock. With `flush`, the commit waits until the bytes are on the medium.

        One that is not `patient` waits for no other program, and its commit does not copy the log into the file: it
        raises DeviceFailed where it would have to wait.

        After a commit that failed, the log is begun anew first. A system that could not write a page forgets that it
        had to: what is flushed later into the same log could stand behind a hole, and be lost with a power cut.
        """
        self.rollback()
        if self._doubtful:
            if not patient or self.all("log_truncate", {})[0]["busy"]:
                raise DeviceFailed(*_DEVICE[sqlite3.SQLITE_BUSY])
            self._doubtful = False
        if flush != self._flushing:
            self._control("connection_flush" if flush else "connection_no_flush")
            self._flushing = flush
        if patient != self._patient:
            self._control("connection_wait" if patient else "connection_no_wait")
            self._control("connection_checkpoint_pages" if patient else "connection_no_checkpoint")
            self._patient = patient
        self._control("begin_write")

    def commit(self) -> None:
        """Commit the transaction."""
        self._doubtful = True
        self._control("commit")
        self._doubtful = False

    def rollback(self) -> None:
        """Undo the transaction, if there is one: after a failure of the device SQLite may have undone it by itself."""
        if self._db.in_transaction:
            self._control("rollback")

    def unit_begin(self) -> None:
        """Begin a unit inside the transaction."""
        self._control("unit_begin")

    def unit_end(self) -> None:
        """Keep the unit."""
        self._control("unit_end")

    def unit_undo(self) -> None:
        """Undo the unit, and nothing else of the transaction."""
        self._control("unit_undo")
        self._control("unit_end")

    def never_wait(self) -> None:
        """Fail where another program holds the file, instead of waiting for it."""
        self._control("connection_no_wait")

    def begin_read(self) -> None:
        """Hold one state of the store until `rollback`, unless one is held already."""
        if not self._db.in_transaction:
            self._control("begin_read")

    def copy_to(self, target: Path) -> int:
        """Copy the store, which may be in use, to `target` in one consistent state; return its size in bytes.

        Raises:
            Conflict: there is such a file already.
            Unavailable: it cannot be written.
        """
        part = target.with_name(f"{target.name}.part")
        taken = Conflict(f"{target} is there already.", "Choose another name.")
        try:
            if target.exists():
                raise taken
            os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))
            with closing(sqlite3.connect(part)) as copy:
                self._db.backup(copy)
            with part.open("rb") as file:
                os.fsync(file.fileno())
            os.link(part, target)  # fails where somebody else made the file meanwhile
            return target.stat().st_size
        except FileExistsError:
            raise taken from None
        except (OSError, sqlite3.Error) as error:
            raise Unavailable(f"{target} cannot be written: {error}.", "Choose a folder that has room.") from error
        finally:
            part.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the connection; the last one copies the log into the file."""
        with _translation("close"):
            self._db.close()

    def _control(self, name: str) -> None:
        """Move the transaction. A statement of this kind is right by itself, so that only the device can fail it."""
        try:
            self._db.execute(self._queries[name])
        except sqlite3.Error as error:
            raise _device_failure(error) from error

    def _failure(self, error: sqlite3.Error | UnicodeEncodeError | OverflowError, name: str) -> AosError:
        if isinstance(error, UnicodeEncodeError):
            return Invalid("A text is not valid Unicode: it has half of a surrogate pair.", "Send well-formed text.")
        if isinstance(error, OverflowError):
            return Invalid("A number does not fit into 64 bits.", "Send a smaller number.")
        code = getattr(error, "sqlite_errorcode", None)
        if self._query_only and code == sqlite3.SQLITE_READONLY:
            return Internal(f"A unit that may only read ran {name}, which writes.", "Report this with the log.")
        return translated(error, name)


@contextmanager
def _translation(name: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise translated(error, name) from error
