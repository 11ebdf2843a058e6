"""The audit log: read, and verified against signed heads."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator

from aos_mcp.abi import arguments as a
from aos_mcp.abi import results as r
from aos_mcp.abi.audit import AuditRecord
from aos_mcp.abi.capability import CallerKind
from aos_mcp.abi.errors import Conflict, NotFound
from aos_mcp.audit.chain import head_text, load_key
from aos_mcp.audit.merkle import inclusion, root_of
from aos_mcp.audit.verify import parse_anchor, verify
from aos_mcp.kernel.call import Call
from aos_mcp.kernel.calls import views
from aos_mcp.kernel.sealer import kept_heads, seal_all
from aos_mcp.ports import Transaction

CHUNK = 5_000


async def read_audit(call: Call, args: a.ReadAuditArgs) -> r.ReadAuditResult:
    """Return records, the newest head, and the outcome of a verification where one was asked for."""
    if args.verify:
        await seal_all(call.machine, keep=True)

    def work(tx: Transaction) -> r.ReadAuditResult:
        pid = call.find(tx, args.pid).pid if args.pid else None
        if args.after_seq is None:
            rows = tx.audit_tail(pid=pid, limit=args.limit)
        else:
            rows = tx.audit_list(after=args.after_seq, pid=pid, limit=args.limit)
        return r.ReadAuditResult(
            records=[views.audit_row(row, whole=call.caller.kind is CallerKind.OPERATOR) for row in rows],
            head=views.audit_head(tx.audit_head()),
            verified=_verify(tx, call, args.anchor) if args.verify else None,
        )

    return await call.read(work)


async def prove_audit(call: Call, args: a.ProveAuditArgs) -> r.ProofResult:
    """Return one record with the proof that the newest head commits to it."""
    await seal_all(call.machine, keep=True)
    return await call.read(lambda tx: _proof(tx, call, args.seq))


def _proof(tx: Transaction, call: Call, seq: int) -> r.ProofResult:
    head = tx.audit_head()
    found = tx.audit_list(after=seq - 1, limit=1)
    if head is None or seq > head.seq or not found:
        raise NotFound(f"There is no sealed record {seq}.", "`aos audit tail` shows the newest.")
    leaves = [bytes.fromhex(record.digest) for record in _records(tx) if record.seq <= head.seq]
    if len(leaves) != head.seq or root_of(leaves).hex() != head.root:
        raise Conflict(
            "The log does not lead to its own head.", "`aos audit verify` names the record that was changed."
        )
    return r.ProofResult(
        record=views.audit_row(found[0], whole=True),
        previous=found[0].previous,
        index=seq - 1,
        size=head.seq,
        hashes=[b64encode(node).decode() for node in inclusion(leaves, seq - 1)],
        head=head_text(head, call.machine.seal.origin),
    )


def _verify(tx: Transaction, call: Call, anchor: str | None) -> r.VerificationResult:
    newest = tx.audit_head()
    heads = kept_heads(call.machine) + ([newest] if newest is not None else [])
    key = load_key(call.machine.seal.key).public_key()
    outcome = verify(
        _records(tx), heads=heads, anchors=parse_anchor(anchor), public_key=key, origin=call.machine.seal.origin
    )
    return r.VerificationResult(ok=outcome.ok, records=outcome.records, first_bad=outcome.first_bad, why=outcome.why)


def _records(tx: Transaction) -> Iterator[AuditRecord]:
    after = 0
    while chunk := tx.audit_list(after=after, limit=CHUNK):
        yield from chunk
        after = chunk[-1].seq
