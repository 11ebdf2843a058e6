"""The schema: migrations that never change, statements that Python and SQL agree on, and the enums in both."""

from __future__ import annotations

import inspect
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from enum import StrEnum
from pathlib import Path

import pytest

from aos_mcp.abi.approval import ApprovalState
from aos_mcp.abi.journal import EffectClass, StepState
from aos_mcp.abi.mount import PinState
from aos_mcp.abi.note import ChangeKind
from aos_mcp.abi.page import PageKind
from aos_mcp.abi.process import ExitCode, ProcessState, Signal
from aos_mcp.abi.scheduling import Missed
from aos_mcp.storage import backup, notes, queue, retrieval, schema, sqlite_connection, store, upkeep
from aos_mcp.storage.queries import load_queries
from aos_mcp.storage.schema import load_migrations
from aos_mcp.storage.sqlite import MIGRATIONS, QUERIES
from aos_mcp.testing.store_record_checks import OpenStore

ENUMS: dict[tuple[str, str], type[StrEnum]] = {
    ("process", "state"): ProcessState,
    ("process", "pending"): Signal,
    ("process", "exit_code"): ExitCode,
    ("step", "effect"): EffectClass,
    ("step", "state"): StepState,
    ("page", "kind"): PageKind,
    ("approval", "state"): ApprovalState,
    ("pin", "state"): PinState,
    ("note_change", "kind"): ChangeKind,
    ("schedule", "missed"): Missed,
}
"""Which column holds which enum; the schema's CHECK must list the same values."""


@pytest.fixture
def built() -> Iterator[sqlite3.Connection]:
    """A database built from nothing but the migrations."""
    with closing(sqlite3.connect(":memory:")) as database:
        for migration in load_migrations(MIGRATIONS):
            for statement in migration.statements:
                database.execute(statement)
        yield database


def _objects(database: sqlite3.Connection) -> set[tuple[str, str]]:
    found = database.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name <> 'migration'")
    return {(str(name), str(sql)) for name, sql in found}


async def test_a_store_holds_what_the_migrations_build(
    path: Path, open_store: OpenStore, built: sqlite3.Connection
) -> None:
    async with open_store():
        pass
    async with open_store():
        pass
    with closing(sqlite3.connect(path)) as database:
        assert _objects(database) == _objects(built)
        recorded = database.execute("SELECT name, checksum FROM migration ORDER BY name").fetchall()
    assert recorded == [(each.name, each.checksum) for each in load_migrations(MIGRATIONS)]


def test_migrations_are_numbered_without_a_gap() -> None:
    numbers = [int(each.name.split("_")[0]) for each in load_migrations(MIGRATIONS)]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize(("table", "column"), ENUMS)
def test_a_check_lists_the_values_of_its_enum(built: sqlite3.Connection, table: str, column: str) -> None:
    (sql,) = built.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
    listed = re.search(rf"{column} IN \(([^)]*)\)", sql)
    assert listed, f"{table}.{column} has no CHECK"
    assert set(re.findall(r"'(\w+)'", listed[1])) == {member.value for member in ENUMS[table, column]}


def test_every_check_on_names_is_held_to_an_enum(built: sqlite3.Connection) -> None:
    checked = {
        (table, column)
        for table, sql in built.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table'")
        for column in re.findall(r"CHECK \((\w+) IN \(\s*'", sql)
    }
    assert checked == set(ENUMS)


def test_python_and_sql_know_the_same_statements() -> None:
    source = "".join(
        inspect.getsource(module)
        for module in (backup, store, notes, queue, retrieval, schema, sqlite_connection, upkeep)
    )
    source += inspect.getsource(inspect.getmodule(load_queries) or store)
    source += (Path(inspect.getfile(store)).parent / "sqlite.py").read_text("utf-8")
    queries = load_queries(QUERIES)
    unused = {name for name in queries if f'"{name}"' not in source}
    assert unused == set()
    asked_for = set(re.findall(r'(?:execute|one|all|_control|_count)\(\s*"(\w+)"', source))
    assert asked_for <= queries.keys()


def test_every_statement_compiles_against_the_schema(built: sqlite3.Connection) -> None:
    built.execute("CREATE TABLE migration (name TEXT, checksum TEXT, applied_at REAL)")
    for name, sql in load_queries(QUERIES).items():
        if name.startswith(("connection_", "begin_", "commit", "rollback", "unit_")):
            continue
        parameters = dict.fromkeys(re.findall(r":(\w+)", sql))
        built.execute(f"EXPLAIN {sql}", parameters)
