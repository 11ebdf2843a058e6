"""The process table. `transition` is the only way a process changes state."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aos_mcp.abi.capability import Caller, CallerKind
from aos_mcp.abi.errors import Conflict, NotFound
from aos_mcp.abi.handle import Digest, Pid
from aos_mcp.abi.process import MOVES, ExitCode, Process, ProcessState
from aos_mcp.kernel import journal
from aos_mcp.ports import Transaction

LIVE = (ProcessState.READY, ProcessState.RUNNING, ProcessState.BLOCKED, ProcessState.STOPPED)
PREFIX_MATCHES = 2
"""Enough to tell a unique prefix from an ambiguous one."""


class Superseded(Exception):
    """The turn is no longer this kernel's: the process was killed, stopped or claimed by another. It just ends."""


def transition(tx: Transaction, process: Process, to: ProcessState, *, now: float, **changes: Any) -> Process:
    """Move a process along `MOVES` and store it.

    Raises:
        Conflict: the move is not legal from its present state.
    """
    if to not in MOVES[process.state]:
        raise Conflict(
            f"{process.pid} is {process.state} and cannot become {to}.", "Look at it with list_agents and try again."
        )
    return tx.process_put(replace(process, state=to, updated_at=now, **changes))


def end(
    tx: Transaction, process: Process, *, now: float, code: ExitCode, reason: str, result: Digest | None = None
) -> Process:
    """End a process: its lease goes, its row stays, and no step of its journal stays open."""
    journal.abandon(tx, process.pid, process.fence, now)
    return transition(
        tx,
        process,
        ProcessState.EXITED,
        now=now,
        exit_code=code,
        exit_reason=reason,
        result=result if result is not None else process.result,
        ended_at=now,
        waiting_for=None,
        pending=None,
        lease_holder=None,
        lease_until=None,
    )


def held(tx: Transaction, pid: Pid, fence: int) -> Process:
    """Return the row of a process whose turn the caller runs.

    Raises:
        Superseded: it is not running under this fence any more.
    """
    process = tx.process_get(pid)
    if process is None or process.fence != fence or process.state not in {ProcessState.RUNNING, ProcessState.BLOCKED}:
        raise Superseded(pid)
    return process


def find(tx: Transaction, caller: Caller, handle: str) -> Process:
    """Return the process a caller names by pid, or by a unique prefix where the caller is a person.

    A process of another owner, or outside an agent's own tree, is not found: one error for foreign and missing.

    Raises:
        NotFound: there is none that is the caller's.
        Conflict: the prefix fits more than one.
    """
    process = tx.process_get(Pid(handle))
    if process is None and caller.kind is not CallerKind.AGENT:
        matches = tx.process_find_prefix(caller.principal, handle, limit=PREFIX_MATCHES)
        if len(matches) > 1:
            raise Conflict(f"{handle} fits more than one process.", "Give more of the pid.")
        process = matches[0] if matches else None
    if process is None or not _visible(tx, caller, process):
        raise NotFound(f"There is no process {handle}.", "List yours with list_agents.")
    return process


def _visible(tx: Transaction, caller: Caller, process: Process) -> bool:
    if caller.kind is CallerKind.KERNEL:
        return True
    if process.owner != caller.principal:
        return False
    return caller.pid is None or is_within(tx, process, caller.pid)


def is_within(tx: Transaction, process: Process, ancestor: Pid) -> bool:
    """Tell whether a process is `ancestor` or one of its descendants."""
    link: Process | None = process
    while link is not None:
        if link.pid == ancestor:
            return True
        link = tx.process_get(link.parent) if link.parent is not None else None
    return False


def subtree(tx: Transaction, process: Process) -> list[Process]:
    """Return a process and all its descendants, parents before children."""
    found = [process]
    for link in found:
        found.extend(tx.process_children(link.pid))
    return found
