"""Schedules: spawns that repeat. Each run is one transaction with its record, so none is lost and none happens twice.

The decision is `kernel.timetable`'s; the run itself is a call through the gate like any other. This is only the alarm:
it sleeps until the next one is due, or until something changed.
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import anyio

from aos_mcp.abi.capability import Caller, CallerKind
from aos_mcp.abi.errors import AosError
from aos_mcp.abi.process import ProcessState
from aos_mcp.abi.scheduling import Schedule
from aos_mcp.kernel.alarm import set_or_due
from aos_mcp.kernel.gate import Gate
from aos_mcp.kernel.machine import Machine
from aos_mcp.kernel.steady import steadily
from aos_mcp.kernel.timetable import Due, due
from aos_mcp.ports import Transaction

logger = logging.getLogger(__name__)

LOOK_S = 3_600.0
"""The table is looked at this often even when nothing is due."""


async def run_schedules(machine: Machine, gate: Gate) -> None:
    """Start what is due, for ever."""

    async def once() -> None:
        changed = machine.timetable = anyio.Event()  # before the look, so that nothing that comes after it is missed
        now = machine.clock.now()
        for schedule in await machine.store.read(lambda tx: _due(tx, now)):
            await _run(machine, gate, schedule)
        times = [
            schedule.next_at
            for schedule in await machine.store.read(lambda tx: tx.schedule_list())
            if not schedule.paused and schedule.next_at is not None
        ]
        machine.upcoming = min(times, default=math.inf)
        to_come = min((at for at in times if at > now), default=math.inf)  # what is due waits for its former run
        await set_or_due(machine.clock, changed, min(to_come, now + LOOK_S))

    await steadily(machine, "schedules", once)


def _due(tx: Transaction, now: float) -> list[Schedule]:
    return [schedule for schedule in tx.schedule_list() if decide(tx, schedule, now) is not None]


async def _run(machine: Machine, gate: Gate, schedule: Schedule) -> None:
    caller = Caller(kind=CallerKind.KERNEL, principal=schedule.owner)
    try:
        await gate.syscall(caller, "run_schedule", {"schedule": schedule.schedule_id, "due_at": schedule.next_at})
    except AosError as error:
        logger.warning("schedule %s: %s", schedule.name, error)
        refusal = machine.redact(f"refused: {error.message}")
        await machine.store.write(lambda tx: _refused(tx, schedule, refusal, machine.clock.now()))


def _refused(tx: Transaction, schedule: Schedule, why: str, now: float) -> None:
    """Put on record that a run could not begin; the next one is tried at its own time."""
    decision = decide(tx, schedule, now)
    if decision is not None and tx.schedule_find(schedule.owner, schedule.schedule_id) == schedule:
        tx.schedule_put(replace(schedule, next_at=decision.next_at, last_at=now, last_outcome=why))


def decide(tx: Transaction, schedule: Schedule, now: float) -> Due | None:
    """Decide about a schedule, given how its former run stands."""
    return due(schedule, now, former_runs=former_runs(tx, schedule))


def former_runs(tx: Transaction, schedule: Schedule) -> bool:
    """Tell whether the last run has not ended yet."""
    process = tx.process_get(schedule.last_pid) if schedule.last_pid is not None else None
    return process is not None and process.state is not ProcessState.EXITED
