"""`aos bench checkpoint`: what saving, forking and coming back cost, beside doing the same by copying."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import anyio

from aos_mcp.abi.budget import Account, Budget
from aos_mcp.abi.handle import PageId, Pid, workspace_of
from aos_mcp.abi.journal import EffectClass
from aos_mcp.abi.page import PageKind
from aos_mcp.abi.process import ExitCode, ProcessState
from aos_mcp.bench.figures import Figure
from aos_mcp.kernel import journal, pages
from aos_mcp.ports import Transaction
from aos_mcp.testing.kernels import OWNER, TestKernel, kernel_on
from aos_mcp.testing.model import ScriptedModel, ScriptedModels, says
from aos_mcp.testing.store_samples import a_process

PAGES, FORK_PAGES = 1_000, 10_000
FILES, FILE_BYTES = 5_000, 40_000
ENDED, RUNNING = 10_000, 1_000
ROUNDS = 30
MODEL = "scripted/none"


def _models() -> ScriptedModels:
    return ScriptedModels(ScriptedModel(MODEL, (says("nothing"),)))


async def _agent(k: TestKernel, count: int) -> Pid:
    """Make an agent that waits, with so many pages in its context."""
    k.machine.stopping = True
    pid = Pid((await k.call("spawn_agent", task="wait")).pid)

    def fill(tx: Transaction) -> None:
        process = tx.process_get(pid)
        assert process is not None
        for position in range(1, count):
            text = f"page {position}"
            pages.make(
                tx, page_id=k.machine.entropy.handle("pg_"), pid=pid, owner=OWNER, kind=PageKind.MESSAGE,
                body=text.encode(), text=text, position=position, now=process.created_at, source="host",
            )  # fmt: skip
        tx.process_put(replace(process, position=count))

    await k.machine.store.write(fill)
    return pid


async def _seconds(work: Callable[[], Awaitable[object]], rounds: int = ROUNDS) -> float:
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        await work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


async def _contexts(home: Path) -> list[Figure]:
    async with kernel_on(home, _models()) as k:
        pid = await _agent(k, PAGES)
        save_s = await _seconds(lambda: k.call("checkpoint", pid=pid))
        dump_s = await _seconds(lambda: k.machine.store.write(lambda tx: _dumped(tx, pid)))
        large = await _agent(k, FORK_PAGES)
        saved = (await k.call("checkpoint", pid=large)).checkpoint_id
        fork_s = await _seconds(lambda: k.call("restore", checkpoint_id=saved))
        copy_s = await _seconds(lambda: k.machine.store.write(lambda tx: _copied(tx, k, large)), rounds=3)
    return [
        Figure(
            name=f"checkpoint at {PAGES:,} pages, unchanged workspace, median", value=save_s * 1_000, unit="ms",
            target="<= 10 ms", baseline="the page table written out as JSON", baseline_value=dump_s * 1_000,
        ),
        Figure(
            name=f"fork at {FORK_PAGES:,} pages, median", value=fork_s * 1_000, unit="ms",
            target="< 5 ms", baseline="the page table's rows copied", baseline_value=copy_s * 1_000,
        ),
    ]  # fmt: skip


def _dumped(tx: Transaction, pid: Pid) -> None:
    rows = [[page.page_id, page.title, page.digest, page.tokens, page.created_at] for page in tx.page_table(pid)]
    tx.payload_put(json.dumps([rows, time.perf_counter()]).encode())


def _copied(tx: Transaction, k: TestKernel, pid: Pid) -> None:
    other = Pid(k.machine.entropy.handle("p_"))
    for page in tx.page_table(pid):
        tx.page_insert(replace(page, page_id=PageId(k.machine.entropy.handle("pg_")), pid=other), page.title)


async def _files(home: Path) -> list[Figure]:
    async with kernel_on(home, _models()) as k:
        pid = await _agent(k, 1)
        root = Path(k.machine.workspaces.path(workspace_of(pid)))
        for number in range(FILES):
            folder = root / f"d{number % 50}"
            folder.mkdir(exist_ok=True)
            (folder / f"f{number}").write_bytes(os.urandom(FILE_BYTES))
        started = time.perf_counter()
        await anyio.to_thread.run_sync(shutil.copytree, root, home / "copy")
        copy_s = time.perf_counter() - started
        first_s = await _seconds(lambda: k.call("checkpoint", pid=pid), rounds=1)
        again_s = await _seconds(lambda: k.call("checkpoint", pid=pid), rounds=5)
    size = f"{FILES:,} files, {FILES * FILE_BYTES // 10**6} MB"
    copy = "copytree of the workspace"
    return [
        Figure(name=f"checkpoint of {size}, first", value=first_s, unit="s", target="<= 1 s", baseline=copy,
               baseline_value=copy_s),
        Figure(name=f"checkpoint of {size}, unchanged, median", value=again_s * 1_000, unit="ms", target="<= 100 ms",
               baseline=copy, baseline_value=copy_s * 1_000),
    ]  # fmt: skip


async def _boot(home: Path) -> float:
    started = time.perf_counter()
    async with kernel_on(home, _models()) as k:
        k.machine.stopping = True
        return time.perf_counter() - started


def _crowd(tx: Transaction) -> None:
    """Leave what a dead kernel would: many that had ended, and many that ran, each in the middle of a command."""
    for number in range(ENDED + RUNNING):
        runs = number >= ENDED
        process = replace(
            a_process(f"p_{number}", owner=OWNER, state=ProcessState.RUNNING if runs else ProcessState.EXITED, fence=1),
            model=MODEL,
            exit_code=None if runs else ExitCode.DONE,
            lease_holder="dead:1" if runs else None,
        )
        tx.process_insert(process)
        tx.account_insert(Account(account=process.pid, parent="workspace", limit=Budget(), opened_at=0.0))
        if runs:
            intent = b'{"call":"sandbox_exec","arguments":{"command":"make"}}'
            journal.begin(tx, process, call="sandbox_exec", effect=EffectClass.UNSAFE, intent=intent, now=0.0)


async def _boots(home: Path, empty: Path) -> list[Figure]:
    await _boot(empty)
    empty_s = await _boot(empty)
    async with kernel_on(home, _models()) as k:
        k.machine.stopping = True
        await k.machine.store.write(_crowd)
    crowd_s = await _boot(home)
    name = f"boot with {ENDED:,} ended and {RUNNING:,} running, each in a command"
    return [Figure(name=name, value=crowd_s, unit="s", target="< 2 s", baseline="boot of an empty store",
                   baseline_value=empty_s)]  # fmt: skip


def run() -> list[Figure]:
    """Measure, each part in a home of its own."""
    with tempfile.TemporaryDirectory(prefix="aos-bench-") as folder:
        homes = [Path(folder) / name for name in ("contexts", "files", "crowd", "empty")]
        for home in homes:
            home.mkdir()
        figures = anyio.run(_contexts, homes[0])
        figures += anyio.run(_files, homes[1])
        figures += anyio.run(_boots, homes[2], homes[3])
    return figures
