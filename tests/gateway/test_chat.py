"""Chat Completions through the gateway, as OpenAI's own client makes its calls."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import httpx2
import openai
import pytest
from pydantic import BaseModel

from aos_mcp.abi.limits import FALLBACK_AFTER_TRIES, LINE_BYTES_MAX
from aos_mcp.testing.providers import Behaviour, Call
from tests.gateway.conftest import gateway

HELLO: Any = [{"role": "user", "content": "Hello"}]
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\nrest").decode()
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
    },
}


async def test_a_call_is_answered_with_its_usage_and_charged_to_the_keys_process(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        gate.provider.script(Behaviour(text="Hi there", input_tokens=100, cached_tokens=40, output_tokens=7))
        key = await gate.issue(budget={"usd": 1.0})
        async with gate.chat(key.key) as client:
            answer = await client.chat.completions.create(model="gpt-5.4-mini", messages=HELLO, max_tokens=50)
        assert answer.choices[0].message.content == "Hi there"
        assert answer.choices[0].finish_reason == "stop"
        assert answer.model == "there/small", "a foreign name is the key's own model"
        assert answer.usage is not None and answer.usage.prompt_tokens_details is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (100, 7)
        assert answer.usage.prompt_tokens_details.cached_tokens == 40
        shown = await gate.kernel.call("read_process", pid=key.pid)
        assert (shown.usage.input_tokens, shown.usage.cached_tokens, shown.usage.output_tokens) == (60, 40, 7)
        assert shown.usage.usd > 0
        sent = gate.provider.requests[0]
        assert key.key not in json.dumps([dict(sent.headers), dict(sent.body)]), "the provider never sees our key"


async def test_a_stream_arrives_as_it_is_written(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        gate.provider.script(Behaviour(text="one two three", hang_after=2))
        key = await gate.issue()
        async with gate.chat(key.key) as client:
            stream = await client.chat.completions.create(model="x", messages=HELLO, stream=True)
            text = ""
            async for chunk in stream:
                text += chunk.choices[0].delta.content or ""
                if text == "one two":
                    break  # the third piece was never written, and the first two are here
            await stream.close()
        with anyio.fail_after(20):
            await gate.provider.settled()
        assert gate.provider.stats.disconnects == 1, "a client that goes away ends the provider's stream"
        with anyio.fail_after(20):
            while gate.kernel.machine.guests:
                await anyio.lowlevel.checkpoint()
        account = await gate.kernel.machine.store.read(lambda tx: tx.account_get(key.pid))
        assert account is not None and account.reserved_microusd == 0
        assert account.used.output_tokens > 0, "what was written was billed, and is charged"


async def test_a_stream_ends_with_its_reason_and_its_usage_when_that_was_asked_for(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        gate.provider.script(Behaviour(text="one two three", input_tokens=9, output_tokens=3, repeat=True))
        key = await gate.issue()
        async with gate.chat(key.key) as client:
            for wanted in (True, False):
                stream = await client.chat.completions.create(
                    model="x", messages=HELLO, stream=True, stream_options={"include_usage": wanted}
                )
                chunks = [chunk async for chunk in stream]
                text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
                assert text == "one two three"
                assert chunks[0].choices[0].delta.role == "assistant"
                assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
                counted = [c.usage.total_tokens for c in chunks if c.usage]
                assert counted == ([12] if wanted else [])
                assert len({c.id for c in chunks}) == 1


@pytest.mark.parametrize("streamed", [False, True])
async def test_tools_go_there_and_back(tmp_path: Path, streamed: bool) -> None:
    async with gateway(tmp_path) as gate:
        gate.provider.script(Behaviour(calls=(Call(name="add", arguments='{"a": 1}', request_id="call_x"),)))
        key = await gate.issue()
        async with gate.chat(key.key) as client:
            if streamed:
                async with client.chat.completions.stream(model="x", messages=HELLO, tools=[TOOL]) as stream:
                    first = await stream.get_final_completion()
                message: Any = first.choices[0].message
            else:
                whole = await client.chat.completions.create(model="x", messages=HELLO, tools=[TOOL])
                message = whole.choices[0].message
                assert whole.choices[0].finish_reason == "tool_calls"
            call = message.tool_calls[0]
            assert (call.id, call.function.name, json.loads(call.function.arguments)) == ("call_x", "add", {"a": 1})
            back = [
                *HELLO,
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [call.model_dump(include={"id", "type", "function"})],
                },
                {"role": "tool", "tool_call_id": "call_x", "content": "It is 2."},
            ]
            gate.provider.script(Behaviour(text="Two"))
            answer = await client.chat.completions.create(model="x", messages=back, tools=[TOOL])
        assert answer.choices[0].message.content == "Two"
        sent = gate.provider.requests[-1].body
        assert sent["tools"][0]["function"]["name"] == "add"
        assert [m["role"] for m in sent["messages"]] == ["user", "assistant", "tool"]
        assert sent["messages"][2]["tool_call_id"] == "call_x"


async def test_structured_output_is_parsed_by_the_client(tmp_path: Path) -> None:
    class City(BaseModel):
        name: str

    async with gateway(tmp_path) as gate:
        gate.provider.script(Behaviour(text='{"name": "Bern"}'))
        key = await gate.issue()
        async with gate.chat(key.key) as client:
            answer = await client.chat.completions.parse(model="x", messages=HELLO, response_format=City)
        assert answer.choices[0].message.parsed == City(name="Bern")
        assert "name" in json.dumps(gate.provider.requests[0].body)


async def test_a_stream_of_structured_output_holds_the_answer_alone(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        answer = Call(name="answer", arguments='{"name": "Bern"}')
        gate.provider.script(Behaviour(text="Let me see.", calls=(answer,)))
        key = await gate.issue(model="thence/large")
        async with gate.chat(key.key) as client:
            stream = await client.chat.completions.create(
                model="x", messages=HELLO, stream=True, response_format={"type": "json_object"}
            )
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        assert json.loads(text) == {"name": "Bern"}


async def test_images_and_the_system_text_pass_through(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        key = await gate.issue(model="thence/large")
        messages: Any = [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is it?"},
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
                ],
            },
        ]
        async with gate.chat(key.key) as client:
            await client.chat.completions.create(model="x", messages=messages, temperature=0.5, max_tokens=99)
        sent = json.dumps(gate.provider.requests[0].body)
        assert PNG in sent and "Be brief." in sent and "What is it?" in sent and "0.5" in sent


async def test_names_are_aliases_the_kernels_own_or_the_keys_model(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        key = await gate.issue(model="thence/large")
        async with gate.chat(key.key) as client:
            for asked, used in {"gpt-cheap": "small", "there/small": "small", "whatever": "large"}.items():
                await client.chat.completions.create(model=asked, messages=HELLO, max_tokens=9)
                assert gate.provider.requests[-1].body["model"] == used
            with pytest.raises(openai.NotFoundError) as missing:
                await client.chat.completions.create(model="nowhere/x", messages=HELLO)
            assert missing.value.code == "model_not_found"
            names = [model.id async for model in await client.models.list()]
            assert names == ["thence/large", "gpt-cheap", "there/small"]
            assert (await client.models.retrieve("there/small")).owned_by == "there"


async def test_errors_have_the_status_and_the_words_of_the_dialect(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        key = await gate.issue()
        poor = await gate.issue(budget={"usd": 0.000001})
        async with gate.chat("sk-aos-wrong") as client:
            with pytest.raises(openai.AuthenticationError) as unknown:
                await client.chat.completions.create(model="x", messages=HELLO)
            assert unknown.value.code == "invalid_api_key"
        async with gate.chat(poor.key) as client:
            for streamed in (False, True):
                with pytest.raises(openai.APIStatusError) as spent:
                    await client.chat.completions.create(model="x", messages=HELLO, stream=streamed)
                assert (spent.value.status_code, spent.value.code) == (402, "insufficient_quota")
                assert spent.value.response.headers["x-should-retry"] == "false"
        async with gate.chat(key.key) as client:
            refused = {"n": 2, "logprobs": True, "top_k": 5, "tool_choice": {"type": "allowed_tools"}, "stop": [""]}
            for field, value in refused.items():
                with pytest.raises(openai.BadRequestError, match=field):
                    await client.chat.completions.create(model="x", messages=HELLO, extra_body={field: value})
            with pytest.raises(openai.BadRequestError, match="role"):
                await client.chat.completions.create(model="x", messages=[{"role": "wizard", "content": "?"}])  # type: ignore[misc,list-item]
            gate.provider.script(Behaviour(status=400, error_type="invalid_request_error", error_message="odd"))
            with pytest.raises(openai.BadRequestError):
                await client.chat.completions.create(model="x", messages=HELLO)
            gate.provider.script(Behaviour(status=401, error_type="invalid_request_error"))
            with pytest.raises(openai.InternalServerError) as ours:
                await client.chat.completions.create(model="x", messages=HELLO)
            assert ours.value.status_code == 503, "the kernel's key is wrong, not the client's"
        assert gate.provider.stats.requests == 2, "what was refused never left"


async def test_what_the_answer_is_held_to_is_passed_on(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        gate.provider.script(Behaviour(text="one two three", repeat=True))
        key = await gate.issue()
        async with gate.chat(key.key) as client:
            for stop in ("two", ["two", "three"]):
                cut = await client.chat.completions.create(model="x", messages=HELLO, stop=stop, top_p=0.5)
                assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == ("one ", "stop")
            named: Any = {"type": "function", "function": {"name": "add"}}
            choices: list[Any] = ["required", named]
            for choice in choices:
                await client.chat.completions.create(model="x", messages=HELLO, tools=[TOOL], tool_choice=choice)
                with pytest.raises(openai.BadRequestError, match="offered"):
                    await client.chat.completions.create(model="x", messages=HELLO, tool_choice=choice)
        sent = [request.body for request in gate.provider.requests]
        assert [(body.get("stop"), body.get("top_p")) for body in sent[:2]] == [(["two"], 0.5), (["two", "three"], 0.5)]
        assert [body["tool_choice"] for body in sent[2:]] == choices


async def test_one_tool_call_at_a_time_is_asked_for_where_the_model_can_be_held_to_it(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        key = await gate.issue()
        one: dict[str, Any] = {"messages": HELLO, "tools": [TOOL], "parallel_tool_calls": False}
        async with gate.chat(key.key) as client:
            await client.chat.completions.create(model="claude-any", **one)
            with pytest.raises(openai.BadRequestError, match="one tool call"):
                await client.chat.completions.create(model="there/small", **one)
            await client.chat.completions.create(model="there/small", messages=HELLO, parallel_tool_calls=False)
        assert gate.provider.requests[0].body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
        assert "parallel_tool_calls" not in gate.provider.requests[1].body, "there is nothing to call"


@pytest.mark.parametrize("chain", ["there/small, thence/large", "thence/large, there/small"])
async def test_of_a_chain_only_the_models_that_can_be_held_to_it_are_asked(tmp_path: Path, chain: str) -> None:
    async with gateway(tmp_path) as gate:
        busy = [Behaviour(status=429, headers={"retry-after": "0"}) for _ in range(FALLBACK_AFTER_TRIES)]
        gate.provider.script(*busy, Behaviour(text="At last"))
        key = await gate.issue(model=chain)
        one: dict[str, Any] = {"model": "x", "messages": HELLO, "tools": [TOOL], "parallel_tool_calls": False}
        async with gate.chat(key.key) as client:
            answer = await client.chat.completions.create(**one)
        assert (answer.model, answer.choices[0].message.content) == ("thence/large", "At last")
        assert {request.path for request in gate.provider.requests} == {"/v1/messages"}, "and it is waited for"


async def test_a_chain_of_which_no_model_can_be_held_to_it_refuses_before_anything_is_sent(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        key = await gate.issue(model="there/small, there/other")
        one: dict[str, Any] = {"model": "x", "messages": HELLO, "tools": [TOOL], "parallel_tool_calls": False}
        async with gate.chat(key.key) as client:
            with pytest.raises(openai.BadRequestError, match="there/small cannot be held to one tool call"):
                await client.chat.completions.create(**one)
        assert gate.provider.stats.requests == 0


async def test_an_error_after_the_first_word_ends_the_stream_as_an_error(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        gate.provider.script(Behaviour(text="one two three", error_after=1, error_type="server_error"))
        key = await gate.issue()
        async with gate.chat(key.key) as client:
            text = ""
            with pytest.raises(openai.APIError):
                async for chunk in await client.chat.completions.create(model="x", messages=HELLO, stream=True):
                    text += chunk.choices[0].delta.content or ""
        assert text == "one", "what was written is there, once"
        assert gate.provider.stats.requests == 1, "and was not begun again"


async def test_a_fault_before_the_first_word_is_waited_out_by_the_kernel(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        gate.provider.script(Behaviour(status=429, headers={"retry-after": "0"}), Behaviour(text="At last"))
        key = await gate.issue()
        async with gate.chat(key.key) as client:
            answer = await client.chat.completions.create(model="x", messages=HELLO)
        assert answer.choices[0].message.content == "At last"


async def test_a_page_in_place_of_an_answer_is_tried_again_and_then_the_next_of_the_chain_is_asked(
    tmp_path: Path,
) -> None:
    async with gateway(tmp_path) as gate:
        gate.provider.script(Behaviour(when='"model": "small"', repeat=True, body="<html>Sign in.</html>"))
        gate.provider.script(Behaviour(text="there"))
        key = await gate.issue(model="there/small,thence/large")
        async with gate.chat(key.key) as client:
            answer = await client.chat.completions.create(model="x", messages=HELLO)
        assert (answer.choices[0].message.content, answer.model) == ("there", "thence/large")
        asked = [request.body["model"] for request in gate.provider.requests]
        assert asked == ["small"] * FALLBACK_AFTER_TRIES + ["large"]


async def test_a_client_that_goes_away_cancels_a_call_that_does_not_stream(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        gate.provider.script(Behaviour(text="one two", hang_after=1))
        key = await gate.issue()
        async with gate.chat(key.key) as client, anyio.create_task_group() as group:
            group.start_soon(lambda: client.chat.completions.create(model="x", messages=HELLO))
            await gate.provider.started(1)
            group.cancel_scope.cancel()
        with anyio.fail_after(20):
            await gate.provider.settled()
        assert gate.provider.stats.disconnects == 1


async def test_killing_the_process_ends_its_call_and_its_key(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        gate.provider.script(Behaviour(text="one two", hang_after=1))
        key = await gate.issue()
        async with gate.chat(key.key) as client:
            stream = await client.chat.completions.create(model="x", messages=HELLO, stream=True)
            await anext(aiter(stream))
            await gate.kernel.call("signal_agent", pid=key.pid, signal="kill")
            with pytest.raises(openai.APIError):
                async for _ in stream:
                    pass
            with pytest.raises(openai.AuthenticationError):
                await client.chat.completions.create(model="x", messages=HELLO)


async def test_hints_stay_unheeded_and_are_named(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        key = await gate.issue()
        body = {"model": "x", "messages": HELLO, "user": "me", "reasoning_effort": "low", "made_up_field": {"a": 1}}
        answer = await gate.post("/v1/chat/completions", body, key.key)
        assert answer.status_code == 200
        assert answer.headers["x-aos-unheeded"] == "made_up_field,reasoning_effort,user"


async def test_what_is_no_request_is_refused_in_words(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        key = await gate.issue()
        bodies: list[Any] = [[], {"model": "x"}, {"model": 3, "messages": HELLO}, {"model": "x", "messages": "Hello"}]
        for body in bodies:
            answer = await gate.post("/v1/chat/completions", body, key.key)
            assert answer.status_code == 400, body
            assert answer.json()["error"]["type"] == "invalid_request_error"
        assert (await gate.post("/v1/responses", {}, key.key)).status_code == 404
        assert (await gate.post("/v1/chat/completions", {"model": "x", "messages": HELLO})).status_code == 401
        refused = await gate.post("/v1/chat/completions", {}, key.key, host="evil.example")
        assert refused.status_code == 421, "a page of another name cannot speak to it"
        elsewhere = await gate.post("/v1/chat/completions", {}, key.key, origin="https://evil.example")
        assert elsewhere.status_code == 403
        assert gate.provider.stats.requests == 0


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/messages/count_tokens"])
async def test_a_request_that_is_too_large_is_refused_for_good(tmp_path: Path, path: str) -> None:
    async with gateway(tmp_path) as gate:
        key = await gate.issue()
        body = {"model": "x", "max_tokens": 9, "messages": HELLO, "metadata": {"x": "x" * LINE_BYTES_MAX}}
        refused = await gate.post(path, body, key.key)
        assert refused.status_code == 413
        assert "retry-after" not in refused.headers
        assert refused.headers["x-should-retry"] == "false"
        if path != "/v1/chat/completions":
            assert refused.json()["error"]["type"] == "request_too_large"


@pytest.mark.parametrize("number", ["NaN", "1e999", "[" * 5_000])
async def test_a_request_that_is_no_json_is_refused(tmp_path: Path, number: str) -> None:
    async with gateway(tmp_path) as gate:
        key = await gate.issue()
        schema = f'{{"type": "object", "maxProperties": {number}}}'
        tools = f'[{{"type": "function", "function": {{"name": "f", "parameters": {schema}}}}}]'
        body = f'{{"model": "x", "messages": {json.dumps(HELLO)}, "tools": {tools}}}'
        async with httpx2.AsyncClient() as client:
            headers = {"authorization": f"Bearer {key.key}", "content-type": "application/json"}
            refused = await client.post(f"{gate.url}/v1/chat/completions", content=body, headers=headers)
        assert (refused.status_code, gate.provider.stats.requests) == (400, 0)
