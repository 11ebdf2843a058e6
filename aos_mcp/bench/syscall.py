"""`aos bench syscall`: what the gate costs, in process and over stdio, with journal and audit on."""

from __future__ import annotations

import json
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

import anyio

from aos_mcp.bench.figures import Figure
from aos_mcp.bench.start import PEER, PEER_NAME, SHIM
from aos_mcp.bench.wire import Wire, wired
from aos_mcp.testing.kernels import kernel_on
from aos_mcp.testing.model import ScriptedModel, ScriptedModels, says

CALLS = 3_000
TASKS = 16
STDIO_CALLS = 400
ROUNDS = 5


async def _in_process(home: Path) -> tuple[float, float]:
    models = ScriptedModels(ScriptedModel("scripted/none", (says("nothing"),)))
    async with kernel_on(home, models) as kernel:

        async def some(count: int) -> None:
            for _ in range(count):
                await kernel.call("search_tools", query="")

        await some(100)
        started = time.perf_counter()
        await some(CALLS)
        one_by_one = CALLS / (time.perf_counter() - started)
        started = time.perf_counter()
        async with anyio.create_task_group() as group:
            for _ in range(TASKS):
                group.start_soon(some, CALLS // TASKS)
        return one_by_one, CALLS / (time.perf_counter() - started)


def _calls_ms(wire: Wire, tool: str, arguments: dict[str, object]) -> float:
    times = []
    for _ in range(STDIO_CALLS):
        started = time.perf_counter()
        wire.ask("tools/call", {"name": tool, "arguments": arguments})
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1_000


def _over_stdio(folder: str) -> tuple[float, float]:
    environ = {**os.environ, "AOS_HOME": folder}
    ours, peers = [], []
    with wired(SHIM, environ) as shim, wired(PEER, environ) as peer:
        _calls_ms(shim, "search_tools", {"query": ""})
        _calls_ms(peer, "noop", {})
        for _ in range(ROUNDS):
            ours.append(_calls_ms(shim, "search_tools", {"query": ""}))
            peers.append(_calls_ms(peer, "noop", {}))
    daemon = int(json.loads((Path(folder) / "daemon.json").read_text("utf-8"))["pid"])
    os.kill(daemon, signal.SIGTERM)
    return statistics.median(ours), statistics.median(peers)


def run() -> list[Figure]:
    """Measure; the peer's rounds alternate with ours."""
    with tempfile.TemporaryDirectory(prefix="aos-bench-") as folder:
        one_by_one, together = anyio.run(_in_process, Path(folder))
    with tempfile.TemporaryDirectory(prefix="aos-bench-") as folder:
        ours_ms, peer_ms = _over_stdio(folder)
    return [
        Figure(name="empty syscalls, one after another", value=one_by_one, unit="1/s", target="-"),
        Figure(name=f"empty syscalls, {TASKS} callers", value=together, unit="1/s", target=">= 3000/s"),
        Figure(
            name="empty tool call over stdio, median",
            value=ours_ms,
            unit="ms",
            target="<= 1.5 x",
            baseline=PEER_NAME,
            baseline_value=peer_ms,
        ),
    ]


if __name__ == "__main__":
    json.dump([figure.as_json() for figure in run()], sys.stdout, indent=1)
