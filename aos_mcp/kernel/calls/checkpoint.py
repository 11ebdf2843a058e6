"""Checkpoint and restore: a position in a journal with its page table and files; a new process that starts there."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import anyio.from_thread
from pydantic import TypeAdapter

from aos_mcp.abi import arguments as a
from aos_mcp.abi import results as r
from aos_mcp.abi.errors import Conflict, NotFound
from aos_mcp.abi.handle import Digest, PageId, Pid
from aos_mcp.abi.journal import Checkpoint
from aos_mcp.abi.limits import WORKSPACE_BYTES_MAX
from aos_mcp.abi.page import Page, PageKind
from aos_mcp.abi.process import Process, ProcessState
from aos_mcp.abi.sandbox import WorkspaceFile
from aos_mcp.context.layout import decode_reply
from aos_mcp.kernel import journal, pages
from aos_mcp.kernel.call import Call, check_model
from aos_mcp.kernel.calls import views
from aos_mcp.kernel.calls.process import asked_budget, check_room, open_account
from aos_mcp.kernel.requests import position_of
from aos_mcp.kernel.speech import RESTORED
from aos_mcp.ports import Transaction

QUIESCE_S = 120.0
"""How long a checkpoint waits for the turn under way to end."""
PAYLOADS_PER_COMMIT = 64

_PAGES = TypeAdapter(list[Page])
_PROCESS = TypeAdapter(Process)
_FILES = TypeAdapter(dict[str, WorkspaceFile])


async def checkpoint(call: Call, args: a.CheckpointArgs) -> r.CheckpointResult:
    """Save a process as it is at a turn boundary: journal position, page table, files."""
    process = await call.read(lambda tx: call.find(tx, args.pid))
    async with _at_boundary(call, process.pid):
        files = await _snapshot_files(call, process)
        row = await call.machine.store.write(lambda tx: _save(tx, call, process.pid, args.label or "", files))
    return r.CheckpointResult(checkpoint_id=row.checkpoint_id, step=row.step, at=row.at)


@asynccontextmanager
async def _at_boundary(call: Call, pid: Pid) -> AsyncIterator[None]:
    """Keep a process from being picked, once its present turn has ended. An agent that saves itself is as it is."""
    machine = call.machine
    if pid == call.caller.pid:
        yield
        return
    machine.quiesced[pid] += 1
    try:
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
    finally:
        machine.quiesced[pid] -= 1
        if not machine.quiesced[pid]:
            del machine.quiesced[pid]
        machine.wake()


async def _snapshot_files(call: Call, process: Process) -> Mapping[str, WorkspaceFile]:
    machine = call.machine
    known = await call.read(lambda tx: _last_manifest(tx, process.pid))
    files = await anyio.to_thread.run_sync(machine.workspaces.scan, process.workspace, known)
    kept = {file.digest for file in known.values()}
    fresh = [path for path, file in files.items() if file.digest is not None and file.digest not in kept]
    for start in range(0, len(fresh), PAYLOADS_PER_COMMIT):
        bodies = await anyio.to_thread.run_sync(
            _read_all, call, process.workspace, fresh[start : start + PAYLOADS_PER_COMMIT]
        )
        await machine.store.write(partial(_put_all, bodies=bodies))
    return files


def _read_all(call: Call, workspace: str, paths: list[str]) -> list[bytes]:
    return [call.machine.workspaces.read(workspace, path, limit=WORKSPACE_BYTES_MAX) for path in paths]


def _put_all(tx: Transaction, bodies: list[bytes]) -> None:
    for body in bodies:
        tx.payload_put(body)


def _last_manifest(tx: Transaction, pid: Pid) -> Mapping[str, WorkspaceFile]:
    last = next(iter(tx.checkpoint_list(pid, limit=1)), None)
    if last is None or last.manifest is None:
        return {}
    return _FILES.validate_json(journal.payload(tx, last.manifest))


def _save(tx: Transaction, call: Call, pid: Pid, label: str, files: Mapping[str, WorkspaceFile]) -> Checkpoint:
    process = tx.process_get(pid)
    assert process is not None, "a process row is never removed"
    snapshot = {
        "process": json.loads(_PROCESS.dump_json(process)),
        "pages": json.loads(_PAGES.dump_json(tx.page_table(pid))),
    }
    row = Checkpoint(
        checkpoint_id=call.machine.entropy.handle("ck_"),
        pid=pid,
        owner=process.owner,
        step=process.step,
        label=label,
        at=call.now,
        snapshot=tx.payload_put(json.dumps(snapshot, sort_keys=True).encode()),
        manifest=tx.payload_put(_FILES.dump_json(dict(files))) if files else None,
    )
    tx.checkpoint_insert(row)
    call.subject = pid
    return row


async def restore(call: Call, args: a.RestoreArgs) -> r.SpawnResult:
    """Start a new process from a checkpoint: same context, same files, a fresh budget under the caller.

    A call that is made again after a crash finds the process that it had started.
    """
    key = f"{call.caller.pid}/restore/{call.request_id}" if call.request_id is not None else None
    known = await call.read(lambda tx: _known(tx, call, key))
    if known is not None:
        return known
    row, process, table = await call.read(lambda tx: _load(tx, call, args.checkpoint_id))
    if args.model is not None:
        check_model(call, args.model)
    model = args.model or process.model
    await call.machine.models.resolve(model).describe()
    pid = Pid(call.machine.entropy.handle("p_"))
    workspace = pid.replace("p_", "w-")
    if row.manifest is not None:
        await _restore_files(call, row.manifest, workspace)
    forked = replace(
        process,
        pid=pid,
        parent=call.caller.pid,
        program=pid,
        depth=0,
        name=args.name or process.name,
        model=model,
        state=ProcessState.READY,
        workspace=workspace,
        step=0,
        faults=0,
        wake_at=None,
        waiting_for=None,
        pending=None,
        finishing=False,
        exit_code=None,
        exit_reason=None,
        result=None,
        fence=0,
        version=0,
        lease_holder=None,
        lease_until=None,
        idempotency_key=key,
        forked_from=row.checkpoint_id,
        created_at=call.now,
        updated_at=call.now,
        ended_at=None,
    )
    fresh = await call.machine.store.write(lambda tx: _fork(tx, call, forked, table, args))
    call.subject = pid
    call.machine.process_changed(fresh)
    return r.SpawnResult(pid=pid, state=fresh.state, uri=f"aos://proc/{pid}")


def _known(tx: Transaction, call: Call, key: str | None) -> r.SpawnResult | None:
    found = tx.process_by_key(call.caller.principal, key) if key is not None else None
    if found is None:
        return None
    call.subject = found.pid
    return r.SpawnResult(pid=found.pid, state=found.state, uri=f"aos://proc/{found.pid}")


def _load(tx: Transaction, call: Call, checkpoint_id: str) -> tuple[Checkpoint, Process, list[Page]]:
    row = tx.checkpoint_get(checkpoint_id)
    if row is None or row.owner != call.caller.principal:
        raise NotFound(f"There is no checkpoint {checkpoint_id}.", "Make one with checkpoint(pid=...).")
    call.find(tx, row.pid)
    whole: dict[str, Any] = json.loads(journal.payload(tx, row.snapshot))
    return row, _PROCESS.validate_python(whole["process"]), _PAGES.validate_python(whole["pages"])


async def _restore_files(call: Call, manifest: Digest, workspace: str) -> None:
    files = await call.read(lambda tx: _FILES.validate_json(journal.payload(tx, manifest)))

    def body(digest: Digest) -> bytes:
        # One file at a time: a workspace may hold more than there is memory.
        return anyio.from_thread.run(call.read, lambda tx: journal.payload(tx, digest))

    await anyio.to_thread.run_sync(call.machine.workspaces.restore, workspace, files, body)


def _fork(tx: Transaction, call: Call, forked: Process, table: list[Page], args: a.RestoreArgs) -> Process:
    parent = call.own(tx) if call.caller.pid is not None else None
    check_room(tx, parent)
    if parent is not None:
        forked = replace(forked, program=parent.program, depth=parent.depth + 1)
    open_account(tx, call, forked, asked_budget(args.budget, None))
    for page in table:
        copied = replace(page, page_id=PageId(call.machine.entropy.handle("pg_")), pid=forked.pid)
        tx.page_insert(copied, _searchable(tx, page))
    _answer_open_requests(tx, call, forked, table)
    current = tx.process_get(forked.pid)
    assert current is not None
    return current


def _searchable(tx: Transaction, page: Page) -> str:
    body = journal.payload(tx, page.digest)
    return decode_reply(body).text if page.kind is PageKind.REPLY else body.decode()


def _answer_open_requests(tx: Transaction, call: Call, forked: Process, table: list[Page]) -> None:
    """Answer the calls that were under way at the checkpoint: they belong to the run that made them."""
    last = next((page for page in reversed(table) if page.kind is PageKind.REPLY), None)
    if last is None:
        return
    answered = {page.position for page in table if page.kind is PageKind.RESULT}
    for index, request in enumerate(decode_reply(journal.payload(tx, last.digest)).requests):
        if position_of(last, index) in answered:
            continue
        pages.make(
            tx,
            page_id=call.machine.entropy.handle("pg_"),
            pid=forked.pid,
            owner=forked.owner,
            kind=PageKind.RESULT,
            body=RESTORED.encode(),
            text=RESTORED,
            position=position_of(last, index),
            now=call.now,
            source="kernel",
            group=last.group,
            request_id=request.request_id,
        )


async def read_checkpoint(call: Call, args: a.ReadCheckpointArgs) -> r.CheckpointRow:
    """Show one checkpoint."""

    def work(tx: Transaction) -> r.CheckpointRow:
        row, _, _ = _load(tx, call, args.checkpoint_id)
        files = _FILES.validate_json(journal.payload(tx, row.manifest)) if row.manifest is not None else {}
        return views.checkpoint(row, len(files))

    return await call.read(work)
