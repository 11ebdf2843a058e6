"""A kernel whose disk fails under it; says what it was told and what is there afterwards, as one JSON object.

Usage: unshare --mount disk_program.py FOLDER readonly|error|gone

Mounts what it needs in FOLDER, in a mount namespace of its own: nothing of it outlives the program. `readonly` is a
file system that takes no writes when the kernel boots; `error` one that the system makes read-only under a running
kernel, as it does after an error; `gone` one that answers nothing any more, as a disk that was pulled out.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from aos_mcp.abi.errors import AosError
from aos_mcp.testing.devices import RecordingMounts, a_tool
from aos_mcp.testing.kernels import TestKernel, kernel_on
from aos_mcp.testing.model import ScriptedModel, ScriptedModels, calls, says

IMAGE_BYTES = 64 * 2**20
EXT4_IOC_SHUTDOWN, WITHOUT_A_FLUSH = 0x8004587D, 2
PAGES = 5
DEADLINE_S = 60
DONE: list[object] = []
"""The orders that really went out."""


def run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def order(arguments: Mapping[str, object]) -> str:
    DONE.append(arguments["n"])
    return "ordered"


@asynccontextmanager
async def a_kernel(home: Path) -> AsyncIterator[TestKernel]:
    script = (calls(("page_out", {"content": "a finding"}), key="a"), says("ok"))
    with anyio.fail_after(DEADLINE_S):
        async with kernel_on(
            home,
            ScriptedModels(ScriptedModel("scripted/one", script)),
            mounts=RecordingMounts({a_tool("shop__order"): order}),
        ) as k:
            yield k


async def ordered(k: TestKernel, number: int) -> None:
    await k.call("call_tool", name="shop__order", arguments={"n": number})


async def written(k: TestKernel) -> list[str]:
    """Write pages, and then something that is on the medium before it is answered: so they are too."""
    pages = [(await k.call("page_out", content=f"page {number}")).page_id for number in range(PAGES)]
    await ordered(k, len(DONE))
    return pages


async def refused(k: TestKernel, name: str, /, **arguments: object) -> dict[str, str]:
    try:
        await k.call(name, **arguments)
    except AosError as error:
        return {"code": error.code, "message": error.message, "hint": error.hint}
    return {}


async def goes_on(home: Path, pages: list[str]) -> dict[str, object]:
    """Boot once more; return how many of the pages are there, and whether agents and the log are well."""
    async with a_kernel(home) as k:
        there = [(await k.call("page_in", page_id=page)).content for page in pages]
        pid = (await k.call("spawn_agent", task="x")).pid
        ended = (await k.call("wait_agent", pids=[pid], timeout_s=30)).agents[0]
        verified = (await k.call("read_audit", verify=True)).verified
        steps = await k.machine.store.read(lambda tx: tx.step_list("host:local:test", limit=99))  # type: ignore[arg-type]
        return {
            "there": sum(text.startswith("page ") for text in there),
            "agent": ended.result,
            "log": verified.why or "ok",
            "orders_on_record": len(steps),
        }


async def readonly(folder: Path) -> dict[str, object]:
    disk = folder / "disk"
    run("mount", "-t", "tmpfs", "-o", "size=64m", "aos-test", str(disk))
    async with a_kernel(disk / "home") as k:
        pages = await written(k)
    run("mount", "-o", "remount,ro", str(disk))
    told: dict[str, object] = {}
    try:
        async with a_kernel(disk / "home"):
            pass
    except AosError as error:
        told = {"code": error.code, "message": error.message, "hint": error.hint}
    run("mount", "-o", "remount,rw", str(disk))
    return {"boot": told, "after": await goes_on(disk / "home", pages)}


def make_read_only(disk: Path) -> None:
    source = next(line.split()[0] for line in Path("/proc/mounts").read_text("utf-8").splitlines() if str(disk) in line)
    Path(f"/sys/fs/ext4/{Path(source).name}/trigger_fs_error").write_text("a test says so\n", "utf-8")


def pull_out(disk: Path) -> None:
    descriptor = os.open(disk, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, struct.pack("I", WITHOUT_A_FLUSH))
    finally:
        os.close(descriptor)


async def failing(folder: Path, how: str) -> dict[str, object]:
    disk, image = folder / "disk", folder / "image"
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    run("mkfs.ext4", "-q", str(image))
    run("mount", "-o", "loop,errors=remount-ro", str(image), str(disk))
    said: dict[str, Any] = {}
    async with a_kernel(disk / "home") as k:
        pages = await written(k)
        (make_read_only if how == "error" else pull_out)(disk)
        said["page"] = await refused(k, "page_out", content="too late")
        said["order"] = await refused(k, "call_tool", name="shop__order", arguments={"n": -1})
        said["read"] = await refused(k, "page_in", page_id=pages[0])
    run("umount", str(disk))
    run("mount", "-o", "loop", str(image), str(disk))
    said["after"] = await goes_on(disk / "home", pages)
    run("umount", str(disk))
    return said


async def main(folder: Path, how: str) -> None:
    (folder / "disk").mkdir()
    said = await (readonly(folder) if how == "readonly" else failing(folder, how))
    print(json.dumps({**said, "done": DONE}))


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), sys.argv[2])
