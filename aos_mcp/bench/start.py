"""`aos bench start`: how long a host waits for its first answer, and what the daemon weighs."""

from __future__ import annotations

import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from aos_mcp.bench.figures import Figure, cpu_seconds, resident_mib
from aos_mcp.bench.wire import wired

ROUNDS = 7
SHIM = (sys.executable, "-m", "aos_mcp")
PEER = (sys.executable, "-m", "aos_mcp.bench.peer")
PEER_NAME = "MCP SDK stdio server with one empty tool"


def first_list_s(argv: tuple[str, ...], environ: Mapping[str, str]) -> float:
    """Return the seconds from starting a server to its first `tools/list` answer."""
    started = time.perf_counter()
    with wired(argv, environ) as wire:
        wire.ask("tools/list", {})
        return time.perf_counter() - started


def run() -> list[Figure]:
    """Measure, with the peer's rounds between ours."""
    with tempfile.TemporaryDirectory(prefix="aos-bench-") as folder:
        environ = {**os.environ, "AOS_HOME": folder}
        cold_s = first_list_s(SHIM, environ)
        daemon = int(json.loads((Path(folder) / "daemon.json").read_text("utf-8"))["pid"])
        try:
            cold_cpu_s, weight = cpu_seconds(daemon), resident_mib(daemon)
            warm, peer = [], []
            for _ in range(ROUNDS):
                warm.append(first_list_s(SHIM, environ))
                peer.append(first_list_s(PEER, environ))
        finally:
            os.kill(daemon, signal.SIGTERM)
    peer_s = statistics.median(peer)
    return [
        Figure(
            name="shim to first tools/list, daemon up",
            value=statistics.median(warm),
            unit="s",
            target="< 0.3 s",
            baseline=PEER_NAME,
            baseline_value=peer_s,
        ),
        Figure(
            name="shim to first tools/list, cold",
            value=cold_s,
            unit="s",
            target="-",
            baseline=PEER_NAME,
            baseline_value=peer_s,
        ),
        Figure(name="daemon CPU to first tools/list, cold", value=cold_cpu_s, unit="CPU s", target="< 1.5 CPU s"),
        Figure(name="daemon resident memory after first tools/list", value=weight, unit="MiB", target="< 150 MB"),
    ]
