"""Simulated time: it jumps, threads take turns, and a run that could never end says so."""

from __future__ import annotations

import random

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from aos_mcp.testing.virtual import Stuck, VirtualClock, run_virtually

EPOCH = 1_700_000_000.0
YEAR_S = 31_536_000.0


def told(seed: int) -> list[tuple[int, float]]:
    """Return in which order and when five threads that ask the loop for something were done."""
    done: list[tuple[int, float]] = []

    async def main(clock: VirtualClock) -> None:
        async def one(number: int) -> None:
            await anyio.to_thread.run_sync(anyio.from_thread.run, anyio.sleep, 1.0)
            done.append((number, clock.now()))

        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(one, number)

    run_virtually(main, epoch=EPOCH, hop_s=random.Random(seed).random)
    return done


def test_a_year_passes_at_once() -> None:
    async def main(clock: VirtualClock) -> float:
        with anyio.move_on_after(YEAR_S):
            await anyio.sleep_forever()
        return clock.now()

    assert run_virtually(main, epoch=EPOCH, hop_s=lambda: 0.0) == EPOCH + YEAR_S


def test_threads_take_turns_in_an_order_that_follows_from_the_seed() -> None:
    assert told(1) == told(1)
    assert sorted(number for number, _ in told(1)) == list(range(5))
    assert [number for number, _ in told(1)] != [number for number, _ in told(2)]


def test_a_run_in_which_everybody_waits_says_so() -> None:
    async def main(clock: VirtualClock) -> None:
        await anyio.Event().wait()

    with pytest.raises(Stuck):
        run_virtually(main, epoch=EPOCH, hop_s=lambda: 0.0)
