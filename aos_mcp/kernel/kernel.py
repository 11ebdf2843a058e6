"""The kernel: one machine, one gate, one loop. Everything that acts goes through `syscall`."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace

import anyio
from anyio.abc import TaskStatus
from anyio.streams.memory import MemoryObjectReceiveStream
from pydantic import BaseModel

from aos_mcp.abi.audit import AuditHead
from aos_mcp.abi.budget import WORKSPACE_ACCOUNT, Account
from aos_mcp.abi.capability import Caller, CallerKind
from aos_mcp.abi.errors import AosError
from aos_mcp.abi.event import Event
from aos_mcp.abi.limits import SHUTDOWN_S
from aos_mcp.abi.settings import Settings
from aos_mcp.kernel import guests, table
from aos_mcp.kernel.budget import as_budget
from aos_mcp.kernel.calls.handlers import HANDLERS
from aos_mcp.kernel.calls.scheduling import policy_on_record
from aos_mcp.kernel.consolidation import run_consolidation
from aos_mcp.kernel.gate import Gate
from aos_mcp.kernel.indexer import run_indexer
from aos_mcp.kernel.loop import Loop
from aos_mcp.kernel.machine import Machine
from aos_mcp.kernel.pins import run_pins
from aos_mcp.kernel.recovery import recover
from aos_mcp.kernel.retention import run_retention
from aos_mcp.kernel.schedules import run_schedules
from aos_mcp.kernel.sealer import run_sealer, seal_all
from aos_mcp.ports import Deliver, Progress, Transaction

logger = logging.getLogger(__name__)

PROOF_DELAY_S = 2.0
"""The sandbox drivers are proven this long after the boot, or when a command first wants one."""


class Kernel:
    """What the surface sees of the machine."""

    def __init__(self, machine: Machine, owner: str) -> None:
        """Put a kernel on a machine whose devices are open. `owner` is the person it works for."""
        self._machine = machine
        self._owner = owner
        self._gate = Gate(machine, HANDLERS)
        machine.admission.on_room = machine.ready_again

    @property
    def settings(self) -> Settings:
        """The configuration it was booted with."""
        return self._machine.settings

    @property
    def version(self) -> str:
        """The release."""
        return self._machine.version

    @property
    def node(self) -> str:
        """The name of this kernel among those on the same store."""
        return self._machine.node

    async def syscall(
        self, caller: Caller, name: str, arguments: Mapping[str, object], *, progress: Progress | None = None
    ) -> BaseModel:
        """Make one call for a host or an operator. Agents come through the same gate, from their own turns.

        Raises:
            AosError: the call was refused or failed.
        """
        return await self._gate.syscall(caller, name, arguments, progress=progress)

    @property
    def anchor(self) -> AuditHead | None:
        """The newest signed head of the audit log, None while there is none."""
        return self._machine.anchor

    async def guest_call(
        self, secret: str, name: str, arguments: Mapping[str, object], *, deliver: Deliver | None = None
    ) -> BaseModel:
        """Make one call for the program that holds a key, as the process the key was issued for.

        Raises:
            KeyRefused: the key opens nothing.
            AosError: the call was refused or failed.
        """
        guest = await self._machine.store.read(lambda tx: guests.admit(tx, secret), brief=True)
        caller = Caller(kind=CallerKind.GUEST, principal=guest.owner, pid=guest.pid, host=guest.name)
        try:
            with guests.under_way(self._machine, guest.pid):
                return await self._gate.syscall(caller, name, arguments, process=guest, deliver=deliver)
        except table.Superseded:
            pass
        raise guests.KeyRefused(f"{guest.pid} ended or was stopped just now.", "Look at it with: aos ps.")

    def listen(self) -> AbstractContextManager[MemoryObjectReceiveStream[Event]]:
        """Give the events published from now on. A listener that lags loses some, and nothing by it."""
        return self._machine.bus.listen()

    def busy(self) -> bool:
        """Tell whether any agent runs or is about to, a scheduled one included.

        One that waits for a person does not keep the kernel up.
        """
        machine = self._machine
        running = len(machine.running) > len(machine.blocked) or machine.backlog > 0
        return running or machine.alarm < math.inf or machine.upcoming < math.inf

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Recover what a dead kernel left, then run agents until cancelled. Seals the audit log on the way out."""
        machine = self._machine
        await machine.store.write(self._open_workspace_account)
        machine.policy = await machine.store.read(lambda tx: policy_on_record(tx, machine))
        taken = await recover(machine)
        if taken:
            logger.info("took over %d processes of a kernel that stopped", taken)
        task_status.started()
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(run_sealer, machine)
                group.start_soon(machine.admission.run)
                group.start_soon(run_pins, machine, self._owner)
                group.start_soon(run_indexer, machine)
                group.start_soon(run_schedules, machine, self._gate)
                group.start_soon(run_consolidation, machine, self._gate, self._owner)
                group.start_soon(run_retention, machine, self._gate, self._owner)
                group.start_soon(self._prove_sandbox)
                await Loop(machine, self._gate).run()
        finally:
            machine.stopping = True
            with anyio.move_on_after(SHUTDOWN_S, shield=True):
                await self._seal_last()

    async def _seal_last(self) -> None:
        try:
            await seal_all(self._machine, keep=True)
        except AosError as error:
            logger.warning("the last audit entries stay staged, and are sealed at the next boot: %s", error)

    def _open_workspace_account(self, tx: Transaction) -> None:
        limit = as_budget(self._machine.settings.workspace_budget)
        known = tx.account_get(WORKSPACE_ACCOUNT)
        if known is None:
            opened_at = self._machine.clock.now()
            tx.account_insert(Account(account=WORKSPACE_ACCOUNT, parent=None, limit=limit, opened_at=opened_at))
        elif known.limit != limit:
            tx.account_put(replace(known, limit=limit))

    async def _prove_sandbox(self) -> None:
        with anyio.move_on_after(PROOF_DELAY_S):  # the first replies go before it
            await self._machine.sandbox_wanted.wait()
        proofs = await self._machine.sandbox.prove()
        self._machine.sandbox_failures = tuple(proof for proof in proofs if not proof.passed)
        self._machine.sandbox_tried.set()
