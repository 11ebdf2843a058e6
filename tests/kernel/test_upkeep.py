"""The operator's calls about the store: erasing, compacting, copying, while the log stays valid."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from aos_mcp.abi.capability import CallerKind
from aos_mcp.abi.errors import AosError, Conflict, Invalid, NotFound, Unavailable
from aos_mcp.hardware import SystemClock
from aos_mcp.storage import backup
from aos_mcp.storage.sqlite import open_sqlite
from aos_mcp.testing.kernels import HOST, TestKernel, kernel_on
from aos_mcp.testing.model import calls, says
from tests.kernel.stage import DEADLINE_S, ended, models

OPERATOR = replace(HOST, kind=CallerKind.OPERATOR)
WORD = "xylophone"


async def ran(k: TestKernel, task: str) -> Any:
    return await ended(k, (await k.call("spawn_agent", task=task)).pid)


def script() -> Any:
    return models(
        calls(("page_out", {"content": f"about a {WORD}"}), ("send_message", {"to": "host", "text": WORD}), key="a"),
        says(f"the {WORD} is found"),
    )


def bytes_of(home: Path) -> bytes:
    return b"".join(path.read_bytes() for path in home.glob("kernel.db*"))


async def test_an_agents_words_are_erased_and_the_log_and_its_digests_stay_valid(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, script()) as k:
        with anyio.fail_after(DEADLINE_S):
            agent = await ran(k, f"find the {WORD}")
            await k.call("checkpoint", pid=agent.pid)
            pages = (await k.call("read_context", pid=agent.pid)).pages
            erased = await k.call("erase_payloads", OPERATOR, target=agent.pid)
            assert erased.erased > 5
            with pytest.raises(NotFound, match="was erased at"):
                await k.call("page_in", page_id=pages[-1].page_id)
            assert (await k.call("search_pages", query=WORD)).hits == []
            shown = (await k.call("list_agents")).agents[0]
            assert (shown.exit_code, shown.pid) == ("done", agent.pid)
            assert (await k.call("wait_agent", pids=[agent.pid])).agents[0].result is None
            log = await k.call("read_audit", verify=True, limit=200)
            assert log.verified.ok
            assert "erase_payloads" in {row.call for row in log.records}
            again = await k.call("erase_payloads", OPERATOR, target=agent.pid)
            assert again.erased == 0
            await k.call("compact_store", OPERATOR)
    stored = bytes_of(tmp_path)
    assert f"the {WORD} is found".encode() not in stored


async def test_what_a_fork_shares_stays_and_is_counted(tmp_path: Path) -> None:
    first = (says("a first answer of its own"), says("a second answer"))
    async with kernel_on(tmp_path, models(*first)) as k:
        with anyio.fail_after(DEADLINE_S):
            agent = await ran(k, "a task that is shared")
            saved = await k.call("checkpoint", pid=agent.pid)
            forked = await ended(k, (await k.call("restore", checkpoint_id=saved.checkpoint_id)).pid)
            erased = await k.call("erase_payloads", OPERATOR, target=agent.pid)
            assert erased.shared >= 2
            page = (await k.call("read_context", pid=forked.pid)).pages[0]
            assert await k.call("page_in", page_id=page.page_id)
            assert (await k.call("wait_agent", pids=[forked.pid])).agents[0].result == "a second answer"


async def test_one_page_is_erased_and_others_of_its_agent_are_not(tmp_path: Path) -> None:
    script_ = models(
        calls(("page_out", {"content": "the one"}), ("page_out", {"content": "the other"}), key="a"), says("done")
    )
    async with kernel_on(tmp_path, script_) as k:
        with anyio.fail_after(DEADLINE_S):
            await ran(k, "x")
            found = {hit.title: hit.page_id for hit in (await k.call("search_pages", query="the one other")).hits}
            erased = await k.call("erase_payloads", OPERATOR, target=found["the one"])
            assert erased.erased == 1
            with pytest.raises(NotFound, match="erased"):
                await k.call("page_in", page_id=found["the one"])
            assert (await k.call("page_in", page_id=found["the other"])).content == "the other"


async def test_only_what_has_ended_is_erased_and_only_by_the_operator(tmp_path: Path) -> None:
    busy = anyio.Event()
    async with kernel_on(tmp_path, models(says("done"), gate=busy)) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="x")).pid
            with pytest.raises(Conflict, match="has not ended"):
                await k.call("erase_payloads", OPERATOR, target=pid)
            with pytest.raises(NotFound):
                await k.call("erase_payloads", target=pid)
            with pytest.raises(NotFound):
                await k.call("erase_payloads", OPERATOR, target="p_nobody")
            with pytest.raises(NotFound):
                await k.call("erase_payloads", OPERATOR, target="pg_nothing")
            busy.set()


async def test_words_said_again_by_another_are_kept_again(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, script()) as k:
        with anyio.fail_after(DEADLINE_S):
            first = await ran(k, "find it")
            await k.call("erase_payloads", OPERATOR, target=first.pid)
            second = await ran(k, "find it")
            assert second.result == f"the {WORD} is found"


async def test_payloads_that_nothing_names_are_dropped_and_saved_files_are_not(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, script()) as k:
        with anyio.fail_after(DEADLINE_S):
            agent = await ran(k, "x")
            folder = tmp_path / "workspaces" / (await k.call("read_process", pid=agent.pid)).workspace
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "kept.txt").write_text("kept by a checkpoint")
            saved = await k.call("checkpoint", pid=agent.pid)
            await k.machine.store.write(lambda tx: tx.payload_put(b"named by nothing" * 9))
            assert (await k.call("compact_store", OPERATOR)).dropped == 1
            assert (await k.call("compact_store", OPERATOR)).dropped == 0
            restored = await k.call("restore", checkpoint_id=saved.checkpoint_id)
            assert restored.pid
            with k.machine.keeping(agent.pid), pytest.raises(Conflict, match="checkpoint"):
                await k.call("compact_store", OPERATOR)
            stats = await k.call("read_store", OPERATOR)
            assert stats.processes == 2
            assert stats.file_bytes > stats.payload_bytes > 0


async def test_a_backup_of_a_running_kernel_is_a_whole_store_and_takes_the_place_of_another(tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    async with kernel_on(tmp_path, script()) as k:
        with anyio.fail_after(DEADLINE_S):
            agent = await ran(k, "x")
            made = await k.call("backup_store", OPERATOR, path=str(copy))
            assert made.size_bytes == copy.stat().st_size
            assert copy.stat().st_mode & 0o777 == 0o600
            with pytest.raises(Conflict):
                await k.call("backup_store", OPERATOR, path=str(copy))
            with pytest.raises(Unavailable):
                await k.call("backup_store", OPERATOR, path=str(tmp_path / "no" / "such" / "folder"))
            with pytest.raises(Invalid):
                await k.call("backup_store", OPERATOR, path="here.db")
            await ran(k, "something after the backup")
    kept = backup.restore(copy, tmp_path / "kernel.db", "then")
    assert kept == tmp_path / "kernel.db.before-then"
    async with kernel_on(tmp_path, script()) as k:
        with anyio.fail_after(DEADLINE_S):
            assert [row.pid for row in (await k.call("list_agents")).agents] == [agent.pid]
            assert await ran(k, "and it goes on")
    async with open_sqlite(kept, SystemClock()) as old:
        assert len(await old.read(lambda tx: tx.process_list(limit=9))) == 2


@pytest.mark.parametrize("harm", ["missing", "not a store", "damaged", "newer"])
async def test_a_backup_that_is_not_whole_changes_nothing(tmp_path: Path, harm: str) -> None:
    async with kernel_on(tmp_path, script()) as k:
        with anyio.fail_after(DEADLINE_S):
            await ran(k, "x")
            await k.call("backup_store", OPERATOR, path=str(tmp_path / "copy.db"))
    copy = tmp_path / "copy.db"
    if harm == "missing":
        copy.unlink()
    elif harm == "not a store":
        copy.write_bytes(b"no store at all" * 1_000)
    elif harm == "damaged":
        whole = bytearray(copy.read_bytes())
        whole[8_192:20_480] = bytes(12_288)
        copy.write_bytes(whole)
    else:
        with sqlite3.connect(copy) as file:
            file.execute("INSERT INTO migration (name, checksum, applied_at) VALUES ('9999_future', 'x', 0)")
        file.close()
    before = bytes_of(tmp_path)
    with pytest.raises(AosError):
        backup.restore(copy, tmp_path / "kernel.db", "then")
    assert bytes_of(tmp_path) == before
    assert not any(name.startswith("kernel.db.") for name in os.listdir(tmp_path))


async def test_what_was_erased_is_out_of_search_though_a_copy_of_it_stood_in_another_window(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, models(calls(("wait_agent", {"timeout_s": 0.1})), says("so be it"))) as k:
        with anyio.fail_after(DEADLINE_S):
            for number in range(12):
                await k.call("page_out", content=f"the walrus keeper {number} " + "filler words " * 50)
            agent = (await k.call("spawn_agent", task="look after the sea")).pid
            shared = (await k.call("page_out", content="walrus shared " * 30)).page_id
            for _ in range(3):
                with suppress(Conflict):  # it has ended meanwhile
                    await k.call("page_in", page_id=shared, pid=agent)
            await ended(k, agent)
            await k.call("erase_payloads", OPERATOR, target=agent)
            assert len((await k.call("search_pages", query="walrus", k=20)).hits) == 13


async def test_a_large_page_is_erased_with_its_pieces(tmp_path: Path) -> None:
    large = "\n".join(f"line {number} of the secretword log" for number in range(3_000))
    script = (calls(("page_out", {"content": large, "title": "a log"})), says("kept"))
    async with kernel_on(tmp_path, models(*script)) as k:
        with anyio.fail_after(DEADLINE_S):
            agent = await ran(k, "keep it")
            rows = (await k.call("read_context", pid=agent.pid)).pages
            whole = next(row for row in rows if row.title == "a log")
            erased = await k.call("erase_payloads", OPERATOR, target=whole.page_id)
            assert (erased.erased, erased.shared) == (sum(row.title.startswith("a log") for row in rows), 0)
            hits = (await k.call("search_pages", query="secretword", k=20)).hits
            assert not [hit for hit in hits if hit.page_id.startswith(whole.page_id)]
            with pytest.raises(NotFound, match="was erased"):
                await k.call("page_in", page_id=f"{whole.page_id}00001")


async def test_erased_words_are_in_no_file_once_the_store_is_compacted(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, models(says("my password is hunterzwei"))) as k:
        with anyio.fail_after(DEADLINE_S):
            agent = await ran(k, "the passphrase is correcthorsebattery")
            await k.call("erase_payloads", OPERATOR, target=agent.pid)
            await k.call("compact_store", OPERATOR)
    assert not {word for word in (b"hunterzwei", b"correcthorse") if word in page_index_of(tmp_path)}


def page_index_of(home: Path) -> bytes:
    with closing(sqlite3.connect(home / "kernel.db")) as store:
        parts = store.execute("SELECT block FROM page_text_data").fetchall()
        titles = store.execute("SELECT title FROM page UNION SELECT title FROM page_version").fetchall()
    return b"".join(block for (block,) in parts) + "".join(title for (title,) in titles).encode()
