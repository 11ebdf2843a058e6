"""Automatic checkpoints: the files of an agent that runs commands are saved every few turns, and the last few are kept.

Its context needs none: a page table is known at every step (`kernel.moment`). So a turn without commands before it
costs nothing here. Called while the process is still held by its turn, so that it is at a boundary.
"""

from __future__ import annotations

import logging

from aos_mcp.abi.errors import AosError
from aos_mcp.abi.handle import Pid
from aos_mcp.abi.process import Process, ProcessState
from aos_mcp.kernel import files, moment
from aos_mcp.kernel.machine import Machine
from aos_mcp.ports import Transaction

logger = logging.getLogger(__name__)

AUTOMATIC = "automatic"
"""The label of such a checkpoint."""


async def autosave(machine: Machine, pid: Pid) -> None:
    """Save a process after its turn, where that is due. A failure is logged: the agent goes on without."""
    settings = machine.settings.checkpoints
    if pid not in machine.unsaved or not settings.every_turns:
        return
    machine.unsaved[pid] += 1
    if machine.unsaved[pid] < settings.every_turns:
        return
    del machine.unsaved[pid]  # before anything is waited for: a process that ends meanwhile is taken out as well
    try:
        process = await machine.store.read(lambda tx: tx.process_get(pid), brief=True)
        if process is None or process.state is not ProcessState.READY:
            return
        with machine.keeping(pid):
            await _save(machine, process, settings.keep)
    except AosError as error:
        logger.warning("%s was not saved by itself: %s", pid, error)


async def _save(machine: Machine, process: Process, keep: int) -> None:
    manifest = await files.snapshot(machine, process.pid, process.workspace)
    name, now = machine.entropy.handle("ck_"), machine.clock.now()

    def save(tx: Transaction) -> None:
        moment.save(tx, process.pid, name, AUTOMATIC, manifest, now)
        tx.checkpoint_drop(process.pid, AUTOMATIC, keep=keep)

    await machine.store.write(save)
