"""Audit: one record for every act, chained by hash."""

from __future__ import annotations

from dataclasses import dataclass

from aos_mcp.abi.handle import Digest

GENESIS = "0" * 64
"""`previous` of record 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """What happened, before it has a place in the chain. Text fields are redacted before they come here."""

    at: float
    category: str
    """`process`, `memory`, `message`, `execute`, `mount`, `model`, `policy`, `audit`, `kernel`."""
    actor: str
    """`host:<principal>`, a pid, `operator:<principal>` or `kernel`."""
    pid: str
    """The process concerned, or empty."""
    call: str
    outcome: str
    """`ok` or an error code; `intent` for an act that is about to start."""
    subject: str
    """The handle, tool or model concerned."""
    detail: str
    payload: Digest | None = None
    """Arguments and result, stored beside the chain and erasable."""


def kernel_entry(
    at: float, category: str, call: str, *, pid: str, subject: str, outcome: str = "ok", detail: str = ""
) -> AuditEntry:
    """Return the entry of what the kernel does by itself."""
    return AuditEntry(
        at=at, category=category, actor="kernel", pid=pid, call=call, outcome=outcome, subject=subject, detail=detail
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """An entry in its place: `digest` is over the entry, `seq` and `previous`."""

    seq: int
    previous: str
    digest: str
    entry: AuditEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditHead:
    """A signed statement that record `seq` has this digest; `signature` is Ed25519, base64.

    `root` is the Merkle root over all records up to it (hexadecimal), or empty in a head of the first form.
    """

    seq: int
    digest: str
    at: float
    key_id: str
    signature: str
    root: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The outcome of a check of the chain. `first_bad` is the seq of the first record that does not fit."""

    ok: bool
    records: int
    head_seq: int
    first_bad: int | None = None
    why: str = ""
