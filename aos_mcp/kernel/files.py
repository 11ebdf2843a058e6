"""The files of a workspace, saved by content and put back. Incremental: what is unchanged by stat is not read again."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import anyio
import anyio.from_thread
import anyio.to_thread
from pydantic import TypeAdapter

from aos_mcp.abi.errors import AosError, Denied, Invalid, NotFound
from aos_mcp.abi.handle import Digest, Pid
from aos_mcp.abi.limits import SNAPSHOT_COMMIT_BYTES, WORKSPACE_BYTES_MAX
from aos_mcp.abi.sandbox import WorkspaceFile
from aos_mcp.kernel import journal
from aos_mcp.kernel.machine import Machine
from aos_mcp.ports import Transaction

BATCHES_AT_ONCE = 3
"""Of files being read, hashed and stored; each is in memory for as long."""

_FILES = TypeAdapter(dict[str, WorkspaceFile])


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of a workspace by path, and the payload that lists them; None where it is empty or not stored yet."""

    files: Mapping[str, WorkspaceFile]
    digest: Digest | None


async def snapshot(machine: Machine, pid: Pid, workspace: str) -> Digest | None:
    """Store what a workspace holds and return its manifest; None for an empty one.

    Raises:
        LimitExceeded: the workspace is larger than `abi.limits` allows.
        Unavailable: the disk of the store or of the workspace fails.
    """
    known = await machine.store.read(lambda tx: _last(tx, pid))
    found = dict(await anyio.to_thread.run_sync(partial(machine.workspaces.scan, workspace, known.files, hashed=False)))
    fresh = [file for file in found.values() if file.digest is None and file.link is None]
    if not fresh and found == known.files:
        return known.digest
    room, failures = anyio.CapacityLimiter(BATCHES_AT_ONCE), list[AosError]()

    async def save(batch: Sequence[WorkspaceFile]) -> None:
        try:
            found.update(await _save(machine, workspace, batch))
        except AosError as error:
            failures.append(error)
        finally:
            room.release_on_behalf_of(batch[0].path)

    async with anyio.create_task_group() as group:
        for batch in _batches(fresh):
            await room.acquire_on_behalf_of(batch[0].path)
            group.start_soon(save, batch)
    if failures:
        raise failures[0]
    found = {path: file for path, file in found.items() if file.digest is not None or file.link is not None}
    if not found:
        return None
    return await machine.store.write(lambda tx: tx.payload_put(_FILES.dump_json(found)))


async def _save(machine: Machine, workspace: str, batch: Sequence[WorkspaceFile]) -> dict[str, WorkspaceFile]:
    """Store some files, and return them as they were when they were read; without a digest, those gone by then.

    They are read and hashed on a thread of their own while the writer stores those before them.
    """
    bodies = await anyio.to_thread.run_sync(_read_all, machine, workspace, batch)
    await machine.store.write(partial(_keep_all, bodies=[body for body in bodies if body is not None]))
    return {
        file.path: file if saved is None else replace(file, digest=saved[0], size_bytes=len(saved[1]))
        for file, saved in zip(batch, bodies, strict=True)
    }


def _last(tx: Transaction, pid: Pid) -> Manifest:
    """Return what was saved last of a process's files: by itself, or by the run it comes from."""
    last = next(iter(tx.checkpoint_list(pid, limit=1)), None)
    process = tx.process_get(pid)
    if last is None and process is not None and process.forked_from is not None:
        base, at, step = process.forked_from.partition("@")
        last = tx.checkpoint_before(Pid(base), int(step)) if at else tx.checkpoint_get(base)
    return listed(tx, last.manifest if last is not None else None)


def listed(tx: Transaction, manifest: Digest | None) -> Manifest:
    """Return what a manifest lists."""
    if manifest is None:
        return Manifest({}, None)
    return Manifest(_FILES.validate_json(journal.payload(tx, manifest)), manifest)


def _batches(files: Sequence[WorkspaceFile]) -> list[list[WorkspaceFile]]:
    """Split files so that each part fits one commit: more would hold up every other writer."""
    parts: list[list[WorkspaceFile]] = []
    room = 0
    for file in files:
        if file.size_bytes > room or not parts:
            parts.append([])
            room = SNAPSHOT_COMMIT_BYTES
        parts[-1].append(file)
        room -= file.size_bytes
    return parts


def _read_all(machine: Machine, workspace: str, files: Sequence[WorkspaceFile]) -> list[tuple[Digest, bytes] | None]:
    return [_read(machine, workspace, file.path) for file in files]


def _read(machine: Machine, workspace: str, path: str) -> tuple[Digest, bytes] | None:
    try:
        body = machine.workspaces.read(workspace, path, limit=WORKSPACE_BYTES_MAX)
    except (NotFound, Invalid, Denied):
        return None  # It went, or became something else, since it was looked at.
    return Digest(hashlib.sha256(body).hexdigest()), body


def _keep_all(tx: Transaction, bodies: Sequence[tuple[Digest, bytes]]) -> None:
    for digest, body in bodies:
        tx.payload_keep(digest, body)


async def restore(machine: Machine, manifest: Digest, workspace: str) -> None:
    """Make a new workspace hold exactly what a manifest lists."""
    files = (await machine.store.read(lambda tx: listed(tx, manifest))).files
    ahead = iter(_batches([file for file in files.values() if file.digest is not None]))
    ready: dict[Digest, bytes] = {}

    def body(digest: Digest) -> bytes:
        # Asked for in the manifest's order. A batch at a time: a workspace may hold more than there is memory.
        if digest not in ready:
            wanted = {file.digest for file in next(ahead, ())} | {digest}
            ready.clear()
            ready.update(anyio.from_thread.run(machine.store.read, partial(_bodies, digests=wanted)))
        return ready[digest]

    await anyio.to_thread.run_sync(machine.workspaces.restore, workspace, files, body)


def _bodies(tx: Transaction, digests: Collection[Digest | None]) -> dict[Digest, bytes]:
    return {digest: journal.payload(tx, digest) for digest in digests if digest is not None}
