"""A kernel that dies at any commit comes back whole: effects at most once, nothing lost silently, money conserved."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

SCENARIO = Path(__file__).parent / "scenario.py"
SAMPLE = 32
"""Points of a run of about 150 that `make test` dies at; `make soak` takes all."""
SEED = 20_261_123


def scenario(root: Path, *what: str, timeout_s: float) -> str:
    done = subprocess.run(
        [sys.executable, str(SCENARIO), str(root), *what],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    return done.stdout


def points(tmp_path: Path) -> list[str]:
    return [str(point) for point in range(1, int(scenario(tmp_path, "count", timeout_s=60)) + 1)]


@pytest.mark.crash
@pytest.mark.timeout(300)
def test_a_kernel_that_dies_at_a_sampled_commit_comes_back_whole(tmp_path: Path) -> None:
    every = points(tmp_path)
    sample = random.Random(SEED).sample(every, SAMPLE)
    scenario(tmp_path, *sample, timeout_s=280)


@pytest.mark.soak
@pytest.mark.timeout(3_600)
def test_a_kernel_that_dies_at_every_commit_comes_back_whole(tmp_path: Path) -> None:
    scenario(tmp_path, *points(tmp_path), timeout_s=3_500)
