"""The text of the kernel's own books: audit, approvals, status."""

from __future__ import annotations

from pydantic import BaseModel

from aos_mcp.abi.results import AnswerResult, ReadAuditResult, StatusResult, VerificationResult

CALLS = frozenset({"read_audit", "answer_approval", "kernel_status"})


def text(result: BaseModel) -> str:
    """Return what a person or a text-only host reads."""
    match result:
        case AnswerResult():
            return f"{result.approval_id} is {result.state}."
        case ReadAuditResult():
            return _records(result)
        case StatusResult():
            return _status(result)
    raise AssertionError(f"no audit call answers {type(result).__name__}")


def _records(result: ReadAuditResult) -> str:
    lines = [f"{r.seq} {r.actor} {r.call} {r.subject} {r.outcome} {r.detail}".rstrip() for r in result.records]
    if result.head is not None:
        lines.append(f"head {result.head.seq} {result.head.digest}")
    if result.verified is not None:
        lines.append(_verification(result.verified))
    return "\n".join(lines) or "No records yet."


def _verification(verified: VerificationResult) -> str:
    if verified.ok:
        return f"verified: {verified.records} records fit"
    return f"NOT verified: record {verified.first_bad} does not fit. {verified.why}".rstrip()


def _status(status: StatusResult) -> str:
    agents = ", ".join(f"{count} {state}" for state, count in status.agents.items()) or "none"
    ready = ", ".join(row.name for row in status.providers if row.ready) or "none with a key"
    mounts = ", ".join(f"{row.server} {row.state} ({row.tools})" for row in status.mounts) or "none"
    limit = "" if status.budget.usd_limit is None else f" of ${status.budget.usd_limit:.2f}"
    sandbox = status.sandbox.driver or f"none: {status.sandbox.reason} {status.sandbox.repair}".rstrip()
    lines = [
        f"aos-mcp {status.version} on {status.node}, up {status.uptime_s:.0f} s",
        f"agents: {agents}",
        f"model: {status.default_model or 'none'}; providers: {ready}",
        f"mounts: {mounts}",
        f"sandbox: {sandbox}",
        f"budget: ${status.budget.usd:.4f}{limit}",
    ]
    lines += [f"approval {row.approval_id}: {row.question}" for row in status.approvals]
    return "\n".join(lines)
