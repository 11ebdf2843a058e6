"""Records to put into a store: the least a row needs, and the fullest it can be."""

from __future__ import annotations

from aos_mcp.abi.approval import Approval, ApprovalState
from aos_mcp.abi.audit import GENESIS, AuditEntry, AuditHead, AuditRecord
from aos_mcp.abi.budget import Account, Budget, Usage
from aos_mcp.abi.capability import IsolationLevel, Rights
from aos_mcp.abi.handle import Digest, PageId, Pid
from aos_mcp.abi.journal import Checkpoint, EffectClass, Step, StepState
from aos_mcp.abi.message import HOST, Message
from aos_mcp.abi.page import Page, PageKind
from aos_mcp.abi.process import ExitCode, Process, ProcessState, Signal

OWNER = "somebody"
ABSENT = Digest("0" * 64)
AT = 1_700_000_000.125
"""A time with a fraction that a double holds exactly."""


def a_process(
    pid: str,
    *,
    owner: str = OWNER,
    state: ProcessState = ProcessState.READY,
    parent: str | None = None,
    program: str | None = None,
    key: str | None = None,
    fence: int = 0,
    at: float = AT,
) -> Process:
    """Return the least that a process is."""
    return Process(
        pid=Pid(pid),
        parent=Pid(parent) if parent else None,
        program=Pid(program or pid),
        owner=owner,
        name=pid,
        agent=None,
        state=state,
        model="replay/none",
        priority=50,
        depth=0,
        rights=Rights(),
        workspace="w",
        fence=fence,
        idempotency_key=key,
        created_at=at,
        updated_at=at,
    )


def a_full_process(pid: str) -> Process:
    """Return a process with every field set, to other values than the default."""
    return Process(
        pid=Pid(pid),
        parent=Pid("p_parent"),
        program=Pid("p_root"),
        owner=OWNER,
        name="prüfer 🦉",
        agent="reviewer",
        state=ProcessState.EXITED,
        model="replay/some.jsonl",
        priority=7,
        depth=3,
        rights=Rights(
            tools=(("*",), ("git__*", "page_?")),
            network=(("example.org",), ()),
            level=IsolationLevel.NETWORK,
            spawn=False,
        ),
        workspace="w_1",
        step=12,
        position=34,
        waiting_for="child p_x",
        pending=Signal.TERM,
        finishing=True,
        faults=2,
        wake_at=AT + 1.5,
        exit_code=ExitCode.BUDGET,
        exit_reason="no money left",
        result=ABSENT,
        fence=5,
        version=9,
        lease_holder="node-a",
        lease_until=AT + 15,
        idempotency_key="key-1",
        guest=True,
        forked_from="c_1",
        created_at=AT,
        updated_at=AT + 2,
        ended_at=AT + 3,
        since=AT + 4,
        ready_at=AT + 5,
        waiting_s=1.5,
        running_s=2.5,
        blocked_s=3.5,
        preempted=2,
        wasted_tokens=77,
    )


def an_account(account: str, *, parent: str | None = None) -> Account:
    """Return an account with every field set."""
    return Account(
        account=account,
        parent=parent,
        limit=Budget(microusd=10**15, tokens=2, turns=3, tool_calls=4, wall_s=5.5),
        used=Usage(
            input_tokens=1,
            cached_tokens=2,
            written_tokens=3,
            output_tokens=4,
            microusd=5,
            turns=6,
            tool_calls=7,
        ),
        reserved_microusd=8,
        reserved_tokens=9,
        opened_at=AT,
    )


def a_step(
    pid: str, number: int, *, state: StepState = StepState.INTENT, fence: int = 0, request: str | None = None
) -> Step:
    """Return a step."""
    return Step(
        pid=Pid(pid),
        number=number,
        call="call_tool",
        effect=EffectClass.UNSAFE,
        state=state,
        intent=ABSENT,
        result=ABSENT if state is StepState.DONE else None,
        request_id=request,
        idempotency_key=f"{pid}/{number}",
        fence=fence,
        started_at=AT + number,
        ended_at=AT + number + 0.5 if state is StepState.DONE else None,
    )


def a_page(
    page_id: str,
    *,
    pid: str | None = "p_1",
    owner: str = OWNER,
    kind: PageKind = PageKind.DOCUMENT,
    title: str = "",
    position: int = 0,
    digest: Digest = ABSENT,
) -> Page:
    """Return a page."""
    return Page(
        page_id=PageId(page_id),
        pid=Pid(pid) if pid else None,
        owner=owner,
        kind=kind,
        title=title,
        digest=digest,
        tokens=10,
        size_bytes=40,
        position=position,
        created_at=AT,
        used_at=AT,
    )


def a_full_page(page_id: str) -> Page:
    """Return a page with every field set, to other values than the default."""
    return Page(
        page_id=PageId(page_id),
        pid=Pid("p_1"),
        owner=OWNER,
        kind=PageKind.RESULT,
        title="Wie ist das Wetter?",
        digest=ABSENT,
        tokens=11,
        size_bytes=44,
        position=5,
        group=4,
        request_id="call_1",
        is_error=True,
        importance=0.25,
        pinned=True,
        resident=False,
        source="host",
        created_at=AT,
        used_at=AT + 1,
        uses=2,
        faults=3,
        left_at=AT + 4,
        left_why="compaction",
        labels=("mount:weather", "öffentlich"),
        origin=PageId("pg_origin"),
        pieces=3,
        listed=False,
    )


def a_message(message_id: str, *, recipient: str = HOST, owner: str = OWNER, at: float = AT) -> Message:
    """Return a message."""
    return Message(
        message_id=message_id,
        owner=owner,
        sender="p_1",
        recipient=recipient,
        text="ja\n\N{OWL}",
        topic="news",
        sent_at=at,
    )


def a_checkpoint(checkpoint_id: str, *, at: float = AT) -> Checkpoint:
    """Return a checkpoint."""
    return Checkpoint(
        checkpoint_id=checkpoint_id,
        pid=Pid("p_1"),
        owner=OWNER,
        step=3,
        label="before",
        at=at,
        snapshot=ABSENT,
        manifest=None,
    )


def an_approval(
    approval_id: str,
    *,
    owner: str = OWNER,
    state: ApprovalState = ApprovalState.PENDING,
    digest: str = "d",
    at: float = AT,
) -> Approval:
    """Return a question."""
    return Approval(
        approval_id=approval_id,
        owner=owner,
        pid=Pid("p_1"),
        call="call_tool",
        tool="git__push",
        digest=digest,
        question="May it push?",
        state=state,
        asked_at=at,
        expires_at=at + 60,
    )


def an_entry(subject: str, *, pid: str = "") -> AuditEntry:
    """Return an audit entry."""
    return AuditEntry(
        at=AT,
        category="process",
        actor="kernel",
        pid=pid,
        call="spawn_agent",
        outcome="ok",
        subject=subject,
        detail="{}",
        payload=ABSENT,
    )


def a_record(seq: int, entry: AuditEntry) -> AuditRecord:
    """Return a sealed record; its digests are names, not hashes: a store does not look at them."""
    return AuditRecord(seq=seq, previous=f"d{seq - 1}" if seq > 1 else GENESIS, digest=f"d{seq}", entry=entry)


def a_head(seq: int) -> AuditHead:
    """Return a signed head."""
    return AuditHead(seq=seq, digest=f"d{seq}", at=AT, key_id="key", signature="c2ln", root=f"r{seq}")
