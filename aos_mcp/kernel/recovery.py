"""Recovery: after a boot every process in the store is in a state this kernel can go on from.

The work is proportional to what was running, not to history: only leased processes and open reservations are read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from aos_mcp.abi.audit import kernel_entry
from aos_mcp.abi.budget import Reservation
from aos_mcp.abi.errors import ErrorCode
from aos_mcp.abi.handle import Pid, pid_in
from aos_mcp.abi.journal import MODEL_CALL
from aos_mcp.abi.limits import RECOVERED_PER_COMMIT
from aos_mcp.abi.process import ProcessState
from aos_mcp.kernel import budget, journal, table
from aos_mcp.kernel.machine import Machine
from aos_mcp.ports import Transaction


async def recover(machine: Machine) -> int:
    """Take over what a dead kernel left: charge its open reservations in full, free its processes under a new fence.

    Acts of hosts that were under way become unknown, as those of agents do. Returns how many processes were taken over.
    """
    await machine.store.write(lambda tx: _charge_open_reservations(tx, machine.clock.now()))
    await machine.store.write(partial(_settle_hosts, now=machine.clock.now()))
    machine.alarm = await machine.store.read(_next_alarm)
    found = await machine.store.read(lambda tx: tx.process_leased())
    leased, taken = [process.pid for process in found], sum(not process.guest for process in found)
    for start in range(0, len(leased), RECOVERED_PER_COMMIT):
        some = leased[start : start + RECOVERED_PER_COMMIT]
        await machine.store.write(partial(_take_over_all, machine=machine, pids=some))
    return taken


def _next_alarm(tx: Transaction) -> float:
    alarm = tx.process_alarm()
    return math.inf if alarm is None else alarm


def _take_over_all(tx: Transaction, machine: Machine, pids: Sequence[Pid]) -> None:
    for pid in pids:
        take_over(tx, machine, pid)


def _settle_hosts(tx: Transaction, now: float) -> None:
    """Settle what hosts had under way: whoever asked is gone, and is told by the question that is left."""
    for step in tx.step_unowned():
        journal.cut(tx, step, now=now)


def _charge_open_reservations(tx: Transaction, now: float) -> None:
    for held in tx.reservation_list():
        _charge(tx, held, now, "cut by a crash")


def lost_reservations(tx: Transaction, machine: Machine) -> list[Reservation]:
    """Return what is set aside for calls that there are no more: an answer came, and could not be put on record."""
    return [held for held in tx.reservation_list() if held.reservation_id not in machine.reserved]


def charge_lost(tx: Transaction, machine: Machine) -> None:
    """Charge them in full, as a crash would have had it: the provider may have billed all of it."""
    for held in lost_reservations(tx, machine):
        _charge(tx, held, machine.clock.now(), "never settled")


def _charge(tx: Transaction, held: Reservation, now: float, why: str) -> None:
    budget.settle_in_full(tx, held)
    tx.audit_stage(
        kernel_entry(
            now,
            "model",
            MODEL_CALL,
            pid=pid_in(held.account),
            subject=held.account,
            outcome=ErrorCode.UNKNOWN_OUTCOME,
            detail=f"{why} and charged in full: {held.tokens} tokens, {held.microusd} microusd",
        )
    )


def take_over(tx: Transaction, machine: Machine, pid: Pid) -> None:
    """Free a process whose turn is gone, under a new fence; its unsafe steps without a result become unknown."""
    process = tx.process_get(pid)
    if process is None or process.state not in {ProcessState.RUNNING, ProcessState.BLOCKED}:
        return
    now = machine.clock.now()
    if process.guest:  # its program goes on calling; only the calls under way were lost
        journal.abandon(tx, process.pid, process.fence, now)
        return
    fenced = table.transition(
        tx,
        process,
        ProcessState.READY,
        now=now,
        fence=process.fence + 1,
        lease_holder=None,
        lease_until=None,
        waiting_for=None,
    )
    unknown = journal.abandon(tx, fenced.pid, fenced.fence, now)
    detail = f"taken over from {process.lease_holder}"
    if unknown:
        detail += "; of unknown outcome: " + ", ".join(f"{step.call} (step {step.number})" for step in unknown)
    tx.audit_stage(kernel_entry(now, "kernel", "recover", pid=fenced.pid, subject=fenced.pid, detail=detail))
