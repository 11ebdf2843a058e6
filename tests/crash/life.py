"""One life of a kernel on devices that may kill it at any moment; a ledger outside of it says what really happened."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from aos_mcp.abi.sandbox import Command, CommandOutcome, SandboxProof
from aos_mcp.abi.settings import MountSettings, Rule, SandboxSettings, Settings
from aos_mcp.hardware import SystemClock, SystemEntropy
from aos_mcp.ports import Mounts, Sandbox
from aos_mcp.proxy.mount_table import MountTable
from aos_mcp.sandbox.drivers import ProvenSandbox
from aos_mcp.sandbox.workspace import DirectoryWorkspaces
from aos_mcp.testing.devices import RecordingMounts, RecordingSandbox, a_tool
from aos_mcp.testing.faults import Death, MortalModels, MortalStore, mortal, open_mortal_sqlite
from aos_mcp.testing.kernels import TestKernel, kernel_on
from aos_mcp.testing.model import ScriptedModels

ALLOWED = Settings(rules=[Rule(effect="allow", tool="shop__*"), Rule(effect="allow", tool="sandbox_exec")])
SERVER = Path(__file__).with_name("shop_server.py")
LIFE_S = 60.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """What agents do (`models`) and what their host does (`drive`), which must be able to begin again after a death."""

    name: str
    models: Callable[[], ScriptedModels]
    drive: Callable[[TestKernel], Awaitable[None]]
    effects: tuple[str, ...] = ()
    """The ledger of a run that nothing disturbs."""
    settings: Settings = ALLOWED
    sandbox: str = "recording"
    mounts: str = "recording"
    may_end_early: bool = False
    """A crash may cost so much of the budget that less is done; never more."""
    from_nothing: bool = False
    """The store itself is made in the run."""


def note(ledger: Path, line: str) -> None:
    with ledger.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


class LedgerSandbox(RecordingSandbox):
    """Notes each command in a file outside the kernel."""

    ledger: Path

    async def execute(self, command: Command) -> CommandOutcome:
        note(self.ledger, f"sandbox:{command.argv[-1]}")
        return await super().execute(command)


class TrustedSandbox(ProvenSandbox):
    """Takes its driver's word: proofs have tests of their own, and cost more than a life here."""

    async def prove(self) -> Sequence[SandboxProof]:
        for driver in self._drivers.values():
            await driver.check()
        self._proofs = [
            SandboxProof(driver=name, passed=True, probes=(), memory_limit="none") for name in self._drivers
        ]
        return self._proofs


def ledger_mounts(ledger: Path) -> RecordingMounts:
    def order(arguments: Mapping[str, object]) -> str:
        note(ledger, f"shop__order:{arguments['n']}")
        return "ordered"

    def look(arguments: Mapping[str, object]) -> str:
        return f"item {arguments['n']}: " + "a fine thing " * 120

    return RecordingMounts({a_tool("shop__order"): order, a_tool("shop__look", read_only=True): look})


@asynccontextmanager
async def a_sandbox(scenario: Scenario, home: Path) -> AsyncIterator[Sandbox]:
    if scenario.sandbox == "recording":
        recording = LedgerSandbox()
        recording.ledger = home / "ledger"
        yield recording
        return
    settings = SandboxSettings.model_validate({"drivers": [scenario.sandbox]})
    (home / "run").mkdir(exist_ok=True)
    async with TrustedSandbox(
        settings, home / "workspaces", home / "run", SystemClock(), SystemEntropy(), "sweep"
    ) as sandbox:
        yield sandbox


@asynccontextmanager
async def some_mounts(scenario: Scenario, home: Path) -> AsyncIterator[Mounts]:
    if scenario.mounts == "recording":
        yield ledger_mounts(home / "ledger")
        return
    settings = MountSettings(command=sys.executable, args=["-I", str(SERVER), str(home / "ledger")])
    async with MountTable({"shop": settings}, SystemClock(), SystemEntropy(), dict(os.environ)) as table:
        await table.settled(LIFE_S)
        yield table


async def live(scenario: Scenario, home: Path, death: Death) -> None:
    """Boot on what is in `home` and go on until the host has what it wants, or death comes."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_mortal_sqlite(home / "kernel.db", SystemClock(), death))
        sandbox = await stack.enter_async_context(a_sandbox(scenario, home))
        mounts = await stack.enter_async_context(some_mounts(scenario, home))
        k = await stack.enter_async_context(
            kernel_on(
                home,
                MortalModels(scenario.models(), death),
                settings=scenario.settings,
                sandbox=mortal(sandbox, "sandbox", death),
                workspaces=mortal(DirectoryWorkspaces(home / "workspaces"), "workspaces", death),
                mounts=mortal(mounts, "mounts", death),
                entropy=mortal(SystemEntropy(), "entropy", death),
                store=MortalStore(store, death),
            )
        )
        with anyio.fail_after(LIFE_S):
            await scenario.drive(k)


def ledger_of(home: Path) -> list[str]:
    """Return what really happened, also inside workspaces."""
    files = [home / "ledger", *sorted((home / "workspaces").glob("*/**/ledger"))]
    return [line for file in files if file.is_file() for line in file.read_text("utf-8").splitlines()]


def written(value: Any) -> str:
    return json.dumps(value, sort_keys=True, indent=1)
