"""The store itself, for the operator: what it holds, a copy of it, less of it, and somebody's words taken out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from aos_mcp.abi import arguments as a
from aos_mcp.abi import results as r
from aos_mcp.abi.errors import Conflict, Invalid, NotFound, Unavailable
from aos_mcp.abi.handle import Digest, PageId, Pid
from aos_mcp.abi.process import ProcessState
from aos_mcp.kernel import files, pages
from aos_mcp.kernel.call import Call
from aos_mcp.ports import StoreFile, Transaction

ERASED = "[erased]"
"""What stands where words were taken out."""


async def read_store(call: Call, args: a.NoArgs) -> r.StoreResult:
    """Tell what the store holds."""
    return r.StoreResult(**await call.read(lambda tx: tx.store_usage()))


async def backup_store(call: Call, args: a.BackupArgs) -> r.BackupResult:
    """Copy the store to a new file, while agents run."""
    if not Path(args.path).is_absolute():
        raise Invalid(
            f"{args.path} is no absolute path.", "The kernel works in a folder of its own: give the whole path."
        )
    return r.BackupResult(path=args.path, size_bytes=await _file(call).backup(args.path))


async def compact_store(call: Call, args: a.NoArgs) -> r.CompactResult:
    """Drop payloads that nothing names any more, and give the space back to the file system.

    Raises:
        Conflict: a checkpoint is being made; what it has saved so far is named by nothing yet.
    """
    machine = call.machine
    before = await call.read(lambda tx: tx.store_usage())
    dropped = await machine.store.write(lambda tx: _collect(tx, call))
    await _file(call).compact()
    after = await call.read(lambda tx: tx.store_usage())
    return r.CompactResult(dropped=dropped, before_bytes=before["file_bytes"], after_bytes=after["file_bytes"])


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


async def erase_payloads(call: Call, args: a.EraseArgs) -> r.EraseResult:
    """Take the words of an ended agent, or of one of its pages, out of the store. The log keeps the digests.

    What others use too (a fork, long-term memory, a payload of the same bytes) stays, and is counted.

    Raises:
        Conflict: the agent has not ended.
        NotFound: there is no such agent or page.
    """
    return await call.commit(lambda tx: _erase(tx, call, args.target))


def _erase(tx: Transaction, call: Call, target: str) -> r.EraseResult:
    page = tx.page_get(PageId(target)) if target.startswith("pg_") else None
    if target.startswith("pg_") and (page is None or page.owner != call.caller.principal or page.pid is None):
        raise NotFound(f"No agent has a page {target}.", "See an agent's pages with aos context PID.")
    process = call.find(tx, page.pid if page is not None and page.pid is not None else target)
    if process.state is not ProcessState.EXITED:
        raise Conflict(f"{process.pid} has not ended.", f"End it first: aos signal {process.pid} kill.")
    wanted = [page.digest] if page is not None else tx.payload_of_process(process.pid)
    users = tx.payload_users(process.pid, wanted)
    mine = [digest for digest in wanted if digest not in users]
    tx.process_forget(process.pid, _indexed(tx, process.pid, mine), ERASED, whole=page is None)
    erased = sum(tx.payload_erase(digest, call.now) for digest in mine)
    if page is None and process.result in mine:
        tx.process_put(replace(process, result=None, exit_reason=ERASED))
    return r.EraseResult(erased=erased, shared=len(wanted) - len(mine))


def _indexed(tx: Transaction, pid: Pid, digests: Sequence[Digest]) -> dict[Digest, str]:
    """Return what the pages with these payloads are found by."""
    found: dict[Digest, str] = {}
    for page_id in tx.page_ids(pid):
        page = tx.page_get(page_id)
        if page is not None and page.digest in digests:
            with suppress(NotFound):  # erased before
                found[page.digest] = pages.searchable(tx, page)
    return found
