"""Disks that fail under a whole kernel: refused in words, nothing that was promised is lost, and it goes on afterwards.

Full disks and limits on file size are in `tests/storage/test_crash.py`, torn logs in `tests/storage/test_torn_log.py`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("disk_program.py")
TIMEOUT_S = 110
APART = ["unshare", "--mount", "--propagation", "private"]


def why_not(*needed: str) -> str:
    """Return why file systems cannot be mounted here; nothing, where they can. In CI they can, or the tests fail."""
    if "CI" in os.environ:
        return ""
    missing = [name for name in needed if shutil.which(name) is None and not Path(name).exists()]
    if missing:
        return f"there is no {missing[0]} here"
    mounts = subprocess.run([*APART, "mount", "-t", "tmpfs", "x", "/mnt"], capture_output=True, check=False)
    return "" if mounts.returncode == 0 else "mounting needs CAP_SYS_ADMIN"


NO_TMPFS = why_not("unshare", "mount")
NO_LOOP = NO_TMPFS or why_not("mkfs.ext4", "/dev/loop-control")


def failed(folder: Path, how: str) -> dict[str, Any]:
    """Have a disk fail under a kernel; return what it said, and what was there when the disk was back."""
    ran = subprocess.run(
        [*APART, sys.executable, str(PROGRAM), str(folder), how],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-4_000:]
    said: dict[str, Any] = json.loads(ran.stdout)
    after = said["after"]
    assert after == {"there": 5, "agent": "ok", "log": "ok", "orders_on_record": len(said["done"])}
    return said


@pytest.mark.crash
@pytest.mark.skipif(bool(NO_TMPFS), reason=NO_TMPFS)
def test_a_home_that_takes_no_writes_is_refused_at_boot_and_goes_on_when_it_does(tmp_path: Path) -> None:
    told = failed(tmp_path, "readonly")["boot"]
    assert told["code"] == "unavailable"
    assert "Read-only file system" in told["message"]
    assert "mounted for writing" in told["hint"]


@pytest.mark.crash
@pytest.mark.skipif(bool(NO_LOOP), reason=NO_LOOP)
@pytest.mark.parametrize("how", ["error", "gone"])
def test_a_disk_that_fails_under_a_kernel_refuses_calls_before_they_act_and_loses_nothing(
    tmp_path: Path, how: str
) -> None:
    said = failed(tmp_path, how)
    assert {said[call]["code"] for call in ("page", "order", "read")} == {"unavailable"}
    assert all("disk" in said[call]["message"] + said[call]["hint"] for call in ("page", "order", "read"))
    assert all(said[call]["hint"] for call in ("page", "order", "read"))
    assert -1 not in said["done"], "an order went out that nothing had on record"
