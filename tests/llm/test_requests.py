"""What is put into a request, and how a stream is taken apart. Pure."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Literal

import pytest
from anthropic import transform_schema
from hypothesis import given
from hypothesis import strategies as st

from aos_mcp.abi.completion import Prompt, ToolRequest, ToolSpec, Turn
from aos_mcp.llm import anthropic, openai_compatible
from aos_mcp.llm.draft import Draft
from aos_mcp.llm.openai_compatible import ChatDecoder
from aos_mcp.llm.providers import Quirks, load_rows
from aos_mcp.llm.schema import is_closed, is_holdable
from aos_mcp.llm.sse import EventStream
from aos_mcp.testing.prompt_cache import marks_in

TOOL = ToolSpec(name="add", description="Add.", input_schema='{"type": "object"}')
SCHEMA = '{"type": "object", "properties": {"n": {"type": "integer"}}}'
USER = Turn(role="user", text="Hi.")


def marked(body: dict[str, Any]) -> list[str]:
    blocks = [*body.get("system", []), *body.get("tools", [])]
    blocks += [block for message in body["messages"] for block in message["content"]]
    return [block.get("text") or block.get("name") for block in blocks if "cache_control" in block]


def talk(length: int) -> tuple[Turn, ...]:
    return tuple(Turn(role="user" if n % 2 == 0 else "assistant", text=f"t{n}", breakpoint=True) for n in range(length))


def test_at_most_four_prefixes_are_marked_and_the_newest_win() -> None:
    body = anthropic.request_body("m", Prompt(system="sys", turns=talk(7), tools=(TOOL,)), Quirks(cache_breakpoints=4))
    assert marked(body) == ["sys", "t4", "t5", "t6"]


def test_without_a_system_text_the_tools_are_marked() -> None:
    body = anthropic.request_body("m", Prompt(system="", turns=talk(1), tools=(TOOL,)), Quirks(cache_breakpoints=4))
    assert marked(body) == ["add", "t0"]


def test_a_provider_that_takes_no_marks_gets_none() -> None:
    prompt = Prompt(system="sys", turns=talk(3))
    assert marked(anthropic.request_body("m", prompt, Quirks())) == []
    assert "cache_control" not in json.dumps(openai_compatible.request_body("m", prompt, Quirks()))


def test_a_router_gets_its_marks_in_the_form_of_chat_completions() -> None:
    body = openai_compatible.request_body("m", Prompt(system="sys", turns=talk(7)), Quirks(cache_breakpoints=4))
    parts = [m["content"][0]["text"] for m in body["messages"] if isinstance(m["content"], list)]
    assert parts == ["sys", "t4", "t5", "t6"]


def test_a_provider_that_marks_the_end_itself_is_told_of_the_other_marks_in_its_own_form() -> None:
    row = load_rows({}, {})["openai"]
    body = openai_compatible.request_body("gpt-6.1-sol", Prompt(system="sys", turns=talk(7)), row.quirks)
    parts = [m["content"][0] for m in body["messages"] if isinstance(m["content"], list)]
    assert [part["text"] for part in parts] == ["sys", "t4", "t5"]
    assert all(part["prompt_cache_breakpoint"] == {"mode": "explicit"} for part in parts)
    older = openai_compatible.request_body("gpt-5.4-mini", Prompt(system="sys", turns=talk(7)), row.quirks)
    assert "prompt_cache_breakpoint" not in json.dumps(older), "older models refuse the field"


def test_the_task_stays_a_block_of_its_own_where_marks_are_set_and_one_message_everywhere() -> None:
    task, handles = (Turn(role="user", text=text) for text in ("task", "[paged out] …"))
    prompts = [Prompt(system="", turns=(first, handles)) for first in (task, replace(task, breakpoint=True))]
    for prompt in prompts:
        (plain,) = openai_compatible.request_body("m", prompt, Quirks())["messages"]
        assert plain["content"] == "task\n\n[paged out] …"
        for body in (
            openai_compatible.request_body("m", prompt, Quirks(cache_breakpoints=4)),
            anthropic.request_body("m", prompt, Quirks(cache_breakpoints=4)),
        ):
            (message,) = body["messages"]
            assert [part["text"] for part in message["content"]] == ["task", "[paged out] …"]


def test_a_cache_key_is_that_of_a_conversation_and_of_all_single_questions_of_one_kind() -> None:
    quirks = Quirks(prompt_cache_key=True)

    def key(*texts: str, system: str = "sys", tools: tuple[ToolSpec, ...] = (TOOL,)) -> str:
        roles: tuple[Literal["user", "assistant"], ...] = ("user", "assistant")
        turns = tuple(Turn(role=roles[n % 2], text=text) for n, text in enumerate(texts))
        body = openai_compatible.request_body("m", Prompt(system=system, turns=turns, tools=tools), quirks)
        return str(body["prompt_cache_key"])

    assert key("task") == key("task", "reply", "result") != key("another task")
    assert key("one question", tools=()) == key("another question", tools=()) != key("one question")
    assert key("one question", tools=(), system="another") != key("one question", tools=())


@given(
    turns=st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.booleans()), min_size=1, max_size=12),
    most=st.integers(0, 4),
    form=st.sampled_from(["cache_control", "prompt_cache_breakpoint"]),
)
def test_no_request_carries_more_marks_than_its_provider_takes(
    turns: list[tuple[Literal["user", "assistant"], bool]], most: int, form: Literal["cache_control"]
) -> None:
    made = tuple(Turn(role=role, text=f"t{n}", breakpoint=mark) for n, (role, mark) in enumerate(turns))
    prompt = Prompt(system="sys", turns=made, tools=(TOOL,))
    for dialect in (anthropic, openai_compatible):
        assert marks_in(dialect.request_body("m", prompt, Quirks(cache_breakpoints=most, cache_mark=form))) <= most


def test_results_of_one_turn_are_one_user_message_before_anything_the_user_said() -> None:
    asked = tuple(ToolRequest(request_id=i, name="add", arguments="{}") for i in "ab")
    turns = (
        USER,
        Turn(role="assistant", text="", requests=asked),
        Turn(role="user", text="Hurry."),
        Turn(role="tool", text="1", request_id="a"),
        Turn(role="tool", text="2", request_id="b"),
    )
    body = anthropic.request_body("m", Prompt(system="", turns=turns), Quirks())
    assert [b["type"] for b in body["messages"][2]["content"]] == ["tool_result", "tool_result", "text"]
    assert len(body["messages"]) == 3


DEEP = '{"x": ' + "[" * 5_000 + "]" * 5_000 + "}"


@pytest.mark.parametrize("text", ['{"x": ', '{"x": NaN}', '{"x": 1e999}', '{"x": ' + "[" * 300 + "]" * 300 + "}", DEEP])
def test_arguments_that_were_never_well_formed_still_go_back(text: str) -> None:
    asked = (ToolRequest(request_id="a", name="add", arguments=text),)
    turns = (USER, Turn(role="assistant", text="", requests=asked), Turn(role="tool", text="bad", request_id="a"))
    body = anthropic.request_body("m", Prompt(system="", turns=turns), Quirks())
    assert body["messages"][1]["content"][0]["input"] == {"malformed": text}


@pytest.mark.parametrize("blocks", ["", "5", "[5]", '[{"chars": "x"}]', DEEP])
def test_a_signature_that_nobody_made_goes_nowhere(blocks: str) -> None:
    asked = (ToolRequest(request_id="a", name="add", arguments="{}"),)
    signature = f'{{"model": "m", "blocks": {blocks}}}' if blocks else DEEP
    turn = Turn(role="assistant", text="", requests=asked, reasoning="Hm.", reasoning_signature=signature)
    prompt = Prompt(system="", turns=(USER, turn))
    body = anthropic.request_body("m", prompt, Quirks(reasoning_send_back=True))
    assert [block["type"] for block in body["messages"][1]["content"]] == ["tool_use"]
    chat = openai_compatible.request_body("m", prompt, Quirks(signature_field="extra_content"))
    assert "extra_content" not in chat["messages"][1]["tool_calls"][0]


def test_an_assistant_turn_that_said_nothing_is_not_sent_empty() -> None:
    prompt = Prompt(system="", turns=(USER, Turn(role="assistant", text=""), USER))
    assert anthropic.request_body("m", prompt, Quirks())["messages"][1]["content"][0]["text"]
    assert openai_compatible.request_body("m", prompt, Quirks())["messages"][1]["content"]


def test_no_request_asks_for_less_than_one_token() -> None:
    # A negative or zero bound is "without end" at some servers.
    prompt = Prompt(system="", turns=(USER,), max_output_tokens=0)
    assert anthropic.request_body("m", prompt, Quirks())["max_tokens"] == 1
    assert openai_compatible.request_body("m", prompt, Quirks())["max_tokens"] == 1


def test_a_schema_reaches_a_model_in_whichever_way_its_provider_has() -> None:
    prompt = Prompt(system="sys", turns=(USER,), output_schema=SCHEMA)
    for form in ("json_object", "tool", "none"):
        for dialect in (anthropic, openai_compatible):
            body = dialect.request_body("m", prompt, Quirks(structured=form))
            assert '"n"' in json.dumps(body).replace("\\", "")
            assert ("tool_choice" in body) == (form == "tool")
            weak = dialect.request_body("m", prompt, Quirks(structured=form, tool_choice_required=False))
            assert "tool_choice" not in weak
    assert openai_compatible.request_body("m", prompt, Quirks())["response_format"]["json_schema"]["strict"] is False


def test_a_schema_is_only_called_strict_when_it_is_closed_all_through() -> None:
    closed = {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    assert is_closed(closed)
    assert not is_closed(json.loads(SCHEMA))
    assert not is_closed({**closed, "properties": {"a": {"type": "object", "properties": {}}}})
    assert not is_closed({"anyOf": [closed, {"type": "object"}]})


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "properties": {"a": {}}},
        {"type": "object", "properties": {"a": {"type": ["string", "null"]}}},
        {"type": "object", "properties": {"a": {"type": "object", "additionalProperties": {"type": "string"}}}},
        {"type": "object", "properties": {"a": {"enum": [{"b": 1}]}}},
    ],
)
def test_a_schema_the_dialect_cannot_hold_goes_through_a_tool(schema: dict[str, Any]) -> None:
    assert not is_holdable(schema)
    prompt = Prompt(system="", turns=(USER,), output_schema=json.dumps(schema))
    body = anthropic.request_body("m", prompt, Quirks())
    assert "output_config" not in body
    assert body["tools"][0]["input_schema"] == schema


def test_a_schema_that_is_no_object_is_asked_for_in_words() -> None:
    prompt = Prompt(system="", turns=(USER,), output_schema='{"type": "array"}')
    body = anthropic.request_body("m", prompt, Quirks())
    assert "tools" not in body
    assert '{"type": "array"}' in body["system"][0]["text"]


simple = st.sampled_from(["string", "integer", "number", "boolean", "null"]).map(lambda kind: {"type": kind})
schemas = st.recursive(
    simple | st.sampled_from([{}, {"enum": ["a", 1]}, {"enum": [{}]}, {"enum": []}, {"const": None}, {"const": [1]}]),
    lambda part: (
        st.dictionaries(st.text("abc", min_size=1), part, max_size=3).map(
            lambda properties: {"type": "object", "properties": properties}
        )
        | part.map(lambda items: {"type": "array", "items": items, "minItems": 3})
        | st.lists(part, min_size=1, max_size=3).map(lambda variants: {"anyOf": variants})
    ),
    max_leaves=8,
)


@given(schemas)
def test_what_is_called_holdable_is_taken_by_the_sdk(schema: dict[str, Any]) -> None:
    if is_holdable(schema):
        transform_schema(schema)


def read(quirks: Quirks, *chunks: dict[str, Any], prompt: Prompt | None = None) -> Draft:
    draft = Draft(prompt or Prompt(system="", turns=(USER,)), lambda _: None)
    decoder = ChatDecoder(draft, quirks)
    for chunk in chunks:
        decoder.feed("", chunk)
    decoder.close()
    return draft


def delta(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields}]}


def test_the_answer_of_the_answer_tool_is_the_text() -> None:
    call = {"index": 0, "id": "x", "function": {"name": "answer", "arguments": '{"n": 1}'}}
    prompt = Prompt(system="", turns=(USER,), output_schema=SCHEMA)
    reply = read(Quirks(structured="tool"), delta(tool_calls=[call]), prompt=prompt).reply()
    assert (reply.text, reply.requests, reply.stop) == ('{"n": 1}', (), "end")


@pytest.mark.parametrize("dialect", [anthropic, openai_compatible])
def test_the_answer_tool_has_a_name_of_its_own(dialect: Any) -> None:
    own = [ToolSpec(name=name, description="", input_schema='{"type": "object"}') for name in ("answer", "answer_")]
    prompt = Prompt(system="", turns=(USER,), tools=tuple(own), output_schema=SCHEMA)
    tools = dialect.request_body("m", prompt, Quirks(structured="tool"))["tools"]
    assert [tool.get("name") or tool["function"]["name"] for tool in tools] == ["answer", "answer_", "answer__"]


def test_a_refusal_in_words_is_one_whatever_reason_it_ends_with() -> None:
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    reply = read(Quirks(), delta(refusal="I will "), delta(refusal="not."), end).reply()
    assert (reply.text, reply.stop) == ("I will not.", "refused")


def test_calls_that_all_come_under_index_zero_are_told_apart_by_identity() -> None:
    calls = [{"index": 0, "id": i, "function": {"name": i, "arguments": "{}"}} for i in "ab"]
    draft = read(Quirks(), delta(tool_calls=[calls[0]]), delta(tool_calls=[calls[1]]))
    assert [r.request_id for r in draft.reply().requests] == ["a", "b"]


def named(name: str, arguments: str) -> dict[str, Any]:
    return delta(tool_calls=[{"index": 0, "function": {"name": name, "arguments": arguments}}])


@pytest.mark.parametrize("second", ["f", "g"])
@pytest.mark.parametrize("first", ['{"a": 1}', "{}"])
def test_calls_that_all_come_under_index_zero_without_identity_are_told_apart_by_their_names(
    first: str, second: str
) -> None:
    rest = {"index": 0, "function": {"arguments": ' "x"}'}}
    draft = read(Quirks(), named("f", first), named(second, '{"b":'), delta(tool_calls=[rest]))
    found = [(request.name, request.arguments) for request in draft.reply().requests]
    assert found == [("f", first), (second, '{"b": "x"}')]


def test_a_name_that_comes_with_every_piece_of_the_arguments_is_one_call() -> None:
    draft = read(Quirks(), named("f", ""), named("f", '{"a":'), named("f", " 1}"))
    assert [(r.name, r.arguments) for r in draft.reply().requests] == [("f", '{"a": 1}')]


def test_calls_without_an_identity_get_one_that_is_the_same_every_time() -> None:
    calls = [{"function": {"name": "add", "arguments": {"a": 1}}}, {"function": {"name": "add"}}]
    one, two = (read(Quirks(), delta(tool_calls=calls)).reply() for _ in range(2))
    assert one == two
    assert len({r.request_id for r in one.requests}) == 2
    assert json.loads(one.requests[0].arguments) == {"a": 1}


def test_the_signature_of_a_call_goes_back_with_it() -> None:
    quirks = Quirks(signature_field="extra_content")
    call = {"index": 0, "id": "x", "function": {"name": "add"}, "extra_content": {"google": {"thought_signature": "s"}}}
    reply = read(quirks, delta(tool_calls=[call])).reply()
    turn = Turn(role="assistant", text="", requests=reply.requests, reasoning_signature=reply.reasoning_signature)
    prompt = Prompt(system="", turns=(USER, turn))
    sent = openai_compatible.request_body("m", prompt, quirks)["messages"][1]["tool_calls"][0]
    assert sent["extra_content"] == {"google": {"thought_signature": "s"}}
    assert "extra_content" not in openai_compatible.request_body("m", prompt, Quirks())["messages"][1]["tool_calls"][0]


def test_reasoning_goes_back_only_to_those_who_demand_it() -> None:
    turn = Turn(role="assistant", text="a", reasoning="because")
    prompt = Prompt(system="", turns=(USER, turn, USER))
    strict = Quirks(reasoning_send_back=True, reasoning_field="reasoning")
    assert openai_compatible.request_body("m", prompt, strict)["messages"][1]["reasoning"] == "because"
    assert "because" not in json.dumps(openai_compatible.request_body("m", prompt, Quirks()))


def test_cached_tokens_are_found_where_the_row_says() -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 5,
        "prompt_cache_hit_tokens": 64,
        "prompt_cache_miss_tokens": 36,
    }
    quirks = Quirks(cached_tokens=("prompt_cache_hit_tokens", "prompt_tokens_details.cached_tokens"))
    found = read(quirks, {"choices": [], "usage": usage}).usage
    assert found is not None
    assert (found.input_tokens, found.cached_tokens, found.output_tokens) == (36, 64, 5)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "delta"]), st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), min_size=1)
        )
    ),
    st.lists(st.integers(min_value=1, max_value=9)),
    st.sampled_from(["\n", "\r\n"]),
)
def test_events_are_the_same_however_the_bytes_are_cut(
    events: list[tuple[str, str]], cuts: list[int], end: str
) -> None:
    lines = [f"event: {e}{end}data: {d}{end}{end}" if e else f": note{end}data: {d}{end}{end}" for e, d in events]
    data = "".join(lines).encode()
    stream, found = EventStream(), []
    for cut in cuts:
        found += stream.feed(data[:cut])
        data = data[cut:]
    found += stream.feed(data)
    assert [(event, data.decode()) for event, data in found] == events
    assert stream.close() == []


def test_an_event_that_lacks_its_empty_line_is_given_at_the_end() -> None:
    stream = EventStream()
    assert stream.feed(b"data: a\ndata: b") == []
    assert stream.close() == [("", b"a\nb")]
