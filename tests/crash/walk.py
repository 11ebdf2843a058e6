"""A random walk in simulation: kernels one after another on one store, hosts who do anything, deaths at any moment.

Usage: walk.py ROOT SEED [LIVES]

Everything follows from the seed: what hosts and agents do, how long everything takes, what fails, how tasks interleave,
and the moment each life ends at. A death leaves the files as they were at that statement or call, and nothing else. Of
each life what is on record is summed up in a digest: the same seed gives the same digests.
"""

from __future__ import annotations

import hashlib
import logging
import random
import shutil
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from aos_mcp.abi.errors import AosError
from aos_mcp.abi.handle import Pid
from aos_mcp.abi.journal import HOST_JOURNAL, EffectClass, Step, StepState
from aos_mcp.abi.process import ProcessState
from aos_mcp.abi.settings import (
    CheckpointSettings,
    ProviderSettings,
    RetentionSettings,
    Rule,
    Settings,
    WorkspaceBudget,
)
from aos_mcp.ports import Transaction
from aos_mcp.sandbox.workspace import DirectoryWorkspaces
from aos_mcp.storage.sqlite import open_sqlite
from aos_mcp.testing.clock import SeededEntropy
from aos_mcp.testing.faults import Death, MortalModels, MortalStore, mortal, open_mortal_sqlite
from aos_mcp.testing.kernels import OWNER, TestKernel, kernel_on
from aos_mcp.testing.virtual import VirtualClock, run_virtually
from tests.crash.callers import Host
from tests.crash.invariants import EVERY, evidence, lives, money
from tests.crash.scenarios import PERSON
from tests.crash.world import SimulatedModels, SlowSandbox, SlowShop, World

EPOCH = 1_700_000_000.0
LIVES = 4
LIFE_S = 1_200.0
"""How long hosts go on in a life, in simulated seconds."""
LIFE_MOMENTS = 40_000
"""Deaths come within so many; a life that has fewer ends in peace."""
HOSTS = 3
ALIVE = [state for state in ProcessState if state is not ProcessState.EXITED]
HOP_S = 0.02
DOWN_S = 3_600.0
SETTINGS = Settings(
    rules=[Rule(effect="ask", tool="shop__order", args={"n": "*7"}), Rule(effect="allow", tool="*")],
    checkpoints=CheckpointSettings(every_turns=2, keep=2),
    retention=RetentionSettings(ended_days=0.01),
    workspace_budget=WorkspaceBudget(usd=200.0),
    providers={"sim": ProviderSettings(concurrency=3)},
    concurrency=16,
)


class Died(BaseException):
    """The kernel is dead; what still runs of it gets this at whatever it asks for."""


