"""How fast calls go through the whole kernel: gate, budget, lane, journal, audit. Models answer inside this process.

Owns the experiments without a network. Each makes a kernel of its own on a fresh store.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio

from aos_mcp.abi.budget import Usage
from aos_mcp.abi.completion import Completion, ModelInfo, Prompt
from aos_mcp.abi.errors import Unavailable
from aos_mcp.abi.limits import PROCESS_LIVE_MAX
from aos_mcp.abi.process import ExitCode, ProcessState
from aos_mcp.abi.settings import ProviderSettings, Settings, WorkspaceBudget
from aos_mcp.bench import aios_fifo
from aos_mcp.bench.figures import Figure, resident_mib
from aos_mcp.hardware import SystemClock, collect_seldom
from aos_mcp.ports import Deliver, LanguageModel, Store, Transaction
from aos_mcp.storage.sqlite import open_sqlite
from aos_mcp.testing.kernels import TestKernel, kernel_on
from aos_mcp.testing.model import PRICE, calls, says

T = TypeVar("T")

CALLERS = (64, 512)
CALLS = 5_120
"""Of all callers together, in one round."""
ROUNDS = 3
"""The best of them counts: what else the machine does only makes a round slower."""
FLUSHED_CALLS = 640
SLOW_S = 0.05
SLOW_CALLS = {64: 40, 512: 12}
"""Of each caller: about two seconds of a model that takes `SLOW_S`."""
HOG_S = 10.0
INSTANT_CALLS = 50
AGENTS, TURNS = 64, 10
CROWD_TURNS = 2
CROWD_S_MAX = 600.0
POLL_S = 0.1
PROVIDER = "stub"


@dataclass(slots=True)
class StubModel:
    """Answers at once, or after `seconds`; as an agent's model it makes one small tool call a turn until its last."""

    name: str
    seconds: float = 0.0
    turns: int = 1
    answered: int = 0

    async def describe(self) -> ModelInfo:
        """See `ports.LanguageModel`."""
        return ModelInfo(
            name=self.name,
            dialect="stub",
            context_tokens=100_000,
            output_tokens_max=4_096,
            price=PRICE,
            key_present=True,
        )

    async def complete(self, prompt: Prompt, deliver: Deliver) -> Completion:
        """See `ports.LanguageModel`."""
        if self.seconds:
            await anyio.sleep(self.seconds)
        self.answered += 1
        last = prompt.turn >= self.turns - 1
        reply = says("Done.") if last else calls(("list_agents", {"limit": 1}), key=f"t{prompt.turn}")
        return Completion(model=self.name, reply=reply, usage=Usage(input_tokens=10, output_tokens=5, microusd=1))


class StubModels:
    """A catalogue of such models."""

    def __init__(self, *models: StubModel) -> None:
        self._models = {model.name: model for model in models}

    def resolve(self, name: str) -> LanguageModel:
        """See `ports.Models`."""
        return self._models[name]

    async def default(self) -> str:
        """See `ports.Models`."""
        return next(iter(self._models))

    def warm(self, name: str) -> None:
        """See `ports.Models`."""

    def providers(self) -> Sequence[tuple[str, bool]]:
        """See `ports.Models`."""
        return [(PROVIDER, True)]


class FlushedStore:
    """A store whose every commit waits for the medium."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def write(self, work: Callable[[Transaction], T], *, flush: bool = False, brief: bool = False) -> T:
        """See `ports.Store`."""
        del flush
        return await self._store.write(work, flush=True, brief=brief)

    async def read(self, work: Callable[[Transaction], T], *, brief: bool = False) -> T:
        """See `ports.Store`."""
        return await self._store.read(work, brief=brief)

    async def changed(self, timeout_s: float) -> None:
        """See `ports.Store`."""
        await self._store.changed(timeout_s)


@asynccontextmanager
async def stub_kernel(*models: StubModel, flushed: bool = False) -> AsyncIterator[TestKernel]:
    """Run a kernel on a fresh store. Its lane is as wide as there are callers: nothing here is the provider's limit."""
    settings = Settings(
        concurrency=max(CALLERS),
        workspace_budget=WorkspaceBudget(usd=1_000.0),
        providers={PROVIDER: ProviderSettings(concurrency=max(CALLERS))},
    )
    with tempfile.TemporaryDirectory(prefix="aos-bench-") as folder:
        home = Path(folder)
        async with open_sqlite(home / "flushed.db", SystemClock()) as store:
            own = FlushedStore(store) if flushed else None
            async with kernel_on(home, StubModels(*models), settings=settings, store=own) as kernel:
                yield kernel


