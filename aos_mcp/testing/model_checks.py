"""The contract of `ports.LanguageModel`, as a check that every driver passes: ours, and those of others.

The model behind it must answer any prompt with text. Nothing here knows a dialect.
"""

from __future__ import annotations

import json
from dataclasses import replace

import anyio
import anyio.lowlevel

from aos_mcp.abi.completion import Completion, ModelInfo, Prompt, ToolRequest, ToolSpec, Turn
from aos_mcp.ports import LanguageModel

QUESTION = Prompt(system="Be brief.", turns=(Turn(role="user", text="Say some words."),), max_output_tokens=64)

ROUND_TRIP = Prompt(
    system="Be brief.",
    tools=(ToolSpec(name="add", description="Add two numbers.", input_schema='{"type": "object"}'),),
    turns=(
        Turn(role="user", text="Add 1 and 2, and 3 and 4."),
        Turn(
            role="assistant",
            text="",
            requests=(
                ToolRequest(request_id="call_a", name="add", arguments='{"a": 1, "b": 2}'),
                ToolRequest(request_id="call_b", name="add", arguments='{"a": 3, "b": 4}'),
            ),
        ),
        Turn(role="tool", text="3", request_id="call_a"),
        Turn(role="tool", text="no such tool", request_id="call_b", is_error=True, breakpoint=True),
        Turn(role="user", text="Go on."),
    ),
    max_output_tokens=64,
)


BEGINNING = "Some words are these: "


async def check_language_model(model: LanguageModel, *, deadline_s: float = 30.0) -> None:
    """Raise AssertionError where the driver breaks the contract."""
    with anyio.fail_after(deadline_s):
        info = await _check_description(model)
        await _check_call(model, info, QUESTION)
        await _check_call(model, info, ROUND_TRIP)
        await _check_continuing(model, info)
        await _check_cancellation(model)
        await _check_call(model, info, QUESTION)


async def _check_description(model: LanguageModel) -> ModelInfo:
    info = await model.describe()
    assert info.name == model.name, "a model describes itself under its own name"
    assert "/" in info.name, "a name is provider/model"
    assert info.context_tokens > 0, "a window holds something"
    assert info.output_tokens_max > 0, "a model says something"
    if info.price is not None:
        rates = (info.price.input, info.price.cached, info.price.written, info.price.output)
        assert min(rates) >= 0, "no price is negative"
        assert info.price.source, "a price says where it comes from"
    assert await model.describe() == info, "a description does not change from one moment to the next"
    return info


async def _check_call(model: LanguageModel, info: ModelInfo, prompt: Prompt) -> Completion:
    pieces: list[str] = []
    completion = await model.complete(prompt, pieces.append)
    reply, usage = completion.reply, completion.usage
    assert "".join(pieces) == reply.text, "what is delivered is the text, piece by piece"
    assert completion.model == model.name, "a completion names its model"
    assert completion.replayed == info.replay, "a replay says so, and nothing else does"
    assert usage.tokens > 0, "a call is never without usage"
    assert min(usage.input_tokens, usage.cached_tokens, usage.written_tokens, usage.output_tokens) >= 0
    assert completion.priced == (info.price is not None), "a cost is known exactly where a price is"
    if info.price is None:
        assert usage.microusd == 0, "an unknown price charges nothing and says so"
    else:
        dearest = max(info.price.input, info.price.cached, info.price.written)
        prompt_tokens = usage.tokens - usage.output_tokens
        bound = prompt_tokens * dearest + usage.output_tokens * info.price.output + 1
        assert usage.microusd <= bound, "no call costs more than its price can be"
    identities = [request.request_id for request in reply.requests]
    assert len(set(identities)) == len(identities), "two requests of one turn never share an identity"
    assert bool(reply.requests) == (reply.stop == "tools"), "a turn stops for tools exactly when it asks for some"
    assert all(isinstance(json.dumps(request.arguments), str) for request in reply.requests)
    return completion


async def _check_continuing(model: LanguageModel, info: ModelInfo) -> None:
    if info.continues:
        completion = await _check_call(model, info, replace(QUESTION, continuing=BEGINNING))
        assert not completion.reply.text.startswith(BEGINNING), "an answer that is gone on with holds only what is new"


async def _check_cancellation(model: LanguageModel) -> None:
    with anyio.CancelScope() as scope:

        def stop(_: str) -> None:
            scope.cancel()

        await model.complete(QUESTION, stop)
        await anyio.lowlevel.checkpoint()
        raise AssertionError("a cancelled call does not return")
    assert scope.cancelled_caught, "cancellation passes through a driver"
