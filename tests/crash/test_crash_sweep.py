"""A kernel that dies at any moment comes back whole: effects at most once, nothing lost silently, money conserved."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.scenarios import SCENARIOS

ROOT = Path(__file__).parent.parent.parent
SWEEP = Path(__file__).with_name("sweep.py")
SAMPLE = 160
"""Of some ten thousand moments, those that `make test` dies at; `make soak` takes all."""
SEED = 20_261_126
BOXED = {scenario.name for scenario in SCENARIOS if scenario.sandbox != "recording"}
HERE = [s.name for s in SCENARIOS if s.name not in BOXED or shutil.which("bwrap") or "CI" in os.environ]


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


@pytest.mark.soak
@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("name", HERE)
def test_a_kernel_that_dies_at_every_moment_comes_back_whole(homes: Path, name: str) -> None:
    assert sweep(homes, "all", name, timeout_s=7_100) > 300
