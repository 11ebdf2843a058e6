"""Rows and records: how each dataclass of `abi` lies in its table. One pair of functions a record, nothing else."""

from __future__ import annotations

import json
from functools import lru_cache

from aos_mcp.abi.approval import Approval, ApprovalState, Grant
from aos_mcp.abi.audit import AuditEntry, AuditHead, AuditRecord
from aos_mcp.abi.budget import Account, Budget, Reservation, Usage
from aos_mcp.abi.capability import IsolationLevel, Rights
from aos_mcp.abi.guest import GuestKey
from aos_mcp.abi.journal import Checkpoint, EffectClass, Step, StepState
from aos_mcp.abi.message import Message
from aos_mcp.abi.mount import Pin, PinState
from aos_mcp.abi.page import Page, PageKind
from aos_mcp.abi.process import ExitCode, Process, ProcessState, Signal
from aos_mcp.storage.connection import Row, Value

Values = dict[str, Value]


@lru_cache(maxsize=1_024)
def rights_text(rights: Rights) -> str:
    """Return the JSON form. Cached: the rights of a process never change, and its row is written at every step."""
    return json.dumps(
        {"tools": rights.tools, "network": rights.network, "level": rights.level.value, "spawn": rights.spawn},
        separators=(",", ":"),
    )


@lru_cache(maxsize=1_024)
def rights_from(text: str) -> Rights:
    """Read the JSON form."""
    form = json.loads(text)
    return Rights(
        tools=tuple(tuple(layer) for layer in form["tools"]),
        network=tuple(tuple(layer) for layer in form["network"]),
        level=IsolationLevel(form["level"]),
        spawn=form["spawn"],
    )


def process_values(process: Process) -> Values:
    """Lay a process out in columns."""
    return {
        "pid": process.pid,
        "parent": process.parent,
        "program": process.program,
        "owner": process.owner,
        "name": process.name,
        "agent": process.agent,
        "state": process.state.value,
        "model": process.model,
        "fallbacks": ",".join(process.fallbacks),
        "priority": process.priority,
        "depth": process.depth,
        "rights": rights_text(process.rights),
        "workspace": process.workspace,
        "step": process.step,
        "position": process.position,
        "waiting_for": process.waiting_for,
        "pending": process.pending.value if process.pending else None,
        "finishing": process.finishing,
        "faults": process.faults,
        "wake_at": process.wake_at,
        "exit_code": process.exit_code.value if process.exit_code else None,
        "exit_reason": process.exit_reason,
        "result": process.result,
        "fence": process.fence,
        "version": process.version,
        "lease_holder": process.lease_holder,
        "lease_until": process.lease_until,
        "idempotency_key": process.idempotency_key,
        "forked_from": process.forked_from,
        "created_at": process.created_at,
        "updated_at": process.updated_at,
        "ended_at": process.ended_at,
        "since": process.since,
        "ready_at": process.ready_at,
        "waiting_s": process.waiting_s,
        "running_s": process.running_s,
        "blocked_s": process.blocked_s,
        "preempted": process.preempted,
        "wasted_tokens": process.wasted_tokens,
        "guest": process.guest,
    }


