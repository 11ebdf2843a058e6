"""A whole kernel for tests: real SQLite, real workspaces, real gate and loop; models and devices as the test says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from pydantic import BaseModel

from aos_mcp.abi.capability import Caller, CallerKind
from aos_mcp.abi.definition import AgentDefinition
from aos_mcp.abi.settings import Settings
from aos_mcp.audit.redact import redact
from aos_mcp.hardware import SystemClock, SystemEntropy
from aos_mcp.kernel.admission import Admission
from aos_mcp.kernel.kernel import Kernel
from aos_mcp.kernel.machine import Machine, Seal
from aos_mcp.metrics.registry import Metrics
from aos_mcp.ports import Clock, Embedder, Entropy, Models, Mounts, Sandbox, Store, Workspaces
from aos_mcp.sandbox.workspace import DirectoryWorkspaces
from aos_mcp.storage.sqlite import open_sqlite
from aos_mcp.testing.devices import RecordingMounts, RecordingSandbox

AUDIT_KEY = bytes(range(32))
OWNER = "local:test"
HOST = Caller(kind=CallerKind.HOST, principal=OWNER, host="test")


@dataclass(slots=True)
class TestKernel:
    """A kernel and the machine it is on. Calls are made as the host unless told otherwise."""

    __test__ = False

    kernel: Kernel
    machine: Machine

    async def call(self, name: str, caller: Caller = HOST, /, **arguments: object) -> Any:
        """Make one call and return its result model."""
        result: BaseModel = await self.kernel.syscall(caller, name, arguments)
        return result


@asynccontextmanager
async def kernel_on(
    home: Path,
    models: Models,
    *,
    settings: Settings | None = None,
    sandbox: Sandbox | None = None,
    workspaces: Workspaces | None = None,
    mounts: Mounts | None = None,
    clock: Clock | None = None,
    entropy: Entropy | None = None,
    definitions: Mapping[str, AgentDefinition] | None = None,
    store: Store | None = None,
    embedder: Embedder | None = None,
    redact: Callable[[str], str] = redact,
) -> AsyncIterator[TestKernel]:
    """Boot a kernel in `home`, run it while the context lasts, and stop it cleanly.

    Boot again in the same home to see what a restart finds.
    """
    clock, entropy = clock or SystemClock(), entropy or SystemEntropy()
    settings = settings or Settings()
    async with AsyncExitStack() as stack:
        own = None
        if store is None:
            store = own = await stack.enter_async_context(open_sqlite(home / "kernel.db", clock))
        machine = Machine(
            settings=settings,
            version="test",
            node="test:1",
            store=store,
            models=models,
            sandbox=sandbox or RecordingSandbox(),
            workspaces=workspaces or DirectoryWorkspaces(home / "workspaces"),
            mounts=mounts or RecordingMounts(),
            clock=clock,
            entropy=entropy,
            seal=Seal(key=AUDIT_KEY, origin="aos-mcp/test", heads=home / "audit.heads"),
            definitions=lambda project: definitions or {},
            redact=redact,
            metrics=Metrics(),
            admission=Admission(settings.providers, clock, slice_tokens=settings.slice_tokens),
            started_at=clock.now(),
            store_file=own,
            embedder=embedder,
        )
        kernel = Kernel(machine, OWNER)
        async with anyio.create_task_group() as group:
            await group.start(kernel.run)
            try:
                yield TestKernel(kernel, machine)
            finally:
                group.cancel_scope.cancel()
