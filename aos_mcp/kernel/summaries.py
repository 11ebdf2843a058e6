"""Summaries of what leaves a window: written by a model the operator names, beside the pages, never in their place.

Owns the call: through the ordinary path, on the budget of the process whose pages leave, and only where neither money
nor time of the agent is put at risk. Promises: what it costs, the summary's page and the pages' leaving are one
transaction, so a crash neither repeats a summary that is on record nor loses one; whatever goes wrong, the agent goes
on with handles alone, and the journal says why.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import anyio

from aos_mcp.abi.completion import Completion, ModelInfo, Prompt
from aos_mcp.abi.errors import AosError, BudgetExhausted, LimitExceeded, TimedOut, Unavailable
from aos_mcp.abi.handle import PageId, Pid
from aos_mcp.abi.journal import SUMMARY, EffectClass, Step, StepState
from aos_mcp.abi.limits import SUMMARY_INPUT_TOKENS_MAX, SUMMARY_PAGES_MAX, SUMMARY_S
from aos_mcp.abi.page import Page, PageKind
from aos_mcp.abi.process import Process
from aos_mcp.context.page_table import in_order
from aos_mcp.context.summary import ask_for_summary, folded, summary_text, tokens_worth
from aos_mcp.kernel import budget, counting, journal, pages, provenance
from aos_mcp.kernel.gate import error_body
from aos_mcp.kernel.generation import Generation
from aos_mcp.kernel.machine import Machine
from aos_mcp.kernel.margin import counted_in
from aos_mcp.kernel.model_call import turn_order
from aos_mcp.kernel.table import held
from aos_mcp.ports import Transaction

BUDGET_PART = 10
"""The worst that a summary may cost is this part of what is left: the agent's own turns come first."""
FITTINGS_MAX = 3
"""How often a prompt is cut anew that was counted too long: the stored counts of its pages may be another counter's."""
SPARE_PART = 20
"""What more is cut then, so that the next try fits."""
IMPORTANCE = 1.0
CHARS_A_TOKEN = 8
"""More than any text has: what is longer is longer than it was allowed to be."""


@dataclass(frozen=True, slots=True)
class Written:
    """A summary that a model has written and nobody has paid for yet: `put` belongs in the transaction that uses it."""

    model: str
    call: Generation
    completion: Completion
    process: Process
    of: tuple[Page, ...]
    """The pages it is made from, in order."""
    position: int
    """Of the first page that leaves."""
    also: tuple[PageId, ...]
    """Former summaries that it takes in, and that leave with the rest."""

    @property
    def is_usable(self) -> bool:
        """Whether the model said anything."""
        return bool(self.completion.reply.text.strip()) and self.completion.reply.stop != "refused"

    def settle(self, tx: Transaction) -> None:
        """Charge it and finish its journal step."""
        self.call.settle(tx, self.completion)

    def put(self, tx: Transaction, page_id: str, now: float) -> Page:
        """Store its page, in front of the first one that it stands for."""
        step = self.call.step
        assert step is not None, "a call for a process has a step"
        text = told(self.completion.reply.text, self.of, model=self.model)
        return pages.make(
            tx,
            page_id=page_id,
            pid=self.process.pid,
            owner=self.process.owner,
            kind=PageKind.SUMMARY,
            body=text.encode(),
            text=text,
            position=self.position,
            now=now,
            source=summary_source(step),
            title=f"summary of {len(self.of)} pages",
            importance=IMPORTANCE,
            labels=provenance.joined(*(page.labels for page in self.of)),
        )


def told(said: str, of: Sequence[Page], *, model: str) -> str:
    """Return the text of a summary's page; of a model that wrote more than it was allowed, the beginning."""
    said, allowed = said.strip(), CHARS_A_TOKEN * tokens_worth(of)
    said = said if len(said) <= allowed else said[:allowed] + "…"
    return summary_text(said, model=model, count=len(of))


def summary_source(step: Step) -> str:
    """Return what the page of a summary names as its source: the journal step that wrote it."""
    return f"{SUMMARY}:{step.pid}@{step.number}"


def summarized(tx: Transaction, page: Page) -> list[str]:
    """Return the pages that a summary was made from, by their ids; none where its journal step is erased."""
    pid, _, number = page.source.removeprefix(f"{SUMMARY}:").rpartition("@")
    step = tx.step_get(Pid(pid), int(number)) if number.isdecimal() else None
    intent = tx.payload_get(step.intent) if step is not None else None
    return list(json.loads(intent)["pages"]) if intent is not None else []


