"""Checkpoint and restore: a moment of a process put on record, and a new process that begins at one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypedDict

import anyio

from aos_mcp.abi import arguments as a
from aos_mcp.abi import history as h
from aos_mcp.abi import results as r
from aos_mcp.abi.budget import WORKSPACE_ACCOUNT, Budget
from aos_mcp.abi.errors import Conflict, NotFound
from aos_mcp.abi.handle import Pid, workspace_of
from aos_mcp.abi.journal import Checkpoint
from aos_mcp.abi.process import Process, ProcessState
from aos_mcp.kernel import budget, dependents, files, moment
from aos_mcp.kernel.call import Call, check_model
from aos_mcp.kernel.calls import views
from aos_mcp.kernel.calls.process import asked_budget, check_room
from aos_mcp.kernel.moment import Moment
from aos_mcp.kernel.retry import chain_of
from aos_mcp.ports import Transaction

QUIESCE_S = 120.0
"""How long a checkpoint waits for the turn under way to end."""


async def checkpoint(call: Call, args: a.CheckpointArgs) -> r.CheckpointResult:
    """Save a process as it is at a turn boundary: journal position, context, files."""
    machine = call.machine
    process = await call.read(lambda tx: call.find(tx, args.pid))
    if process.guest:
        raise Conflict(f"{process.pid} keeps its conversation itself.", "There is nothing of it here to save.")
    async with _at_boundary(call, process.pid):
        with machine.keeping(process.pid):
            manifest = await files.snapshot(machine, process.pid, process.workspace)
            name = machine.entropy.handle("ck_")
            row = await machine.store.write(
                lambda tx: moment.save(tx, process.pid, name, args.label or "", manifest, call.now)
            )
    call.subject = process.pid
    return r.CheckpointResult(checkpoint_id=row.checkpoint_id, step=row.step, at=row.at)


@asynccontextmanager
async def _at_boundary(call: Call, pid: Pid) -> AsyncIterator[None]:
    """Keep a process from being picked, once its present turn has ended. An agent that saves itself is as it is."""
    machine = call.machine
    if pid == call.caller.pid:
        yield
        return
    with machine.quiescing(pid):
        with anyio.move_on_after(QUIESCE_S) as scope:
            while True:
                ticket = machine.bus.ticket()
                # Written, so that it comes after every claim that is under way; a later one sees that it may not.
                process = await machine.store.write(lambda tx: tx.process_get(pid))
                if process is None or process.state is not ProcessState.RUNNING:
                    break
                await ticket.wait()
        if scope.cancelled_caught:
            raise Conflict(
                f"The turn of {pid} did not end within {QUIESCE_S:g} s.", "Try again, or stop the agent first."
            )
        yield


async def restore(call: Call, args: a.RestoreArgs) -> r.RestoreResult:
    """Start a new process at a moment, or several: same context, same files, same mail, what was left of its budget.

    A call that is made again after a crash finds the process that it had started.
    """
    machine = call.machine
    keys = [_key(call, number) for number in range(args.count)]
    known = await call.read(lambda tx: _known(tx, call, keys))
    if known is not None:
        return known
    begun = await call.read(lambda tx: _moment(tx, call, args))
    model = args.model or ",".join((begun.process.model, *begun.process.fallbacks))
    for name in chain_of(model):
        if args.model is not None:
            check_model(call, name)
        await machine.models.resolve(name).describe()
    pids = [Pid(machine.entropy.handle("p_")) for _ in keys]
    if begun.manifest is not None:
        for pid in pids:
            await files.restore(machine, begun.manifest, workspace_of(pid))
    rows = await machine.store.write(
        lambda tx: _begin(tx, call, begun, dict(zip(pids, keys, strict=True)), model, args)
    )
    call.subject = pids[0]
    for row in rows:
        if row.wake_at is not None:
            machine.alarm = min(machine.alarm, row.wake_at)
        machine.process_changed(row)
    return _answer(rows, begun.files_step)


def _key(call: Call, number: int) -> str | None:
    return f"{call.caller.pid}/restore/{call.request_id}/{number}" if call.request_id is not None else None


def _known(tx: Transaction, call: Call, keys: list[str | None]) -> r.RestoreResult | None:
    found = [tx.process_by_key(call.caller.principal, key) for key in keys if key is not None]
    rows = [row for row in found if row is not None]
    if not rows:
        return None
    call.subject = rows[0].pid
    return _answer(rows, None)


def _answer(rows: list[Process], files_step: int | None) -> r.RestoreResult:
    pid = rows[0].pid
    return r.RestoreResult(
        pid=pid,
        state=rows[0].state,
        uri=f"aos://proc/{pid}",
        pids=[row.pid for row in rows],
        files_step=files_step,
    )


def _moment(tx: Transaction, call: Call, args: a.RestoreArgs) -> Moment:
    """Return the moment that a caller names: a checkpoint, or a step of one of its processes (`PID@STEP`).

    What would be refused in the end is refused now, before any file is written.
    """
    pid, at, step = args.checkpoint_id.partition("@")
    if at:
        found = moment.at_step(tx, call.find(tx, pid), int(step))
    else:
        found = moment.at_checkpoint(tx, _checkpoint(tx, call, args.checkpoint_id))
    check_room(tx, call.own(tx) if call.caller.pid is not None else None)
    moment.share(tx, found, **_means(call, args))
    return found


class _Means(TypedDict):
    asked: Budget
    above: str
    default: Budget


def _means(call: Call, args: a.RestoreArgs) -> _Means:
    """Return what is asked for, the account above, and the budget where none is known."""
    return _Means(
        asked=asked_budget(args.budget, None),
        above=call.caller.pid or WORKSPACE_ACCOUNT,
        default=budget.as_budget(call.machine.settings.budget),
    )


def _checkpoint(tx: Transaction, call: Call, checkpoint_id: str) -> Checkpoint:
    row = tx.checkpoint_get(checkpoint_id)
    if row is None or row.owner != call.caller.principal:
        raise NotFound(f"There is no checkpoint {checkpoint_id}.", "Make one with checkpoint(pid=...).")
    call.find(tx, row.pid)
    return row


def _begin(
    tx: Transaction, call: Call, begun: Moment, keys: Mapping[Pid, str | None], model: str, args: a.RestoreArgs
) -> list[Process]:
    """Store all of them, or none."""
    machine = call.machine
    parent = call.own(tx) if call.caller.pid is not None else None
    race = machine.entropy.handle("rc_") if args.race else None
    rows = []
    for pid, key in keys.items():
        check_room(tx, parent)
        row = moment.fresh_row(begun, pid, parent=parent, name=args.name, model=model, key=key, now=call.now)
        targets = tx.dependency_targets(begun.process.pid)  # some where the origin has yet to start
        row = dependents.waiting(row, targets)
        moment.begin(tx, begun, row, entropy=machine.entropy, **_means(call, args))
        dependents.follow(tx, row, targets)
        if race is not None:
            tx.race_join(pid, race)
        tx.audit_stage(replace(call.entry("ok"), call="begin", pid=pid, subject=pid))  # each, with its beginning
        rows.append(row)
    return rows


async def read_checkpoint(call: Call, args: a.ReadCheckpointArgs) -> h.CheckpointRow:
    """Show one checkpoint."""

    def work(tx: Transaction) -> h.CheckpointRow:
        row = _checkpoint(tx, call, args.checkpoint_id)
        return views.checkpoint(row, len(files.listed(tx, row.manifest).files))

    return await call.read(work)
