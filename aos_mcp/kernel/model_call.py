"""One model call: reserve the worst case, make the call in its provider's lane, settle what was used.

The reservation and the journal's intent are one transaction; so are the settlement and whatever the caller commits
with it. However a call ends (answer, fault, cut, kill), it is settled once; a crash leaves the reservation, which the
next boot charges in full.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import anyio

from aos_mcp.abi.audit import AuditEntry
from aos_mcp.abi.budget import Usage
from aos_mcp.abi.completion import Completion, ModelInfo, Prompt, Reply
from aos_mcp.abi.errors import ModelError, ModelFault
from aos_mcp.abi.event import Event, EventKind
from aos_mcp.abi.handle import Pid, pid_in
from aos_mcp.abi.journal import MODEL_CALL, EffectClass, Step, StepState
from aos_mcp.abi.limits import MODEL_CALL_S
from aos_mcp.abi.process import Process, SchedClass, sched_class
from aos_mcp.context.fingerprint import fingerprint
from aos_mcp.context.layout import encode_reply
from aos_mcp.context.tokens import count
from aos_mcp.kernel import budget, counting, journal, table
from aos_mcp.kernel.admission import Demand
from aos_mcp.kernel.basis import encode_basis, tools_digest
from aos_mcp.kernel.gate import error_body
from aos_mcp.kernel.machine import Machine
from aos_mcp.kernel.margin import Counted, counted_in
from aos_mcp.kernel.preemption import LITTLE_TOKENS, UnderWay
from aos_mcp.kernel.retry import GiveUp, Verdict, Wait, counted, judge
from aos_mcp.kernel.scheduler import OVERDUE_S
from aos_mcp.ports import Deliver, LanguageModel, Transaction

SETTLE_S = 10.0
NATIVE_PRIORITY = {SchedClass.INTERACTIVE: 0, SchedClass.NORMAL: 50, SchedClass.BATCH: 100}
"""What a provider that has a queue of its own is told of a call's class."""
CHARS_A_TOKEN = 4.0
"""A stream is not counted exactly while it runs; this is what English text and code have, and no piece is less than a
token."""
KEPT = "text"
"""Of a failed step's body: what had been written, to go on from,"""
KEPT_TOKENS = "output_tokens"
"""and how many tokens that was."""


class Preempted(Exception):
    """A call gave its place away. `text` is what it had written."""

    def __init__(self, text: str) -> None:
        super().__init__(f"{len(text)} characters were written")
        self.text = text


