"""Reconciling: what becomes of a step of which nobody knew whether it happened, once somebody has looked.

It happened, and this is its result; it did not, so do it; or nobody will find out. A step is settled once, whoever
answers: a person through its question, or the agent itself. Nothing is done here: what is to be done is done by the
agent, through the gate, under its rights and its budget.
"""

from __future__ import annotations

import json
from dataclasses import replace

from aos_mcp.abi.approval import ApprovalState
from aos_mcp.abi.errors import Conflict, NotFound
from aos_mcp.abi.event import Event, EventKind
from aos_mcp.abi.handle import Pid
from aos_mcp.abi.journal import Outcome, Step, StepState
from aos_mcp.abi.message import KERNEL, Message
from aos_mcp.abi.page import PageKind
from aos_mcp.abi.process import Process, ProcessState
from aos_mcp.kernel import journal
from aos_mcp.kernel.call import Call, actor
from aos_mcp.ports import Transaction

NOT_KNOWN = "Nobody could find out whether it happened. Do not count on it, and do not repeat it."
NOT_DONE = "It did not happen."


def find_unknown(tx: Transaction, pid: str, number: int) -> Step:
    """Return a step that waits to be reconciled.

    Raises:
        NotFound: there is no such step.
        Conflict: it is known what became of it.
    """
    step = tx.step_get(Pid(pid), number)
    if step is None:
        raise NotFound(f"{pid} has no step {number}.", f"See its journal: aos://proc/{pid}/journal.")
    if step.state is not StepState.UNKNOWN:
        raise Conflict(f"Step {number} of {pid} is {step.state}: nothing about it is open.", "Read its journal.")
    return step


def reconcile(tx: Transaction, call: Call, step: Step, outcome: Outcome, note: str) -> Step:
    """Settle a step of unknown outcome, close its question, and let its agent know where that still can act on it.

    Raises:
        Conflict: it is to be done, and its agent has ended.
    """
    process = tx.process_get(step.pid)
    tool, _ = journal.asked_of(tx, step)
    ended = process is not None and process.state is ProcessState.EXITED
    if outcome is Outcome.REDO and ended:
        raise Conflict(
            f"{step.pid} has ended and cannot do it.",
            f"Have a restored one do it (restore {step.pid}@{step.number}), or do it yourself and answer done.",
        )
    settled = _settle(tx, call, process, step, outcome, note)
    _close_question(tx, call, step, outcome, note)
    if process is not None and not ended and call.caller.pid != process.pid and settled.result is not None:
        _tell(tx, call, process, _news(step, tool, outcome, note))
    return settled


def _settle(tx: Transaction, call: Call, process: Process | None, step: Step, outcome: Outcome, note: str) -> Step:
    """Write the step's end. One that is to be done and that its turn has not told of yet is simply open again."""
    fence = process.fence if process is not None else step.fence
    if outcome is Outcome.REDO and process is not None and not _told(tx, process, step):
        settled = replace(step, state=StepState.FAILED, result=None, fence=fence)
        tx.step_put(settled)
        return settled
    text = {Outcome.DONE: note or "It happened.", Outcome.REDO: NOT_DONE, Outcome.GIVE_UP: note or NOT_KNOWN}[outcome]
    state = StepState.DONE if outcome is Outcome.DONE else StepState.FAILED
    body = json.dumps({"reconciled": text}, ensure_ascii=False).encode()
    return journal.finish(tx, replace(step, fence=fence), state=state, result=body, now=call.now)


def _told(tx: Transaction, process: Process, step: Step) -> bool:
    """Tell whether the model has been told of a step: the answer to its request is a page then.

    A turn that is under way may be about to tell it.
    """
    if step.request_id is None or process.state in {ProcessState.RUNNING, ProcessState.BLOCKED}:
        return True
    position = int(step.request_id.partition(":")[0])
    tail = tx.page_tail(step.pid)
    reply = next((page for page in reversed(tail) if page.kind is PageKind.REPLY), None)
    if reply is None or position < reply.position:
        return True
    return any(page.kind is PageKind.RESULT and page.position == position for page in tail)


def _close_question(tx: Transaction, call: Call, step: Step, outcome: Outcome, note: str) -> None:
    question = tx.approval_get(journal.question_about(step.pid, step.number))
    if question is None:
        return
    state = ApprovalState.DENIED if outcome is Outcome.GIVE_UP else ApprovalState.CLAIMED
    tx.approval_put(replace(question, state=state, answered_at=call.now, answered_by=actor(call.caller), note=note))
    event = Event(
        kind=EventKind.APPROVAL, subject=question.approval_id, owner=question.owner, detail=state,
        uris=("aos://approvals",),
    )  # fmt: skip
    call.publish(event)


def _news(step: Step, tool: str, outcome: Outcome, note: str) -> str:
    head = f"About step {step.number}, {tool}, of which nobody knew whether it happened: "
    said = f" {note}" if note else ""
    if outcome is Outcome.DONE:
        return f"{head}it did.{said}"
    if outcome is Outcome.REDO:
        return f"{head}it did not. Do it now, once.{said}"
    return f"{head}{NOT_KNOWN}{said}"


def _tell(tx: Transaction, call: Call, process: Process, text: str) -> None:
    message = Message(
        message_id=call.machine.entropy.handle("m_"),
        owner=process.owner,
        sender=KERNEL,
        recipient=process.pid,
        text=text,
        sent_at=call.now,
    )
    tx.message_insert(message)
    call.publish(Event(kind=EventKind.MESSAGE, subject=process.pid, owner=process.owner, detail=message.message_id))
