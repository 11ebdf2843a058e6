"""`aos bench llm`: calls through the whole kernel, beside what people put between agents and a provider today.

Owns the experiments over the wire: the kernel with its real drivers, and each peer in a process of its own, call the
same scripted provider in another process, one contestant after the other. What needs no network is in
`bench.throughput`. Peers that conflict with what the kernel needs run in an interpreter that the caller names.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio

from aos_mcp.abi.errors import Unavailable
from aos_mcp.abi.settings import PriceSettings, ProviderSettings, Settings, WorkspaceBudget
from aos_mcp.bench import clients, throughput
from aos_mcp.bench.figures import Figure
from aos_mcp.hardware import SystemClock
from aos_mcp.llm.catalogue import Catalogue
from aos_mcp.testing.kernels import kernel_on
from aos_mcp.testing.providers import Behaviour

PLACES = 8
CROWD = 4
"""Callers for each place."""
CROWD_CALLS = 20
CALL_S = 0.2
"""How long the provider takes for a call when places are what is measured."""
CPU_CALLERS, CPU_CALLS = 16, 25
ROUNDS = 3
WORDS = " ".join(["word"] * 30)
"""What the provider answers with: a stream of thirty pieces."""
CLIENT_S_MAX = 600.0
SERVER_S_MAX = 30.0
SDK = "openai SDK"
OURS = "aos"
CROWDED = (
    "asyncio + SDK's 2 retries",
    "semaphore at the limit + SDK",
    "semaphore at twice the limit + SDK",
    "LiteLLM router",
    "LangChain limiter",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One contestant's run."""

    done: int
    failed: int
    wall_s: float
    cpu_s: float
    sent: int = 0
    """Calls that reached the provider."""
    refused: int = 0

    @property
    def cpu_us(self) -> float:
        """Processor time of a call."""
        return 1e6 * self.cpu_s / (self.done + self.failed)


def run(peer_python: str, checkouts: Sequence[Path] = ()) -> list[Figure]:
    """Measure all; `peer_python` is an interpreter that has the peers installed, `checkouts` are releases of AIOS."""
    return [*throughput.run(checkouts), *_cpu(peer_python), *_crowded(peer_python)]


def _cpu(peer_python: str) -> list[Figure]:
    answer = Behaviour(repeat=True, text=WORDS)
    best: dict[str, Measured] = {}
    absent: set[str] = set()
    names = [SDK, "LiteLLM router", "LangChain limiter"]
    for _ in range(ROUNDS):
        with _server(answer) as url:
            ours = anyio.run(_kernel, url, CPU_CALLERS, CPU_CALLS, None)
            best[OURS] = min(ours, best.get(OURS, ours), key=lambda run: run.cpu_us)
            for name in names:
                theirs = _peer(name, url, CPU_CALLERS, CPU_CALLS, peer_python, per_s=0.0)
                if theirs is None:
                    absent.add(name)
                else:
                    best[name] = min(theirs, best.get(name, theirs), key=lambda run: run.cpu_us)
    targets = {SDK: "<= 1.25 x", "LiteLLM router": "< 1 x", "LangChain limiter": "< 1 x"}
    figures = []
    for name in names:
        known = name in best
        figures.append(
            Figure(
                name=f"processor time of a streamed call, {CPU_CALLERS} callers",
                value=best[OURS].cpu_us,
                unit="us",
                target=targets[name],
                baseline=name if known else f"{name} (absent)",
                baseline_value=best[name].cpu_us if known else None,
            )
        )
    return figures


def _crowded(peer_python: str) -> list[Figure]:
    """Measure four times more callers than the provider has places for, as it really refuses what is beyond."""
    answer = Behaviour(repeat=True, text="Done.", first_byte_delay_s=CALL_S)
    callers = CROWD * PLACES
    optimum_s = callers * CROWD_CALLS * CALL_S / PLACES
    found: dict[str, Measured | None] = {}
    for name, known in ((f"{OURS}, limit known", PLACES), (f"{OURS}, limit not known", None)):
        with _server(answer, PLACES) as url:
            found[name] = anyio.run(_kernel, url, callers, CROWD_CALLS, known)
    for name in CROWDED:
        with _server(answer, PLACES) as url:
            found[name] = _peer(name, url, callers, CROWD_CALLS, peer_python, per_s=PLACES / CALL_S)
    figures = []
    for name, measured in found.items():
        ours = name.startswith(OURS)
        if measured is None:
            figures.append(Figure(name=f"{CROWD} x limit, {name}: absent", value=0.0, unit="", target="-"))
            continue
        calls = callers * CROWD_CALLS
        figures += [
            Figure(
                name=f"{CROWD} x limit, {name}: calls answered",
                value=100 * measured.done / calls,
                unit="%",
                target="100" if ours else "-",
            ),
            Figure(
                name=f"{CROWD} x limit, {name}: calls wasted",
                value=100 * measured.refused / max(1, measured.sent),
                unit="%",
                target="< 2" if ours else "-",
            ),
            Figure(
                name=f"{CROWD} x limit, {name}: makespan",
                value=measured.wall_s,
                unit="s",
                target="<= 1.10 x" if ours else "-",
                baseline="the limit's optimum",
                baseline_value=optimum_s,
            ),
        ]
    return figures


