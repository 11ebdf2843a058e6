"""Rows of the store as results show them."""

from __future__ import annotations

from collections.abc import Sequence

from aos_mcp.abi import history as h
from aos_mcp.abi import results as r
from aos_mcp.abi.approval import Approval
from aos_mcp.abi.audit import AuditHead, AuditRecord
from aos_mcp.abi.budget import Account, Usage
from aos_mcp.abi.journal import Checkpoint, Step
from aos_mcp.abi.limits import RESULT_TOKENS_MAX
from aos_mcp.abi.message import Message
from aos_mcp.abi.page import Page
from aos_mcp.abi.process import Process
from aos_mcp.context.tokens import count
from aos_mcp.kernel import table
from aos_mcp.kernel.budget import MICRO
from aos_mcp.kernel.journal import RECONCILE_CALL
from aos_mcp.kernel.scheduler import units
from aos_mcp.ports import Transaction

RESULT_CHARS_SHOWN = 8_000


def usage(used: Usage | None) -> r.UsageResult:
    """Show what was spent."""
    if used is None:
        return r.UsageResult()
    return r.UsageResult(
        input_tokens=used.input_tokens,
        cached_tokens=used.cached_tokens,
        written_tokens=used.written_tokens,
        output_tokens=used.output_tokens,
        usd=used.microusd / MICRO,
        turns=used.turns,
        tool_calls=used.tool_calls,
    )


def result_text(tx: Transaction, process: Process) -> tuple[str | None, bool]:
    """Return a process's result, cut where it is long, and whether it was cut."""
    body = tx.payload_get(process.result) if process.result is not None else None
    if body is None:
        return None, False
    text = body.decode()
    if count(text) <= RESULT_TOKENS_MAX:
        return text, False
    return text[:RESULT_CHARS_SHOWN], True


def agent(tx: Transaction, process: Process) -> r.AgentResult:
    """Show one process as `wait_agent` does."""
    account = tx.account_get(process.pid)
    text, cut = result_text(tx, process)
    return r.AgentResult(
        pid=process.pid,
        name=process.name,
        state=process.state,
        model=process.model,
        exit_code=process.exit_code,
        reason=process.exit_reason if process.exit_code is not None else None,
        result=text,
        result_page=result_page(tx, process) if cut else None,
        waiting_for=process.waiting_for,
        usage=usage(account.used if account else None),
        replayed=process.model.startswith("replay/"),
        unknown_steps=tx.step_unknown([process.pid]).get(process.pid, []),
    )


def result_page(tx: Transaction, process: Process) -> str | None:
    """Return the page that holds the whole of a long result: the kernel writes one when such a process ends."""
    pages = (page for page in reversed(tx.page_table(process.pid)) if page.digest == process.result)
    found = next(pages, None)
    return found.page_id if found is not None else None


def times(process: Process, account: Account | None, now: float) -> r.TimesResult:
    """Show where a process's time went, its present state included."""
    spent = table.spent(process, now)
    return r.TimesResult(
        waiting_s=round(spent.get("waiting_s", process.waiting_s), 3),
        running_s=round(spent.get("running_s", process.running_s), 3),
        blocked_s=round(spent.get("blocked_s", process.blocked_s), 3),
        attained=units(account.used) if account is not None else 0,
        preempted=process.preempted,
        wasted_tokens=process.wasted_tokens,
    )


def agent_row(process: Process, account: Account | None, unknown: list[int], now: float) -> r.AgentRow:
    """Show one process as `list_agents` does."""
    return r.AgentRow(
        pid=process.pid,
        name=process.name,
        state=process.state,
        model=process.model,
        priority=process.priority,
        parent=process.parent,
        waiting_for=process.waiting_for,
        exit_code=process.exit_code,
        usage=usage(account.used if account else None),
        times=times(process, account, now),
        unknown_steps=unknown,
    )


def message(row: Message) -> r.MessageResult:
    """Show a message."""
    return r.MessageResult(message_id=row.message_id, sender=row.sender, topic=row.topic, text=row.text)


def page(row: Page, summarizes: Sequence[str] = ()) -> r.PageRow:
    """Show a row of a page table; of a summary, with the pages it was made from."""
    return r.PageRow(
        page_id=row.page_id,
        kind=row.kind,
        title=row.title,
        tokens=row.tokens,
        resident=row.resident,
        pinned=row.pinned,
        importance=row.importance,
        uses=row.uses,
        faults=row.faults,
        left_at=row.left_at,
        left_why=row.left_why,
        source=row.source,
        labels=list(row.labels),
        origin=row.origin,
        created_at=row.created_at,
        summarizes=list(summarizes),
    )


def step(row: Step) -> h.StepRow:
    """Show a journal step."""
    return h.StepRow(
        number=row.number,
        call=row.call,
        effect=row.effect,
        state=row.state,
        request_id=row.request_id,
        intent=row.intent,
        result=row.result,
        started_at=row.started_at,
        ended_at=row.ended_at,
    )


def checkpoint(row: Checkpoint, files: int) -> h.CheckpointRow:
    """Show a checkpoint."""
    return h.CheckpointRow(
        checkpoint_id=row.checkpoint_id, pid=row.pid, step=row.step, label=row.label, at=row.at, files=files
    )


def approval(row: Approval) -> r.ApprovalRow:
    """Show a question."""
    return r.ApprovalRow(
        approval_id=row.approval_id,
        pid=row.pid,
        tool=row.tool,
        question=row.question,
        state=row.state,
        asked_at=row.asked_at,
        expires_at=row.expires_at,
        step=int(row.digest.rpartition("@")[2]) if row.call == RECONCILE_CALL else None,
    )


def audit_row(record: AuditRecord, *, whole: bool = False) -> r.AuditRow:
    """Show an audit record; `whole`, with all that its digest covers."""
    entry = record.entry
    return r.AuditRow(
        seq=record.seq,
        at=entry.at,
        actor=entry.actor,
        call=entry.call,
        subject=entry.subject,
        outcome=entry.outcome,
        detail=entry.detail,
        digest=record.digest,
        category=entry.category if whole else None,
        pid=entry.pid if whole else None,
        payload=entry.payload if whole else None,
    )


def audit_head(head: AuditHead | None) -> r.AuditHeadResult | None:
    """Show a signed head."""
    if head is None:
        return None
    return r.AuditHeadResult(
        seq=head.seq, digest=head.digest, signature=head.signature, at=head.at, key_id=head.key_id, root=head.root
    )