async def together(callers: int, each: int, call: Callable[[], Awaitable[object]]) -> float:
    """Have so many callers make `each` calls one after another; return calls per second."""

    async def caller() -> None:
        for _ in range(each):
            await call()

    started = time.perf_counter()
    async with anyio.create_task_group() as group:
        for _ in range(callers):
            group.start_soon(caller)
    return callers * each / (time.perf_counter() - started)


async def _calls_per_s(callers: int, calls_made: int, model: StubModel, *, flushed: bool = False) -> float:
    async with stub_kernel(model, flushed=flushed) as kernel:

        async def call() -> None:
            await kernel.call("complete", prompt="hi", model=model.name)

        await together(callers, 1, call)
        return max([await together(callers, calls_made // callers, call) for _ in range(ROUNDS)])


async def _direct_per_s(callers: int, calls_made: int, model: StubModel) -> float:
    prompt = Prompt(system="", turns=(), max_output_tokens=16)
    return await together(callers, calls_made // callers, lambda: model.complete(prompt, lambda _: None))


def _aios_per_s(checkout: Path, callers: int) -> float:
    """Return what AIOS's FIFO scheduler does of the same, without a budget, a journal or an audit log."""
    command = [sys.executable, aios_fifo.__file__, str(checkout), "--callers", str(callers)]
    try:
        answer = subprocess.run(
            [*command, "--calls", str(CALLS // callers)], capture_output=True, check=True, timeout=CROWD_S_MAX
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"AIOS could not be run: {error}.", "Give --aios a checkout of agiresearch/AIOS.") from None
    said = json.loads(answer.stdout)
    if "failed" in said:
        raise Unavailable(f"{checkout} is not AIOS as it is known: {said['failed']}.", "Known are v0.2.2 and v0.3.0.")
    return float(said["per_s"])


async def _turns_per_s(*, flushed: bool = False) -> float:
    model = StubModel(f"{PROVIDER}/agent", turns=TURNS)
    async with stub_kernel(model, flushed=flushed) as kernel:
        started = time.perf_counter()
        await _spawn(kernel, AGENTS)
        await _until_ended(kernel, AGENTS)
        return model.answered / (time.perf_counter() - started)


async def _spawn(kernel: TestKernel, agents: int) -> None:
    for number in range(agents):
        await kernel.call("spawn_agent", task=f"task {number}", budget={"usd": 0.02})


async def _until_ended(kernel: TestKernel, agents: int) -> None:
    while True:
        counts = await kernel.machine.store.read(lambda tx: dict(tx.process_counts()))
        if counts.get(ProcessState.EXITED, 0) >= agents:
            return
        await anyio.sleep(POLL_S)


async def _instant_beside_slow_ms() -> float:
    """Return the longest that an instant call takes while a slow one is under way in the same lane, in ms."""
    slow, instant = StubModel(f"{PROVIDER}/slow", HOG_S), StubModel(f"{PROVIDER}/instant")
    async with stub_kernel(slow, instant) as kernel, anyio.create_task_group() as group:
        took = []

        async def hog() -> None:
            await kernel.call("complete", prompt="hi", model=slow.name)

        group.start_soon(hog)
        await anyio.sleep(POLL_S)
        for _ in range(INSTANT_CALLS):
            started = time.perf_counter()
            await kernel.call("complete", prompt="hi", model=instant.name)
            took.append(1_000 * (time.perf_counter() - started))
            await anyio.sleep(POLL_S / 10)
        assert slow.answered == 0, "the slow call was to be under way all the time"
        group.cancel_scope.cancel()
    return max(took)


async def _crowd() -> tuple[float, float, float]:
    """Spawn as many agents as may live; return the part that finished, seconds, and the most kB for each."""
    model = StubModel(f"{PROVIDER}/agent", SLOW_S, CROWD_TURNS)
    async with stub_kernel(model) as kernel:
        await _spawn(kernel, 1)
        await _until_ended(kernel, 1)
        before, most = resident_mib(os.getpid()), 0.0
        started = time.perf_counter()
        async with anyio.create_task_group() as group:

            async def watch() -> None:
                nonlocal most
                while True:
                    most = max(most, resident_mib(os.getpid()))
                    await anyio.sleep(POLL_S)

            group.start_soon(watch)
            await _spawn(kernel, PROCESS_LIVE_MAX)
            await _until_ended(kernel, PROCESS_LIVE_MAX + 1)
            group.cancel_scope.cancel()
        took_s = time.perf_counter() - started
        rows = await kernel.machine.store.read(lambda tx: tx.process_list(limit=PROCESS_LIVE_MAX + 1))
        done = sum(row.exit_code is ExitCode.DONE for row in rows) / len(rows)
        return done, took_s, 1_024 * (most - before) / PROCESS_LIVE_MAX


def run(checkouts: Sequence[Path] = ()) -> list[Figure]:
    """Measure all; `checkouts` are releases of AIOS to measure beside it."""
    collect_seldom()  # as the daemon does
    return [*_fast(checkouts), *_slow(), *_waits(), *_turns(), *_many()]


def _fast(checkouts: Sequence[Path]) -> list[Figure]:
    figures = []
    for callers in CALLERS:
        ours = anyio.run(_calls_per_s, callers, CALLS, StubModel(f"{PROVIDER}/fast"))
        name = f"complete calls, {callers} callers, instant model"
        figures.append(Figure(name=name, value=ours, unit="1/s", target=">= 3000/s"))
        figures += [
            Figure(
                name=name,
                value=ours,
                unit="1/s",
                target=">= 1 x of v0.2.2, >= 10 x of its head",
                baseline=f"AIOS {checkout.name}",
                baseline_value=max(_aios_per_s(checkout, callers) for _ in range(ROUNDS)),
            )
            for checkout in checkouts
        ]
    flushed = partial(_calls_per_s, CALLERS[0], FLUSHED_CALLS, StubModel(f"{PROVIDER}/fast"), flushed=True)
    name = f"complete calls, {CALLERS[0]} callers, instant model, each commit flushed"
    return [*figures, Figure(name=name, value=anyio.run(flushed), unit="1/s", target="-")]


def _slow() -> list[Figure]:
    figures = []
    for callers, target in zip(CALLERS, (">= 0.97 x", ">= 0.85 x"), strict=True):
        model, made = StubModel(f"{PROVIDER}/slow", SLOW_S), callers * SLOW_CALLS[callers]
        figures.append(
            Figure(
                name=f"complete calls, {callers} callers, {1_000 * SLOW_S:g} ms model",
                value=anyio.run(_calls_per_s, callers, made, model),
                unit="1/s",
                target=target,
                baseline="the model called directly",
                baseline_value=anyio.run(_direct_per_s, callers, made, model),
            )
        )
    return figures


def _waits() -> list[Figure]:
    name = f"longest of {INSTANT_CALLS} instant calls while one of {HOG_S:g} s runs"
    return [Figure(name=name, value=anyio.run(_instant_beside_slow_ms), unit="ms", target="< 20 ms")]


def _turns() -> list[Figure]:
    name = f"agent turns, {AGENTS} agents of {TURNS} turns with a tool call each, instant model"
    flushed = partial(_turns_per_s, flushed=True)
    return [
        Figure(name=name, value=max(anyio.run(_turns_per_s) for _ in range(ROUNDS)), unit="1/s", target="-"),
        Figure(name=f"{name}, each commit flushed", value=anyio.run(flushed), unit="1/s", target="-"),
    ]


def _many() -> list[Figure]:
    # In a process of its own: what the other experiments used and gave back would hide what this one takes.
    command = [sys.executable, "-m", "aos_mcp.bench.throughput"]
    answer = subprocess.run(command, capture_output=True, check=True, timeout=CROWD_S_MAX)
    done, took_s, each_kb = json.loads(answer.stdout)
    what = f"{PROCESS_LIVE_MAX} agents at once, {CROWD_TURNS} turns each"
    return [
        Figure(name=f"{what}: done", value=100 * done, unit="%", target="100"),
        Figure(name=f"{what}: until the last is done", value=took_s, unit="s", target="-"),
        Figure(name=f"{what}: memory of each", value=each_kb, unit="kB", target="< 250 kB"),
    ]


if __name__ == "__main__":
    collect_seldom()
    json.dump(anyio.run(_crowd), sys.stdout)
