"""What the SQLite driver promises beyond the contract: the file, two programs on it, damage, and growth."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from operator import methodcaller
from pathlib import Path

import anyio
import pytest

from aos_mcp.abi.errors import NotFound, Unavailable
from aos_mcp.abi.handle import Pid
from aos_mcp.abi.journal import StepState
from aos_mcp.abi.limits import (
    STORE_BRIEF_COMMITS,
    STORE_BRIEF_GROUP_MAX,
    STORE_GROUP_MAX,
    STORE_READERS,
    STORE_STALL_S,
    STORE_STALLED_S,
)
from aos_mcp.abi.page import PageKind
from aos_mcp.ports import Transaction
from aos_mcp.storage.connection import DeviceFailed
from aos_mcp.storage.sqlite import open_sqlite
from aos_mcp.storage.sqlite_connection import SqliteConnection
from aos_mcp.testing.clock import FakeClock
from aos_mcp.testing.store_record_checks import OpenStore, refused
from aos_mcp.testing.store_samples import a_head, a_page, a_process, a_record, a_step, an_entry

PAYLOAD_BYTES = 5_000
STEPS = 200
GROWTH_MAX = 1.5
LOG_BYTES_MAX = 40 * 2**20
"""Sixteen megabytes, and what is written until a thread looks at it again."""


@contextmanager
def _database(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        yield database


class FailsToCommit(SqliteConnection):
    """A connection whose device fails at the next commit, once it is told to."""

    fails = False

    def _control(self, name: str) -> None:
        if name == "commit" and FailsToCommit.fails:
            FailsToCommit.fails = False
            raise DeviceFailed("It did not reach the medium.", "Try again.")
        super()._control(name)


async def test_after_a_commit_that_failed_the_log_is_begun_anew_so_that_nothing_stands_behind_a_hole(
    path: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "without-its-log.db"
    async with open_sqlite(path, FakeClock(), connect=FailsToCommit) as store:
        await store.write(lambda tx: tx.fact_put("a", "before"))
        FailsToCommit.fails = True
        with refused(Unavailable):
            await store.write(lambda tx: tx.fact_put("b", "never"), flush=True)
        await store.write(lambda tx: tx.fact_put("c", "after"), flush=True)
        await anyio.to_thread.run_sync(shutil.copyfile, path, copy)
        assert await store.read(lambda tx: [tx.fact_get(name) for name in "abc"]) == ["before", None, "after"]
    with _database(copy) as database:
        assert database.execute("SELECT name, value FROM fact").fetchall() == [("a", "before")]


async def test_the_file_and_its_directory_are_for_their_user_alone(path: Path, open_store: OpenStore) -> None:
    async with open_store() as store:
        await store.write(lambda tx: tx.fact_put("a", "b"))
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {"kernel.db": 0o600, "kernel.db-wal": 0o600, "kernel.db-shm": 0o600}
    assert [file.name for file in path.parent.iterdir()] == ["kernel.db"], "a closed store is one file"


async def test_a_directory_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", "utf-8")
    with refused(Unavailable):
        async with open_sqlite(tmp_path / "file" / "kernel.db", FakeClock()):
            pass


async def test_a_store_of_a_newer_release_is_refused_untouched(path: Path, open_store: OpenStore) -> None:
    async with open_store():
        pass
    with _database(path) as database:
        database.execute("INSERT INTO migration VALUES ('0099_future', 'x', 0.0)")
    before = await anyio.Path(path).read_bytes()
    with pytest.raises(Unavailable, match="newer release.*0099_future"):
        async with open_store():
            pass
    assert await anyio.Path(path).read_bytes() == before


async def test_a_migration_that_changed_since_is_refused(path: Path, open_store: OpenStore) -> None:
    async with open_store():
        pass
    with _database(path) as database:
        database.execute("UPDATE migration SET checksum = 'other'")
    with pytest.raises(Unavailable, match="another version of migration 0001_schema"):
        async with open_store():
            pass


async def test_the_database_of_another_program_is_refused_untouched(path: Path, open_store: OpenStore) -> None:
    path.parent.mkdir()
    with _database(path) as database:
        database.execute("CREATE TABLE theirs (x)")
    with pytest.raises(Unavailable, match="another program"):
        async with open_store():
            pass
    with _database(path) as database:
        assert database.execute("SELECT name FROM sqlite_schema").fetchall() == [("theirs",)]


async def test_a_file_that_is_no_database_is_refused(path: Path, open_store: OpenStore) -> None:
    path.parent.mkdir()
    await anyio.Path(path).write_bytes(b"not a database, but long enough to be taken for one" * 100)
    with pytest.raises(Unavailable, match="damaged"):
        async with open_store():
            pass


@pytest.mark.parametrize(
    "damage",
    ["UPDATE payload SET body = zeroblob(length(body))", "UPDATE payload SET body = substr(body, 1, 40)"],
    ids=["overwritten", "cut"],
)
async def test_a_damaged_payload_is_not_returned(path: Path, open_store: OpenStore, damage: str) -> None:
    async with open_store() as store:
        plain = await store.write(lambda tx: tx.payload_put(os.urandom(100)))
        packed = await store.write(lambda tx: tx.payload_put(b"again and " * 1_000))
        with _database(path) as database:
            database.execute(damage)
        for digest in (plain, packed):
            with pytest.raises(Unavailable, match="damaged.*backup"):
                await store.read(methodcaller("payload_get", digest))


async def test_two_stores_on_one_file_take_turns(open_store: OpenStore) -> None:
    def count(tx: Transaction) -> None:
        row = tx.process_get(Pid("p_1"))
        assert row is not None
        tx.process_put(replace(row, step=row.step + 1))

    async with open_store() as first, open_store() as second:
        await first.write(lambda tx: tx.process_insert(a_process("p_1")))
        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(first.write, count)
                tasks.start_soon(second.write, count)
        row = await second.read(lambda tx: tx.process_get(Pid("p_1")))
        assert row is not None
        assert row.step == 200


class Hurried(SqliteConnection):
    """A connection that waits no more than ten milliseconds for another program."""

    def __init__(self, path: Path, queries: Mapping[str, str], *, query_only: bool) -> None:
        super().__init__(path, {**queries, "connection_wait": "PRAGMA busy_timeout = 10"}, query_only=query_only)


@pytest.mark.parametrize("brief", [False, True], ids=["on a thread", "brief"])
async def test_a_file_that_another_program_keeps_locked_is_reported_by_code(path: Path, *, brief: bool) -> None:
    async with open_sqlite(path, FakeClock(), connect=Hurried) as store:
        with _database(path) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(Unavailable, match="Another program holds the store"):
                await store.write(lambda tx: tx.fact_put("a", "b"), brief=brief)
            assert await store.read(lambda tx: tx.fact_get("a"), brief=brief) is None, "readers do not mind"
            other.execute("ROLLBACK")
        await store.write(lambda tx: tx.fact_put("a", "b"), brief=brief)
        assert await store.read(lambda tx: tx.fact_get("a"), brief=brief) == "b"


async def test_more_callers_than_one_group_or_all_readers_hold_are_all_served(open_store: OpenStore) -> None:
    callers = STORE_GROUP_MAX * 2 + STORE_READERS

    def put(number: int) -> Callable[[Transaction], None]:
        return lambda tx: tx.fact_put(str(number), "yes")

    async with open_store() as store:
        async with anyio.create_task_group() as tasks:
            for number in range(callers):
                tasks.start_soon(store.write, put(number))
                tasks.start_soon(store.read, lambda tx: tx.fact_get("0"))
        assert await store.read(lambda tx: sum(tx.fact_get(str(n)) == "yes" for n in range(callers))) == callers


def _find(tx: Transaction, name: str) -> str:
    found = tx.fact_get(name)
    if found is None:
        raise NotFound(f"There is no {name}.", "Look elsewhere.")
    return found


def _thread(tx: Transaction) -> int:
    tx.fact_get("a")
    return threading.get_ident()


async def test_brief_work_runs_in_the_thread_of_the_loop_and_other_work_does_not(open_store: OpenStore) -> None:
    here = threading.get_ident()
    async with open_store() as store:
        assert await store.write(_thread, brief=True) == here
        assert await store.read(_thread, brief=True) == here
        assert await store.write(_thread) != here
        assert await store.read(_thread) != here
        assert await store.write(_thread, brief=True, flush=True) != here, "a flush waits for the medium"


async def test_brief_work_that_fails_is_undone_alone(open_store: OpenStore) -> None:
    def put(tx: Transaction, name: str) -> None:
        tx.fact_put(name, "yes")
        if name == "7":
            raise KeyError(name)

    failed: list[tuple[object, ...]] = []

    async def write(name: str) -> None:
        try:
            await store.write(partial(put, name=name), brief=True)
        except KeyError as error:
            failed.append(error.args)

    async with open_store() as store:
        async with anyio.create_task_group() as tasks:
            for number in range(STORE_BRIEF_GROUP_MAX + 10):
                tasks.start_soon(write, str(number))
        there = await store.read(lambda tx: [n for n in range(STORE_BRIEF_GROUP_MAX + 10) if tx.fact_get(str(n))])
        with refused(NotFound):
            await store.read(partial(_find, name="nothing"), brief=True)
    assert failed == [("7",)]
    assert there == [n for n in range(STORE_BRIEF_GROUP_MAX + 10) if n != 7]


async def test_while_another_program_holds_the_file_brief_work_waits_for_it_and_the_loop_does_not(
    path: Path, open_store: OpenStore
) -> None:
    async with open_store() as store:
        with _database(path) as other:
            other.execute("BEGIN IMMEDIATE")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(store.write, lambda tx: tx.fact_put("a", "b"), brief=True))
                await anyio.sleep(0.05)  # the loop goes on while a thread waits for the lock
                other.execute("ROLLBACK")
        assert await store.read(lambda tx: tx.fact_get("a"), brief=True) == "b"


@pytest.mark.parametrize("kind", ["write", "read"])
async def test_after_brief_work_that_was_slow_threads_do_it_for_a_while(path: Path, kind: str) -> None:
    clock, here = FakeClock(), threading.get_ident()

    def slow(tx: Transaction) -> None:
        tx.fact_get("a")
        clock.advance(2 * STORE_STALL_S)

    async with open_sqlite(path, clock) as store:
        await getattr(store, kind)(slow, brief=True)
        assert await store.write(_thread, brief=True) != here
        assert await store.read(_thread, brief=True) != here
        clock.advance(STORE_STALLED_S)
        assert await store.write(_thread, brief=True) == here
        assert await store.read(_thread, brief=True) == here


async def test_the_log_is_copied_into_the_file_though_all_work_is_brief(path: Path, open_store: OpenStore) -> None:
    log = path.with_name(path.name + "-wal")
    async with open_store() as store:
        sizes = []
        for number in range(5 * STORE_BRIEF_COMMITS):
            await store.write(partial(_put_much, number=number), brief=True)
            sizes.append(log.stat().st_size)
    assert max(sizes) < LOG_BYTES_MAX, "a hundred megabytes went through it"


def _put_much(tx: Transaction, number: int) -> None:
    tx.payload_put(os.urandom(LOG_BYTES_MAX // STORE_BRIEF_COMMITS // 2) + str(number).encode())


async def test_a_brief_commit_that_failed_is_told_and_the_log_is_begun_anew(path: Path) -> None:
    async with open_sqlite(path, FakeClock(), connect=FailsToCommit) as store:
        FailsToCommit.fails = True
        with refused(Unavailable):
            await store.write(lambda tx: tx.fact_put("b", "never"), brief=True)
        assert await store.write(_thread, brief=True) != threading.get_ident(), "that waits for the medium"
        assert await store.write(_thread, brief=True) == threading.get_ident()
        assert await store.read(lambda tx: tx.fact_get("b"), brief=True) is None


async def test_brief_work_goes_on_while_the_file_is_compacted(path: Path) -> None:
    async with open_sqlite(path, FakeClock()) as store:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(store.compact)
            for number in range(20):
                tasks.start_soon(partial(store.write, partial(_put_much, number=number), brief=True))
        await store.compact()


async def test_a_closed_store_does_no_brief_work(open_store: OpenStore) -> None:
    async with open_store() as store:
        pass
    with refused(Unavailable):
        await store.write(_thread, brief=True)
    with refused(Unavailable):
        await store.read(_thread, brief=True)


async def test_a_change_elsewhere_is_waited_for_by_the_clock(path: Path) -> None:
    clock = FakeClock()
    async with open_sqlite(path, clock) as store, anyio.create_task_group() as tasks:
        tasks.start_soon(store.changed, 30.0)
        await anyio.wait_all_tasks_blocked()
        clock.advance(30.0)


async def test_a_journal_takes_little_more_room_than_its_payloads(path: Path, open_store: OpenStore) -> None:
    def step(tx: Transaction, number: int) -> None:
        pid = "p_" + "a" * 26
        result = tx.payload_put(os.urandom(PAYLOAD_BYTES))
        tx.step_insert(replace(a_step(pid, number, state=StepState.DONE), result=result))
        row = tx.process_get(Pid(pid))
        assert row is not None
        tx.process_put(replace(row, step=number))

    async with open_store() as store:
        await store.write(lambda tx: tx.process_insert(a_process("p_" + "a" * 26)))
        for number in range(STEPS):
            await store.write(partial(step, number=number))
    assert _size_bytes(path) <= GROWTH_MAX * STEPS * PAYLOAD_BYTES


async def test_pages_and_audit_of_a_journal_add_little(path: Path, open_store: OpenStore) -> None:
    def step(tx: Transaction, number: int) -> None:
        pid, request = "p_" + "a" * 26, f"call_{number:024}"
        text = os.urandom(PAYLOAD_BYTES // 2).hex()
        result = tx.payload_put(text.encode())
        tx.step_insert(replace(a_step(pid, number, state=StepState.DONE, request=request), result=result))
        page = a_page(f"pg_{number:026}", pid=pid, kind=PageKind.RESULT, title="a result", digest=result)
        tx.page_insert(replace(page, request_id=request), text)
        entry = replace(an_entry("git__log", pid=pid), payload=result)
        tx.audit_stage(entry)
        (stage_id, _) = tx.audit_staged(limit=1)[0]
        record = replace(a_record(number + 1, entry), previous="0" * 64, digest="1" * 64)
        tx.audit_seal([record], stage_id, replace(a_head(number + 1), signature="s" * 88))

    async with open_store() as store:
        for number in range(STEPS):
            await store.write(partial(step, number=number))
    assert _size_bytes(path) <= GROWTH_MAX * STEPS * PAYLOAD_BYTES


def _size_bytes(path: Path) -> int:
    """Return what the closed store takes on disk; closing has emptied the log into the file."""
    return sum(file.stat().st_size for file in path.parent.iterdir())
