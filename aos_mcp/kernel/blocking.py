"""Blocking: a process that waits for something other than a device gives its place in the run away."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio

from aos_mcp.abi.errors import AosError, Cancelled
from aos_mcp.abi.handle import Pid
from aos_mcp.abi.process import Process, ProcessState, SchedClass, Signal, sched_class
from aos_mcp.kernel import table
from aos_mcp.kernel.call import Call
from aos_mcp.kernel.machine import Machine
from aos_mcp.kernel.scheduler import Wait
from aos_mcp.ports import Transaction

QUIESCED_POLL_S = 0.2
"""How soon a wait that is over is seen to go on, once a checkpoint has what it came for."""


@asynccontextmanager
async def blocked(call: Call, waiting_for: str, lends_to: Sequence[Pid] = ()) -> AsyncIterator[None]:
    """Hold the calling agent in BLOCKED while the body waits. Hosts are not processes: nothing happens for them.

    It is RUNNING again when the wait is over, also when it is over by an error that the agent will read. A turn that
    was cut leaves the row as it is. Meanwhile its class is lent to `lends_to`.
    """
    if call.caller.pid is None:
        yield
        return
    machine, pid = call.machine, call.caller.pid
    goes_on = False
    machine.blocked[pid] += 1
    try:
        _lend(machine, pid, sched_class((await call.read(call.own, brief=True)).priority), lends_to)
        if machine.blocked[pid] == 1:
            await _move(call, pid, ProcessState.BLOCKED, waiting_for)
        yield
        goes_on = True
    except AosError:
        goes_on = True
        raise
    finally:
        _take_back(machine, pid, lends_to)
        machine.blocked[pid] -= 1
        last = machine.blocked[pid] <= 0
        if last:
            del machine.blocked[pid]
        if last and goes_on:
            await _saved(machine, pid)
            await _move(call, pid, ProcessState.RUNNING, None)


def _lend(machine: Machine, pid: Pid, level: SchedClass, targets: Sequence[Pid]) -> None:
    """Have the scheduler know what a process waits for, before its place is free. Several waits of one turn add up."""
    if targets:
        known = machine.waits.get(pid, Wait(level, ()))
        machine.waits[pid] = Wait(level, (*known.targets, *targets))


def _take_back(machine: Machine, pid: Pid, targets: Sequence[Pid]) -> None:
    known = machine.waits.pop(pid, None)
    if known is None:
        return
    left = Counter(known.targets) - Counter(targets)
    if left:
        machine.waits[pid] = Wait(known.sched_class, tuple(left.elements()))


async def _saved(machine: Machine, pid: Pid) -> None:
    """Return once no checkpoint wants the process to stand still: its files and its pages are of one moment."""
    while machine.quiesced[pid]:
        await until_changed(machine, machine.bus.ticket(), machine.clock.monotonic() + QUIESCED_POLL_S)


async def _move(call: Call, pid: Pid, to: ProcessState, waiting_for: str | None) -> None:
    def work(tx: Transaction) -> Process:
        process = table.held(tx, pid, call.fence)
        return table.transition(tx, process, to, now=call.now, waiting_for=waiting_for)

    process = await call.machine.store.write(work, brief=True)
    call.machine.sign_of_life(pid)
    call.machine.process_changed(process)


async def until_changed(machine: Machine, ticket: anyio.Event, deadline: float) -> bool:
    """Wait for the next publication; False when `deadline` (monotonic seconds) passed first."""
    with anyio.move_on_after(max(0.0, deadline - machine.clock.monotonic())) as scope:
        await ticket.wait()
    return not scope.cancelled_caught


def refuse_when_finishing(tx: Transaction, call: Call) -> None:
    """End a wait early when its process has been asked to finish, or is finishing.

    Raises:
        Cancelled: it was.
    """
    if call.caller.pid is None:
        return
    process = table.held(tx, call.caller.pid, call.fence)
    if process.pending is Signal.TERM or process.finishing:
        raise Cancelled("You have been asked to finish.", "Wait no longer: exit with what you have.")
