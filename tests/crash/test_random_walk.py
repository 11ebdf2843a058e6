"""Hours of hosts who do anything and kernels that die at any moment, simulated; every failure replays by its seed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.crash.walk import LIVES, Walk, walk

ROOT = Path(__file__).parents[2]
WALK = Path(__file__).with_name("walk.py")
SEEDS = (11, 12, 13)
SOAK_SEEDS = 200


@contextmanager
def replayable(seed: int, lives: int) -> Iterator[None]:
    """Say of a failure how to have it again."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"again: PYTHONPATH=. python tests/crash/walk.py NEW_FOLDER {seed} {lives}")
        raise


def walked(root: Path, seed: int, lives: int = LIVES) -> Walk:
    with replayable(seed, lives):
        return walk(root, seed, lives)


@pytest.mark.crash
@pytest.mark.timeout(200)
@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_callers_do_and_whenever_kernels_die_the_books_agree(homes: Path, seed: int) -> None:
    one = walked(homes, seed)
    assert one.deaths > LIVES // 2
    assert one.world.ledger, "nothing was done that could have been done twice"


@pytest.mark.crash
@pytest.mark.timeout(200)
def test_one_seed_is_one_walk_to_the_last_byte_on_record(homes: Path) -> None:
    here = walked(homes, SEEDS[0], 2)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "1"}
    command = [sys.executable, str(WALK), str(homes / "again"), str(SEEDS[0]), "2"]
    again = subprocess.run(command, env=env, capture_output=True, text=True, timeout=190, check=True)
    assert again.stdout.splitlines()[1:] == here.digests
    assert walked(homes, SEEDS[1], 2).digests != here.digests


@pytest.mark.soak
@pytest.mark.timeout(7_200)
def test_hours_of_walks_from_fresh_seeds_leave_books_that_agree(homes: Path) -> None:
    first = int(os.environ.get("AOS_WALK_SEED", time.time_ns() % 10**9))
    walks = []
    for seed in range(first, first + SOAK_SEEDS):
        print(f"seed {seed}", flush=True)
        walks.append(walked(homes, seed))
    hours = sum(one.simulated_s for one in walks) / 3_600
    print(f"{hours:.1f} simulated hours, {sum(one.deaths for one in walks)} deaths")
    assert hours > 20
