"""The audit log: read, and verified against signed heads."""

from __future__ import annotations

from collections.abc import Iterator

from aos_mcp.abi import arguments as a
from aos_mcp.abi import results as r
from aos_mcp.abi.audit import AuditRecord
from aos_mcp.abi.capability import CallerKind
from aos_mcp.audit.chain import load_key
from aos_mcp.audit.verify import verify
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
            verified=_verify(tx, call) if args.verify else None,
        )

    return await call.read(work)


def _verify(tx: Transaction, call: Call) -> r.VerificationResult:
    newest = tx.audit_head()
    heads = kept_heads(call.machine) + ([newest] if newest is not None else [])
    key = load_key(call.machine.seal.key).public_key()
    outcome = verify(_records(tx), heads=heads, public_key=key, origin=call.machine.seal.origin)
    return r.VerificationResult(ok=outcome.ok, records=outcome.records, first_bad=outcome.first_bad, why=outcome.why)


def _records(tx: Transaction) -> Iterator[AuditRecord]:
    after = 0
    while chunk := tx.audit_list(after=after, limit=CHUNK):
        yield from chunk
        after = chunk[-1].seq
