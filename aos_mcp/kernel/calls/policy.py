"""Approvals as a person sees them."""

from __future__ import annotations

from dataclasses import replace

from aos_mcp.abi import arguments as a
from aos_mcp.abi import history as h
from aos_mcp.abi import results as r
from aos_mcp.abi.approval import Approval, ApprovalState, Grant
from aos_mcp.abi.errors import Conflict, Denied, Invalid, NotFound
from aos_mcp.abi.event import Event, EventKind
from aos_mcp.abi.journal import Outcome
from aos_mcp.abi.process import Process
from aos_mcp.kernel import reconciling
from aos_mcp.kernel.approvals import asker_ended
from aos_mcp.kernel.call import Call
from aos_mcp.kernel.calls import views
from aos_mcp.kernel.journal import RECONCILE_CALL
from aos_mcp.kernel.pins import PIN_CALL, accept_pin
from aos_mcp.ports import Transaction

LISTED = 100
OUTCOMES = {"done": Outcome.DONE, "allow": Outcome.REDO, "deny": Outcome.GIVE_UP}


async def answer(call: Call, args: a.AnswerArgs) -> r.AnswerResult:
    """Put a person's answer on record; with `remember`, for every later call of this tool by this agent."""

    def work(tx: Transaction) -> r.AnswerResult:
        found = tx.approval_get(args.approval_id)
        if found is None or found.owner != call.caller.principal:
            raise NotFound(f"There is no approval {args.approval_id}.", "See aos://approvals or `aos approvals`.")
        call.subject = found.approval_id
        if found.call == RECONCILE_CALL:
            return _reconcile(tx, call, args, found)
        if args.decision == "done":
            raise Invalid(f"{found.approval_id} asks whether something may be done.", "Answer allow or deny.")
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


def _reconcile(tx: Transaction, call: Call, args: a.AnswerArgs, found: Approval) -> r.AnswerResult:
    """Take the answer to whether a cut call has happened: done, it did; allow, do it; deny, leave it."""
    if args.remember:
        raise Invalid("What became of one call says nothing of the next.", "Answer without remember.")
    if found.state is not ApprovalState.PENDING:
        raise Conflict(f"{found.approval_id} is {found.state} already.", "See the journal for what was found.")
    pid, _, number = found.digest.rpartition("@")
    step = reconciling.find_unknown(tx, pid, int(number))
    reconciling.reconcile(tx, call, step, OUTCOMES[args.decision], args.note or "")
    after = tx.approval_get(found.approval_id)
    assert after is not None, "the question was there a moment ago"
    return r.AnswerResult(approval_id=after.approval_id, state=after.state)


async def reconcile(call: Call, args: a.ReconcileArgs) -> h.ReconcileResult:
    """Say what became of a step of unknown outcome: an agent of its own, a host of any of its agents'."""

    def work(tx: Transaction) -> h.ReconcileResult:
        own = call.own(tx) if call.caller.pid is not None else None
        if own is not None and args.pid is not None and args.pid != own.pid:
            raise Denied("An agent reconciles its own steps.", "Leave out pid.")
        if own is None and args.pid is None:
            raise Invalid("reconcile needs the pid of the agent whose step it is.", "Give pid and step.")
        process = own if own is not None else call.find(tx, args.pid or "")
        call.subject = process.pid
        step = reconciling.find_unknown(tx, process.pid, args.step)
        settled = reconciling.reconcile(tx, call, step, args.outcome, args.note or "")
        return h.ReconcileResult(pid=process.pid, step=settled.number, state=settled.state)

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
