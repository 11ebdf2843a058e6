"""The process table. `transition` is the only way a process changes state."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aos_mcp.abi.audit import kernel_entry
from aos_mcp.abi.capability import Caller, CallerKind
from aos_mcp.abi.errors import Conflict, NotFound
from aos_mcp.abi.handle import Digest, Pid
from aos_mcp.abi.process import MOVES, ExitCode, Process, ProcessState
from aos_mcp.kernel import journal, sizes
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
    lasted: dict[str, Any] = {**spent(process, now)}
    if to is ProcessState.READY:
        lasted["ready_at"] = now
    return tx.process_put(replace(process, **{**lasted, "state": to, "updated_at": now, "since": now, **changes}))


def spent(process: Process, now: float) -> dict[str, float]:
    """Return the account of time with the state that ends now. Waiting out a back-off is not waiting for a turn."""
    since = process.since if process.since is not None else process.created_at
    if process.state is ProcessState.READY:
        return {"waiting_s": process.waiting_s + max(0.0, now - max(since, process.wake_at or 0.0))}
    if process.state is ProcessState.RUNNING:
        return {"running_s": process.running_s + max(0.0, now - since)}
    if process.state is ProcessState.BLOCKED:
        return {"blocked_s": process.blocked_s + max(0.0, now - since)}
    return {}


def end(
    tx: Transaction, process: Process, *, now: float, code: ExitCode, reason: str, result: Digest | None = None
) -> Process:
    """End a process: its lease goes, its row stays, no step of its journal stays open, and the log says how.

    Where it raced and is done, the others are ended in the same transaction, with all that they had spawned.
    """
    journal.abandon(tx, process.pid, process.fence, now)
    outcome = "ok" if code is ExitCode.DONE else code.value
    tx.audit_stage(kernel_entry(now, "process", "end", pid=process.pid, subject=process.pid, outcome=outcome))
    if code is ExitCode.DONE:
        _learn(tx, process)
        for rival in [loser.pid for loser in losers(tx, process.pid)]:
            left = tx.process_get(rival)
            if left is not None and left.state is not ProcessState.EXITED:
                why = f"{process.pid} was done first. Its files stay in the workspace {left.workspace}."
                end(tx, left, now=now, code=ExitCode.KILLED, reason=why)
    ended = transition(
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
    _release(tx, ended, now)
    return ended


def _learn(tx: Transaction, process: Process) -> None:
    work = tx.process_work([process.pid]).get(process.pid)
    if work is not None:
        agent = process.agent or ""
        tx.hint_put(sizes.learned(tx.hint_get(agent, process.model), agent, process.model, work))


def _release(tx: Transaction, ended: Process, now: float) -> None:
    """Put those in the queue that were to start after this one, where it was the last."""
    for pid in tx.dependency_of(ended.pid):
        dependent = tx.process_get(pid)
        over = all(target.state is ProcessState.EXITED for target in tx.dependency_targets(pid))
        if over and dependent is not None and dependent.state is ProcessState.BLOCKED:
            transition(tx, dependent, ProcessState.READY, now=now, waiting_for=None)


def losers(tx: Transaction, pid: Pid) -> list[Process]:
    """Return the processes that end when this one is the first of its race: its rivals and what they spawned."""
    rivals = [tx.process_get(rival) for rival in tx.race_rivals(pid)]
    return [process for rival in rivals if rival is not None for process in subtree(tx, rival)]


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
