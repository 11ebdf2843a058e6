"""The journal: intent, then effect, then result. What has an intent and no result is never silently repeated."""

from __future__ import annotations

from dataclasses import replace

from aos_mcp.abi.handle import Digest, Pid
from aos_mcp.abi.journal import EffectClass, Step, StepState
from aos_mcp.abi.process import Process
from aos_mcp.ports import Transaction


def begin(
    tx: Transaction,
    process: Process,
    *,
    call: str,
    effect: EffectClass,
    intent: bytes,
    now: float,
    request_id: str | None = None,
) -> Step:
    """Write the intent of a step that is about to act on the world."""
    step = Step(
        pid=process.pid,
        number=process.step,
        call=call,
        effect=effect,
        state=StepState.INTENT,
        intent=tx.payload_put(intent),
        request_id=request_id,
        idempotency_key=f"{process.pid}:{process.step}",
        fence=process.fence,
        started_at=now,
    )
    tx.step_insert(step)
    tx.process_put(replace(process, step=process.step + 1, updated_at=now))
    return step


def finish(tx: Transaction, step: Step, *, state: StepState, result: bytes, now: float) -> Step:
    """Write how a step ended."""
    done = replace(step, state=state, result=tx.payload_put(result), ended_at=now)
    tx.step_put(done)
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
    return settled


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
