"""A kernel that dies at any moment comes back whole: effects at most once, nothing lost silently, money conserved."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.scenarios import SCENARIOS

ROOT = Path(__file__).parent.parent.parent
SWEEP = Path(__file__).with_name("sweep.py")
MEMORY = Path("/dev/shm")
SAMPLE = 160
"""Of some ten thousand moments, those that `make test` dies at; `make soak` takes all."""
SEED = 20_261_126
WALK = Path(__file__).with_name("walk.py")
WALK_LIVES = 6
BOXED = {scenario.name for scenario in SCENARIOS if scenario.sandbox != "recording"}
HERE = [s.name for s in SCENARIOS if s.name not in BOXED or shutil.which("bwrap") or "CI" in os.environ]


@pytest.fixture
def homes(tmp_path: Path) -> Iterator[Path]:
    """A folder for the lives: in memory where there is such a place, for a killed process needs no disk that lasts."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def sweep(root: Path, *what: str, timeout_s: float) -> int:
    """Run a sweep; return how many distinct moments it died at."""
    done = subprocess.run(
        [sys.executable, str(SWEEP), str(root), *what],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-6_000:]
    return int(json.loads(done.stdout.splitlines()[-1])["points"])


@pytest.mark.crash
@pytest.mark.timeout(400)
def test_a_kernel_that_dies_at_a_sampled_moment_comes_back_whole(homes: Path) -> None:
    assert sweep(homes, "sample", str(SAMPLE), str(SEED), *HERE, timeout_s=380) == SAMPLE


def walk(root: Path, seed: int, lives: int, timeout_s: float) -> str:
    done = subprocess.run(
        [sys.executable, str(WALK), str(root), str(seed), str(lives)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, f"AOS_WALK_SEED={seed}\n{done.stderr[-6_000:]}"
    return done.stdout


@pytest.mark.crash
@pytest.mark.timeout(200)
def test_whatever_callers_do_and_whenever_kernels_die_the_books_agree(homes: Path) -> None:
    seed = int(os.environ.get("AOS_WALK_SEED", SEED))
    assert f"{WALK_LIVES} lives" in walk(homes, seed, WALK_LIVES, timeout_s=190)


@pytest.mark.soak
@pytest.mark.timeout(7_200)
def test_long_walks_from_fresh_seeds_leave_books_that_agree(homes: Path) -> None:
    first = int(os.environ.get("AOS_WALK_SEED", time.time_ns() % 10**9))
    for seed in range(first, first + 60):
        print(f"AOS_WALK_SEED={seed}")
        (homes / str(seed)).mkdir()
        assert "lives" in walk(homes / str(seed), seed, 20, timeout_s=600)


@pytest.mark.soak
@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("name", HERE)
def test_a_kernel_that_dies_at_every_moment_comes_back_whole(homes: Path, name: str) -> None:
    assert sweep(homes, "all", name, timeout_s=7_100) > 300
