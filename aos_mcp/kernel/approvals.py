"""Approvals: durable questions to a person. An answer is bound to one action by its digest, and is claimed once."""

from __future__ import annotations

from dataclasses import replace

from aos_mcp.abi.approval import Approval, ApprovalState
from aos_mcp.abi.errors import ApprovalRequired, Denied, LimitExceeded
from aos_mcp.abi.event import Event, EventKind
from aos_mcp.abi.limits import APPROVAL_TTL_S, APPROVALS_PENDING_MAX
from aos_mcp.abi.process import Process, ProcessState
from aos_mcp.kernel.blocking import blocked, refuse_when_finishing, until_changed
from aos_mcp.kernel.call import Call
from aos_mcp.kernel.journal import RECONCILE_CALL
from aos_mcp.ports import Transaction
from aos_mcp.security.policy import Action, action_digest, question

EXPIRY_POLL_S = 30.0
"""A wait looks at the clock at least this often, to see a question expire."""


async def approve(call: Call, action: Action, process: Process | None) -> str:
    """Return once a person has allowed this very action, and claim that answer. Returns the question's id.

    A host is told to ask (it has a person in front of it); an agent waits, BLOCKED, and so does its turn: the question
    is a row, so it outlives a crash of the kernel, and the agent finds the same one again. The claim comes before the
    act: a kernel that dies between the two leaves no step, and the person is asked again; nothing is done unasked.

    Raises:
        ApprovalRequired: the caller is a host, and the question is open.
        Denied: a person said no, or the question expired.
    """
    digest = action_digest(call.caller.principal, call.caller.pid, call.row.name, action.tool, action.arguments)
    approval = await call.machine.store.write(lambda tx: _ask_or_claim(tx, call, action, digest))
    if _claimed(approval):
        return approval.approval_id
    _announce(call, approval)
    if process is None:
        raise ApprovalRequired(
            f"{action.tool} needs a person's approval.",
            f"Answer with answer_approval(approval_id={approval.approval_id!r}, …) or `aos approvals`, call again.",
            approval_id=approval.approval_id,
        )
    async with blocked(call, f"approval {approval.approval_id}"):
        while True:
            ticket = call.machine.bus.ticket()
            approval = await call.machine.store.write(lambda tx: _ask_or_claim(tx, call, action, digest))
            if _claimed(approval):
                return approval.approval_id
            await call.read(lambda tx: refuse_when_finishing(tx, call))
            await until_changed(call.machine, ticket, call.machine.clock.monotonic() + EXPIRY_POLL_S)


def stale(tx: Transaction, now: float) -> list[Approval]:
    """Return open questions whose asker has ended, and those of a host that have expired.

    An agent that lives sees for itself that its question has expired, and goes on without.
    """
    waiting = tx.approval_list(owner=None, states=[ApprovalState.PENDING], limit=APPROVALS_PENDING_MAX)
    return [row for row in waiting if asker_ended(tx, row) or (row.pid is None and row.expires_at <= now)]


def withdraw(tx: Transaction, now: float) -> None:
    """Close those questions: they would take the place of others that somebody waits for."""
    for approval in stale(tx, now):
        tx.approval_put(replace(approval, state=ApprovalState.EXPIRED))


def asker_ended(tx: Transaction, approval: Approval) -> bool:
    """Tell whether a question is of an agent that is no more. What may have happened is asked about all the same."""
    if approval.call == RECONCILE_CALL:
        return False
    asker = tx.process_get(approval.pid) if approval.pid is not None else None
    return asker is not None and asker.state is ProcessState.EXITED


def _claimed(approval: Approval) -> bool:
    if approval.state is ApprovalState.DENIED:
        note = f" ({approval.note})" if approval.note else ""
        raise Denied(f"A person denied {approval.tool}{note}.", "Do not ask again; find another way.")
    if approval.state is ApprovalState.EXPIRED:
        raise Denied(f"Nobody answered whether {approval.tool} is allowed.", "Go on without it, or ask again later.")
    return approval.state is ApprovalState.CLAIMED


def _ask_or_claim(tx: Transaction, call: Call, action: Action, digest: str) -> Approval:
    now, owner = call.now, call.caller.principal
    grant = tx.grant_get(owner, action.agent, action.tool)
    if grant is not None:
        state = ApprovalState.CLAIMED if grant.decision == "allow" else ApprovalState.DENIED
        return _question(call, action, digest, state)
    found = tx.approval_by_digest(owner, digest)
    if found is not None and found.state is ApprovalState.ALLOWED and found.expires_at <= now:
        tx.approval_put(replace(found, state=ApprovalState.EXPIRED))  # nobody made use of the answer in time
        found = None
    if found is None or (found.state is ApprovalState.DENIED and found.expires_at <= now):
        waiting = tx.approval_list(owner=owner, states=[ApprovalState.PENDING], limit=APPROVALS_PENDING_MAX)
        if sum(row.call != RECONCILE_CALL for row in waiting) >= APPROVALS_PENDING_MAX:
            raise LimitExceeded("Too many questions wait for a person.", "Answer some: aos approvals.")
        found = _question(call, action, digest, ApprovalState.PENDING)
        tx.approval_insert(found)
    elif found.state is ApprovalState.ALLOWED:
        found = replace(found, state=ApprovalState.CLAIMED)
        tx.approval_put(found)
    elif found.state is ApprovalState.PENDING and found.expires_at <= now:
        found = replace(found, state=ApprovalState.EXPIRED)
        tx.approval_put(found)
    return found


def _question(call: Call, action: Action, digest: str, state: ApprovalState) -> Approval:
    return Approval(
        approval_id=call.machine.entropy.handle("ap_"),
        owner=call.caller.principal,
        pid=call.caller.pid,
        call=call.row.name,
        tool=action.tool,
        digest=digest,
        question=question(action),
        state=state,
        asked_at=call.now,
        expires_at=call.now + APPROVAL_TTL_S,
    )


def _announce(call: Call, approval: Approval) -> None:
    call.machine.bus.publish(
        Event(
            kind=EventKind.APPROVAL,
            subject=approval.approval_id,
            owner=approval.owner,
            detail=approval.question,
            uris=("aos://approvals",),
        )
    )
