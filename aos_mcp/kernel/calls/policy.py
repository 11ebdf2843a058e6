"""Approvals as a person sees them."""

from __future__ import annotations

from dataclasses import replace

from aos_mcp.abi import arguments as a
from aos_mcp.abi import results as r
from aos_mcp.abi.approval import Approval, ApprovalState, Grant
from aos_mcp.abi.errors import Conflict, NotFound
from aos_mcp.abi.event import Event, EventKind
from aos_mcp.abi.process import Process
from aos_mcp.kernel.approvals import asker_ended
from aos_mcp.kernel.call import Call
from aos_mcp.kernel.calls import views
from aos_mcp.kernel.pins import PIN_CALL, accept_pin
from aos_mcp.ports import Transaction

LISTED = 100


async def answer(call: Call, args: a.AnswerArgs) -> r.AnswerResult:
    """Put a person's answer on record; with `remember`, for every later call of this tool by this agent."""

    def work(tx: Transaction) -> r.AnswerResult:
        found = tx.approval_get(args.approval_id)
        if found is None or found.owner != call.caller.principal:
            raise NotFound(f"There is no approval {args.approval_id}.", "See aos://approvals or `aos approvals`.")
        call.subject = found.approval_id
        wanted = ApprovalState.ALLOWED if args.decision == "allow" else ApprovalState.DENIED
        if found.state is wanted:
            return r.AnswerResult(approval_id=found.approval_id, state=wanted)
        if found.state is not ApprovalState.PENDING or found.expires_at <= call.now:
            raise Conflict(f"{found.approval_id} is {found.state} already.", "Have the agent ask again.")
        if asker_ended(tx, found):
            raise Conflict(f"The agent that asked {found.approval_id} has ended.", "Nothing needs to be answered.")
        _store_answer(tx, call, args, found, wanted)
        return r.AnswerResult(approval_id=found.approval_id, state=wanted)

    return await call.commit(work)


def _store_answer(tx: Transaction, call: Call, args: a.AnswerArgs, found: Approval, wanted: ApprovalState) -> None:
    by = f"{call.caller.kind}:{call.caller.host}" if call.caller.host else str(call.caller.kind)
    tx.approval_put(
        replace(found, state=wanted, answered_at=call.now, answered_by=by, remember=args.remember, note=args.note or "")
    )
    if found.call == PIN_CALL:
        if wanted is ApprovalState.ALLOWED:
            accept_pin(tx, call.machine, found, call.now)
    elif args.remember:
        asker = tx.process_get(found.pid) if found.pid is not None else None
        agent = _agent_of(asker)
        grant = Grant(owner=found.owner, agent=agent, tool=found.tool, decision=args.decision, at=call.now)
        tx.grant_put(grant)
    call.publish(
        Event(
            kind=EventKind.APPROVAL,
            subject=found.approval_id,
            owner=found.owner,
            detail=wanted,
            uris=("aos://approvals",),
        )
    )


def _agent_of(asker: Process | None) -> str:
    return "host" if asker is None else asker.agent or asker.name


async def list_approvals(call: Call, args: a.NoArgs) -> r.ApprovalsResult:
    """Show the questions that wait."""
    return await call.read(lambda tx: r.ApprovalsResult(approvals=pending(tx, call)))


def pending(tx: Transaction, call: Call) -> list[r.ApprovalRow]:
    """Return the questions that wait for a person, have not expired, and are of somebody who still lives."""
    rows = tx.approval_list(owner=call.caller.principal, states=[ApprovalState.PENDING], limit=LISTED)
    return [views.approval(row) for row in rows if row.expires_at > call.now and not asker_ended(tx, row)]
