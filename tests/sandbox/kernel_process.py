"""A kernel of one command, to be killed: `python kernel_process.py DRIVER FOLDER`. Says `ready` when it may start."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio

from aos_mcp.testing.sandbox_checks import command
from tests.sandbox.conftest import make_sandbox

HEART = "setsid sh -c 'trap \"\" TERM HUP; while :; do echo x >> heart; sleep 0.02; done' & sleep 300"


async def main(driver: str, folder: Path) -> None:
    async with make_sandbox(folder, driver) as sandbox:
        await sandbox.execute(command("sh", "-c", HEART, session="doomed", workspace="doomed", timeout_s=300))


anyio.run(main, sys.argv[1], Path(sys.argv[2]))