@dataclass
class Walk:
    """One walk, under way."""

    root: Path
    seed: int
    at: float = EPOCH
    """What the clock shows."""
    number: int = 0
    """Of the life."""
    deaths: int = 0
    digests: list[str] = field(default_factory=list)
    """Of all that was on record at the end of each life."""
    simulated_s: float = 0.0
    moments: int = 0

    def __post_init__(self) -> None:
        self.world = World(self.seed)
        self.chance = random.Random(self.seed)
        self.home.mkdir(parents=True)

    @property
    def home(self) -> Path:
        return self.root / f"life-{self.number}"

    def live(self) -> None:
        """Live one life to its death, or to the end of the hosts' patience; look at what is on record then."""
        death = Death(self.chance.randrange(50, LIFE_MOMENTS), self._die)
        self._run(death, last=False)
        self._next(died=self._dead)
        self._look(ended=False)

    def end(self) -> None:
        """End all agents; look at everything."""
        self._run(Death(), last=True)
        self._next(died=False)
        self._look(ended=True)

    def _run(self, death: Death, *, last: bool) -> None:
        self._dead = False
        hops = random.Random(f"{self.seed} hops {self.number}")

        async def main(clock: VirtualClock) -> None:
            try:
                with anyio.fail_after(LIFE_S * 20):
                    await self._life(clock, death, last=last)
            finally:
                self.at = clock.now()
                self.simulated_s += clock.monotonic()

        with self._defects() as defects:
            try:
                run_virtually(main, epoch=self.at, hop_s=lambda: hops.random() * HOP_S)
            except BaseException:
                if not self._dead:
                    raise
        assert not defects, defects
        self.moments += len(death.moments)

    @contextmanager
    def _defects(self) -> Iterator[list[str]]:
        """Collect what a living kernel logs as its own failure; of a dead one nothing is to be heard."""
        defects: list[str] = []
        walk = self

        class Ear(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if record.levelno >= logging.ERROR and not walk._dead:
                    defects.append(self.format(record))

        logger, ear = logging.getLogger("aos_mcp"), Ear()
        known = logger.propagate
        logger.addHandler(ear)
        logger.propagate = False
        try:
            yield defects
        finally:
            logger.removeHandler(ear)
            logger.propagate = known

    def _die(self) -> None:
        if not self._dead:
            self._dead = True
            self.deaths += 1
            self._copy(self.root / f"life-{self.number + 1}")
        raise Died

    def _next(self, *, died: bool) -> None:
        if not died:
            self._copy(self.root / f"life-{self.number + 1}")
        shutil.rmtree(self.home)
        self.number += 1
        self.at += self.chance.random() * DOWN_S

    def _copy(self, target: Path) -> None:
        """Take the files as they are; SQLite makes its index of the log anew."""
        shutil.copytree(self.home, target, symlinks=True, ignore=shutil.ignore_patterns("*-shm"))

    async def _life(self, clock: VirtualClock, death: Death, *, last: bool) -> None:
        sandbox = SlowSandbox()
        sandbox.world, sandbox.clock, sandbox.folder = self.world, clock, self.home / "workspaces"
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(open_mortal_sqlite(self.home / "kernel.db", clock, death))
            k = await stack.enter_async_context(
                kernel_on(
                    self.home,
                    MortalModels(SimulatedModels(self.world, clock), death),
                    settings=SETTINGS,
                    sandbox=mortal(sandbox, "sandbox", death),
                    workspaces=mortal(DirectoryWorkspaces(self.home / "workspaces"), "workspaces", death),
                    mounts=mortal(SlowShop(self.world, clock), "mounts", death),
                    clock=clock,
                    entropy=mortal(SeededEntropy(self.seed * 1_000 + self.number), "entropy", death),
                    store=MortalStore(store, death),
                )
            )
            if last:
                await the_end(k)
                return
            async with anyio.create_task_group() as hosts:
                for number in range(HOSTS):
                    name = f"{self.number}-{number}"
                    host = Host(k, self.world, clock, self.world.chance(f"host {name}"), name)
                    hosts.start_soon(host.run, clock.now() + LIFE_S)

    def _look(self, *, ended: bool) -> None:
        """Open a copy of what is there, as a boot would, and check it."""
        look = self.root / "look"
        shutil.copytree(self.home, look, symlinks=True)

        async def main(clock: VirtualClock) -> list[str]:
            async with open_sqlite(look / "kernel.db", clock) as store:
                return await store.read(lambda tx: broken(tx, self.world, look, ended=ended))

        wrong = run_virtually(main, epoch=self.at, hop_s=lambda: 0.0)
        with closing(sqlite3.connect(look / "kernel.db")) as database:
            digest = hashlib.sha256("\n".join(database.iterdump()).encode())
        self.digests.append(digest.hexdigest())
        assert not wrong, "\n".join(wrong)
        shutil.rmtree(look)


async def the_end(k: TestKernel) -> None:
    """End whatever still lives, and what would begin anew."""
    for schedule in (await k.call("list_schedules", PERSON)).schedules:
        await k.call("remove_schedule", PERSON, schedule=schedule.name)
    while alive := [row for state in ALIVE for row in (await k.call("list_agents", state=state, limit=200)).agents]:
        for row in alive:
            with suppress(AosError):
                await k.call("signal_agent", pid=row.pid, signal="kill")
        await k.call("wait_agent", pids=[row.pid for row in alive][:20], timeout_s=1)
    await k.call("read_audit", verify=True)


def broken(tx: Transaction, world: World, home: Path, *, ended: bool) -> list[str]:
    """Return what does not hold, in words."""
    rows = tx.process_list(limit=EVERY)
    steps = {row.pid: tx.step_list(row.pid, limit=EVERY) for row in rows}
    every = [step for each in steps.values() for step in each] + tx.step_list(
        Pid(f"{HOST_JOURNAL}{OWNER}"), limit=EVERY
    )
    found = [*world.twice(), *silent(world, every)]
    if ended:
        found += [*lives(rows, steps), *money(tx, rows, steps, deaths=EVERY)]
        found += evidence(tx, rows, steps, home)
    else:
        found += [line for line in evidence(tx, rows, {pid: [] for pid in steps}, home) if "chain" in line]
    return found


def silent(world: World, steps: list[Step]) -> list[str]:
    """Return acts that no journal knows of, and steps that are on record as done and never happened."""
    done = Counter(world.ledger)
    orders = {f"shop:{step.idempotency_key}": step for step in steps if step.call == "call_tool"}
    commands = Counter(str(step.pid) for step in steps if step.call == "sandbox_exec")
    found = [f"{key} is on no journal" for key in done if key.startswith("shop:") and key not in orders]
    for pid, count in Counter(key.split(":")[1] for key in done if key.startswith("sandbox:p_")).items():
        if count > commands[pid]:
            found.append(f"{pid} ran {count} commands, its journal has {commands[pid]}")
    found += [
        f"step {step.number} of {step.pid} is done, and {key} never was"
        for key, step in orders.items()
        if step.effect is EffectClass.UNSAFE and step.state is StepState.DONE and not done[key]
    ]
    return found


def walk(root: Path, seed: int, count: int = LIVES) -> Walk:
    """Walk, and return what came of it. Raises AssertionError with what does not hold."""
    one = Walk(root / f"seed-{seed}", seed)
    for _ in range(count):
        one.live()
    one.end()
    shutil.rmtree(one.root)
    return one


if __name__ == "__main__":
    walked = walk(Path(sys.argv[1]), int(sys.argv[2]), *map(int, sys.argv[3:]))
    print(
        f"seed {walked.seed}: {walked.number} lives, {walked.deaths} deaths, {walked.moments} moments, "
        f"{walked.simulated_s / 3_600:.2f} simulated hours, {len(walked.world.ledger)} effects"
    )
    print(*walked.digests, sep="\n")
