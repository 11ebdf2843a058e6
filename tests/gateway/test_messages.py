"""Messages through the gateway, as Anthropic's own client makes its calls."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import anthropic
import anyio
import pytest
from pydantic import BaseModel

from aos_mcp.testing.providers import Behaviour, Call
from tests.gateway.conftest import gateway

HELLO: Any = [{"role": "user", "content": "Hello"}]
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\nrest").decode()
TOOL: Any = {"name": "add", "description": "Add.", "input_schema": {"type": "object"}}


async def test_a_call_is_answered_with_its_usage(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        gate.provider.script(Behaviour(text="Hi there", input_tokens=100, cached_tokens=40, output_tokens=7))
        key = await gate.issue()
        async with gate.messages(key.key) as client:
            answer = await client.messages.create(
                model="claude-anything", max_tokens=50, messages=HELLO, system=[{"type": "text", "text": "Be brief."}]
            )
        assert [block.type for block in answer.content] == ["text"]
        assert answer.stop_reason == "end_turn"
        assert answer.model == "thence/large", "an alias of the operator"
        assert (answer.usage.input_tokens, answer.usage.cache_read_input_tokens) == (60, 40)
        assert answer.usage.output_tokens == 7
        assert "Be brief." in json.dumps(gate.provider.requests[0].body)


@pytest.mark.parametrize("model", ["there/small", "thence/large"])
async def test_a_stream_has_the_events_of_the_dialect_whatever_is_behind(tmp_path: Path, model: str) -> None:
    async with gateway(tmp_path) as gate:
        gate.provider.script(
            Behaviour(
                text="one two",
                calls=(Call(name="add", arguments='{"a": 1}', request_id="toolu_x"),),
                input_tokens=9,
                output_tokens=3,
            )
        )
        key = await gate.issue(model=model)
        async with (
            gate.messages(key.key) as client,
            client.messages.stream(model=model, max_tokens=50, messages=HELLO, tools=[TOOL]) as stream,
        ):
            kinds = [event.type async for event in stream]
            final = await stream.get_final_message()
        assert kinds[0] == "message_start" and kinds[-1] == "message_stop"
        assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 2
        text, call = final.content
        assert text.type == "text" and text.text == "one two"
        assert call.type == "tool_use" and (call.id, call.name, call.input) == ("toolu_x", "add", {"a": 1})
        assert final.stop_reason == "tool_use"
        assert (final.usage.input_tokens, final.usage.output_tokens) == (9, 3)


async def test_tool_results_images_and_thoughts_go_back_upstream(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        key = await gate.issue()
        image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
        messages: Any = [
            {"role": "user", "content": [{"type": "text", "text": "Go", "cache_control": {"type": "ephemeral"}}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                    {"type": "text", "text": "I look."},
                    {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {"a": 1}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "toolu_1",
                        "is_error": True,
                        "content": [{"type": "text", "text": "It failed."}, image],
                    },
                    {"type": "text", "text": "Try again."},
                ],
            },
        ]
        async with gate.messages(key.key) as client:
            await client.messages.create(
                model="thence/large", max_tokens=50, messages=messages, tools=[TOOL], thinking={"type": "adaptive"}
            )
        sent = gate.provider.requests[0].body
        assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "user"]
        last = json.dumps(sent["messages"][2])
        assert "It failed." in last and PNG in last and "Try again." in last and '"is_error": true' in last
        assert "I look." in json.dumps(sent["messages"][1])


async def test_a_call_that_the_allowed_length_tore_is_left_out(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        calls = (Call(name="add", arguments='{"a": 1}'), Call(name="add", arguments='{"a": [1, '))
        torn = Behaviour(text="I add.", calls=calls, stop="length")
        gate.provider.script(torn, Behaviour(text="I add.", calls=calls))
        key = await gate.issue()
        async with gate.messages(key.key) as client:
            asked: Any = {"model": "x", "max_tokens": 9, "messages": HELLO, "tools": [TOOL]}
            answer = await client.messages.create(**asked)
            with pytest.raises(anthropic.APIStatusError) as unasked:
                await client.messages.create(**asked)
        assert [block.type for block in answer.content] == ["text", "tool_use"]
        assert answer.stop_reason == "max_tokens"
        assert unasked.value.status_code == 502, "it had room to write them"


@pytest.mark.parametrize("written", ['{"a": NaN}', '{"a": -1e999}', '{"a": ' + "[" * 400 + "]" * 400 + "}"])
async def test_arguments_that_not_everybody_can_read_are_none(tmp_path: Path, written: str) -> None:
    async with gateway(tmp_path) as gate:
        gate.provider.script(Behaviour(calls=(Call(name="add", arguments=written),)))
        key = await gate.issue()
        async with gate.messages(key.key) as client:
            with pytest.raises(anthropic.APIStatusError, match="no JSON object") as refused:
                await client.messages.create(model="x", max_tokens=9, messages=HELLO, tools=[TOOL])
        assert refused.value.status_code == 502


async def test_structured_output_is_parsed_by_the_client(tmp_path: Path) -> None:
    class City(BaseModel):
        name: str

    async with gateway(tmp_path) as gate:
        gate.provider.script(Behaviour(text='{"name": "Bern"}'))
        key = await gate.issue()
        async with gate.messages(key.key) as client:
            answer = await client.messages.parse(model="x", max_tokens=50, messages=HELLO, output_format=City)
        assert answer.parsed_output == City(name="Bern")


async def test_a_prompt_is_counted(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        key = await gate.issue()
        async with gate.messages(key.key) as client:
            short = await client.messages.count_tokens(model="x", messages=HELLO)
            long = await client.messages.count_tokens(
                model="x", messages=[{"role": "user", "content": "Hello " * 500}], tools=[TOOL]
            )
        assert 0 < short.input_tokens < 100 < long.input_tokens
        assert gate.provider.stats.requests == 0


async def test_models_are_listed_in_the_dialects_form(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        key = await gate.issue()
        async with gate.messages(key.key) as client:
            listed = [model.id async for model in await client.models.list()]
            assert listed == ["there/small", "gpt-cheap", "thence/large"]
            assert (await client.models.retrieve("there/small")).type == "model"


async def test_errors_have_the_status_and_the_type_of_the_dialect(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        key = await gate.issue()
        poor = await gate.issue(budget={"usd": 0.000001})
        async with gate.messages("sk-aos-wrong") as client:
            with pytest.raises(anthropic.AuthenticationError) as unknown:
                await client.messages.create(model="x", max_tokens=9, messages=HELLO)
            assert unknown.value.type == "authentication_error"
        async with gate.messages(poor.key) as client:
            with pytest.raises(anthropic.PaymentRequiredError) as spent:
                await client.messages.create(model="x", max_tokens=9, messages=HELLO)
            assert spent.value.type == "billing_error"
        async with gate.messages(key.key) as client:
            for field, value in {"top_k": 5, "container": "x", "tool_choice": {"type": "odd"}}.items():
                with pytest.raises(anthropic.BadRequestError, match=field):
                    await client.messages.create(model="x", max_tokens=9, messages=HELLO, extra_body={field: value})
            server_tool: Any = {"type": "web_search_20250305", "name": "web_search"}
            with pytest.raises(anthropic.BadRequestError, match="web_search"):
                await client.messages.create(model="x", max_tokens=9, messages=HELLO, tools=[server_tool])
            with pytest.raises(anthropic.NotFoundError):
                await client.messages.create(model="nowhere/x", max_tokens=9, messages=HELLO)
        assert gate.provider.stats.requests == 0, "what was refused never left"


@pytest.mark.parametrize("model", ["there/small", "thence/large"])
async def test_what_the_answer_is_held_to_is_passed_on_whatever_is_behind(tmp_path: Path, model: str) -> None:
    async with gateway(tmp_path) as gate:
        gate.provider.script(Behaviour(text="one two three", repeat=True))
        key = await gate.issue()
        held: dict[str, Any] = {"model": model, "max_tokens": 9, "messages": HELLO, "stop_sequences": ["two"]}
        async with gate.messages(key.key) as client:
            cut = await client.messages.create(**held)
            async with client.messages.stream(**held) as stream:
                streamed = await stream.get_final_message()
            choices: list[Any] = [{"type": "any"}, {"type": "tool", "name": "add"}]
            for choice in choices:
                await client.messages.create(**held, tools=[TOOL], tool_choice=choice)
        for answer in (cut, streamed):
            assert [(block.type, block.to_dict()["text"]) for block in answer.content] == [("text", "one ")]
            known = ("stop_sequence", "two") if model == "thence/large" else ("end_turn", None)
            assert (answer.stop_reason, answer.stop_sequence) == known, "where the provider behind it tells"
        by_name: Any = {"type": "function", "function": {"name": "add"}}
        sent = [request.body["tool_choice"] for request in gate.provider.requests[2:]]
        assert sent == (choices if model == "thence/large" else ["required", by_name])


async def test_top_k_goes_to_a_model_that_knows_it(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        key = await gate.issue()
        async with gate.messages(key.key) as client:
            asked: Any = {"top_k": 5, "top_p": 0.5, "temperature": 0.1}
            await client.messages.create(model="thence/large", max_tokens=9, messages=HELLO, extra_body=asked)
        assert asked.items() <= dict(gate.provider.requests[0].body).items()


async def test_an_error_after_the_first_word_is_an_error_event(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        gate.provider.script(Behaviour(text="one two three", error_after=1, error_type="overloaded_error"))
        key = await gate.issue()
        text = ""
        async with gate.messages(key.key) as client:
            with pytest.raises(anthropic.APIStatusError):
                async with client.messages.stream(model="x", max_tokens=50, messages=HELLO) as stream:
                    async for piece in stream.text_stream:
                        text += piece
        assert text == "one"


async def test_a_client_that_goes_away_ends_the_call(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        gate.provider.script(Behaviour(text="one two three", hang_after=2))
        key = await gate.issue()
        async with gate.messages(key.key) as client:
            async with client.messages.stream(model="x", max_tokens=50, messages=HELLO) as stream:
                async for _ in stream.text_stream:
                    break
        with anyio.fail_after(20):
            await gate.provider.settled()
        assert gate.provider.stats.disconnects == 1


async def test_the_beginning_of_an_answer_is_refused_where_the_provider_does_not_go_on(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        key = await gate.issue()
        begun: Any = [*HELLO, {"role": "assistant", "content": "Well,"}]
        async with gate.messages(key.key) as client:
            with pytest.raises(anthropic.BadRequestError):
                await client.messages.create(model="x", max_tokens=9, messages=begun)
        assert gate.provider.stats.requests == 0
