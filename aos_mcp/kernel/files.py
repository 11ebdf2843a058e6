"""The files of a workspace, saved by content and put back. Incremental: what is unchanged by stat is not read again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import anyio.from_thread
import anyio.to_thread
from pydantic import TypeAdapter

from aos_mcp.abi.handle import Digest, Pid
from aos_mcp.abi.limits import SNAPSHOT_COMMIT_BYTES, WORKSPACE_BYTES_MAX
from aos_mcp.abi.sandbox import WorkspaceFile
from aos_mcp.kernel import journal
from aos_mcp.kernel.machine import Machine
from aos_mcp.ports import Transaction

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
    """
    known = await machine.store.read(lambda tx: _last(tx, pid))
    files = await anyio.to_thread.run_sync(machine.workspaces.scan, workspace, known.files)
    if files == known.files:
        return known.digest
    kept = {file.digest for file in known.files.values()}
    fresh = [file for file in files.values() if file.digest is not None and file.digest not in kept]
    found = dict(files)
    for batch in _batches(fresh):
        bodies = await anyio.to_thread.run_sync(_read_all, machine, workspace, batch)
        digests = await machine.store.write(partial(_put_all, bodies=bodies))
        for file, body, digest in zip(batch, bodies, digests, strict=True):
            if digest != file.digest:  # it was written to since it was looked at
                found[file.path] = replace(file, digest=digest, size_bytes=len(body))
    if not found:
        return None
    return await machine.store.write(lambda tx: tx.payload_put(_FILES.dump_json(found)))


def _last(tx: Transaction, pid: Pid) -> Manifest:
    last = next(iter(tx.checkpoint_list(pid, limit=1)), None)
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


def _read_all(machine: Machine, workspace: str, files: Sequence[WorkspaceFile]) -> list[bytes]:
    return [machine.workspaces.read(workspace, file.path, limit=WORKSPACE_BYTES_MAX) for file in files]


def _put_all(tx: Transaction, bodies: list[bytes]) -> list[Digest]:
    return [tx.payload_put(body) for body in bodies]


async def restore(machine: Machine, manifest: Digest, workspace: str) -> None:
    """Make a new workspace hold exactly what a manifest lists."""
    files = (await machine.store.read(lambda tx: listed(tx, manifest))).files

    def body(digest: Digest) -> bytes:
        # One file at a time: a workspace may hold more than there is memory.
        return anyio.from_thread.run(machine.store.read, lambda tx: journal.payload(tx, digest))

    await anyio.to_thread.run_sync(machine.workspaces.restore, workspace, files, body)
