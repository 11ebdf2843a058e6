"""What was acknowledged survives: the death of the program, and a disk that takes no more."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest

import aos_mcp
from aos_mcp.abi.handle import Digest
from aos_mcp.ports import Transaction
from aos_mcp.storage.sqlite import open_sqlite
from aos_mcp.testing.clock import FakeClock

PROGRAM = Path(__file__).with_name("writer_program.py")
ROOT = Path(aos_mcp.__file__).parent.parent
DEADLINE_S = 90.0
KILLS = 4
NO_BWRAP = shutil.which("bwrap") is None and "CI" not in os.environ


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


async def _killed_after(path: Path, how: str, lines: int) -> set[int]:
    """Run the program, kill it -9 once it has acknowledged `lines` units, and return all it acknowledged."""
    said = b""
    command = [sys.executable, str(PROGRAM), str(path), how]
    async with await anyio.open_process(command, env=_environment(), stderr=None) as process:
        assert process.stdout is not None
        while said.count(b"\n") < lines:
            said += await process.stdout.receive()
        process.kill()
        async for more in process.stdout:
            said += more
    return {int(line) for line in said.split(b"\n")[:-1]}


def _intact(tx: Transaction) -> set[int]:
    """Return the numbers of the units that are there, having checked that none is there by half."""
    found = set()
    for number in range(100_000):
        digest = tx.fact_get(f"first-{number}")
        assert (digest is None) == (tx.fact_get(f"second-{number}") is None), f"unit {number} is there by half"
        if digest is not None:
            assert tx.payload_get(Digest(digest)) is not None
            found.add(number)
    return found


@pytest.mark.crash
@pytest.mark.parametrize("how", ["keep", "flush"])
async def test_a_killed_program_loses_nothing_it_acknowledged(path: Path, how: str) -> None:
    with anyio.fail_after(DEADLINE_S):
        for round_ in range(KILLS):
            file = path.with_name(f"kernel-{round_}.db")
            acknowledged = await _killed_after(file, how, lines=50 + 170 * round_)
            async with open_sqlite(file, FakeClock()) as store:
                assert acknowledged <= await store.read(_intact)


def _run(command: Sequence[str]) -> list[str]:
    done = subprocess.run(
        command, env=_environment(), stdout=subprocess.PIPE, timeout=DEADLINE_S, check=True, encoding="utf-8"
    )
    return done.stdout.splitlines()


async def _refused_cleanly(said: list[str]) -> int:
    """Check what the program said about a disk that was full, and return how many units were acknowledged."""
    acknowledged = [int(line) for line in said if line.isdigit()]
    assert acknowledged, "nothing was written before the disk was full"
    assert sum(line.startswith("refused ") for line in said) == 1
    assert f"kept {len(acknowledged)}" in said, "neither more nor less than what was acknowledged"
    return len(acknowledged)


@pytest.mark.crash
async def test_a_write_beyond_the_file_limit_is_refused_and_the_store_goes_on(path: Path) -> None:
    said = await anyio.to_thread.run_sync(_run, [sys.executable, str(PROGRAM), str(path), "squeeze"])
    units = await _refused_cleanly(said)
    assert "wrote again" in said, "once there is room the same store takes writes"
    async with open_sqlite(path, FakeClock()) as store:
        assert await store.read(_intact) == set(range(units))
        assert await store.read(lambda tx: tx.fact_get("after")) == "yes"


@pytest.mark.crash
@pytest.mark.bwrap
@pytest.mark.skipif(NO_BWRAP, reason="bubblewrap is not installed")
async def test_a_full_disk_refuses_and_keeps_what_was_acknowledged() -> None:
    bwrap = ["bwrap", "--dev-bind", "/", "/", "--size", str(4 * 2**20), "--tmpfs", "/mnt"]
    said = await anyio.to_thread.run_sync(_run, [*bwrap, sys.executable, str(PROGRAM), "/mnt/kernel.db", "fill"])
    await _refused_cleanly(said)
    assert any("Free some space" in line for line in said)
