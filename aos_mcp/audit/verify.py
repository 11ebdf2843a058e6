"""Verification: does the chain hold, and if not, which record is the first that does not fit.

A chain alone shows a changed, missing or moved record. That the tail was cut off, or rewritten with fresh hashes, only
a head shows that was kept where whoever changed the store could not reach: pass those as `heads`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from aos_mcp.abi.audit import GENESIS, AuditHead, AuditRecord, Verification
from aos_mcp.audit.chain import record_digest, verify_head
from aos_mcp.audit.merkle import Frontier

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def verify(
    records: Iterable[AuditRecord],
    *,
    previous: AuditRecord | None = None,
    heads: Sequence[AuditHead] = (),
    anchors: Mapping[int, str] = MappingProxyType({}),
    public_key: Ed25519PublicKey | None = None,
    origin: str = "",
) -> Verification:
    """Check records in order, each read once.

    Args:
        records: a run of the chain, by seq; it may stream.
        previous: the record before the first, already trusted; None starts at record 1.
        heads: heads kept elsewhere. One beyond the last record is proof that the tail was cut off, so pass all records
            up to the newest head. Those before `previous` are not compared.
        anchors: roots of the tree by the number of records in it, kept by whoever was answered with one. Like the
            roots of heads they are compared only where the check begins at record 1.
        public_key: checks the heads' signatures, about 100 µs each; None takes them as they are.
        origin: the log's name in the heads.
    """
    seq, digest = (0, GENESIS) if previous is None else (previous.seq, previous.digest)
    count = 0
    forged = _forged(heads, public_key, origin)
    kept = _by_seq(head for head in heads if head.seq >= seq and head not in forged)
    roots = _roots((head for head in heads if head.root and head not in forged), anchors)
    tree = Frontier() if roots and previous is None else None
    good_until = seq

    def bad(first_bad: int, why: str) -> Verification:
        return Verification(ok=False, records=count, head_seq=seq, first_bad=first_bad, why=why)

    if seq in kept and kept[seq] != {digest}:
        return bad(seq, f"Record {seq} is not the one that a kept head names.")
    for record in records:
        why = _misfit(record, seq, digest)
        if why:
            return bad(seq + 1, why)
        seq, digest = record.seq, record.digest
        count += 1
        if tree is not None:
            tree.add(bytes.fromhex(digest))
        if seq in kept or (tree is not None and seq in roots):
            if kept.get(seq, {digest}) != {digest}:
                return bad(seq, _rewritten(good_until, seq))
            if tree is not None and not roots.get(seq, set()) <= {tree.root().hex()}:
                return bad(seq, _rewritten(good_until, seq))
            good_until = seq
    newest = max((*kept, *(anchors if tree is not None else ())), default=seq)
    if newest > seq:
        return bad(seq + 1, f"Records {seq + 1} to {newest} are missing: a kept head names record {newest}.")
    if forged:
        first = min(head.seq for head in forged)
        return bad(first, f"The head at record {first} was not signed by this log's key.")
    return Verification(ok=True, records=count, head_seq=seq)


def _by_seq(heads: Iterable[AuditHead]) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for head in heads:
        found.setdefault(head.seq, set()).add(head.digest)
    return found


def parse_anchor(text: str | None) -> dict[int, str]:
    """Return a kept anchor, `SIZE:ROOT` with the root in base64, as `verify` takes it.

    Raises:
        ValueError: it is none.
    """
    if text is None:
        return {}
    size, _, root = text.partition(":")
    return {int(size): base64.b64decode(root, validate=True).hex()}


def _roots(heads: Iterable[AuditHead], anchors: Mapping[int, str]) -> dict[int, set[str]]:
    found = {seq: {root} for seq, root in anchors.items()}
    for head in heads:
        found.setdefault(head.seq, set()).add(head.root)
    return found


def _forged(heads: Sequence[AuditHead], public_key: Ed25519PublicKey | None, origin: str) -> frozenset[AuditHead]:
    """Return the heads that the key did not sign: a finding of their own, and no evidence about the chain."""
    if public_key is None:
        return frozenset()
    return frozenset(head for head in heads if not verify_head(public_key, head, origin))


def _misfit(record: AuditRecord, seq: int, digest: str) -> str:
    """Return why a record does not follow (seq, digest), or nothing."""
    expected = seq + 1
    if record.seq != expected:
        return f"Record {expected} is missing: record {record.seq} stands in its place."
    if record.previous != digest:
        return f"Record {expected} does not follow record {seq}: one of them was replaced."
    if record.digest != record_digest(expected, digest, record.entry):
        return f"The content of record {expected} was changed."
    return ""


def _rewritten(good_until: int, seq: int) -> str:
    since = f"after record {good_until}" if good_until else "from the start"
    return f"Record {seq} is not the one that a kept head names: the chain was rewritten {since}."
