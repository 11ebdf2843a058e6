"""A program that writes to a store and says what was acknowledged, one number a line; for tests that end it harshly.

Usage: writer_program.py PATH keep|flush|fill|squeeze
"""

from __future__ import annotations

import itertools
import os
import resource
import sys
from functools import partial
from pathlib import Path

import anyio

from aos_mcp.abi.errors import Unavailable
from aos_mcp.hardware import SystemClock
from aos_mcp.ports import Store, Transaction
from aos_mcp.storage.sqlite import open_sqlite

WRITERS = 8
SQUEEZED_BYTES = 2 * 2**20
BODY_BYTES = 50_000


def _say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def _unit(tx: Transaction, number: int, body: bytes) -> None:
    # Two rows that belong together: after a crash there must be both or neither.
    tx.fact_put(f"first-{number}", tx.payload_put(body))
    tx.fact_put(f"second-{number}", "yes")


async def _write_for_ever(store: Store, *, flush: bool) -> None:
    numbers = itertools.count()

    async def writer() -> None:
        for number in numbers:
            await store.write(partial(_unit, number=number, body=b"%d" % number), flush=flush)
            _say(str(number))

    async with anyio.create_task_group() as tasks:
        for _ in range(WRITERS):
            tasks.start_soon(writer)


async def _write_until_refused(store: Store) -> None:
    for number in itertools.count():
        try:
            await store.write(partial(_unit, number=number, body=os.urandom(BODY_BYTES)))
        except Unavailable as error:
            _say(f"refused {error.hint}")
            return
        _say(str(number))


async def main(path: Path, how: str) -> None:
    async with open_sqlite(path, SystemClock()) as store:
        if how in {"keep", "flush"}:
            await _write_for_ever(store, flush=how == "flush")
            return
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        if how == "squeeze":
            resource.setrlimit(resource.RLIMIT_FSIZE, (SQUEEZED_BYTES, hard))
        await _write_until_refused(store)
        if how == "squeeze":
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            await store.write(lambda tx: tx.fact_put("after", "yes"))
            _say("wrote again")
        kept = await store.read(lambda tx: sum(tx.fact_get(f"second-{n}") is not None for n in range(100_000)))
        _say(f"kept {kept}")


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), sys.argv[2])
