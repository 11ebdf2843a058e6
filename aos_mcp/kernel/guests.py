"""Guests: whose key it is, the calls they have under way, and what a signal does to one.

A guest is BLOCKED while it lives: it waits for its own program, which the kernel does not run. Everything it does is a
call made with its key, through the same gate as any other, as the process that the key was issued for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from aos_mcp.abi.errors import Cancelled, Conflict, Denied, LimitExceeded
from aos_mcp.abi.guest import GuestKey
from aos_mcp.abi.handle import Pid
from aos_mcp.abi.limits import GUEST_CALLS_MAX, LIST_MAX
from aos_mcp.abi.process import ExitCode, Process, ProcessState, Signal
from aos_mcp.kernel import table
from aos_mcp.kernel.machine import Machine
from aos_mcp.ports import Transaction

SECRET_PREFIX = "sk-aos-"
"""The form in which providers issue keys: clients take it for one, and what looks for secrets finds it."""
WAITING_FOR = "its own program"


class KeyRefused(Denied):
    """The key is none of ours, was revoked, or its process has ended: one error for all three."""


def digest_of(secret: str) -> str:
    """Return what a key is looked up by."""
    return hashlib.sha256(secret.encode()).hexdigest()


def admit(tx: Transaction, secret: str) -> Process:
    """Return the guest whose key this is.

    Raises:
        KeyRefused: there is none that lives.
        Conflict: it is stopped.
    """
    key = tx.guest_key_by_digest(digest_of(secret))
    process = tx.process_get(key.pid) if key is not None and key.revoked_at is None else None
    if process is None or process.state is ProcessState.EXITED:
        raise KeyRefused("This key opens nothing.", "It may be revoked, or its process ended: aos gateway key.")
    if process.state is ProcessState.STOPPED:
        raise Conflict(f"{process.pid} is stopped.", f"Let it go on: aos signal {process.pid} cont.")
    return process


@contextmanager
def under_way(machine: Machine, pid: Pid) -> Iterator[None]:
    """Hold one call of a guest, so that its end cuts the call.

    Raises:
        LimitExceeded: it has too many under way.
        Cancelled: the guest was ended meanwhile.
    """
    calls = machine.guests.setdefault(pid, set())
    if len(calls) >= GUEST_CALLS_MAX:
        raise LimitExceeded(f"{GUEST_CALLS_MAX} calls of {pid} are under way.", "Wait for some of them to end.")
    scope = anyio.CancelScope()
    calls.add(scope)
    try:
        with scope:
            yield
    finally:
        calls.discard(scope)
        if not calls:
            machine.guests.pop(pid, None)
    if scope.cancelled_caught:
        raise Cancelled(f"{pid} was ended while its call was under way.", "Its key opens nothing any more.")


def signalled(tx: Transaction, guest: Process, signal: Signal, *, now: float, reason: str) -> Process:
    """Do what a signal other than KILL means for a program that has no turns.

    STOP lets calls under way end and admits no more; TERM ends it at once, since it has no last turn to finish up in.
    """
    if signal is Signal.TERM:
        return table.end(tx, guest, now=now, code=ExitCode.TERMINATED, reason=reason)
    if signal is Signal.STOP and guest.state is ProcessState.BLOCKED:
        return table.transition(tx, guest, ProcessState.STOPPED, now=now, waiting_for=None)
    if signal is Signal.CONT and guest.state is ProcessState.STOPPED:
        return table.transition(tx, guest, ProcessState.BLOCKED, now=now, waiting_for=WAITING_FOR)
    return guest


def live_keys(tx: Transaction, guest: Process) -> list[GuestKey]:
    """Return the keys of a guest that were not revoked."""
    keys = tx.guest_key_list(owner=guest.owner, pid=guest.pid, limit=LIST_MAX)
    return [key for key in keys if key.revoked_at is None]
