"""What a guest may do: one model turn, counting a prompt, and asking which models it may name.

The program keeps its own conversation; the kernel gives it the queue, the budget, the audit log and the price.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase

from aos_mcp.abi import arguments as a
from aos_mcp.abi import guest_results as g
from aos_mcp.abi.completion import ANY_TOOL, Completion, Prompt, ToolRequest, ToolSpec, Turn
from aos_mcp.abi.errors import Invalid, NotFound
from aos_mcp.abi.process import sched_class
from aos_mcp.kernel.call import Call, check_model
from aos_mcp.kernel.calls import views
from aos_mcp.kernel.calls.attachments import decoded, recognized, sorted_out
from aos_mcp.kernel.calls.model import OUTPUT_TOKENS_DEFAULT, models_of, patiently, settling
from aos_mcp.kernel.margin import counted_in
from aos_mcp.kernel.model_call import order_of
from aos_mcp.kernel.retry import chain_of
from aos_mcp.kernel.schema_check import check_schema

REPLAY = "replay"


async def generate(call: Call, args: a.GenerateArgs) -> g.GenerateResult:
    """Make one model turn as the program asks for it, in its provider's lane and under the guest's budget.

    A schema goes to the provider with the prompt; the program checks the answer itself, as it would anywhere.
    """
    chain = await _chosen(call, args.model)
    for name in chain:
        check_model(call, name)
        call.machine.models.resolve(name)  # a name that nobody has is told before the first is asked
    prompt = _held_to(_prompt(args.prompt), args)
    if prompt.output_schema is not None:
        check_schema(prompt.output_schema)
    order = order_of(sched_class((await call.read(call.own, brief=True)).priority), call.now)
    one, completion = await patiently(call, chain, prompt, order, deliver=call.deliver)
    return settling(call, one, completion, _result(completion))


def _result(completion: Completion) -> g.GenerateResult:
    reply = completion.reply
    return g.GenerateResult(
        text=reply.text,
        reasoning=reply.reasoning,
        reasoning_signature=reply.reasoning_signature,
        requests=[
            g.RequestRow(request_id=each.request_id, name=each.name, arguments=each.arguments)
            for each in reply.requests
        ],
        stop=reply.stop,
        stop_text=reply.stop_text,
        usage=views.usage(completion.usage),
        model=completion.model,
        replayed=completion.replayed,
    )


async def count_tokens(call: Call, args: a.CountTokensArgs) -> g.CountTokensResult:
    """Count a prompt as it would be reserved: an estimate that the provider's own count should not exceed."""
    machine, chain = call.machine, await _chosen(call, args.model)
    info = await machine.models.resolve(chain[0]).describe()
    margin = await call.read(lambda tx: machine.margins.of(tx, info), brief=True)
    return g.CountTokensResult(tokens=counted_in(_prompt(args.prompt)).at_most(margin))


async def list_models(call: Call, args: a.NoArgs) -> g.ModelsResult:
    """List the names that are sure to work: the guest's own model, and what the operator gave names to."""
    own = (await call.read(call.own, brief=True)).model
    aliases = call.machine.settings.gateway.aliases
    plain = [name for name in aliases if not set(name) & set("*?[")]
    return g.ModelsResult(default=own, models=list(dict.fromkeys([own, *plain, *aliases.values()])))


async def _chosen(call: Call, asked: str) -> tuple[str, ...]:
    known = {REPLAY, *(name for name, _ in call.machine.models.providers())}
    name = choose(asked, call.machine.settings.gateway.aliases, known)
    return await models_of(call) if name is None else chain_of(name)


def choose(asked: str, aliases: Mapping[str, str], providers: set[str]) -> str | None:
    """Return the model that is meant: an alias first, then `provider/model`; None, the guest's own, for other names.

    Raises:
        NotFound: it looks like one of the kernel's names, and the provider is not known.
    """
    for pattern, model in aliases.items():
        if fnmatchcase(asked, pattern):
            return model
    provider, slash, _ = asked.partition("/")
    if not slash:
        return None
    if provider not in providers:
        raise NotFound(
            f"There is no provider {provider!r}.", "Name provider/model, an alias, or any name without a slash."
        )
    return asked


def _held_to(prompt: Prompt, args: a.GenerateArgs) -> Prompt:
    """Return the prompt with what the program asks of the answer."""
    if args.must_call is not None and args.must_call not in {ANY_TOOL, *(tool.name for tool in prompt.tools)}:
        raise Invalid(f"The tool {args.must_call!r} is to be called and not offered.", "Offer it with the others.")
    if args.must_call is not None and not prompt.tools:
        raise Invalid("A tool is to be called, and none is offered.", "Offer one, or leave the choice out.")
    return replace(
        prompt,
        max_output_tokens=args.max_tokens or OUTPUT_TOKENS_DEFAULT,
        output_schema=json.dumps(args.schema_) if args.schema_ is not None else None,
        temperature=args.temperature,
        top_p=args.top_p,
        top_k=args.top_k,
        stop=tuple(args.stop),
        must_call=args.must_call,
        one_call=args.one_call and bool(prompt.tools),
    )


def _prompt(given: a.GivenPrompt) -> Prompt:
    turns = tuple(_turn(turn) for turn in given.turns)
    continuing = ""
    if turns[-1].role == "assistant" and not turns[-1].requests:  # the beginning of the answer, for models that go on
        continuing, turns = turns[-1].text, turns[:-1]
    if not turns:
        raise Invalid("The conversation has only the beginning of an answer.", "Put what the user says before it.")
    return Prompt(
        system=given.system,
        turns=turns,
        continuing=continuing,
        tools=tuple(
            ToolSpec(name=tool.name, description=tool.description, input_schema=json.dumps(tool.input_schema))
            for tool in given.tools
        ),
        turn=sum(turn.role == "assistant" for turn in turns),
    )


def _turn(turn: a.GivenTurn) -> Turn:
    given = [recognized(decoded(each.data), each.name) for each in turn.attachments]
    text, carried = sorted_out(turn.role, [*given, turn.text])
    return Turn(
        role=turn.role,
        text=text,
        requests=tuple(
            ToolRequest(request_id=each.request_id, name=each.name, arguments=each.arguments) for each in turn.requests
        ),
        request_id=turn.request_id,
        is_error=turn.is_error,
        reasoning=turn.reasoning,
        reasoning_signature=turn.reasoning_signature,
        breakpoint=turn.breakpoint,
        attachments=carried,
    )
