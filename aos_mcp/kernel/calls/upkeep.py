"""The store itself, for the operator: what it holds, a copy of it, less of it, and somebody's words taken out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from aos_mcp.abi import arguments as a
from aos_mcp.abi import store_results as s
from aos_mcp.abi.errors import Conflict, Invalid, NotFound, Unavailable
from aos_mcp.abi.handle import Digest, PageId, Pid
from aos_mcp.abi.process import Process, ProcessState
from aos_mcp.kernel import files, pages
from aos_mcp.kernel.autosave import AUTOMATIC
from aos_mcp.kernel.call import Call
from aos_mcp.ports import StoreFile, Transaction

ERASED = "[erased]"
"""What stands where words were taken out."""


async def read_store(call: Call, args: a.NoArgs) -> s.StoreResult:
    """Tell what the store holds."""
    return s.StoreResult(**await call.read(lambda tx: tx.store_usage()))


async def backup_store(call: Call, args: a.BackupArgs) -> s.BackupResult:
    """Copy the store to a new file, while agents run."""
    if not Path(args.path).is_absolute():
        raise Invalid(
            f"{args.path} is no absolute path.", "The kernel works in a folder of its own: give the whole path."
        )
    return s.BackupResult(path=args.path, size_bytes=await _file(call).backup(args.path))


async def compact_store(call: Call, args: a.NoArgs) -> s.CompactResult:
    """Drop payloads that nothing names any more, and give the space back to the file system.

    Raises:
        Conflict: a checkpoint is being made; what it has saved so far is named by nothing yet.
    """
    machine = call.machine
    before = await call.read(lambda tx: tx.store_usage())
    dropped = await machine.store.write(lambda tx: _collect(tx, call))
    await _file(call).compact()
    after = await call.read(lambda tx: tx.store_usage())
    return s.CompactResult(dropped=dropped, before_bytes=before["file_bytes"], after_bytes=after["file_bytes"])


def _file(call: Call) -> StoreFile:
    if call.machine.store_file is None:
        raise Unavailable("This kernel's store is no file of its own.", "Use the tools of the database it is in.")
    return call.machine.store_file


def _collect(tx: Transaction, call: Call) -> int:
    if call.machine.saving:
        raise Conflict("A checkpoint is being made.", "Try again in a moment.")
    named = {file.digest for manifest in tx.manifest_list() for file in files.listed(tx, manifest).files.values()}
    unused = [digest for digest in tx.payload_unreferenced() if digest not in named]
    tx.payload_drop(unused)
    return len(unused)


async def erase_payloads(call: Call, args: a.EraseArgs) -> s.EraseResult:
    """Take the words of an ended agent, or of one of its pages, out of the store. The log keeps the digests.

    What others use too (a fork, long-term memory, a payload of the same bytes) stays, and is counted.

    Raises:
        Conflict: the agent has not ended.
        NotFound: there is no such agent or page.
    """
    return await call.commit(lambda tx: _erase(tx, call, args.target))


def _erase(tx: Transaction, call: Call, target: str) -> s.EraseResult:
    page = tx.page_get(PageId(target)) if target.startswith("pg_") else None
    if target.startswith("pg_") and (page is None or page.owner != call.caller.principal or page.pid is None):
        raise NotFound(f"No agent has a page {target}.", "See an agent's pages with aos context PID.")
    process = call.find(tx, page.pid if page is not None and page.pid is not None else target)
    if process.state is not ProcessState.EXITED:
        raise Conflict(f"{process.pid} has not ended.", f"End it first: aos signal {process.pid} kill.")
    if page is None:
        return _forget(tx, [process], call.now)
    wanted = [page.digest, *pages.pieces(tx, page)]
    taken = _take_out(tx, process.pid, wanted, call.now)
    return s.EraseResult(erased=taken.erased, shared=len(wanted) - len(taken.digests))


async def forget_ended(call: Call, args: a.ForgetArgs) -> s.ForgetResult:
    """Take the words of some agents out that ended before a time, the oldest first; each is on the log by itself.

    Those that somebody saved, that have kin alive, or that somebody is still asked about are kept.
    """
    return await call.commit(lambda tx: _forget_ended(tx, call, args))


def _forget_ended(tx: Transaction, call: Call, args: a.ForgetArgs) -> s.ForgetResult:
    pids = tx.process_forgettable(before=args.before, automatic=AUTOMATIC, limit=args.limit)
    found = [process for pid in pids if (process := tx.process_get(pid)) is not None]
    if not found:
        return s.ForgetResult(agents=0, erased=0, shared=0)
    for process in found:
        tx.audit_stage(replace(call.entry("ok"), call="forget", pid=process.pid, subject=process.pid))
    done = _forget(tx, found, call.now)
    return s.ForgetResult(agents=len(found), erased=done.erased, shared=done.shared)


def _forget(tx: Transaction, ended: Sequence[Process], now: float) -> s.EraseResult:
    """Take out what ended processes held on to and nobody else does."""
    wanted = {digest: None for process in ended for digest in tx.payload_of_process(process.pid)}
    for process in ended:
        tx.process_forget(process.pid, ERASED, now)
    taken = _take_out(tx, ended[0].pid, list(wanted), now)
    for process in ended:
        if process.result in taken.digests:
            tx.process_put(replace(process, result=None, exit_reason=ERASED))
    return s.EraseResult(erased=taken.erased, shared=len(wanted) - len(taken.digests))


class _Taken(NamedTuple):
    """Payloads nobody else used, and how many of them were not erased before."""

    digests: frozenset[Digest | None]
    erased: int


def _take_out(tx: Transaction, pid: Pid, wanted: Sequence[Digest], now: float) -> _Taken:
    """Erase payloads that nobody but `pid` uses, and take the pages with them out of the indexes."""
    users = tx.payload_users(pid, wanted)
    mine = [digest for digest in wanted if digest not in users]
    tx.page_forget(_indexed(tx, mine), ERASED)
    return _Taken(frozenset(mine), sum(tx.payload_erase(digest, now) for digest in mine))


def _indexed(tx: Transaction, digests: Sequence[Digest]) -> dict[Digest, str]:
    """Return what the pages with these payloads are found by."""
    found: dict[Digest, str] = {}
    for page_id in tx.page_naming(digests):
        page = tx.page_get(page_id)
        if page is not None:
            with suppress(NotFound):  # erased before
                found[page.digest] = pages.searchable(tx, page)
    return found