class ModelCall:
    """One call on behalf of an account. `run` makes it; `settle` belongs in the transaction that uses the answer."""

    def __init__(
        self,
        machine: Machine,
        model: LanguageModel,
        info: ModelInfo,
        *,
        account: str,
        order: tuple[float, ...],
        kind: str,
        faults: int = 0,
        has_next: bool = False,
        times: int = 0,
        written: int = 0,
        call: str = MODEL_CALL,
        about: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        """Take the model, who pays, and the call's place in its lane's queue (see `order_of`).

        `kind` is whose like it is, in what is expected of its length; `faults` is how often it failed in a row before,
        `has_next` whether another model would go on, `times` how often it was preempted before, and `written` how many
        tokens the beginning had that it goes on from. `call` is what the journal calls it, and `about` what its intent
        says beside the rest; only a MODEL_CALL is a turn of the agent.
        """
        self._machine = machine
        self._order = order
        self._kind = kind
        self.times = times
        """How often it was preempted before."""
        self._begun_with = written
        self._call = call
        self._about = about
        self._faults = faults
        self._has_next = has_next
        self.verdict: Verdict = GiveUp()
        """What to do about the `ModelError` that `run` raised."""
        self._model = model
        self._info = info
        self._account = account
        self._reservation = machine.entropy.handle("rs_")
        machine.reserved[self._reservation] = self
        self.step: Step | None = None
        """Its intent in the journal, once that is written."""
        self.counted = Counted()
        self._input_tokens = 0
        self._output_tokens = 0
        """What was reserved of each."""
        self._answered, self._replayed = Usage(), False
        self.charged = Usage()
        """What it was charged where it did not finish."""
        self._written: list[str] = []
        self._metered = Usage()
        self._sent = False
        self._may_resend = False
        """The budget has room for sending the prompt once more."""
        self._under_way: UnderWay | None = None

    async def run(self, prompt: Prompt, *, process: Process | None, deliver: Deliver | None = None) -> Completion:
        """Reserve, wait for a place in the lane, and make the call. A failed call is settled before this raises.

        `deliver` is given the text as it is written.

        Raises:
            BudgetExhausted: before anything was sent.
            ModelError: the provider failed.
            Preempted: its place was given to a call of a better class; what it wrote is in the journal.
        """
        machine = self._machine
        self.counted = counted_in(prompt)
        with anyio.CancelScope(shield=True):  # what is reserved is known here, so that it is given back
            output = await machine.store.write(
                lambda tx: self._reserve(tx, prompt, process), brief=not prompt.attachments
            )
        native = NATIVE_PRIORITY[SchedClass(int(self._order[0]))]
        prompt = replace(prompt, max_output_tokens=output, native_priority=native)
        outcome, used, body = "cut", None, b"{}"
        kept = False
        started = machine.clock.monotonic()
        try:
            completion = await self._generate(prompt, process, deliver)
            outcome = "ok"
        except ModelError as error:
            outcome, used = error.fault, self._used(error.output_tokens)
            body = self._broken_off(error, used)
            raise
        except Preempted as cut:
            outcome, used = "preempted", self._used(cut=True)
            body = kept_body(cut.text, used.output_tokens)
            kept = self._info.continues and is_worth_keeping(prompt.continuing + cut.text)
            raise
        finally:
            machine.metrics.model_calls.labels(self._model.name, outcome).inc()
            machine.metrics.model_seconds.labels(self._model.name).observe(machine.clock.monotonic() - started)
            if outcome != "ok":
                # A kill comes here too: the prompt and what was written until then was billed, and is charged.
                with anyio.move_on_after(SETTLE_S, shield=True):
                    await self._abort(outcome, used or self._used(cut=True), body, kept=kept)
        self._answered, self._replayed = completion.usage, completion.replayed
        return completion

    async def _generate(self, prompt: Prompt, process: Process | None, deliver: Deliver | None) -> Completion:
        machine = self._machine
        demand = Demand(
            order=self._order,
            input_tokens=self._input_tokens,
            output_tokens=prompt.max_output_tokens,
            due_at=due_of(self._order),
        )
        if process is not None and self._call == MODEL_CALL:
            machine.heading.pop(process.pid, None)
        with machine.acting(process.pid if process is not None else None):  # a parked lane may take its time
            seat = await machine.admission.take(self._model.name, demand)
        self._sent = True
        try:
            seat.completion = completion = await self._stream(prompt, process, deliver)
        except ModelError as error:
            seat.error, self.verdict = error, self._judged(error)
            if isinstance(self.verdict, Wait) and self.verdict.park:
                seat.retry_at = machine.clock.now() + self.verdict.seconds
            elif error.retry_after_s is not None:  # this call goes elsewhere; others are still to wait
                seat.retry_at = machine.clock.now() + error.retry_after_s
            raise
        finally:
            machine.admission.give_back(seat)
        return completion

    async def _stream(self, prompt: Prompt, process: Process | None, deliver: Deliver | None) -> Completion:
        """Be on the wire, and on the list of those who may be asked to give their place away."""
        admission, name, now = self._machine.admission, self._model.name, self._machine.clock.now()
        scope = anyio.move_on_after(MODEL_CALL_S)
        one = self._under_way = UnderWay(
            sched_class=int(self._order[0]),
            sent_at=now,
            likely_tokens=admission.lengths.expected(self._kind, name, prompt.max_output_tokens),
            continues=self._info.continues,
            may_pay=self._may_resend,
            times=self.times,
            # What somebody reads as it is written can be gone on with, and not be written again.
            plain=prompt.output_schema is None and (deliver is None or self._info.continues),
            cut=scope.cancel,
        )
        with scope, admission.under_way(name, one):
            completion = await self._model.complete(prompt, Hearing(self, process, deliver))
            admission.lengths.learn(self._kind, name, self._begun_with + completion.usage.output_tokens)
            return completion
        if one.closing:
            raise Preempted("".join(self._written))
        raise ModelError(
            ModelFault.TRANSPORT,
            f"{name} did not finish within {MODEL_CALL_S:g} s.",
            "It is tried again; a smaller max_tokens may help.",
        )

    def _broken_off(self, error: ModelError, used: Usage) -> bytes:
        """Return the body of a failed step: with what had been written, where the provider can go on from there."""
        plain = self._under_way is not None and self._under_way.plain
        if error.fault is ModelFault.CUT_STREAM and self._info.continues and plain and error.partial_text:
            return kept_body(error.partial_text, used.output_tokens, error)
        return error_body(error)

    def _judged(self, error: ModelError) -> Verdict:
        return judge(
            error.fault,
            counted(error.fault, self._faults),
            error.retry_after_s,
            chance=self._machine.entropy.random(),
            has_next=self._has_next,
        )

    def settle(self, tx: Transaction, reply: Reply) -> None:
        """Charge what was used and finish the journal step, also where the process has ended meanwhile.

        `reply` is what the journal keeps: of a call that went on from a beginning, the whole answer.
        """
        used = replace(self._answered, turns=1 if self._call == MODEL_CALL else 0)
        budget.settle(tx, self._reservation, used)
        if not self._replayed:  # a recording counted some other prompt
            self._machine.margins.learn(tx, self._info, self.counted, used)
            counting.learn(tx, self._info, self.counted.plain, used)
        if self.step is not None:
            self._finish(tx, self.step, StepState.DONE, encode_reply(reply))
        tx.audit_stage(self._entry("ok", used))
        self._count(used)

    def _count(self, used: Usage) -> None:
        labels = self._machine.metrics.tokens.labels
        labels(self._model.name, "input").inc(used.input_tokens)
        labels(self._model.name, "cached").inc(used.cached_tokens)
        labels(self._model.name, "output").inc(used.output_tokens)
        self._machine.metrics.spent_usd.labels(self._model.name).inc(used.microusd / budget.MICRO)

    def _reserve(self, tx: Transaction, prompt: Prompt, process: Process | None) -> int:
        now, price, chain = self._machine.clock.now(), self._info.price, tx.account_chain(self._account)
        self._input_tokens = self.counted.at_most(self._machine.margins.of(tx, self._info))
        output = budget.fit_output(chain, price, self._input_tokens, prompt.max_output_tokens)
        cost, tokens = budget.worst_case(price, self._input_tokens, output), self._input_tokens + output
        budget.reserve(tx, self._account, self._reservation, cost_microusd=cost, tokens=tokens, at=now)
        self._output_tokens = output
        rest = budget.left_of_chain(chain)
        again = cost + budget.worst_case(price, self._input_tokens, 0)
        self._may_resend = (rest.microusd is None or rest.microusd >= again) and (
            rest.tokens is None or rest.tokens >= tokens + self._input_tokens
        )
        if process is not None:
            held = table.held(tx, process.pid, process.fence)
            intent = {
                "model": self._model.name,
                "continuing": len(prompt.continuing),
                "position": held.position,
                "turns": len(prompt.turns),
                "tools": tools_digest(prompt.tools),
                "max_output_tokens": output,
                "prompt": fingerprint(prompt),
                **self._about,
            }
            self.step = journal.begin(
                tx,
                held,
                call=self._call,
                effect=EffectClass.LLM,
                intent=json.dumps(intent).encode(),
                now=now,
                basis=tx.payload_put(encode_basis(prompt.system, prompt.tools)),
            )
        return output

    def hear(self, text: str, process: Process | None, deliver: Deliver | None) -> None:
        """Take a piece of the answer, and show it to whoever follows the process."""
        self._paced(text)
        if not text:
            return
        self._written.append(text)
        if deliver is not None:
            deliver(text)
        if process is not None:
            self._machine.sign_of_life(process.pid)
        if process is not None and self._call == MODEL_CALL:
            self._machine.bus.publish(
                Event(kind=EventKind.OUTPUT, subject=process.pid, owner=process.owner, detail=text)
            )

    def meter(self, usage: Usage) -> None:
        """Take what the driver says was used by a call that did not come to its end."""
        self._metered = usage

    def _paced(self, text: str) -> None:
        """Keep the account that preemption goes by; at each slice, see whether somebody waits who should go first."""
        one, now = self._under_way, self._machine.clock.now()
        if one is None:
            return
        if not text:
            one.plain = False
        elif one.first_token_at is None:
            one.first_token_at = now
        before = one.written_tokens
        one.written_tokens += max(1.0, len(text) / CHARS_A_TOKEN) if text else 0.0
        slice_tokens = self._machine.settings.slice_tokens
        if before // slice_tokens != one.written_tokens // slice_tokens:
            self._machine.admission.consider(self._model.name)

    def _used(self, output_tokens: int = 0, *, cut: bool = False) -> Usage:
        """Return what a call that did not finish is charged: its prompt, once anything came back, and what came.

        One that was cut was refused by nobody: its prompt is charged once it was sent. Where the provider had counted
        the prompt, that is what is charged; until then it is what was reserved for it.
        """
        metered = self._metered
        if metered.prompt_tokens:
            return metered
        # Our own count may be too high; more than it was allowed to, no provider writes.
        written = max(output_tokens, metered.output_tokens, min(count("".join(self._written)), self._output_tokens))
        if not written and not (cut and self._sent):
            return Usage()
        return Usage(
            input_tokens=self._input_tokens,
            output_tokens=written,
            microusd=budget.worst_case(self._info.price, self._input_tokens, written),
        )

    async def _abort(self, outcome: str, used: Usage, body: bytes, *, kept: bool) -> None:
        wasted = used.input_tokens if kept else used.tokens  # the prompt is sent again in any case
        self.charged = used

        def work(tx: Transaction) -> None:
            budget.settle(tx, self._reservation, used)
            tx.process_note(Pid(self._account), wasted_tokens=wasted, preempted=outcome == "preempted")
            if self.step is not None:
                self._finish(tx, self.step, StepState.FAILED, body)
            tx.audit_stage(self._entry(outcome, used))

        await self._machine.store.write(work, brief=True)
        self._count(used)

    def _entry(self, outcome: str, used: Usage) -> AuditEntry:
        pid = pid_in(self._account)
        return AuditEntry(
            at=self._machine.clock.now(),
            category="model",
            actor=pid or "kernel",
            pid=pid,
            call=self._call,
            outcome=outcome,
            subject=self._machine.redact(self._model.name),
            detail=f"{used.prompt_tokens} in, {used.output_tokens} out, {used.microusd} microusd",
        )

    def _finish(self, tx: Transaction, step: Step, state: StepState, body: bytes) -> None:
        """Finish the journal step, unless another kernel has the process now and has settled it."""
        process = tx.process_get(step.pid)
        if process is not None and process.fence == step.fence:
            journal.finish(tx, step, state=state, result=body, now=self._machine.clock.now())


@dataclass(frozen=True, slots=True)
class Hearing:
    """What a driver delivers to (see `ports.Metered`)."""

    call: ModelCall
    process: Process | None
    deliver: Deliver | None

    def __call__(self, text: str) -> None:
        """See `ports.Deliver`."""
        self.call.hear(text, self.process, self.deliver)

    def used(self, usage: Usage) -> None:
        """See `ports.Metered.used`."""
        self.call.meter(usage)


def is_worth_keeping(text: str) -> bool:
    """Tell whether it is better to go on from a text than to have it written again."""
    return count(text) >= LITTLE_TOKENS


def kept_body(text: str, tokens: int, error: ModelError | None = None) -> bytes:
    """Return the body of a step that broke off with text worth keeping, of so many tokens."""
    why = {
        "code": "preempted",
        "message": "Its place went to a call of a better class.",
        "hint": "It goes on by itself.",
    }
    told = json.loads(error_body(error)) if error is not None else why
    return json.dumps({**told, KEPT: text, KEPT_TOKENS: tokens}, ensure_ascii=False).encode()


def due_of(order: tuple[float, ...]) -> float:
    """Return when a call of this place in the queue is overdue: the scheduler's bound for its class."""
    level, first_at = order
    return first_at + OVERDUE_S[SchedClass(int(level))]


def order_of(level: SchedClass, first_at: float) -> tuple[float, ...]:
    """Return a call's place in its lane's queue: by class, then by when it first came (seconds since the epoch)."""
    return (level, first_at)


def turn_order(machine: Machine, process: Process) -> tuple[float, ...]:
    """Return the place in a lane's queue of a turn's calls: by the class it was picked in, since it became ready."""
    level = machine.levels.get(process.pid, sched_class(process.priority))
    return order_of(level, process.ready_at if process.ready_at is not None else process.created_at)
