"""A log whose end a power cut tore: what was promised before that byte is there, and a prefix of the rest."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from aos_mcp.ports import Transaction
from aos_mcp.storage.sqlite import open_sqlite
from aos_mcp.testing.clock import FakeClock

UNITS = 24
HEADER_BYTES, FRAME_BYTES = 32, 24 + 4_096
"""Of SQLite's write-ahead log: its header, and a page with the header of its frame."""


async def written(path: Path) -> tuple[Path, list[int]]:
    """Write flushed units; return a copy as a power cut would leave it, and how long the log was at each promise."""
    log = path.with_name(path.name + "-wal")
    copy = path.with_name("copy.db")
    promised = []
    async with open_sqlite(path, FakeClock()):
        pass  # the schema is in the file itself
    async with open_sqlite(path, FakeClock()) as store:
        for number in range(UNITS):
            await store.write(lambda tx, n=number: tx.fact_put(f"unit-{n}", "x" * 900), flush=True)  # type: ignore[misc]
            promised.append(log.stat().st_size)
        shutil.copyfile(path, copy)
        shutil.copyfile(log, copy.with_name("copy.db-wal"))
    return copy, promised


async def found(path: Path) -> list[int]:
    def look(tx: Transaction) -> list[int]:
        return [number for number in range(UNITS) if tx.fact_get(f"unit-{number}") is not None]

    async with open_sqlite(path, FakeClock()) as store:
        there = await store.read(look)
        await store.write(lambda tx: tx.fact_put("after", "yes"))
    return there


@pytest.mark.crash
@pytest.mark.timeout(180)
async def test_a_log_cut_anywhere_keeps_what_was_promised_and_a_prefix_of_the_rest(path: Path) -> None:
    copy, promised = await written(path)
    whole = copy.with_name("copy.db-wal").read_bytes()
    frames = range(HEADER_BYTES, len(whole) + 1, FRAME_BYTES)
    cuts = sorted({at + off for at in frames for off in (0, 24, 2_000)} | {0, 17, len(whole) - 1, len(whole)})
    for cut in (cut for cut in cuts if cut <= len(whole)):
        torn = path.with_name("torn.db")
        shutil.copyfile(copy, torn)
        torn.with_name("torn.db-wal").write_bytes(whole[:cut])
        there = await found(torn)
        assert there == list(range(len(there))), f"cut at {cut}: a unit is there without one before it"
        assert len(there) >= sum(size <= cut for size in promised), f"cut at {cut}: a promise was not kept"


@pytest.mark.crash
async def test_a_log_with_a_flipped_byte_keeps_what_stands_before_it(path: Path) -> None:
    copy, promised = await written(path)
    whole = bytearray(copy.with_name("copy.db-wal").read_bytes())
    for at in range(HEADER_BYTES + 100, len(whole), 9_001):
        torn = path.with_name("torn.db")
        shutil.copyfile(copy, torn)
        bent = whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]
        torn.with_name("torn.db-wal").write_bytes(bent)
        there = await found(torn)
        assert there == list(range(len(there)))
        assert len(there) >= sum(size <= at for size in promised)
