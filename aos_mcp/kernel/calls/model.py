"""One scheduled model call, for whoever needs no agent around it."""

from __future__ import annotations

import json
from functools import partial
from typing import cast

from pydantic import JsonValue

from aos_mcp.abi import arguments as a
from aos_mcp.abi import results as r
from aos_mcp.abi.budget import WORKSPACE_ACCOUNT
from aos_mcp.abi.completion import Completion, Prompt, Turn
from aos_mcp.abi.errors import Invalid, ModelError, ModelFault
from aos_mcp.abi.limits import MODEL_RETRIES_MAX, MODEL_RETRY_BASE_S, MODEL_RETRY_CAP_S
from aos_mcp.kernel.call import Call, check_model
from aos_mcp.kernel.calls import views
from aos_mcp.kernel.model_call import ModelCall
from aos_mcp.ports import Transaction

OUTPUT_TOKENS_DEFAULT = 4_096
WAITED_OUT = frozenset({ModelFault.RATE, ModelFault.OVERLOAD, ModelFault.TRANSPORT})


async def complete(call: Call, args: a.CompleteArgs) -> r.CompleteResult:
    """Make one call in its provider's lane, under the caller's budget; with a schema, one repair turn."""
    if (args.prompt is None) == (args.messages is None):
        raise Invalid("complete takes either prompt or messages.", "Give exactly one of the two.")
    name = args.model or await _default(call)
    if args.model is not None:
        check_model(call, name)
    prompt = _prompt(args)
    one, completion = await _patiently(call, name, prompt)
    if args.schema_ is None:
        result = _result(completion, text=completion.reply.text)
        # What was used is settled in the very transaction that puts the call on record.
        call.completion = partial(_settled, one=one, completion=completion, result=result)
        return result
    await call.machine.store.write(partial(one.settle, completion=completion))
    answer, problem = _parse(completion.reply.text)
    if problem is not None:
        again = f"That was not valid JSON for the schema ({problem}). Answer again with the JSON document alone."
        said = Turn(role="assistant", text=completion.reply.text or "(nothing)")
        turns = (*prompt.turns, said, Turn(role="user", text=again))
        repaired = Prompt(
            system=prompt.system,
            turns=turns,
            max_output_tokens=prompt.max_output_tokens,
            output_schema=prompt.output_schema,
            turn=1,
        )
        one, completion = await _patiently(call, name, repaired)
        await call.machine.store.write(partial(one.settle, completion=completion))
        answer, problem = _parse(completion.reply.text)
    if problem is not None:
        raise Invalid(f"{name} did not produce JSON ({problem}).", "Ask for less, or use a stronger model.")
    return _result(completion, answer=answer)


async def _default(call: Call) -> str:
    if call.caller.pid is not None:
        return (await call.read(call.own)).model
    return await call.machine.models.default()


def _prompt(args: a.CompleteArgs) -> Prompt:
    turns = [Turn(role=message.role, text=message.content) for message in args.messages or ()]
    if args.prompt is not None:
        turns = [Turn(role="user", text=args.prompt)]
    schema = json.dumps(args.schema_) if args.schema_ is not None else None
    system = args.system or ""
    if schema is not None:
        system += f"\nAnswer with one JSON document that fits this JSON Schema, and nothing else:\n{schema}"
    return Prompt(
        system=system.strip(),
        turns=tuple(turns),
        max_output_tokens=args.max_tokens or OUTPUT_TOKENS_DEFAULT,
        output_schema=schema,
    )


def _settled(tx: Transaction, *, one: ModelCall, completion: Completion, result: r.CompleteResult) -> r.CompleteResult:
    one.settle(tx, completion)
    return result


async def _patiently(call: Call, name: str, prompt: Prompt) -> tuple[ModelCall, Completion]:
    """Make a call until it is answered; it is the caller's to settle."""
    machine = call.machine
    model = machine.models.resolve(name)
    info = await model.describe()
    call.subject = name
    account = call.caller.pid or WORKSPACE_ACCOUNT
    for attempt in range(MODEL_RETRIES_MAX):
        one = ModelCall(machine, model, info, account=account)
        try:
            completion = await one.run(prompt, process=None)
        except ModelError as error:
            if error.fault not in WAITED_OUT or attempt + 1 == MODEL_RETRIES_MAX:
                raise
            backoff_s = min(MODEL_RETRY_CAP_S, MODEL_RETRY_BASE_S * 2**attempt)
            until = machine.clock.now() + (error.retry_after_s if error.retry_after_s is not None else backoff_s)
            machine.admission.park(name, until)
            continue
        return one, completion
    raise AssertionError("the last attempt returns or raises")


def _parse(text: str) -> tuple[JsonValue, str | None]:
    stripped = text.strip()
    if stripped.startswith("```"):
        stripped = stripped.strip("`").removeprefix("json").strip()
    try:
        return cast("JsonValue", json.loads(stripped)), None
    except ValueError as error:
        return None, str(error)


def _result(completion: Completion, *, text: str | None = None, answer: JsonValue = None) -> r.CompleteResult:
    return r.CompleteResult(
        text=text,
        object=answer,
        usage=views.usage(completion.usage),
        model=completion.model,
        replayed=completion.replayed,
    )
