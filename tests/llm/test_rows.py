"""Every row against a server with its provider's manners: what it refuses is not sent, what it says is understood."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiktoken.model import MODEL_PREFIX_TO_ENCODING, MODEL_TO_ENCODING

from aos_mcp.abi.budget import Usage
from aos_mcp.abi.completion import ANY_TOOL, Attachment, Prompt, RateLimits, ToolRequest, ToolSpec, Turn
from aos_mcp.abi.errors import ModelError, ModelFault
from aos_mcp.abi.settings import ProviderSettings, Settings
from aos_mcp.llm import openai_compatible
from aos_mcp.llm.catalogue import Catalogue
from aos_mcp.llm.draft import Echo
from aos_mcp.llm.providers import Quirks, Row, load_rows
from aos_mcp.llm.rate_limits import read_limits, seconds_until
from aos_mcp.ports import Clock, LanguageModel
from aos_mcp.testing.manners import Manners
from aos_mcp.testing.model_checks import QUESTION, ROUND_TRIP, check_language_model
from aos_mcp.testing.providers import Behaviour, Call, ProviderServer, provider_server

ROWS = load_rows({}, {})
EVERY_ROW = pytest.mark.parametrize("name", ROWS)
NOW = 1_795_392_000.0  # 2026-11-23T00:00:00Z
PICTURE = Attachment("image/png", b"\x89PNG", "dot.png")
PAPER = Attachment("application/pdf", b"%PDF-1.7", "paper.pdf")
SCHEMA = '{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}'

LIMITS = {
    "requests_tokens": RateLimits(
        requests_limit=500,
        requests_left=499,
        requests_reset_s=0.12,
        tokens_limit=200_000,
        tokens_left=190_000,
        tokens_reset_s=360.0,
    ),
    "input_output": RateLimits(
        requests_limit=50,
        requests_left=25,
        requests_reset_s=30.0,
        input_tokens_limit=30_000,
        input_tokens_left=15_000,
        input_tokens_reset_s=30.0,
        output_tokens_limit=8_000,
        output_tokens_left=4_000,
        output_tokens_reset_s=30.0,
        tokens_limit=38_000,
        tokens_left=19_000,
        tokens_reset_s=30.0,
    ),
    "concurrency": None,
}


def ignore(_: str) -> None:
    """Take what a model delivers and do nothing."""


def manners_of(row: Row) -> Manners:
    quirks = row.quirks
    return Manners(
        max_tokens_field="max_tokens" if row.dialect == "anthropic" else quirks.max_tokens_field,
        reasoning_field=quirks.reasoning_field,
        reasoning_demanded=quirks.reasoning_send_back,
        structured=quirks.structured,
        tool_choice=quirks.tool_choice_required,
        tool_choice_named=quirks.tool_choice_named,
        parallel_tool_calls=quirks.parallel_tool_calls,
        stop=quirks.stop,
        top_k=quirks.top_k,
        prefix=quirks.prefix,
        prefix_path=quirks.prefix_base_url or "",
        prefix_body=quirks.prefix_body,
        prefix_echo=quirks.prefix_echo,
        cached_tokens=quirks.cached_tokens[0],
        usage_asked=row.dialect == "openai" and quirks.stream_options,
        progress=quirks.progress,
        limits=quirks.limits,
        priority_field=quirks.priority_field,
        images=bool(quirks.images),
        files=bool(quirks.files),
    )


def a_model(row: Row) -> str:
    """Return the name of a model of the row, one that goes on from a beginning where there is any."""
    patterns = row.quirks.prefix_models
    return (row.default_model or "some-model") if patterns == ("*",) else patterns[0].rstrip("*") + "-haiku"


@asynccontextmanager
async def serving(
    name: str, clock: Clock, model: str | None = None, **quirks: str
) -> AsyncIterator[tuple[ProviderServer, LanguageModel]]:
    """Serve with the row's manners, and give the row's driver for it."""
    row = load_rows({name: ProviderSettings(quirks=dict(quirks))}, {})[name]
    async with provider_server(manners=manners_of(row)) as server:
        base = server.url if row.dialect == "anthropic" else f"{server.url}/v1"
        settings = Settings(providers={name: ProviderSettings(base_url=base, quirks=dict(quirks))})
        async with Catalogue(settings, dict.fromkeys(row.key_variables[:1], "key"), clock) as catalogue:
            yield server, catalogue.resolve(f"{name}/{model or a_model(row)}")
        assert server.stats.in_flight == 0


@EVERY_ROW
async def test_every_row_keeps_the_contract_before_a_server_with_its_manners(name: str, clock: Clock) -> None:
    async with serving(name, clock) as (server, model):
        await check_language_model(model)
        server.script(Behaviour(text="a", input_tokens=1_000, cached_tokens=900, output_tokens=7))
        usage = (await model.complete(QUESTION, ignore)).usage
        assert (usage.input_tokens, usage.cached_tokens, usage.output_tokens) == (100, 900, 7)


@EVERY_ROW
async def test_every_row_sends_reasoning_back_exactly_where_it_is_demanded(name: str, clock: Clock) -> None:
    async with serving(name, clock) as (server, model):
        server.script(Behaviour(reasoning="Hm.", calls=(Call(name="add", request_id="x"),)))
        reply = (await model.complete(ROUND_TRIP, ignore)).reply
        assert (reply.reasoning, reply.requests[0].request_id) == ("Hm.", "x")
        turn = Turn(
            role="assistant",
            text=reply.text,
            requests=reply.requests,
            reasoning=reply.reasoning,
            reasoning_signature=reply.reasoning_signature,
        )
        answered = (*ROUND_TRIP.turns, turn, Turn(role="tool", text="3", request_id="x"))
        await model.complete(Prompt(system="", tools=ROUND_TRIP.tools, turns=answered), ignore)
        sent = json.dumps(server.requests[-1].body["messages"])
        assert ("Hm." in sent) == ROWS[name].quirks.reasoning_send_back


@EVERY_ROW
async def test_every_row_asks_for_a_schema_in_a_form_its_provider_takes(name: str, clock: Clock) -> None:
    async with serving(name, clock) as (server, model):
        prompt = Prompt(system="", turns=QUESTION.turns, output_schema=SCHEMA)
        server.script(Behaviour(text='{"n": 1}'))
        assert (await model.complete(prompt, ignore)).reply.text == '{"n": 1}'
        assert '"n"' in json.dumps(server.requests[-1].body).replace("\\", "")


@EVERY_ROW
@pytest.mark.parametrize("beginning", ["one two", "one two ", "one\n\n", " \n"])
async def test_every_row_goes_on_from_a_beginning_or_says_that_it_does_not(
    name: str, clock: Clock, beginning: str
) -> None:
    async with serving(name, clock) as (server, model):
        prompt = Prompt(system="", turns=QUESTION.turns, continuing=beginning, max_output_tokens=0)
        server.script(Behaviour(text="three four", output_tokens=2))
        pieces: list[str] = []
        if not (await model.describe()).continues:
            with pytest.raises(ModelError) as caught:
                await model.complete(prompt, pieces.append)
            assert caught.value.fault is ModelFault.BAD_REQUEST
            assert server.requests == []
            return
        completion = await model.complete(prompt, pieces.append)
        assert completion.reply.text == "".join(pieces) == "three four"
        assert completion.usage.output_tokens == 2


@EVERY_ROW
@pytest.mark.parametrize("attachment", [PICTURE, PAPER], ids=lambda each: each.kind)
async def test_every_row_takes_images_and_files_or_says_that_it_does_not(
    name: str, clock: Clock, attachment: Attachment
) -> None:
    row = ROWS[name]
    patterns = row.quirks.images if attachment.kind == "image" else row.quirks.files
    named = patterns[0].replace("[5-9]", "6").replace("*", "x") if patterns else None
    async with serving(name, clock, named) as (server, model):
        turns = (Turn(role="user", text="What is it?", attachments=(attachment,)),)
        assert (attachment.kind in (await model.describe()).inputs) == bool(patterns)
        if patterns:
            await model.complete(Prompt(system="", turns=turns), ignore)
            sent = json.dumps(server.requests[-1].body)
            assert "What is it?" in sent
            assert {"image/png": "iVBORw==", "application/pdf": "JVBERi0xLjc="}[attachment.media_type] in sent
            return
        with pytest.raises(ModelError) as caught:
            await model.complete(Prompt(system="", turns=turns), ignore)
        assert attachment.name in caught.value.message
        assert server.requests == []


@EVERY_ROW
async def test_every_row_reads_its_provider_s_limits_from_answers_and_from_errors(name: str, clock: Clock) -> None:
    async with serving(name, clock) as (server, model):
        expected = LIMITS[ROWS[name].quirks.limits]
        assert (await model.complete(QUESTION, ignore)).limits == expected
        server.script(Behaviour(status=429, headers={"retry-after": "2"}), Behaviour(text="a b", cut_after=1))
        for fault in (ModelFault.RATE, ModelFault.CUT_STREAM):
            with pytest.raises(ModelError) as caught:
                await model.complete(QUESTION, ignore)
            assert (caught.value.fault, caught.value.limits) == (fault, expected)


@EVERY_ROW
async def test_every_row_names_its_provider_s_faults(name: str, clock: Clock) -> None:
    faults = [
        (Behaviour(status=429, error_type="rate_limit_error"), ModelFault.RATE),
        (Behaviour(status=529, error_type="overloaded_error"), ModelFault.OVERLOAD),
        (Behaviour(status=402), ModelFault.SPEND_LIMIT),
        (Behaviour(status=413), ModelFault.CONTEXT_TOO_LONG),
        (Behaviour(text="a b", error_after=1, error_type="overloaded_error"), ModelFault.OVERLOAD),
        (Behaviour(text="a b", cut_after=1), ModelFault.CUT_STREAM),
    ]
    async with serving(name, clock) as (server, model):
        for behaviour, fault in faults:
            server.script(behaviour)
            with pytest.raises(ModelError) as caught:
                await model.complete(QUESTION, ignore)
            assert caught.value.fault is fault
            partial = "a" if behaviour.text else ""
            assert caught.value.partial_text == partial


@EVERY_ROW
async def test_a_priority_is_sent_only_where_the_row_has_a_field_for_it(name: str, clock: Clock) -> None:
    prompt = Prompt(system="", turns=QUESTION.turns, native_priority=70)
    async with serving(name, clock) as (server, model):
        await model.complete(prompt, ignore)
        assert "priority" not in server.requests[-1].body
    async with serving(name, clock, priority_field="priority") as (server, model):
        await model.complete(prompt, ignore)
        assert server.requests[-1].body["priority"] == 70


def tool(name: str) -> ToolSpec:
    return ToolSpec(name=name, description="", input_schema='{"type":"object"}')


HELD: dict[str, tuple[dict[str, Any], Callable[[Quirks], bool]]] = {
    "stop": ({"stop": ("three",)}, lambda quirks: quirks.stop),
    "top_k": ({"top_k": 5}, lambda quirks: quirks.top_k),
    "any tool": ({"must_call": ANY_TOOL}, lambda quirks: quirks.tool_choice_required),
    "one tool": ({"must_call": "b"}, lambda quirks: quirks.tool_choice_required),
    "one call": ({"one_call": True}, lambda quirks: quirks.parallel_tool_calls),
    "top_p": ({"top_p": 0.5}, lambda quirks: True),
}


@EVERY_ROW
@pytest.mark.parametrize("what", HELD)
async def test_what_an_answer_is_held_to_is_sent_in_the_rows_form_or_refused_before_anything_is_sent(
    name: str, what: str, clock: Clock
) -> None:
    fields, takes = HELD[what]
    prompt = replace(QUESTION, tools=(tool("a"), tool("b")), **fields)
    async with serving(name, clock) as (server, model):
        server.script(Behaviour(text="one two three four"))
        if not takes(ROWS[name].quirks):
            with pytest.raises(ModelError, match=r"Leave it out") as caught:
                await model.complete(prompt, ignore)
            assert caught.value.fault is ModelFault.BAD_REQUEST
            assert server.stats.requests == 0
            return
        answer = await model.complete(prompt, ignore)
        body = server.requests[-1].body
    anthropic = ROWS[name].dialect == "anthropic"
    if what == "stop":
        assert answer.reply.text == "one two "
        assert (answer.reply.stop, answer.reply.stop_text) == ("end", "three" if anthropic else "")
    elif what in {"top_k", "top_p"}:
        assert body[what] == fields[what]
    else:
        assert ("tool_choice" in body) == (anthropic or what != "one call")
        offered = [each.get("name") or each["function"]["name"] for each in body["tools"]]
        alone = what == "one tool" and not ROWS[name].quirks.tool_choice_named
        assert offered == (["b"] if alone else ["a", "b"])


@EVERY_ROW
async def test_what_a_call_that_was_cut_had_used_is_known_to_the_token_where_the_row_counts_as_it_goes(
    name: str, clock: Clock
) -> None:
    told: list[Usage] = []

    class Meter:
        def __call__(self, text: str, /) -> None:
            pass

        def used(self, usage: Usage) -> None:
            told.append(usage)

    async with serving(name, clock) as (server, model):
        server.script(Behaviour(text="a b c d", input_tokens=1_000, cached_tokens=900, cut_after=3))
        with pytest.raises(ModelError) as caught:
            await model.complete(QUESTION, Meter())
    if ROWS[name].quirks.progress == "none":
        assert caught.value.output_tokens == 2, "five characters, estimated"
    else:
        assert (caught.value.output_tokens, told[0].output_tokens, told[0].prompt_tokens) == (3, 3, 1_000)


@EVERY_ROW
async def test_a_connection_is_given_up_after_a_call_where_the_server_would_close_it(name: str, clock: Clock) -> None:
    async with serving(name, clock) as (server, model):
        await model.complete(QUESTION, ignore)
        kept = server.requests[-1].headers["connection"] == "keep-alive"
    assert kept == ROWS[name].quirks.keep_alive


async def test_claude_since_4_6_does_not_go_on_from_a_beginning() -> None:
    row = ROWS["anthropic"]
    older = ("claude-3-5-haiku-latest", "claude-sonnet-4-20250514", "claude-opus-4-1-20250805", "claude-haiku-4-5")
    newer = ("claude-sonnet-4-6", "claude-opus-4-6", "claude-opus-4-7", "claude-sonnet-5-5", "claude-fable-5-2")
    assert all(row.continues(model) for model in older)
    assert not any(row.continues(model) for model in newer)


async def test_a_cut_inside_the_repetition_leaves_nothing_of_it_in_the_partial_text(clock: Clock) -> None:
    async with serving("llamacpp", clock) as (server, model):
        prompt = Prompt(system="", turns=QUESTION.turns, continuing="one two three")
        server.script(Behaviour(text=" four five", cut_after=2), Behaviour(text=" four five", cut_after=4))
        for expected in ("", " four"):
            with pytest.raises(ModelError) as caught:
                await model.complete(prompt, ignore)
            assert caught.value.partial_text == expected


texts = st.text(st.sampled_from("ab \n"), max_size=12)


@given(texts, texts, st.lists(st.integers(min_value=1, max_value=5)))
def test_a_repetition_is_taken_off_exactly_however_it_is_cut(expected: str, new: str, cuts: list[int]) -> None:
    whole, echo, got = expected + new, Echo(expected), ""
    for cut in cuts:
        got += echo.take(whole[:cut])
        whole = whole[cut:]
    got += echo.take(whole) + echo.rest()
    assert got == new


@given(texts.filter(str.strip), texts, st.integers(min_value=0, max_value=12))
def test_an_answer_that_repeats_nothing_is_left_as_it_is(expected: str, new: str, cut: int) -> None:
    if not new.startswith(expected):
        echo = Echo(expected)
        assert echo.take(new[:cut]) + echo.take(new[cut:]) + echo.rest() == new


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("1.5", 1.5),
        ("120ms", 0.12),
        ("6m0s", 360.0),
        ("1h2m3.5s", 3_723.5),
        ("2026-11-23T00:01:00Z", 60.0),
        ("2026-11-23T01:00:00+01:00", 0.0),
        ("2026-11-22T23:59:00Z", 0.0),
        ("2026-11-23T00:01:00", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("", None),
        (None, None),
    ],
)
def test_a_reset_is_read_in_every_form_that_is_in_use(text: str | None, seconds: float | None) -> None:
    assert seconds_until(text, NOW) == (None if seconds is None else pytest.approx(seconds))


@given(st.dictionaries(st.sampled_from(["x-ratelimit-limit-tokens", "x-ratelimit-reset-tokens"]), st.text()))
def test_headers_that_make_no_sense_are_no_limits(headers: dict[str, str]) -> None:
    found = read_limits(headers, "requests_tokens", NOW)
    assert found is None or found.tokens_limit is None or found.tokens_limit >= 0


def test_one_answer_at_a_time_is_asked_for_where_the_provider_can_be_told() -> None:
    prompt = Prompt(system="", turns=QUESTION.turns, output_schema=SCHEMA)
    quirks = Quirks(structured="tool", parallel_tool_calls=True)
    assert openai_compatible.request_body("m", prompt, quirks)["parallel_tool_calls"] is False
    assert "parallel_tool_calls" not in openai_compatible.request_body("m", prompt, Quirks(structured="tool"))


def test_a_turn_with_attachments_keeps_its_tool_results_apart() -> None:
    turns = (
        Turn(role="user", text="", attachments=(PICTURE,)),
        Turn(role="assistant", text="", requests=(ToolRequest(request_id="a", name="add", arguments="{}"),)),
        Turn(role="tool", text="1", request_id="a"),
    )
    messages = openai_compatible.request_body("m", Prompt(system="", turns=turns), Quirks())["messages"]
    assert [part["type"] for part in messages[0]["content"]] == ["image_url"]
    assert messages[2]["content"] == "1"


def test_the_models_said_to_count_by_o200k_are_those_of_which_openai_says_so() -> None:
    said = {**MODEL_TO_ENCODING, **{f"{prefix}x": encoding for prefix, encoding in MODEL_PREFIX_TO_ENCODING.items()}}
    assert len(said) > 20
    for model, encoding in said.items():
        if encoding != "o200k_harmony":
            assert (ROWS["openai"].vocabulary(model) == "o200k") == (encoding == "o200k_base"), model
    # The open models' vocabulary differs in its special tokens only.
    assert said["gpt-oss-x"] == "o200k_harmony"
    assert ROWS["groq"].vocabulary("openai/gpt-oss-120b") == ROWS["ollama"].vocabulary("gpt-oss:20b") == "o200k"
    assert ROWS["anthropic"].vocabulary("claude-sonnet-5-5") is None
