"""The reference servers in TypeScript, as a host would start them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import anyio
import pytest

from aos_mcp.abi.mount import MountState
from aos_mcp.abi.settings import MountSettings
from aos_mcp.testing.mount_checks import check_mounts, mounted, status_of, until_up

CACHE = Path(__file__).parents[2] / ".cache" / "node-servers"
PACKAGES = ("@modelcontextprotocol/server-filesystem", "@modelcontextprotocol/server-everything")
TEST_S = 90

pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(
        shutil.which("npm") is None and "CI" not in os.environ, reason="npm is not installed, and CI is not set"
    ),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def programs() -> Path:
    """Installs the servers once; returns the folder with their programs."""
    folder = CACHE / "node_modules" / ".bin"
    if not (folder / "mcp-server-everything").exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", *PACKAGES], cwd=CACHE, check=True, timeout=240)
    return folder


async def test_the_filesystem_server_reads_what_it_may_and_nothing_else(programs: Path, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("remember the milk", "utf-8")
    settings = MountSettings(command=str(programs / "mcp-server-filesystem"), args=[str(tmp_path)])
    with anyio.fail_after(TEST_S):
        async with mounted({"files": settings}) as table:
            assert status_of(table, "files").state is MountState.UP
            await check_mounts(table, "files__read_text_file", {"path": str(tmp_path / "note.txt")})
            refused = await table.call("files__read_text_file", {"path": "/etc/passwd"}, timeout_s=20)
            assert refused.is_error


async def test_the_everything_server_is_mounted_through_npx(programs: Path) -> None:
    settings = MountSettings(command="npx", args=["--no-install", "mcp-server-everything"], cwd=str(CACHE))
    with anyio.fail_after(TEST_S):
        async with mounted({"all": settings}) as table:
            status = status_of(table, "all")
            assert (status.state, status.era) == (MountState.UP, "2025-11-25")
            await check_mounts(table, "all__echo", {"message": "hello"})


@pytest.mark.parametrize(("transport", "path"), [("streamableHttp", "mcp"), ("sse", "sse")])
async def test_the_everything_server_is_mounted_over_a_url(programs: Path, transport: str, path: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(programs / "mcp-server-everything"), transport]
    settings = MountSettings(url=f"http://127.0.0.1:{port}/{path}", transport="sse" if transport == "sse" else "http")
    with anyio.fail_after(TEST_S):
        async with await anyio.open_process(command, env={**os.environ, "PORT": str(port)}, stderr=None) as server:
            async with mounted({"all": settings}) as table:
                await until_up(table, "all")
                assert status_of(table, "all").era == "2025-11-25"
                await check_mounts(table, "all__echo", {"message": "hello"})
            server.kill()
