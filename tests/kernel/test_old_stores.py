"""A store that an older release wrote opens under this one, and everything in it goes on from where it stood."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import anyio

from aos_mcp.abi.completion import Prompt, Reply
from aos_mcp.audit.verify import verify
from aos_mcp.storage.queries import load_queries
from aos_mcp.storage.schema import load_migrations
from aos_mcp.storage.sqlite import MIGRATIONS, QUERIES
from aos_mcp.testing.kernels import TestKernel, kernel_on
from aos_mcp.testing.model import says
from tests.kernel.stage import DEADLINE_S, ended, models

STORE = Path(__file__).parent / "stores" / "0002.sql"
"""Made by the release with two migrations: one agent that ended, its checkpoint with a file, one that waited."""
HAD = 2


def older_store(home: Path) -> None:
    """Put a store into `home` as that release left it."""
    with closing(sqlite3.connect(home / "kernel.db")) as database:
        database.execute(load_queries(QUERIES)["migration_create"])
        for migration in load_migrations(MIGRATIONS)[:HAD]:
            for statement in migration.statements:
                database.execute(statement)
            row = (migration.name, migration.checksum, 0.0)
            database.execute("INSERT INTO migration (name, checksum, applied_at) VALUES (?, ?, ?)", row)
        database.executescript(STORE.read_text("utf-8"))


async def named(k: TestKernel, name: str) -> str:
    rows = (await k.call("list_agents")).agents
    return str(next(row.pid for row in rows if row.name == name))


async def test_an_agent_of_an_older_store_goes_on_with_its_mail(tmp_path: Path) -> None:
    older_store(tmp_path)

    def answer(prompt: Prompt) -> Reply:
        return says("\n".join(turn.text for turn in prompt.turns))

    async with kernel_on(tmp_path, models(answer)) as k:
        with anyio.fail_after(DEADLINE_S):
            waiting = await ended(k, await named(k, "waiting"))
            found = await k.call("search_pages", query="owl hunting")
            page = await k.call("page_in", page_id=found.hits[0].page_id)
            records = await k.machine.store.read(lambda tx: tx.audit_list(after=0, limit=1_000))
    assert "wait for me" in waiting.result
    assert "hello" in waiting.result
    assert page.content == "An owl hunts at night."
    assert verify(records).ok


async def test_a_checkpoint_of_an_older_store_is_restored_with_its_pages_and_files(tmp_path: Path) -> None:
    older_store(tmp_path)
    script = (says("never"), says("never"), lambda prompt: says(f"{len(prompt.turns)} turns"))
    async with kernel_on(tmp_path, models(*script)) as k:
        with anyio.fail_after(DEADLINE_S):
            builder = await named(k, "builder")
            process = await k.call("read_process", pid=builder)
            k.machine.stopping = True
            fork = (await k.call("restore", checkpoint_id=process.checkpoints[0])).pid
            again = await k.call("checkpoint", pid=fork)
            theirs = (await k.call("read_process", pid=fork)).workspace
            files = k.machine.workspaces.read(theirs, "out.txt", limit=99)
            mine = [page.title for page in (await k.call("read_context", pid=builder)).pages]
            copied = [page.title for page in (await k.call("read_context", pid=fork)).pages]
            second = (await k.call("restore", checkpoint_id=again.checkpoint_id)).pid
            shared = [page.title for page in (await k.call("read_context", pid=second)).pages]
    assert files == b"as built\n"
    assert sorted(copied) == sorted(mine)
    assert shared == copied
