"""Dependents: processes that start once others have ended, with their results as input.

Such a process is BLOCKED and nobody holds it; what it waits for is on record. The transaction in which the last of them
ends makes it READY. Its first claim gives it the results, by reference: a payload is stored once, whoever reads it. How
they ended does not matter: a failure is a result too, and the dependent is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from aos_mcp.abi.process import ExitCode, Process, ProcessState
from aos_mcp.kernel import pages
from aos_mcp.kernel.machine import Machine
from aos_mcp.ports import Transaction


def waiting(fresh: Process, targets: Sequence[Process]) -> Process:
    """Return the row of a process that is not stored yet, as one that starts after these."""
    if all(target.state is ProcessState.EXITED for target in targets):
        return fresh
    named = ", ".join(target.pid for target in targets)
    return replace(fresh, state=ProcessState.BLOCKED, waiting_for=f"to start after {named}")


def has_yet_to_start(process: Process) -> bool:
    """Tell whether a process waits for others before its first turn."""
    return process.state is ProcessState.BLOCKED and process.lease_holder is None


def follow(tx: Transaction, process: Process, targets: Sequence[Process]) -> None:
    """Note what a new process starts after."""
    for target in targets:
        tx.dependency_insert(process.pid, target.pid)


def deliver(tx: Transaction, machine: Machine, process: Process, now: float) -> Process:
    """Make the results of what a process started after its first pages."""
    targets = tx.dependency_targets(process.pid)
    if not targets:
        return process
    tx.dependency_take(process.pid)
    account = tx.account_get(process.pid)
    assert account is not None
    tx.account_put(replace(account, opened_at=now))  # its time begins now: it could not use what has passed
    add = partial(pages.append, entropy=machine.entropy, now=now, importance=1.0)
    for target in targets:
        body = tx.payload_get(target.result) if target.result is not None else None
        head = _ending(target, has_result=bool(body))
        process = add(tx, process, head, source="kernel")
        if not body:
            continue
        text, title = body.decode(), f"Result of {target.name} ({target.pid})"
        shown = pages.shortened(tx, process, text, title=title, entropy=machine.entropy, now=now, source=target.pid)
        process = add(tx, process, shown, source=target.pid, title=title)
    return process


def _ending(target: Process, *, has_result: bool) -> str:
    how = "done" if target.exit_code is ExitCode.DONE else f"{target.exit_code}: {target.exit_reason}"
    said = "Its result:" if has_result else "It left no result."
    return f"[{target.name} ({target.pid}), which you start after, has ended: {how}] {said}"
