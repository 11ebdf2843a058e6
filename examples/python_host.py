"""Use the kernel as a library: boot it inside a Python program, and make the same calls that MCP clients make.

Everything goes through the one door, `Kernel.syscall`; what it answers are the typed results of `aos_mcp.abi.results`.
Needs no key.
"""

import tempfile
from pathlib import Path

import anyio

from aos_mcp.abi.capability import Caller, CallerKind
from aos_mcp.abi.errors import NotFound
from aos_mcp.abi.event import EventKind
from aos_mcp.abi.results import ReadAuditResult, SpawnResult, WaitResult
from aos_mcp.abi.settings import Settings
from aos_mcp.boot import boot
from aos_mcp.hardware import local_principal

DEADLINE_S = 60.0


async def main() -> None:
    me = Caller(kind=CallerKind.HOST, principal=local_principal(), host="python_host")
    with tempfile.TemporaryDirectory(prefix="aos-example-") as home, anyio.fail_after(DEADLINE_S):
        async with boot(Settings(), {}, Path(home)) as kernel:
            with kernel.listen() as events:
                spawned = await kernel.syscall(me, "spawn_agent", {"task": "Say hello.", "model": "replay/hello"})
                assert isinstance(spawned, SpawnResult)
                written = ""
                async for event in events:
                    if event.kind is EventKind.OUTPUT:
                        written += event.detail
                    if event.subject == spawned.pid and event.detail == "exited":
                        break
            print(f"while it ran, it wrote: {written!r}")
            assert "The note is kept." in written, written

            waited = await kernel.syscall(me, "wait_agent", {"pids": [spawned.pid], "timeout_s": 10})
            assert isinstance(waited, WaitResult)
            assert waited.agents[0].exit_code == "done", waited
            print(f"its result: {waited.agents[0].result}")

            try:
                await kernel.syscall(me, "page_in", {"page_id": "pg_unknown"})
            except NotFound as error:
                print(f"an error has a code, a sentence and a hint: {error}")
            else:
                raise AssertionError("there is no such page")

            log = await kernel.syscall(me, "read_audit", {"verify": True})
            assert isinstance(log, ReadAuditResult)
            assert log.verified is not None and log.verified.ok, log.verified
            print(f"all of it is on the log: {log.verified.records} records, and they verify")


if __name__ == "__main__":
    anyio.run(main)
