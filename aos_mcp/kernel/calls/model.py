"""One scheduled model call, for whoever needs no agent around it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import cast

import anyio
from pydantic import JsonValue

from aos_mcp.abi import arguments as a
from aos_mcp.abi import results as r
from aos_mcp.abi.budget import WORKSPACE_ACCOUNT
from aos_mcp.abi.completion import HELD_TO, Completion, Prompt, Reply, Turn
from aos_mcp.abi.errors import Invalid, ModelError, ModelFault
from aos_mcp.abi.limits import COMPLETE_PATIENCE_S
from aos_mcp.abi.process import sched_class
from aos_mcp.abi.strict_json import finite
from aos_mcp.kernel.call import Call, R, check_model
from aos_mcp.kernel.calls import views
from aos_mcp.kernel.calls.attachments import check_inputs, turn_of
from aos_mcp.kernel.generation import Generation
from aos_mcp.kernel.machine import Machine
from aos_mcp.kernel.model_call import order_of
from aos_mcp.kernel.retry import GiveUp, Next, Wait, chain_of, counted
from aos_mcp.kernel.schema_check import check_schema, misfit
from aos_mcp.ports import Deliver, Transaction

OUTPUT_TOKENS_DEFAULT = 4_096


async def complete(call: Call, args: a.CompleteArgs) -> r.CompleteResult:
    """Make one call in its provider's lane, under the caller's budget; with a schema, one repair turn."""
    if (args.prompt is None) == (args.messages is None):
        raise Invalid("complete takes either prompt or messages.", "Give exactly one of the two.")
    chain = chain_of(args.model) if args.model is not None else await models_of(call)
    if args.model is not None:
        for name in chain:
            check_model(call, name)
    prompt, order = await _prompt(call, args), order_of(sched_class(args.priority), call.now)
    one, completion = await patiently(call, chain, prompt, order)
    if prompt.output_schema is None:
        return settling(call, one, completion, _result(completion, text=completion.reply.text))
    await _settled(call, one, completion)
    answer, problem = _parse(completion.reply, prompt.output_schema)
    if problem is not None:
        again = f"That does not fit the schema ({problem}). Answer again with the whole JSON document alone."
        said = Turn(role="assistant", text=completion.reply.text or "(nothing)")
        turns = (*prompt.turns, said, Turn(role="user", text=again))
        first = completion.usage
        one, completion = await patiently(call, chain, replace(prompt, turns=turns, turn=1), order)
        await _settled(call, one, completion)
        completion = replace(completion, usage=first + completion.usage)
        answer, problem = _parse(completion.reply, prompt.output_schema)
    if problem is not None:
        raise Invalid(
            f"{completion.model} did not produce what the schema asks for, nor when asked again ({problem}).",
            "Ask for less, allow more max_tokens, or use a stronger model.",
        )
    return _result(completion, answer=answer)


async def _settled(call: Call, one: Generation, completion: Completion) -> None:
    with anyio.CancelScope(shield=True):  # the answer is paid for, whoever still wants it
        await call.machine.store.write(partial(one.settle, completion=completion), brief=True)


async def models_of(call: Call) -> tuple[str, ...]:
    """Return the caller's own chain of models: a process's, or the default."""
    if call.caller.pid is not None:
        own = await call.read(call.own, brief=True)
        return (own.model, *own.fallbacks)
    return chain_of(await call.machine.models.default())


async def _prompt(call: Call, args: a.CompleteArgs) -> Prompt:
    turns = [await turn_of(call, message) for message in args.messages or ()]
    if args.prompt is not None:
        turns = [Turn(role="user", text=args.prompt)]
    schema = json.dumps(args.schema_) if args.schema_ is not None else None
    if schema is not None:
        check_schema(schema)  # before anything is spent on it
    system = args.system or ""
    if schema is not None:
        system += f"\nAnswer with one JSON document that fits this JSON Schema, and nothing else:\n{schema}"
    return Prompt(
        system=system.strip(),
        turns=tuple(turns),
        max_output_tokens=args.max_tokens or OUTPUT_TOKENS_DEFAULT,
        output_schema=schema,
    )


def settling(call: Call, one: Generation, completion: Completion, result: R) -> R:
    """Return the result of a call; what was used is settled in the very transaction that puts it on record."""

    def settled(tx: Transaction) -> R:
        one.settle(tx, completion)
        return result

    call.completion = settled
    return result


async def patiently(
    call: Call, chain: Sequence[str], prompt: Prompt, order: tuple[float, ...], *, deliver: Deliver | None = None
) -> tuple[Generation, Completion]:
    """Make one call, and again after faults that waiting may cure, or on the next model of the chain.

    Each try has the place in the queue that the first one had. The call that was answered is the caller's to settle.
    Models that could only refuse the prompt are left out. `deliver` is given the text as it is written; once it was
    given any, nothing is tried again: the next try's text would be another one.
    """
    delivered: list[str] = []

    def pass_on(text: str) -> None:
        if deliver is not None:
            delivered.append(text)
            deliver(text)

    machine, account = call.machine, call.caller.pid or WORKSPACE_ACCOUNT
    gives_up_at, rest, faults = machine.clock.now() + COMPLETE_PATIENCE_S, await _takers(call, chain, prompt), 0
    while True:
        has_next = len(rest) > 1
        if has_next and machine.admission.is_blocked(rest[0]):
            rest = rest[1:]
            continue
        _check_patience(machine, rest[0], gives_up_at)
        model = machine.models.resolve(rest[0])
        info = await model.describe()
        check_inputs(info, prompt)
        call.subject = rest[0]
        one = Generation(
            machine,
            model,
            info,
            account=account,
            order=order,
            # Who asks for about as much at most expects about as much: nothing else tells one program's calls apart.
            kind=f"{call.row.name}:{prompt.max_output_tokens.bit_length()}",
            faults=faults,
            has_next=has_next,
        )
        try:
            return one, await one.run(prompt, process=None, deliver=pass_on)
        except ModelError as error:
            now, verdict = machine.clock.now(), one.verdict
            waits_s = verdict.seconds if isinstance(verdict, Wait) else 0.0
            if delivered or isinstance(verdict, GiveUp) or now + waits_s >= gives_up_at:
                raise
            if isinstance(verdict, Next):
                rest, faults = rest[1:], 0
                continue
            faults = counted(error.fault, faults)
            if not verdict.park:  # a parked lane holds the next try back by itself
                await machine.clock.sleep_until(now + verdict.seconds)


def _check_patience(machine: Machine, model: str, gives_up_at: float) -> None:
    """Refuse a call that its provider lets go only after its caller's patience is over.

    Raises:
        ModelError: it asks to be left alone for longer.
    """
    now = machine.clock.now()
    blocked_s = machine.admission.lane(model).blocked_s(now)
    if blocked_s > gives_up_at - now:
        raise ModelError(
            ModelFault.RATE,
            f"The provider of {model} asks to be left alone for {math.ceil(blocked_s)} s more.",
            "Try again then, or name another model.",
            retry_after_s=blocked_s,
        )


async def _takers(call: Call, chain: Sequence[str], prompt: Prompt) -> list[str]:
    """Return the models of a chain that take what the prompt carries and asks; all of them where none does.

    The first one then says why. One that could only refuse is no reason not to wait for another.
    """
    if len(chain) == 1:
        return list(chain)
    kinds = {attachment.kind for attachment in prompt.attachments}
    asked = {field for field in HELD_TO if getattr(prompt, field)}
    if not (kinds or asked or prompt.continuing):
        return list(chain)
    known = {name: await call.machine.models.resolve(name).describe() for name in chain}
    takers = [
        name
        for name, info in known.items()
        if kinds <= info.inputs and asked <= info.heeds and (info.continues or not prompt.continuing)
    ]
    return takers or list(chain)


def _parse(reply: Reply, schema: str) -> tuple[JsonValue, str | None]:
    """Return the answer a reply holds, and what is wrong with it."""
    stripped = reply.text.strip()
    if stripped.startswith("```"):
        stripped = stripped.strip("`").removeprefix("json").strip()
    try:
        answer = cast("JsonValue", json.loads(stripped, parse_constant=finite, parse_float=finite))
    except (ValueError, RecursionError) as error:
        return None, "it was cut off at max_tokens" if reply.stop == "length" else f"it is not valid JSON: {error}"
    return answer, misfit(schema, answer)


def _result(completion: Completion, *, text: str | None = None, answer: JsonValue = None) -> r.CompleteResult:
    return r.CompleteResult(
        text=text,
        object=answer,
        usage=views.usage(completion.usage),
        model=completion.model,
        replayed=completion.replayed,
    )