def process_from(row: Row) -> Process:
    """Read a process."""
    return Process(
        pid=row["pid"],
        parent=row["parent"],
        program=row["program"],
        owner=row["owner"],
        name=row["name"],
        agent=row["agent"],
        state=ProcessState(row["state"]),
        model=row["model"],
        fallbacks=tuple(row["fallbacks"].split(",")) if row["fallbacks"] else (),
        priority=row["priority"],
        depth=row["depth"],
        rights=rights_from(row["rights"]),
        workspace=row["workspace"],
        step=row["step"],
        position=row["position"],
        waiting_for=row["waiting_for"],
        pending=Signal(row["pending"]) if row["pending"] else None,
        finishing=bool(row["finishing"]),
        faults=row["faults"],
        wake_at=row["wake_at"],
        exit_code=ExitCode(row["exit_code"]) if row["exit_code"] else None,
        exit_reason=row["exit_reason"],
        result=row["result"],
        fence=row["fence"],
        version=row["version"],
        lease_holder=row["lease_holder"],
        lease_until=row["lease_until"],
        idempotency_key=row["idempotency_key"],
        forked_from=row["forked_from"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        ended_at=row["ended_at"],
        since=row["since"],
        ready_at=row["ready_at"],
        waiting_s=row["waiting_s"],
        running_s=row["running_s"],
        blocked_s=row["blocked_s"],
        preempted=row["preempted"],
        wasted_tokens=row["wasted_tokens"],
        guest=bool(row["guest"]),
    )


def guest_key_values(key: GuestKey) -> Values:
    """Lay a key out in columns."""
    return {
        "key_id": key.key_id,
        "digest": key.digest,
        "pid": key.pid,
        "created_at": key.created_at,
        "revoked_at": key.revoked_at,
    }


def guest_key_from(row: Row) -> GuestKey:
    """Read a key."""
    return GuestKey(
        key_id=row["key_id"],
        digest=row["digest"],
        pid=row["pid"],
        created_at=row["created_at"],
        revoked_at=row["revoked_at"],
    )


def account_values(account: Account) -> Values:
    """Lay an account out in columns."""
    limit, used = account.limit, account.used
    return {
        "account": account.account,
        "parent": account.parent,
        "limit_microusd": limit.microusd,
        "limit_tokens": limit.tokens,
        "limit_turns": limit.turns,
        "limit_tool_calls": limit.tool_calls,
        "limit_wall_s": limit.wall_s,
        **usage_values(used),
        "reserved_microusd": account.reserved_microusd,
        "reserved_tokens": account.reserved_tokens,
        "opened_at": account.opened_at,
    }


def usage_values(used: Usage) -> Values:
    """Lay what was used out in an account's columns."""
    return {
        "used_input_tokens": used.input_tokens,
        "used_cached_tokens": used.cached_tokens,
        "used_written_tokens": used.written_tokens,
        "used_output_tokens": used.output_tokens,
        "used_microusd": used.microusd,
        "used_turns": used.turns,
        "used_tool_calls": used.tool_calls,
    }


def account_from(row: Row) -> Account:
    """Read an account."""
    return Account(
        account=row["account"],
        parent=row["parent"],
        limit=Budget(
            microusd=row["limit_microusd"],
            tokens=row["limit_tokens"],
            turns=row["limit_turns"],
            tool_calls=row["limit_tool_calls"],
            wall_s=row["limit_wall_s"],
        ),
        used=Usage(
            input_tokens=row["used_input_tokens"],
            cached_tokens=row["used_cached_tokens"],
            written_tokens=row["used_written_tokens"],
            output_tokens=row["used_output_tokens"],
            microusd=row["used_microusd"],
            turns=row["used_turns"],
            tool_calls=row["used_tool_calls"],
        ),
        reserved_microusd=row["reserved_microusd"],
        reserved_tokens=row["reserved_tokens"],
        opened_at=row["opened_at"],
    )


def reservation_values(reservation: Reservation) -> Values:
    """Lay a reservation out in columns."""
    return {
        "reservation_id": reservation.reservation_id,
        "account": reservation.account,
        "microusd": reservation.microusd,
        "tokens": reservation.tokens,
        "at": reservation.at,
    }


def reservation_from(row: Row) -> Reservation:
    """Read a reservation."""
    return Reservation(
        reservation_id=row["reservation_id"],
        account=row["account"],
        microusd=row["microusd"],
        tokens=row["tokens"],
        at=row["at"],
    )


def step_values(step: Step) -> Values:
    """Lay a step out in columns."""
    return {
        "pid": step.pid,
        "number": step.number,
        "call": step.call,
        "effect": step.effect.value,
        "state": step.state.value,
        "intent": step.intent,
        "result": step.result,
        "request_id": step.request_id,
        "idempotency_key": step.idempotency_key,
        "fence": step.fence,
        "started_at": step.started_at,
        "ended_at": step.ended_at,
        "basis": step.basis,
    }


def step_from(row: Row) -> Step:
    """Read a step."""
    return Step(
        pid=row["pid"],
        number=row["number"],
        call=row["call"],
        effect=EffectClass(row["effect"]),
        state=StepState(row["state"]),
        intent=row["intent"],
        result=row["result"],
        request_id=row["request_id"],
        idempotency_key=row["idempotency_key"],
        fence=row["fence"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        basis=row["basis"],
        stamp=row["stamp"],
    )


@lru_cache(maxsize=1_024)
def labels_text(labels: tuple[str, ...]) -> str:
    """Return the JSON form. Cached: the pages of a context share few sets of labels."""
    return json.dumps(labels, ensure_ascii=False, separators=(",", ":"))


@lru_cache(maxsize=1_024)
def labels_from(text: str) -> tuple[str, ...]:
    """Read the JSON form."""
    return tuple(json.loads(text))


def page_values(page: Page) -> Values:
    """Lay a page out in columns."""
    return {
        "page_id": page.page_id,
        "pid": page.pid,
        "owner": page.owner,
        "kind": page.kind.value,
        "title": page.title,
        "digest": page.digest,
        "tokens": page.tokens,
        "size_bytes": page.size_bytes,
        "position": page.position,
        "group": page.group,
        "request_id": page.request_id,
        "is_error": page.is_error,
        "importance": page.importance,
        "pinned": page.pinned,
        "resident": page.resident,
        "source": page.source,
        "created_at": page.created_at,
        "used_at": page.used_at,
        "uses": page.uses,
        "faults": page.faults,
        "left_at": page.left_at,
        "left_why": page.left_why,
        "labels": labels_text(page.labels),
        "origin": page.origin,
        "pieces": page.pieces,
        "listed": page.listed,
    }


def page_from(row: Row) -> Page:
    """Read a page."""
    return Page(
        page_id=row["page_id"],
        pid=row["pid"],
        owner=row["owner"],
        kind=PageKind(row["kind"]),
        title=row["title"],
        digest=row["digest"],
        tokens=row["tokens"],
        size_bytes=row["size_bytes"],
        position=row["position"],
        group=row["group"],
        request_id=row["request_id"],
        is_error=bool(row["is_error"]),
        importance=row["importance"],
        pinned=bool(row["pinned"]),
        resident=bool(row["resident"]),
        source=row["source"],
        created_at=row["created_at"],
        used_at=row["used_at"],
        uses=row["uses"],
        faults=row["faults"],
        left_at=row["left_at"],
        left_why=row["left_why"],
        labels=labels_from(row["labels"]),
        origin=row["origin"],
        pieces=row["pieces"],
        listed=bool(row["listed"]),
    )


def message_values(message: Message) -> Values:
    """Lay a message out in columns."""
    return {
        "message_id": message.message_id,
        "owner": message.owner,
        "sender": message.sender,
        "recipient": message.recipient,
        "text": message.text,
        "topic": message.topic,
        "sent_at": message.sent_at,
        "taken_at": message.taken_at,
    }


def message_from(row: Row) -> Message:
    """Read a message."""
    return Message(
        message_id=row["message_id"],
        owner=row["owner"],
        sender=row["sender"],
        recipient=row["recipient"],
        text=row["text"],
        topic=row["topic"],
        sent_at=row["sent_at"],
        taken_at=row["taken_at"],
    )


def checkpoint_values(checkpoint: Checkpoint) -> Values:
    """Lay a checkpoint out in columns."""
    return {
        "checkpoint_id": checkpoint.checkpoint_id,
        "pid": checkpoint.pid,
        "owner": checkpoint.owner,
        "step": checkpoint.step,
        "label": checkpoint.label,
        "at": checkpoint.at,
        "snapshot": checkpoint.snapshot,
        "manifest": checkpoint.manifest,
    }


def checkpoint_from(row: Row) -> Checkpoint:
    """Read a checkpoint."""
    return Checkpoint(
        checkpoint_id=row["checkpoint_id"],
        pid=row["pid"],
        owner=row["owner"],
        step=row["step"],
        label=row["label"],
        at=row["at"],
        snapshot=row["snapshot"],
        manifest=row["manifest"],
    )


def approval_values(approval: Approval) -> Values:
    """Lay a question out in columns."""
    return {
        "approval_id": approval.approval_id,
        "owner": approval.owner,
        "pid": approval.pid,
        "call": approval.call,
        "tool": approval.tool,
        "digest": approval.digest,
        "question": approval.question,
        "state": approval.state.value,
        "asked_at": approval.asked_at,
        "expires_at": approval.expires_at,
        "answered_at": approval.answered_at,
        "answered_by": approval.answered_by,
        "remember": approval.remember,
        "note": approval.note,
    }


def approval_from(row: Row) -> Approval:
    """Read a question."""
    return Approval(
        approval_id=row["approval_id"],
        owner=row["owner"],
        pid=row["pid"],
        call=row["call"],
        tool=row["tool"],
        digest=row["digest"],
        question=row["question"],
        state=ApprovalState(row["state"]),
        asked_at=row["asked_at"],
        expires_at=row["expires_at"],
        answered_at=row["answered_at"],
        answered_by=row["answered_by"],
        remember=bool(row["remember"]),
        note=row["note"],
    )


def grant_values(grant: Grant) -> Values:
    """Lay a remembered decision out in columns."""
    return {
        "owner": grant.owner,
        "agent": grant.agent,
        "tool": grant.tool,
        "decision": grant.decision,
        "at": grant.at,
    }


def grant_from(row: Row) -> Grant:
    """Read a remembered decision."""
    return Grant(
        owner=row["owner"],
        agent=row["agent"],
        tool=row["tool"],
        decision=row["decision"],
        at=row["at"],
    )


def pin_values(pin: Pin) -> Values:
    """Lay a pin out in columns."""
    return {
        "name": pin.name,
        "digest": pin.digest,
        "definition": pin.definition,
        "state": pin.state.value,
        "pinned_at": pin.pinned_at,
        "offered_digest": pin.offered_digest,
        "offered_definition": pin.offered_definition,
    }


def pin_from(row: Row) -> Pin:
    """Read a pin."""
    return Pin(
        name=row["name"],
        digest=row["digest"],
        definition=row["definition"],
        state=PinState(row["state"]),
        pinned_at=row["pinned_at"],
        offered_digest=row["offered_digest"],
        offered_definition=row["offered_definition"],
    )


def entry_values(entry: AuditEntry) -> Values:
    """Lay an audit entry out in columns."""
    return {
        "at": entry.at,
        "category": entry.category,
        "actor": entry.actor,
        "pid": entry.pid,
        "call": entry.call,
        "outcome": entry.outcome,
        "subject": entry.subject,
        "detail": entry.detail,
        "payload": entry.payload,
    }


def entry_from(row: Row) -> AuditEntry:
    """Read an audit entry, staged or sealed."""
    return AuditEntry(
        at=row["at"],
        category=row["category"],
        actor=row["actor"],
        pid=row["pid"],
        call=row["call"],
        outcome=row["outcome"],
        subject=row["subject"],
        detail=row["detail"],
        payload=row["payload"],
    )


def record_values(record: AuditRecord) -> Values:
    """Lay a sealed record out in columns."""
    return {
        "seq": record.seq,
        "previous": record.previous,
        "digest": record.digest,
        **entry_values(record.entry),
    }


def record_from(row: Row) -> AuditRecord:
    """Read a sealed record."""
    return AuditRecord(
        seq=row["seq"],
        previous=row["previous"],
        digest=row["digest"],
        entry=entry_from(row),
    )


def head_values(head: AuditHead) -> Values:
    """Lay a signed head out in columns."""
    return {
        "seq": head.seq,
        "digest": head.digest,
        "at": head.at,
        "key_id": head.key_id,
        "signature": head.signature,
        "root": head.root,
    }


def head_from(row: Row) -> AuditHead:
    """Read a signed head."""
    return AuditHead(
        seq=row["seq"],
        digest=row["digest"],
        at=row["at"],
        key_id=row["key_id"],
        signature=row["signature"],
        root=row["root"],
    )
