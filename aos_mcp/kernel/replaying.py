"""Replay: a run made again from its journal, without a call to anything, and each step compared with what is on record.

The prompt of each model call is laid out again from the page table as it stood then, and compared by its digest; the
model's reply is the recorded one, its requests are read again and compared with the calls that were made; each call's
recorded result is told again and compared with the page that the model was given. What came from outside (a model's
words, results, mail, what left the window) is taken from the record; all that the kernel makes of it is made anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aos_mcp.abi.calls import TABLE
from aos_mcp.abi.completion import ToolRequest
from aos_mcp.abi.handle import Pid
from aos_mcp.abi.journal import MODEL_CALL, SUMMARY, Step, StepState
from aos_mcp.abi.limits import REPLAY_STEPS
from aos_mcp.abi.page import OUTSIDE, Page, PageKind
from aos_mcp.abi.process import Process
from aos_mcp.context.fingerprint import fingerprint
from aos_mcp.context.layout import decode_reply, encode_reply, lay_out
from aos_mcp.kernel import journal
from aos_mcp.kernel.basis import decode_basis
from aos_mcp.kernel.pages import HEAD_CHARS
from aos_mcp.kernel.requests import position_of
from aos_mcp.kernel.speech import result_text
from aos_mcp.kernel.summaries import summary_source, told
from aos_mcp.ports import Transaction

UNANSWERED = frozenset({"exit"})
"""Calls whose answer nobody reads."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """How one step came out: `difference` is empty where it is the same, None where the record does not tell."""

    step: Step
    difference: str | None


def replay(tx: Transaction, process: Process) -> Iterator[Replayed]:
    """Make the steps of a process again, in order."""
    table = [page for page in tx.page_table(process.pid) if page.position != OUTSIDE]
    replies = [page for page in table if page.kind is PageKind.REPLY]
    results = {page.position: page for page in table if page.kind is PageKind.RESULT}
    own = iter(replies[_inherited(tx, process, replies) :])
    asked: dict[str, ToolRequest] = {}
    for step in _steps(tx, process.pid):
        if step.call == SUMMARY:
            yield Replayed(step, _summary_step(tx, step, table))
        elif step.call != MODEL_CALL:
            yield Replayed(step, _tool_step(tx, step, asked, results))
        elif step.state is StepState.DONE:
            reply = next(own, None)
            yield Replayed(step, _model_step(tx, step, reply))
            if reply is not None:
                requests = decode_reply(journal.payload(tx, reply.digest)).requests
                asked |= {f"{position_of(reply, n)}:{each.request_id}": each for n, each in enumerate(requests)}
        else:
            yield Replayed(step, _prompt(tx, step))


def _inherited(tx: Transaction, process: Process, replies: Sequence[Page]) -> int:
    """Return how many of the replies a fork began with: those are another run's."""
    first = next(iter(tx.step_list(process.pid, limit=1)), None)
    begun = {page.page_id for page in tx.page_table(process.pid, at=first.stamp if first is not None else 0)}
    return sum(page.page_id in begun for page in replies)


def _steps(tx: Transaction, pid: Pid) -> Iterator[Step]:
    after = -1
    while steps := tx.step_list(pid, after=after, limit=REPLAY_STEPS):
        yield from steps
        after = steps[-1].number


def _model_step(tx: Transaction, step: Step, reply: Page | None) -> str | None:
    said = _prompt(tx, step)
    if said:
        return said
    recorded = journal.result_of(tx, step)
    if reply is None or journal.payload(tx, reply.digest) != recorded:
        return "the reply in the context is not the one on record"
    if encode_reply(decode_reply(recorded)) != recorded:
        return "the reply is read otherwise now"
    return said


def _summary_step(tx: Transaction, step: Step, table: Sequence[Page]) -> str | None:
    """Make a summary's page again from what the model said; return how it differs from the one in the context."""
    page = next((page for page in table if page.source == summary_source(step)), None)
    if step.state is not StepState.DONE or page is None:
        return None
    intent, reply = json.loads(journal.payload(tx, step.intent)), decode_reply(journal.result_of(tx, step))
    of = {page.page_id: page for page in table}
    made = told(reply.text, [of[named] for named in intent["pages"]], model=intent["model"])
    return "" if made.encode() == journal.payload(tx, page.digest) else "the summary is not the one on record"


def _prompt(tx: Transaction, step: Step) -> str | None:
    """Lay the prompt of a model call out again; return how it differs."""
    recorded = json.loads(journal.payload(tx, step.intent)).get("prompt")
    if recorded is None or step.basis is None:
        return None
    system, tools = decode_basis(journal.payload(tx, step.basis))
    pages = [page for page in tx.page_table(step.pid, at=step.stamp) if page.position != OUTSIDE]
    prompt = lay_out(
        pages,
        lambda page: journal.payload(tx, page.digest),
        system="",
        tools=tools,
        max_output_tokens=0,
        turn=sum(page.kind is PageKind.REPLY for page in pages),
    )
    if not system.endswith(prompt.system):
        return "the system pages differ from those in the prompt"
    made = fingerprint(type(prompt)(system=system, turns=prompt.turns, tools=tools))
    return "" if made == recorded else f"the prompt differs: {made[:12]} now, {recorded[:12]} on record"


def _tool_step(tx: Transaction, step: Step, asked: dict[str, ToolRequest], results: dict[int, Page]) -> str | None:
    request = asked.get(step.request_id) if step.request_id is not None else None
    if request is None or step.request_id is None:
        return None
    intent = json.loads(journal.payload(tx, step.intent))
    arguments = json.loads(request.arguments or "{}")
    wanted = {"call": request.name, "arguments": arguments}
    if request.name not in TABLE:
        wanted = {"call": "call_tool", "arguments": {"name": request.name, "arguments": arguments}}
    if {"call": intent["call"], "arguments": intent["arguments"]} != wanted:
        return "the call that was made is not the one that the model asked for"
    if step.call in UNANSWERED:
        return ""
    page = results.get(int(step.request_id.partition(":")[0]))
    if page is None or step.result is None:
        return None  # it was made again as a later step, or its turn was the last
    return _told(tx, step, page)


def _told(tx: Transaction, step: Step, page: Page) -> str | None:
    text, is_error = result_text(step.call, journal.result_of(tx, step))
    shown = journal.payload(tx, page.digest).decode()
    if shown.startswith("unknown_outcome"):
        return None  # what became of it was found out later
    if shown != text and not (shown.startswith(text[:HEAD_CHARS]) and len(shown) < len(text)):
        return "the model was told something else than the result on record"
    return "" if is_error == page.is_error else "an error was told as a result, or the other way round"
