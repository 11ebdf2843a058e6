"""The sealer: staged audit entries become records of the chain, and their head is signed and kept twice."""

from __future__ import annotations

import json

import anyio

from aos_mcp.abi.audit import AuditHead
from aos_mcp.abi.event import Event, EventKind
from aos_mcp.abi.limits import AUDIT_SEAL_BATCH, AUDIT_SEAL_S
from aos_mcp.audit.chain import link, load_key, sign_head
from aos_mcp.kernel.machine import Machine
from aos_mcp.ports import Transaction


async def seal_all(machine: Machine) -> int:
    """Seal everything that is staged; return how many records that made."""
    sealed = 0
    while True:
        count, head = await machine.store.write(lambda tx: _seal_batch(tx, machine))
        sealed += count
        if head is not None:
            await anyio.to_thread.run_sync(keep_head, machine, head)
        if count < AUDIT_SEAL_BATCH:
            break
    if sealed:
        machine.bus.publish(Event(kind=EventKind.AUDIT, subject="audit", owner="", uris=("aos://audit",)))
    return sealed


async def run_sealer(machine: Machine) -> None:
    """Seal at least every `AUDIT_SEAL_S` while the kernel lives."""
    while True:
        await machine.clock.sleep_until(machine.clock.now() + AUDIT_SEAL_S)
        await seal_all(machine)


def _seal_batch(tx: Transaction, machine: Machine) -> tuple[int, AuditHead | None]:
    staged = tx.audit_staged(limit=AUDIT_SEAL_BATCH)
    if not staged:
        return 0, None
    records = link(tx.audit_last(), [entry for _, entry in staged])
    head = sign_head(load_key(machine.seal.key), records[-1], machine.clock.now(), machine.seal.origin)
    tx.audit_seal(records, staged[-1][0], head)
    return len(records), head


def keep_head(machine: Machine, head: AuditHead) -> None:
    """Append a head to the file beside the store: an attacker of the store alone cannot rewrite it."""
    line = json.dumps(
        {
            "seq": head.seq,
            "digest": head.digest,
            "at": head.at,
            "key_id": head.key_id,
            "signature": head.signature,
        }
    )
    with machine.seal.heads.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def kept_heads(machine: Machine) -> list[AuditHead]:
    """Return the heads kept beside the store, oldest first; a torn last line is passed over."""
    if not machine.seal.heads.exists():
        return []
    heads = []
    for line in machine.seal.heads.read_text("utf-8").splitlines():
        try:
            heads.append(AuditHead(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return heads
