"""No process of a downstream outlives the kernel, however either of them ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from aos_mcp.abi.mount import MountState
from aos_mcp.abi.settings import MountSettings
from aos_mcp.testing.mount_checks import mounted, status_of

HANDMADE = Path(__file__).parent / "servers" / "handmade_server.py"
ROOT = Path(__file__).parents[2]
TEST_S = 90

KERNEL = """
import sys, anyio
from aos_mcp.abi.settings import MountSettings
from aos_mcp.testing.mount_checks import mounted
async def main():
    settings = MountSettings(command=sys.executable, args=["-u", sys.argv[1], "stubborn"], env={"PID_FILE": sys.argv[2]})
    async with mounted({"old": settings}) as table:
        print(table.status()[0].state, flush=True)
        await anyio.sleep_forever()
anyio.run(main)
"""


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that only waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def gone(pids: list[int]) -> None:
    while any(alive(pid) for pid in pids):
        await anyio.sleep(0.02)


@pytest.mark.crash
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_a_killed_kernel_leaves_no_child_and_no_grandchild(tmp_path: Path) -> None:
    pid_file = tmp_path / "pids"
    kernel = subprocess.Popen(
        [sys.executable, "-c", KERNEL, str(HANDMADE), str(pid_file)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert kernel.stdout is not None
    with kernel.stdout:
        assert kernel.stdout.readline().strip() == "up"
    pids = [int(word) for word in pid_file.read_text("utf-8").split()]
    assert all(alive(pid) for pid in pids)
    kernel.send_signal(signal.SIGKILL)
    kernel.wait()
    with anyio.fail_after(TEST_S):
        await gone(pids)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_a_server_that_ignores_every_request_to_end_is_ended_with_its_children(tmp_path: Path) -> None:
    pid_file = tmp_path / "pids"
    settings = MountSettings(
        command=sys.executable, args=["-u", str(HANDMADE), "stubborn"], env={"PID_FILE": str(pid_file)}
    )
    with anyio.fail_after(TEST_S):
        async with mounted({"old": settings}) as table:
            assert status_of(table, "old").state is MountState.UP
        await gone([int(word) for word in pid_file.read_text("utf-8").split()])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_mounting_leaves_no_open_file_behind() -> None:
    settings = MountSettings(command=sys.executable, args=["-u", str(HANDMADE)])
    with anyio.fail_after(TEST_S):
        async with mounted({"old": settings}):
            pass
        before = len(os.listdir("/proc/self/fd"))
        async with mounted({"old": settings, "gone": MountSettings(command="no-such-command")}):
            pass
        assert len(os.listdir("/proc/self/fd")) == before