async def _kernel(url: str, callers: int, calls: int, concurrency: int | None) -> Measured:
    return await through_kernel(url, callers, calls, concurrency, lambda: _stats(url))


async def through_kernel(
    url: str, callers: int, calls: int, concurrency: int | None, stats: Callable[[], Mapping[str, int]]
) -> Measured:
    """Have so many callers make calls through a kernel with its real drivers; `stats` asks the provider's counters."""
    settings = Settings(
        concurrency=512,
        workspace_budget=WorkspaceBudget(usd=1_000.0),
        providers={
            "stub": ProviderSettings(
                base_url=f"{url}/v1",
                dialect="openai",
                key="env:STUB_KEY",
                context_tokens=100_000,
                output_tokens_max=4_096,
                concurrency=concurrency,
            )
        },
        prices={f"stub/{clients.MODEL}": PriceSettings(input=1.0, output=1.0)},
    )
    tally = clients.Tally()
    with tempfile.TemporaryDirectory(prefix="aos-bench-") as folder:
        async with (
            Catalogue(settings, {"STUB_KEY": clients.KEY}, SystemClock()) as models,
            kernel_on(Path(folder), models, settings=settings) as kernel,
        ):

            async def call() -> None:
                await kernel.call("complete", prompt="Say it again, please.", model=f"stub/{clients.MODEL}")

            async def caller() -> None:
                for _ in range(calls):
                    with tally:
                        await call()

            await call()
            before = stats()
            started, spent = time.perf_counter(), time.process_time()
            async with anyio.create_task_group() as group:
                for _ in range(callers):
                    group.start_soon(caller)
            wall_s, cpu_s = time.perf_counter() - started, time.process_time() - spent
    return _measured(tally.done, tally.failed, wall_s, cpu_s, before, stats())


def _peer(name: str, url: str, callers: int, calls: int, peer_python: str, *, per_s: float) -> Measured | None:
    """Have a peer do the same in a process of its own; None where it is not installed."""
    ours = name not in {"LiteLLM router", "LangChain limiter"}
    python = sys.executable if ours else peer_python
    if not python:
        return None
    command = [python, clients.__file__, name, "--url", url, "--callers", str(callers), "--calls", str(calls)]
    before = _stats(url)
    try:
        answer = subprocess.run(
            [*command, "--per-s", str(per_s)], capture_output=True, check=True, timeout=CLIENT_S_MAX
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"The peer {name} could not be run: {error}.", "Give --peer-python an interpreter.") from None
    said = json.loads(answer.stdout.splitlines()[-1])
    if "absent" in said:
        return None
    return _measured(said["done"], said["failed"], said["wall_s"], said["cpu_s"], before, _stats(url))


def _measured(
    done: int, failed: int, wall_s: float, cpu_s: float, before: Mapping[str, int], after: Mapping[str, int]
) -> Measured:
    return Measured(
        done=done,
        failed=failed,
        wall_s=wall_s,
        cpu_s=cpu_s,
        sent=after["requests"] - before["requests"],
        refused=after["refused"] - before["refused"],
    )


def _stats(url: str) -> Mapping[str, int]:
    with urllib.request.urlopen(f"{url}/stats", timeout=SERVER_S_MAX) as answer:
        counters: Mapping[str, int] = json.load(answer)
    return counters


@contextmanager
def _server(behaviour: Behaviour, places: int | None = None) -> Iterator[str]:
    """Run a provider in a process of its own, and give its address."""
    with tempfile.TemporaryDirectory(prefix="aos-bench-") as folder:
        script = Path(folder) / "script.json"
        fields = {
            "repeat": behaviour.repeat,
            "text": behaviour.text,
            "first_byte_delay_s": behaviour.first_byte_delay_s,
        }
        script.write_text(json.dumps([fields]), "utf-8")
        command = [sys.executable, "-m", "aos_mcp.testing.providers", "--script", str(script)]
        command += ["--places", str(places)] if places is not None else []
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            try:
                yield f"http://127.0.0.1:{int(process.stdout.readline())}"
            finally:
                process.terminate()
