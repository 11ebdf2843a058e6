"""A generation: one answer of a model, in as many calls as preemptions and cut streams made of it.

What was written before a break is in the journal, so that a crash loses nothing that was paid for: the next try finds
it there and goes on from it, where the provider can. Otherwise it is written again, and counted as wasted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

from aos_mcp.abi.budget import Usage
from aos_mcp.abi.completion import Completion, ModelInfo, Prompt
from aos_mcp.abi.handle import Pid
from aos_mcp.abi.journal import MODEL_CALL, Step, StepState
from aos_mcp.abi.limits import PREEMPTIONS_MAX
from aos_mcp.abi.process import Process
from aos_mcp.context.tokens import count
from aos_mcp.kernel import journal
from aos_mcp.kernel.machine import Machine
from aos_mcp.kernel.model_call import KEPT, KEPT_TOKENS, ModelCall, Preempted, is_worth_keeping
from aos_mcp.kernel.retry import Verdict
from aos_mcp.ports import Deliver, LanguageModel, Transaction

STEPS_LOOKED_AT = 16


@dataclass(frozen=True, slots=True)
class Begun:
    """An answer that broke off: what there is of it, how many tokens that was, and how often it was preempted.

    The tokens are what the provider had counted until then, where it counts as it goes; an estimate elsewhere.
    """

    text: str = ""
    tokens: int = 0
    times: int = 0


class Generation:
    """One answer for an account. `run` gets it; `settle` belongs in the transaction that uses it."""

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
        call: str = MODEL_CALL,
        about: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        """Take what `ModelCall` takes."""
        self._machine = machine
        self._info = info
        self._goes_on = call == MODEL_CALL
        self._make = partial(
            ModelCall,
            machine,
            model,
            info,
            account=account,
            order=order,
            kind=kind,
            faults=faults,
            has_next=has_next,
            call=call,
            about=about,
        )
        self._call = self._make(times=0)
        self._before = Usage()
        """What the pieces before the last one were charged."""

    @property
    def verdict(self) -> Verdict:
        """What to do about the `ModelError` that `run` raised."""
        return self._call.verdict

    @property
    def counted(self) -> int:
        """Tokens of the last prompt, as we count."""
        return self._call.counted.plain

    @property
    def step(self) -> Step | None:
        """The journal step of the last piece, once its intent is written."""
        return self._call.step

    async def run(self, prompt: Prompt, *, process: Process | None, deliver: Deliver | None = None) -> Completion:
        """Return the whole answer. `process` is the agent's; a call without one has no journal to go on from.

        Its usage is that of all its pieces together; those before the last are settled already.

        Raises:
            ModelError, BudgetExhausted: see `ModelCall.run`.
        """
        machine, info, begun = self._machine, self._info, Begun()
        if info.continues and self._goes_on and process is not None:
            pid = process.pid
            at = process.position
            begun = await machine.store.read(lambda tx: broken_off(tx, pid, info.name, at), brief=True)
        while True:
            if begun.times or begun.tokens:
                self._call = self._make(times=begun.times, written=begun.tokens)
            try:
                completion = await self._call.run(_from(prompt, begun), process=process, deliver=deliver)
            except Preempted as cut:
                charged = self._call.charged
                self._before += charged
                kept = info.continues and is_worth_keeping(begun.text + cut.text)
                begun = Begun(begun.text + cut.text, begun.tokens + charged.output_tokens) if kept else Begun()
                begun = replace(begun, times=self._call.times + 1)
                machine.metrics.preemptions.labels(info.name, "kept" if kept else "written again").inc()
                continue
            if begun == Begun():
                return completion
            whole = replace(completion.reply, text=begun.text + completion.reply.text)
            return replace(completion, reply=whole, usage=self._before + completion.usage)

    def settle(self, tx: Transaction, completion: Completion) -> None:
        """Charge the last piece. See `ModelCall.settle`."""
        self._call.settle(tx, completion.reply)


def broken_off(tx: Transaction, pid: Pid, model: str, position: int) -> Begun:
    """Return what the last generation of a process had written when it broke off.

    Nothing where the last one came to its end, was another model's, or stood at another position of the context: mail
    came since then, and an answer that did not know of it is no answer to it.
    """
    pieces: list[str] = []
    times = tokens = 0
    for step in reversed(tx.step_last(pid, limit=STEPS_LOOKED_AT)):
        if step.call != MODEL_CALL or step.state is not StepState.FAILED:
            break
        intent = json.loads(journal.payload(tx, step.intent))
        if intent["model"] != model or intent.get("position") != position:
            break
        body = json.loads(journal.result_of(tx, step) or b"{}")
        if KEPT in body:
            pieces.append(body[KEPT])
            tokens += body.get(KEPT_TOKENS, count(body[KEPT]))  # earlier releases did not say
            times += body["code"] == "preempted"
        if not intent.get("continuing"):
            break  # the generation began here
    text = "".join(reversed(pieces))
    return Begun(text, tokens, min(times, PREEMPTIONS_MAX)) if is_worth_keeping(text) else Begun()


def _from(prompt: Prompt, begun: Begun) -> Prompt:
    if not begun.text:
        return prompt
    left = max(1, prompt.max_output_tokens - begun.tokens)
    return replace(prompt, continuing=begun.text, max_output_tokens=left)
