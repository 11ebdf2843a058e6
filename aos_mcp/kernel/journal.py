"""The journal: intent, then effect, then result. What has an intent and no result is never silently repeated.

What may have happened becomes a question to a person, in the transaction that finds out that nobody knows. The question
outlives everything; its answer is `kernel.reconciling`'s business.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace

from pydantic import JsonValue

from aos_mcp.abi.approval import Approval, ApprovalState
from aos_mcp.abi.handle import Digest, Pid
from aos_mcp.abi.journal import HOST_JOURNAL, EffectClass, Step, StepState
from aos_mcp.abi.limits import UNKNOWN_TTL_S
from aos_mcp.abi.process import Process
from aos_mcp.ports import Transaction
from aos_mcp.security.policy import QUESTION_CHARS_MAX, shown

RECONCILE_CALL = "reconcile"
"""`Approval.call` of a question about a step of unknown outcome; `Approval.digest` names the step."""


def begin(
    tx: Transaction,
    process: Process,
    *,
    call: str,
    effect: EffectClass,
    intent: bytes,
    now: float,
    request_id: str | None = None,
    basis: Digest | None = None,
) -> Step:
    """Write the intent of a step that is about to act on the world.

    Its idempotency key is that of the model's request: the same one when a later turn makes the call again.
    """
    step = Step(
        pid=process.pid,
        number=process.step,
        call=call,
        effect=effect,
        state=StepState.INTENT,
        intent=tx.payload_put(intent),
        request_id=request_id,
        idempotency_key=f"{process.pid}:{request_id if request_id is not None else process.step}",
        fence=process.fence,
        started_at=now,
        basis=basis,
    )
    tx.step_insert(step)
    tx.process_put(replace(process, step=process.step + 1, updated_at=now))
    return step


def begin_host(tx: Transaction, principal: str, *, call: str, effect: EffectClass, intent: bytes, now: float) -> Step:
    """Write the intent of an act of a host: hosts have a journal of their own, one for each person."""
    pid = Pid(f"{HOST_JOURNAL}{principal}")
    last = tx.step_last(pid, limit=1)
    number = last[0].number + 1 if last else 0
    step = Step(
        pid=pid,
        number=number,
        call=call,
        effect=effect,
        state=StepState.INTENT,
        intent=tx.payload_put(intent),
        idempotency_key=f"{pid}:{number}",
        fence=0,
        started_at=now,
    )
    tx.step_insert(step)
    return step


def finish(tx: Transaction, step: Step, *, state: StepState, result: bytes, now: float) -> Step:
    """Write how a step ended. One that was UNKNOWN ended when it was cut, however late somebody finds out how."""
    cut_at = step.ended_at if step.state is StepState.UNKNOWN else None
    ended_at = now if cut_at is None else cut_at
    done = replace(step, state=state, result=tx.payload_put(result), ended_at=ended_at)
    tx.step_put(done)
    if state is StepState.UNKNOWN:
        _ask(tx, done, now)
    return done


def record(
    tx: Transaction,
    process: Process,
    *,
    call: str,
    effect: EffectClass,
    intent: bytes,
    result: bytes,
    now: float,
    request_id: str | None,
) -> Step:
    """Write a step whose effect is in this very transaction: there is no moment at which only its intent exists."""
    step = begin(tx, process, call=call, effect=effect, intent=intent, now=now, request_id=request_id)
    return finish(tx, step, state=StepState.DONE, result=result, now=now)


def cut(tx: Transaction, step: Step, *, now: float) -> Step:
    """Settle a step that has an intent only and never will have a result.

    An unsafe one becomes UNKNOWN: it may have happened. Another becomes FAILED: it will be run again as a new step.
    """
    unsafe = step.effect is EffectClass.UNSAFE
    settled = replace(step, state=StepState.UNKNOWN if unsafe else StepState.FAILED, ended_at=now)
    tx.step_put(settled)
    if unsafe:
        _ask(tx, settled, now)
    return settled


def _ask(tx: Transaction, step: Step, now: float) -> None:
    """Put the question whether a step has happened on record, once."""
    approval_id = question_about(step.pid, step.number)
    if tx.approval_get(approval_id) is not None:
        return
    process = tx.process_get(step.pid)
    who = f"Agent “{shown(process.name)}”" if process is not None else "A host"
    tool, arguments = asked_of(tx, step)
    told = shown(json.dumps(arguments, ensure_ascii=False, sort_keys=True))
    more = f"… ({len(told) - QUESTION_CHARS_MAX:,} more characters)" if len(told) > QUESTION_CHARS_MAX else ""
    tx.approval_insert(
        Approval(
            approval_id=approval_id,
            owner=process.owner if process is not None else step.pid.removeprefix(HOST_JOURNAL),
            pid=process.pid if process is not None else None,
            call=RECONCILE_CALL,
            tool=tool,
            digest=f"{step.pid}@{step.number}",
            question=(
                f"{who} called {shown(tool)} with {told[:QUESTION_CHARS_MAX]}{more} (step {step.number}), and it was "
                "cut off: it may have happened, or not. Look first. Then answer done (it happened; the note is its "
                "result), allow (it did not: do it) or deny (leave it as it is)."
            ),
            state=ApprovalState.PENDING,
            asked_at=now,
            expires_at=now + UNKNOWN_TTL_S,
        )
    )


def question_about(pid: str, number: int) -> str:
    """Return the id of the question about a step: a step is asked about once, whoever finds it."""
    digest = hashlib.sha256(f"{pid}@{number}".encode()).digest()
    return "ap_" + base64.b32encode(digest)[:26].decode().lower()


def asked_of(tx: Transaction, step: Step) -> tuple[str, dict[str, JsonValue]]:
    """Return what a step was about: the tool, downstream where it is one, and its arguments."""
    intent = json.loads(payload(tx, step.intent))
    arguments = intent.get("arguments") or {}
    if step.call == "call_tool":
        return str(arguments.get("name", step.call)), dict(arguments.get("arguments") or {})
    return step.call, dict(arguments)


def result_of(tx: Transaction, step: Step) -> bytes:
    """Return what a finished step answered."""
    body = tx.payload_get(step.result) if step.result is not None else None
    return body if body is not None else b""


def abandon(tx: Transaction, pid: Pid, fence: int, now: float) -> list[Step]:
    """Settle the steps that have an intent only, when a process is freed under a new fence, or ends.

    Returns those that are unknown.
    """
    settled = [cut(tx, replace(step, fence=fence), now=now) for step in tx.step_open(pid)]
    return [step for step in settled if step.state is StepState.UNKNOWN]


def payload(tx: Transaction, digest: Digest) -> bytes:
    """Return a payload that must be there."""
    body = tx.payload_get(digest)
    assert body is not None, "a row names a payload that is not stored"
    return body
