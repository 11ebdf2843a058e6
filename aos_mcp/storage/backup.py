"""A backup put back in a store's place, while no kernel runs.

Promises that nothing is replaced but by a copy that was checked, and that what is replaced is kept beside it. Backups
are made by `SqliteConnection.copy_to`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from aos_mcp.abi.errors import NotFound, Unavailable
from aos_mcp.storage.queries import load_queries
from aos_mcp.storage.schema import load_migrations, missing_migrations
from aos_mcp.storage.sqlite import MIGRATIONS, QUERIES
from aos_mcp.storage.sqlite_connection import SqliteConnection

LOGS = ("-wal", "-shm")


def check(path: Path) -> None:
    """Check that a file is a whole store that this release can open. Looking at one writes beside it.

    Raises:
        NotFound: there is no such file.
        Unavailable: it is damaged, no store, or of a newer release.
    """
    if not path.is_file():
        raise NotFound(f"There is no file {path}.", "Name a file that `aos store backup` made.")
    connection = SqliteConnection(path, load_queries(QUERIES), query_only=False)
    try:
        found = connection.all("store_check", {})
        if [row["integrity_check"] for row in found] != ["ok"]:
            raise Unavailable(f"{path} is damaged: {found[0]['integrity_check']}.", "Use another backup.")
        missing_migrations(connection, load_migrations(MIGRATIONS))
    finally:
        connection.close()


def restore(backup: Path, store: Path, now: str, *, beside: Sequence[Path] = ()) -> Path | None:
    """Put a backup in a store's place; return where the store that was there is kept, None where there was none.

    The caller has made sure that no kernel runs. `now` names what is kept. Files `beside` the store speak of the one
    that is replaced: they are set aside with it.

    Raises:
        NotFound, Unavailable: as `check`; nothing was changed.
    """
    fresh = store.with_name(f"{store.name}.restoring")
    if not backup.is_file():
        raise NotFound(f"There is no file {backup}.", "Name a file that `aos store backup` made.")
    try:
        _copy(backup, fresh)
        check(fresh)
        kept = store.with_name(f"{store.name}.before-{now}") if store.exists() else None
        if kept is not None:
            for end in ("", *LOGS):
                part = store.with_name(store.name + end)
                if part.exists():
                    os.replace(part, kept.with_name(kept.name + end))
        os.replace(fresh, store)
        for path in beside:
            if path.exists():
                os.replace(path, path.with_name(f"{path.name}.before-{now}"))
        _flush(store.parent)
    except OSError as error:
        raise Unavailable(f"The backup could not be put back: {error.strerror}.", "Nothing was lost.") from error
    finally:
        for end in ("", *LOGS):
            fresh.with_name(fresh.name + end).unlink(missing_ok=True)
    return kept


def _copy(source: Path, target: Path) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as out, source.open("rb") as file:
        shutil.copyfileobj(file, out)
        out.flush()
        os.fsync(out.fileno())


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
