"""Answers that are none, that are broken off, or whose counts cannot be: over a real socket, in both dialects."""

from __future__ import annotations

import json

import pytest

from aos_mcp.abi.errors import ModelError, ModelFault
from aos_mcp.llm.catalogue import Catalogue
from aos_mcp.testing.model_checks import QUESTION
from aos_mcp.testing.providers import Behaviour, ProviderServer
from tests.llm.test_dialects import DIALECTS, MODELS, TEN_WORDS, ignore

PAGE = "<html><body>Please sign in to the network.</body></html>"
STREAM = {"content-type": "text/event-stream"}


def openai_chunk(**delta: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": delta}]}


def streamed(*events: object) -> Behaviour:
    return Behaviour(body="".join(f"data: {json.dumps(event)}\n\n" for event in events), headers=STREAM)


ODD = {
    "openai": [
        Behaviour(body=json.dumps({"choices": [None]})),
        Behaviour(body=json.dumps({"choices": "hey"})),
        Behaviour(body=json.dumps({"choices": [], "base_resp": "x"})),
        Behaviour(body=json.dumps({"choices": [{"message": {"content": 5}, "finish_reason": "stop"}]})),
        streamed({"choices": [None]}),
        streamed({"choices": [{"delta": "hey"}]}),
        streamed({"choices": [], "base_resp": "x"}),
        streamed(openai_chunk(content=5)),
        streamed(openai_chunk(tool_calls=["x"])),
        streamed(openai_chunk(tool_calls=[{"index": [], "function": {"name": "f"}}])),
        streamed(openai_chunk(tool_calls=[{"index": 0, "id": 7, "function": {"name": "f"}}])),
        streamed(openai_chunk(reasoning_content=["x"])),
    ],
    "anthropic": [
        Behaviour(body=json.dumps({"content": ["x"], "stop_reason": "end_turn"})),
        Behaviour(body=json.dumps({"content": [{"type": "text", "text": 5}], "stop_reason": "end_turn"})),
        streamed({"type": "content_block_delta", "delta": "hey"}),
        streamed({"type": "message_start", "message": "zz"}),
        streamed({"type": "content_block_start", "content_block": {"type": "tool_use", "id": 7, "name": "f"}}),
    ],
}
ANY_ODD = [
    Behaviour(body=PAGE, headers={"content-type": "text/html"}),
    Behaviour(body=PAGE),
    Behaviour(body=PAGE, headers=STREAM),
    Behaviour(body="[1, 2]"),
    Behaviour(body="[" * 100_000),
    streamed([1, 2]),
    streamed("x"),
]


@pytest.mark.parametrize(
    ("dialect", "behaviour"),
    [(dialect, behaviour) for dialect, more in ODD.items() for behaviour in [*ANY_ODD, *more]],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_an_answer_that_is_not_of_the_dialect_is_a_fault_that_a_new_try_may_cure(
    catalogue: Catalogue, server: ProviderServer, dialect: str, behaviour: Behaviour
) -> None:
    server.script(behaviour)
    with pytest.raises(ModelError) as caught:
        await catalogue.resolve(MODELS[dialect]).complete(QUESTION, ignore)
    assert caught.value.fault in {ModelFault.TRANSPORT, ModelFault.CUT_STREAM}
    assert PAGE not in str(caught.value)


@DIALECTS
@pytest.mark.parametrize("body", ["{}", '{"detail": "Model is loading"}', '{"choices": []}', '{"content": {}}'])
async def test_a_body_without_an_answer_is_none(
    catalogue: Catalogue, server: ProviderServer, dialect: str, body: str
) -> None:
    server.script(Behaviour(body=body))
    with pytest.raises(ModelError) as caught:
        await catalogue.resolve(MODELS[dialect]).complete(QUESTION, ignore)
    assert caught.value.fault is ModelFault.TRANSPORT


async def test_a_message_in_one_piece_without_its_reason_is_not_whole(
    catalogue: Catalogue, server: ProviderServer
) -> None:
    server.script(Behaviour(body=json.dumps({"content": [{"type": "text", "text": "one"}], "stop_reason": None})))
    with pytest.raises(ModelError) as caught:
        await catalogue.resolve(MODELS["anthropic"]).complete(QUESTION, ignore)
    assert (caught.value.fault, caught.value.partial_text) == (ModelFault.CUT_STREAM, "one")


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize("reason", ["insufficient_system_resource", "error", "aborted"])
async def test_an_answer_that_ends_for_a_reason_nobody_knows_is_broken_off(
    catalogue: Catalogue, server: ProviderServer, reason: str, streams: bool
) -> None:
    server.script(Behaviour(text="one two", stop=reason, streams=streams))
    with pytest.raises(ModelError) as caught:
        await catalogue.resolve(MODELS["openai"]).complete(QUESTION, ignore)
    assert (caught.value.fault, caught.value.partial_text) == (ModelFault.CUT_STREAM, "one two")


@pytest.mark.parametrize(("reason", "stop"), [("eos_token", "end"), ("STOP", "end"), ("model_length", "length")])
async def test_what_some_servers_say_of_an_end_is_understood(
    catalogue: Catalogue, server: ProviderServer, reason: str, stop: str
) -> None:
    server.script(Behaviour(text="one two", stop=reason))
    reply = (await catalogue.resolve(MODELS["openai"]).complete(QUESTION, ignore)).reply
    assert (reply.text, reply.stop) == ("one two", stop)


async def test_a_provider_that_gives_no_reason_has_come_to_the_end_all_the_same(
    catalogue: Catalogue, server: ProviderServer
) -> None:
    chunk = json.dumps(openai_chunk(content="one"))
    server.script(
        Behaviour(body=f"data: {chunk}\n\ndata: [DONE]\n\n", headers=STREAM),
        Behaviour(body=json.dumps({"choices": [{"message": {"content": "one"}}]})),
    )
    for _ in range(2):
        reply = (await catalogue.resolve(MODELS["openai"]).complete(QUESTION, ignore)).reply
        assert (reply.text, reply.stop) == ("one", "end")


async def test_what_came_before_an_odd_piece_is_kept_with_the_error(
    catalogue: Catalogue, server: ProviderServer
) -> None:
    server.script(streamed(openai_chunk(content="one"), openai_chunk(content=5)))
    with pytest.raises(ModelError) as caught:
        await catalogue.resolve(MODELS["openai"]).complete(QUESTION, ignore)
    assert (caught.value.fault, caught.value.partial_text) == (ModelFault.CUT_STREAM, "one")


@DIALECTS
@pytest.mark.parametrize(("read", "written"), [(0, 0), (-5, -7), (0, 7), (5, 0)])
async def test_what_a_provider_did_not_count_is_estimated(
    catalogue: Catalogue, server: ProviderServer, dialect: str, read: int, written: int
) -> None:
    server.script(
        Behaviour(text=TEN_WORDS, usage=False), Behaviour(text=TEN_WORDS, input_tokens=read, output_tokens=written)
    )
    model = catalogue.resolve(MODELS[dialect])
    estimated, told = [(await model.complete(QUESTION, ignore)).usage for _ in range(2)]
    assert told.input_tokens == (read if read > 0 else estimated.input_tokens)
    assert told.output_tokens == (written if written > 0 else estimated.output_tokens)
    assert told.microusd > 0


@DIALECTS
async def test_an_empty_answer_that_took_no_tokens_is_charged_none(
    catalogue: Catalogue, server: ProviderServer, dialect: str
) -> None:
    server.script(Behaviour(text="", input_tokens=5, output_tokens=0))
    usage = (await catalogue.resolve(MODELS[dialect]).complete(QUESTION, ignore)).usage
    assert (usage.input_tokens, usage.output_tokens) == (5, 0)


@DIALECTS
@pytest.mark.parametrize(("count", "output"), [("1e30", 2**53), (str(10**40), 2**53), ("Infinity", 1), ("NaN", 1)])
async def test_a_count_beyond_all_bounds_is_the_largest_that_is_believed_and_no_number_is_no_count(
    catalogue: Catalogue, server: ProviderServer, dialect: str, count: str, output: int
) -> None:
    usage = f'{{"prompt_tokens": 5, "input_tokens": 5, "completion_tokens": {count}, "output_tokens": {count}}}'
    bodies = {
        "openai": f'{{"choices": [{{"message": {{"content": "a"}}}}], "usage": {usage}}}',
        "anthropic": f'{{"content": [{{"type": "text", "text": "a"}}], "stop_reason": "end_turn", "usage": {usage}}}',
    }
    server.script(Behaviour(body=bodies[dialect]))
    told = (await catalogue.resolve(MODELS[dialect]).complete(QUESTION, ignore)).usage
    assert (told.input_tokens, told.output_tokens) == (5, output)
    assert told.microusd <= 2**53
