"""No process of a downstream outlives the kernel, however either of them ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
    program, pid_file = sys.argv[1:]
    settings = MountSettings(command=sys.executable, args=["-u", program, "stubborn"], env={"PID_FILE": pid_file})
    async with mounted({"old": settings}) as table:
        print(table.status()[0].state, flush=True)
        await anyio.sleep_forever()
anyio.run(main)
"""


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="process descriptors are Linux's")


@contextmanager
def descriptors(pid_file: Path) -> Iterator[list[int]]:
    """Hold a descriptor of each process the server named: it becomes readable when the process ends."""
    held = [os.pidfd_open(int(word)) for word in pid_file.read_text("utf-8").split()]
    try:
        yield held
    finally:
        for descriptor in held:
            os.close(descriptor)


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that mounts the stubborn server and then does nothing."""
    command = [sys.executable, "-c", KERNEL, str(HANDMADE), str(tmp_path / "pids")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "up"
        yield process
        process.kill()


@pytest.mark.crash
async def test_a_killed_kernel_leaves_no_child_and_no_grandchild(kernel: subprocess.Popen[str], tmp_path: Path) -> None:
    with descriptors(tmp_path / "pids") as processes, anyio.fail_after(TEST_S):
        assert len(processes) == 2
        kernel.send_signal(signal.SIGKILL)
        for process in processes:
            await anyio.wait_readable(process)


async def test_a_server_that_ignores_every_request_to_end_is_ended_with_its_children(tmp_path: Path) -> None:
    pid_file = tmp_path / "pids"
    settings = MountSettings(
        command=sys.executable, args=["-u", str(HANDMADE), "stubborn"], env={"PID_FILE": str(pid_file)}
    )
    with ExitStack() as held, anyio.fail_after(TEST_S):
        async with mounted({"old": settings}) as table:
            assert status_of(table, "old").state is MountState.UP
            processes = held.enter_context(descriptors(pid_file))
        for process in processes:
            await anyio.wait_readable(process)


async def test_mounting_leaves_no_open_file_behind() -> None:
    settings = MountSettings(command=sys.executable, args=["-u", str(HANDMADE)])
    with anyio.fail_after(TEST_S):
        async with mounted({"old": settings}):
            pass
        before = len(os.listdir("/proc/self/fd"))
        async with mounted({"old": settings, "gone": MountSettings(command="no-such-command")}):
            pass
        assert len(os.listdir("/proc/self/fd")) == before
