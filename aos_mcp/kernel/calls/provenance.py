"""Provenance: why a step was made, and whether a run comes out the same when it is made again from its journal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

from aos_mcp.abi import arguments as a
from aos_mcp.abi import history as h
from aos_mcp.abi.errors import NotFound
from aos_mcp.abi.journal import MODEL_CALL, EffectClass, Step, StepState
from aos_mcp.abi.page import OUTSIDE
from aos_mcp.abi.process import Process
from aos_mcp.context.layout import decode_reply
from aos_mcp.context.page_table import in_window
from aos_mcp.kernel import journal
from aos_mcp.kernel.budget import MICRO
from aos_mcp.kernel.call import Call
from aos_mcp.kernel.replaying import Replayed, replay
from aos_mcp.ports import Transaction

LOOKED_BACK = 64  # Steps back to the model call that asked: a turn makes at most 32 tool calls.


async def explain_step(call: Call, args: a.StepArgs) -> h.WhyResult:
    """Say why a step was made."""

    def work(tx: Transaction) -> h.WhyResult:
        process = call.find(tx, args.pid)
        step = tx.step_get(process.pid, args.step)
        if step is None:
            raise NotFound(f"{process.pid} has no step {args.step}.", f"See aos://proc/{process.pid}/journal.")
        return _why(tx, process, step)

    return await call.read(work)


def _why(tx: Transaction, process: Process, step: Step) -> h.WhyResult:
    intent = json.loads(journal.payload(tx, step.intent))
    asking = step if step.effect is EffectClass.LLM else _asking(tx, step)
    told = json.loads(journal.payload(tx, asking.intent)) if asking is not None else {}
    tool, arguments = journal.asked_of(tx, step) if step is not asking else (step.call, {})
    question = tx.approval_get(intent["approval"]) if intent.get("approval") else None
    answered = asking is not None and asking.state is StepState.DONE
    said = decode_reply(journal.result_of(tx, asking)).text if asking is not None and answered else ""
    return h.WhyResult(
        pid=process.pid,
        step=step.number,
        call=step.call,
        tool=tool,
        arguments=arguments,
        state=step.state,
        effect=step.effect,
        idempotency_key=step.idempotency_key,
        started_at=step.started_at,
        asked_in=asking.number if asking is not None else None,
        model=told.get("model"),
        prompt=told.get("prompt"),
        decision=said,
        seen=_seen(tx, asking, told.get("pages")) if asking is not None else [],
        allowed_by=intent.get("allowed_by"),
        approval=question.approval_id if question is not None else None,
        answered_by=question.answered_by if question is not None else None,
        note=question.note if question is not None else "",
        budget=_budget(tx, process),
    )


def _asking(tx: Transaction, step: Step) -> Step | None:
    """Return the model call whose reply asked for a step."""
    before = tx.step_list(step.pid, after=step.number - LOOKED_BACK - 1, limit=LOOKED_BACK)
    asked = [each for each in before if each.number < step.number and each.call == MODEL_CALL]
    return next((each for each in reversed(asked) if each.state is StepState.DONE), None)


def _seen(tx: Transaction, asking: Step, named: Sequence[str] | None) -> list[h.SeenPage]:
    """Return what a model saw: the pages that its call names, or else all that were in the window."""
    table = tx.page_table(asking.pid, at=asking.stamp)
    return [
        h.SeenPage(page_id=page.page_id, kind=page.kind, title=page.title, digest=page.digest, tokens=page.tokens)
        for page in table
        if (page.page_id in named if named is not None else page.position != OUTSIDE and in_window(page))
    ]


def _budget(tx: Transaction, process: Process) -> list[h.DrawnBudget]:
    return [
        h.DrawnBudget(
            account=account.account,
            usd=account.used.microusd / MICRO,
            usd_limit=None if account.limit.microusd is None else account.limit.microusd / MICRO,
            tokens=account.used.tokens,
            tokens_limit=account.limit.tokens,
            tool_calls=account.used.tool_calls,
            tool_calls_limit=account.limit.tool_calls,
        )
        for account in tx.account_chain(process.pid)
    ]


async def replay_journal(call: Call, args: a.PidArgs) -> h.ReplayResult:
    """Make a run again from its journal and compare each step."""

    def work(tx: Transaction) -> h.ReplayResult:
        process = call.find(tx, args.pid)
        rows = [_row(each) for each in replay(tx, process)]
        first = next((row.step for row in rows if row.verdict == "differs"), None)
        return h.ReplayResult(pid=process.pid, steps=rows, first_difference=first)

    return await call.read(work)


def _row(replayed: Replayed) -> h.ReplayRow:
    verdict: Literal["same", "differs", "not_recorded"] = "same"
    if replayed.difference is None:
        verdict = "not_recorded"
    elif replayed.difference:
        verdict = "differs"
    step = replayed.step
    return h.ReplayRow(step=step.number, call=step.call, verdict=verdict, why=replayed.difference or "")