class Summaries:
    """Asks for the summaries of one process's context."""

    def __init__(self, machine: Machine, process: Process) -> None:
        """Take the process as it was claimed."""
        self._machine = machine
        self._process = process

    async def ask(self, table_: Sequence[Page], victims: Sequence[PageId]) -> Written | None:
        """Return a summary of the pages that are to leave; None where there is to be none, or it failed.

        What is returned is not settled.

        Raises:
            Superseded: the process is no longer ours.
        """
        name = self._machine.settings.context.summary_model
        also = tuple(folded(table_, victims))
        gone = frozenset((*victims, *also))
        leaving = [page for page in table_ if page.page_id in gone]
        former = [page for page in leaving if page.kind is PageKind.SUMMARY]
        others = [page for page in leaving if page.kind is not PageKind.SUMMARY]
        of = tuple(in_order([*former, *others[-SUMMARY_PAGES_MAX:]]))
        if not name or not tokens_worth(of):
            return None
        call: Generation | None = None
        try:
            with anyio.fail_after(SUMMARY_S):
                call, prompt = await self._prepared(name, table_, of)
                completion = await call.run(prompt, process=self._process)
            return Written(name, call, completion, self._process, of, min(page.position for page in leaving), also)
        except TimeoutError:
            error: AosError = TimedOut(f"{name} did not sum up within {SUMMARY_S:g} s.", "The agent went on without.")
            await self._failed(name, of, error)
        except AosError as refused:
            # A call that was made has a step of its own, which says what became of it.
            if call is None or call.step is None:
                await self._failed(name, of, refused)
        self._machine.metrics.summaries.labels("failed").inc()
        return None

    async def _prepared(self, name: str, table_: Sequence[Page], of: tuple[Page, ...]) -> tuple[Generation, Prompt]:
        """Return the call and its prompt, where the model is free and the budget has room for it."""
        machine = self._machine
        model = machine.models.resolve(name)
        info = await model.describe()
        if not machine.admission.room(name):
            raise Unavailable(f"{name} has no place free just now.", "The agent went on without a summary.")
        output = min(tokens_worth(of), info.output_tokens_max)
        prompt = await machine.store.read(lambda tx: self._prompt(tx, info, table_, of, output))
        call = Generation(
            machine,
            model,
            info,
            account=self._process.pid,
            order=turn_order(machine, self._process),
            kind=SUMMARY,
            call=SUMMARY,
            about={"pages": [page.page_id for page in of]},
        )
        return call, prompt

    def _prompt(
        self, tx: Transaction, info: ModelInfo, table_: Sequence[Page], of: tuple[Page, ...], output: int
    ) -> Prompt:
        """Lay the prompt out: within the model's window and the budget, and with the forms of secrets taken out."""
        redact = self._machine.redact
        texts = [(replace(page, title=redact(page.title)), redact(pages.readable(tx, page))) for page in of]
        task = next((redact(pages.readable(tx, page)) for page in table_ if page.kind is PageKind.TASK), "")
        before = sum(page.kind is PageKind.SUMMARY for page in table_)
        allowed = min(counting.room(tx, info, info.context_tokens - output), SUMMARY_INPUT_TOKENS_MAX)
        room = min(allowed, sum(page.tokens for page in of))
        for _ in range(FITTINGS_MAX):
            prompt = ask_for_summary(task, texts, room_tokens=room, output_tokens=output, turn=before)
            counted = counted_in(prompt)
            if counted.plain <= allowed:
                self._check_budget(tx, info, counted.at_most(self._machine.margins.of(tx, info)), output)
                return prompt
            room -= counted.plain - allowed + allowed // SPARE_PART
        raise LimitExceeded(f"What leaves does not fit into {info.name}.", "Name a model with a larger window.")

    def _check_budget(self, tx: Transaction, info: ModelInfo, input_tokens: int, output_tokens: int) -> None:
        """Check that the agent's own turns are not put at risk.

        Raises:
            BudgetExhausted: they might be.
        """
        rest = budget.left_of_chain(tx.account_chain(self._process.pid))
        cost, tokens = budget.worst_case(info.price, input_tokens, output_tokens), input_tokens + output_tokens
        if (
            (rest.microusd is not None and cost * BUDGET_PART > rest.microusd)
            or (rest.tokens is not None and tokens * BUDGET_PART > rest.tokens)
            or (rest.turns is not None and rest.turns < 2)
        ):
            raise BudgetExhausted(
                f"A summary by {info.name} might take more than a tenth of what is left.", "The agent went on without."
            )

    async def _failed(self, name: str, of: Sequence[Page], error: AosError) -> None:
        """Put on record that no summary was asked for, or that it took too long."""
        machine = self._machine
        intent = json.dumps({"model": name, "pages": [page.page_id for page in of]}).encode()

        def work(tx: Transaction) -> Step:
            now, process = machine.clock.now(), held(tx, self._process.pid, self._process.fence)
            step = journal.begin(tx, process, call=SUMMARY, effect=EffectClass.PURE, intent=intent, now=now)
            return journal.finish(tx, step, state=StepState.FAILED, result=error_body(error), now=now)

        await machine.store.write(work)
