"""Migrations: numbered, forward only, recorded in the store by name and checksum.

It owns which migrations a store has had and promises that a store is only opened by a release that knows all of them.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aos_mcp.abi.errors import Unavailable
from aos_mcp.storage.connection import Connection


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    name: str
    checksum: str
    statements: tuple[str, ...]


def load_migrations(folder: Path) -> tuple[Migration, ...]:
    """Return the folder's migrations in order."""
    return tuple(_load(path) for path in sorted(folder.glob("*.sql")))


def missing_migrations(connection: Connection, known: tuple[Migration, ...]) -> tuple[Migration, ...]:
    """Return the known migrations that the store has not had. Makes the record of them when the store is empty.

    Raises:
        Unavailable: the file is not a store, it was made by a newer release, or a migration it had has changed since.
    """
    tables = connection.one("migration_tables", {})
    assert tables is not None, "an aggregate is one row"
    if tables["n"] and not tables["recorded"]:
        raise Unavailable(
            "The database file belongs to another program: it has tables, and none is a store's.",
            "Point AOS_HOME or AOS_DATABASE_URL somewhere else.",
        )
    connection.execute("migration_create", {})
    applied = {row["name"]: row["checksum"] for row in connection.all("migration_list", {})}
    checksums = {migration.name: migration.checksum for migration in known}
    newer = sorted(applied.keys() - checksums.keys())
    if newer:
        raise Unavailable(
            f"The store was written by a newer release: it has had migration {newer[0]}, which this one does not know.",
            "Upgrade aos-mcp, or point AOS_HOME at another store.",
        )
    changed = sorted(name for name, checksum in applied.items() if checksum != checksums[name])
    if changed:
        raise Unavailable(
            f"The store has had another version of migration {changed[0]} than this release holds.",
            "Install the release that made the store, or restore the store from a backup.",
        )
    return tuple(migration for migration in known if migration.name not in applied)


def _load(path: Path) -> Migration:
    text = path.read_text("utf-8")
    checksum = hashlib.sha256(text.encode()).hexdigest()
    return Migration(path.stem, checksum, tuple(_statements(text)))


def _statements(text: str) -> Iterator[str]:
    pending = ""
    for line in text.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending.strip()
            pending = ""
    assert not pending.strip(), "a migration ends with a complete statement"
