"""The sealer: staged audit entries become records of the chain, and their head is signed and kept twice."""

from __future__ import annotations

import anyio

from aos_mcp.abi.audit import AuditHead, AuditRecord
from aos_mcp.abi.event import Event, EventKind
from aos_mcp.abi.limits import AUDIT_SEAL_BATCH, AUDIT_SEAL_S, BRIEF_ROWS
from aos_mcp.audit.chain import head_text, link, load_key, parse_head, sign_head
from aos_mcp.audit.merkle import Frontier, frontier_of
from aos_mcp.kernel.machine import Machine
from aos_mcp.kernel.steady import steadily
from aos_mcp.ports import Transaction

HEAD_KEPT_S = 10.0
"""A head is kept beside the store this often while there is something new: one note is 250 bytes."""
TREE = "audit_tree"
"""The fact that holds the frontier of the Merkle tree, written with the records it has grown by."""
REBUILD_CHUNK = 5_000
NOTE_LINES = 6
"""Of a signed note, as `audit.chain.head_text` writes it."""


async def seal_all(machine: Machine, *, keep: bool) -> int:
    """Seal everything that is staged; return how many records that made.

    With `keep`, the head is kept beside the store as well.
    """
    sealed = 0
    await _stage_observed(machine)
    while True:
        count = await machine.store.write(lambda tx: _seal_batch(tx, machine))
        sealed += count
        if count < AUDIT_SEAL_BATCH:
            break
    head = await machine.store.read(lambda tx: tx.audit_head(), brief=True) if keep else None
    if head is not None:
        await anyio.to_thread.run_sync(_keep_head, machine, head)
    if sealed or machine.anchor is None:
        machine.anchor = head or await machine.store.read(lambda tx: tx.audit_head(), brief=True)
    if sealed:
        machine.bus.publish(Event(kind=EventKind.AUDIT, subject="audit", owner="", uris=("aos://audit",)))
    return sealed


async def run_sealer(machine: Machine) -> None:
    """Seal at least every `AUDIT_SEAL_S` while the kernel lives, and keep a head every `HEAD_KEPT_S`."""

    async def once() -> None:
        await machine.clock.sleep_until(machine.clock.now() + AUDIT_SEAL_S)
        due = machine.clock.monotonic() - machine.head_kept_at >= HEAD_KEPT_S
        await seal_all(machine, keep=due)
        if due:
            machine.head_kept_at = machine.clock.monotonic()

    await steadily(machine, "sealer", once)


async def _stage_observed(machine: Machine) -> None:
    """Stage what devices reported outside of any call: the decisions of egress proxies."""
    seen = tuple(machine.observed)
    machine.observed.clear()  # before the write: another seal may begin while it is under way
    if not seen:
        return

    def stage(tx: Transaction) -> None:
        for entry in seen:
            tx.audit_stage(entry)

    try:
        await machine.store.write(stage, brief=len(seen) <= BRIEF_ROWS)
    except BaseException:
        machine.observed.extendleft(reversed(seen))
        raise


def _seal_batch(tx: Transaction, machine: Machine) -> int:
    staged = tx.audit_staged(limit=AUDIT_SEAL_BATCH)
    if not staged:
        return 0
    last = tx.audit_last()
    tree = _tree(tx, last)
    records = link(last, [entry for _, entry in staged])
    for record in records:
        tree.add(bytes.fromhex(record.digest))
    now, origin = machine.clock.now(), machine.seal.origin
    head = sign_head(load_key(machine.seal.key), records[-1], now, origin, root=tree.root().hex())
    tx.audit_seal(records, staged[-1][0], head)
    tx.fact_put(TREE, tree.text())
    return len(records)


def _tree(tx: Transaction, last: AuditRecord | None) -> Frontier:
    """Return the tree over the records there are: as it was kept, or grown anew where a store of before has none.

    One that somebody tampered with grows another tree, which does not lead to the heads that were kept.
    """
    sealed = last.seq if last is not None else 0
    try:
        kept = frontier_of(tx.fact_get(TREE) or "")
        if kept.size == sealed:
            return kept
    except ValueError:
        pass  # none was kept yet
    tree, after = Frontier(), 0
    while chunk := tx.audit_list(after=after, limit=REBUILD_CHUNK):
        for record in chunk:
            tree.add(bytes.fromhex(record.digest))
        after = chunk[-1].seq
    return tree


def _keep_head(machine: Machine, head: AuditHead) -> None:
    """Append a head to the file beside the store, as a signed note: who can write the store alone cannot rewrite it."""
    if head.seq == machine.head_kept:
        return
    with machine.seal.heads.open("a", encoding="utf-8") as file:
        file.write(head_text(head, machine.seal.origin))
    machine.head_kept = head.seq


def kept_heads(machine: Machine) -> list[AuditHead]:
    """Return the heads kept beside the store, oldest first; a note that a power cut tore is passed over."""
    if not machine.seal.heads.exists():
        return []
    lines = machine.seal.heads.read_text("utf-8", "replace").splitlines(keepends=True)
    heads = []
    for start in (number for number, line in enumerate(lines) if line == f"{machine.seal.origin}\n"):
        try:
            heads.append(parse_head("".join(lines[start : start + NOTE_LINES]))[0])
        except ValueError:
            continue
    return heads
