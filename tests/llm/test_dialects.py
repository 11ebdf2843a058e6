"""Both dialects over a real socket: what goes out, what comes back, and what happens when it breaks."""

from __future__ import annotations

import json

import anyio
import pytest

from aos_mcp.abi import limits
from aos_mcp.abi.budget import Usage
from aos_mcp.abi.completion import Prompt, ToolRequest, ToolSpec, Turn
from aos_mcp.abi.errors import ModelError, ModelFault
from aos_mcp.llm.catalogue import Catalogue
from aos_mcp.testing.model_checks import QUESTION, ROUND_TRIP, check_language_model
from aos_mcp.testing.providers import Behaviour, Call, ProviderServer

MODELS = {"openai": "openai/gpt-5.4-mini", "anthropic": "anthropic/claude-haiku-5-5"}

DIALECTS = pytest.mark.parametrize("dialect", ["openai", "anthropic"])

TEN_WORDS = "one two three four five six seven eight nine ten"


def ignore(_: str) -> None:
    """Take what a model delivers and do nothing."""


@DIALECTS
async def test_a_driver_keeps_the_contract(catalogue: Catalogue, dialect: str) -> None:
    await check_language_model(catalogue.resolve(MODELS[dialect]))


@DIALECTS
async def test_text_arrives_piece_by_piece(catalogue: Catalogue, server: ProviderServer, dialect: str) -> None:
    server.script(Behaviour(text=TEN_WORDS))
    pieces: list[str] = []
    completion = await catalogue.resolve(MODELS[dialect]).complete(QUESTION, pieces.append)
    assert len(pieces) == 10
    assert completion.reply.text == TEN_WORDS
    assert completion.reply.stop == "end"


@DIALECTS
async def test_several_tool_calls_of_one_turn_are_kept_apart(
    catalogue: Catalogue, server: ProviderServer, dialect: str
) -> None:
    calls = (
        Call(name="read", arguments='{"path": "a b"}', request_id="x"),
        Call(name="write", arguments='{"path": "c", "n": [1, 2]}', request_id="y"),
        Call(name="list", request_id="z"),
    )
    server.script(Behaviour(text="I look.", calls=calls))
    reply = (await catalogue.resolve(MODELS[dialect]).complete(QUESTION, ignore)).reply
    assert reply.text == "I look."
    assert reply.stop == "tools"
    assert [(r.request_id, r.name, r.arguments) for r in reply.requests] == [
        ("x", "read", '{"path": "a b"}'),
        ("y", "write", '{"path": "c", "n": [1, 2]}'),
        ("z", "list", "{}"),
    ]


@DIALECTS
async def test_reasoning_is_kept_apart_from_the_answer(
    catalogue: Catalogue, server: ProviderServer, dialect: str
) -> None:
    server.script(Behaviour(text="Yes.", reasoning="Is it so? It is."))
    pieces: list[str] = []
    reply = (await catalogue.resolve(MODELS[dialect]).complete(QUESTION, pieces.append)).reply
    assert (reply.text, reply.reasoning) == ("Yes.", "Is it so? It is.")
    assert pieces == ["Yes."]


@DIALECTS
async def test_a_prompt_that_is_cached_costs_what_the_cache_costs(
    catalogue: Catalogue, server: ProviderServer, dialect: str
) -> None:
    server.script(Behaviour(text="a", input_tokens=1_000, cached_tokens=900, output_tokens=100))
    model = catalogue.resolve(MODELS[dialect])
    completion = await model.complete(QUESTION, ignore)
    usage = completion.usage
    assert (usage.input_tokens, usage.cached_tokens, usage.output_tokens) == (100, 900, 100)
    # gpt-5.4-mini: 0.75 / 0.075 / 4.5; claude-haiku-5-5 below 100,000 tokens: 0.1 / 0.01 / 0.5.
    assert usage.microusd == {"openai": 593, "anthropic": 69}[dialect]
    assert completion.priced


async def test_tokens_written_to_the_cache_are_counted_apart(catalogue: Catalogue, server: ProviderServer) -> None:
    server.script(Behaviour(text="", input_tokens=1_000, written_tokens=800, output_tokens=0))
    usage = (await catalogue.resolve(MODELS["anthropic"]).complete(QUESTION, ignore)).usage
    assert (usage.input_tokens, usage.written_tokens) == (200, 800)
    assert usage.microusd == 120


@DIALECTS
async def test_a_stream_without_usage_is_charged_by_an_estimate(
    catalogue: Catalogue, server: ProviderServer, dialect: str
) -> None:
    server.script(Behaviour(text=TEN_WORDS, usage=False))
    usage = (await catalogue.resolve(MODELS[dialect]).complete(QUESTION, ignore)).usage
    assert usage.output_tokens == -(-len(TEN_WORDS) // 4)
    assert usage.input_tokens > 0
    assert usage.microusd > 0


@DIALECTS
async def test_an_answer_in_one_piece_is_understood_too(
    catalogue: Catalogue, server: ProviderServer, dialect: str
) -> None:
    call = Call(name="read", arguments='{"path": "a"}', request_id="x")
    server.script(Behaviour(text="Here.", reasoning="So.", calls=(call,), streams=False, cached_tokens=3))
    completion = await catalogue.resolve(MODELS[dialect]).complete(QUESTION, ignore)
    assert (completion.reply.text, completion.reply.reasoning) == ("Here.", "So.")
    assert completion.reply.requests == (ToolRequest(request_id="x", name="read", arguments='{"path": "a"}'),)
    assert completion.usage.cached_tokens == 3


@DIALECTS
async def test_tool_results_go_back_in_the_form_of_the_dialect(
    catalogue: Catalogue, server: ProviderServer, dialect: str
) -> None:
    await catalogue.resolve(MODELS[dialect]).complete(ROUND_TRIP, ignore)
    messages = server.requests[-1].body["messages"]
    if dialect == "openai":
        assert [m["role"] for m in messages] == ["system", "user", "assistant", "tool", "tool", "user"]
        assert [c["id"] for c in messages[2]["tool_calls"]] == ["call_a", "call_b"]
        assert messages[3] == {"role": "tool", "tool_call_id": "call_a", "content": "3"}
        return
    assert [m["role"] for m in messages] == ["user", "assistant", "user"]
    assert [b["type"] for b in messages[1]["content"]] == ["tool_use", "tool_use"]
    assert [b["type"] for b in messages[2]["content"]] == ["tool_result", "tool_result", "text"]
    assert messages[2]["content"][1]["is_error"] is True
    assert messages[2]["content"][1]["cache_control"] == {"type": "ephemeral"}


@DIALECTS
async def test_a_schema_is_asked_for_in_the_form_of_the_dialect(
    catalogue: Catalogue, server: ProviderServer, dialect: str
) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    prompt = Prompt(system="", turns=(Turn(role="user", text="?"),), output_schema=json.dumps(schema))
    server.script(Behaviour(text='{"n": 3}'))
    reply = (await catalogue.resolve(MODELS[dialect]).complete(prompt, ignore)).reply
    assert json.loads(reply.text) == {"n": 3}
    body = server.requests[-1].body
    if dialect == "openai":
        form = body["response_format"]["json_schema"]
        assert (form["schema"], form["strict"]) == (schema, True)
    else:
        assert body["output_config"]["format"]["type"] == "json_schema"
        assert body["output_config"]["format"]["schema"]["properties"]["n"]["type"] == "integer"


MAP = '{"type": "object", "additionalProperties": {"type": "string"}}'
"""No part of it has a name, so Messages asks for it by the answer tool."""


async def test_what_is_said_before_the_answer_tool_is_not_shown_as_the_answer(
    catalogue: Catalogue, server: ProviderServer
) -> None:
    answer = Call(name="answer", arguments='{"n": "1"}')
    server.script(Behaviour(text="Let me see.", calls=(answer,)), Behaviour(text='{"n": "2"}'))
    prompt = Prompt(system="", turns=(Turn(role="user", text="?"),), output_schema=MAP)
    for expected in ('{"n": "1"}', '{"n": "2"}'):
        pieces: list[str] = []
        reply = (await catalogue.resolve(MODELS["anthropic"]).complete(prompt, pieces.append)).reply
        assert reply.text == "".join(pieces) == expected


async def test_a_tool_of_the_caller_that_is_named_like_the_answer_tool_is_its_own(
    catalogue: Catalogue, server: ProviderServer
) -> None:
    own = ToolSpec(name="answer", description="Answer the phone.", input_schema='{"type": "object"}')
    server.script(
        Behaviour(calls=(Call(name="answer", arguments='{"line": 1}'),)),
        Behaviour(calls=(Call(name="answer_", arguments='{"n": "1"}'),)),
    )
    prompt = Prompt(system="", turns=(Turn(role="user", text="?"),), tools=(own,), output_schema=MAP)
    first, second = [(await catalogue.resolve(MODELS["anthropic"]).complete(prompt, ignore)).reply for _ in range(2)]
    assert [tool["name"] for tool in server.requests[0].body["tools"]] == ["answer", "answer_"]
    assert (first.text, [r.name for r in first.requests], first.stop) == ("", ["answer"], "tools")
    assert (second.text, second.requests, second.stop) == ('{"n": "1"}', (), "end")


async def test_a_model_s_own_thoughts_go_back_when_it_called_tools(
    catalogue: Catalogue, server: ProviderServer
) -> None:
    model = catalogue.resolve(MODELS["anthropic"])
    server.script(Behaviour(reasoning="Let me add.", calls=(Call(name="add", request_id="x"),)))
    reply = (await model.complete(QUESTION, ignore)).reply
    turn = Turn(
        role="assistant",
        text=reply.text,
        requests=reply.requests,
        reasoning=reply.reasoning,
        reasoning_signature=reply.reasoning_signature,
    )
    result = Turn(role="tool", text="3", request_id="x")
    await model.complete(Prompt(system="", turns=(*QUESTION.turns, turn, result)), ignore)
    thought = server.requests[-1].body["messages"][1]["content"][0]
    assert thought == {"type": "thinking", "thinking": "Let me add.", "signature": "signed"}
    other = catalogue.resolve("anthropic/claude-sonnet-5-5")
    await other.complete(Prompt(system="", turns=(*QUESTION.turns, turn, result)), ignore)
    assert [b["type"] for b in server.requests[-1].body["messages"][1]["content"]] == ["tool_use"]


FAULTS = [
    (Behaviour(status=429, error_type="rate_limit_error"), ModelFault.RATE),
    (Behaviour(status=429, error_type="insufficient_quota", error_code="insufficient_quota"), ModelFault.SPEND_LIMIT),
    (
        Behaviour(status=429, error_type="rate_limit_error", error_code="enforced_spend_limit_reached"),
        ModelFault.SPEND_LIMIT,
    ),
    (Behaviour(status=402, error_type="billing_error"), ModelFault.SPEND_LIMIT),
    (Behaviour(status=529, error_type="overloaded_error"), ModelFault.OVERLOAD),
    (Behaviour(status=503), ModelFault.OVERLOAD),
    (Behaviour(status=401, error_type="authentication_error"), ModelFault.AUTH),
    (Behaviour(status=403, error_type="permission_error"), ModelFault.AUTH),
    (Behaviour(status=400, error_code="context_length_exceeded"), ModelFault.CONTEXT_TOO_LONG),
    (Behaviour(status=413), ModelFault.CONTEXT_TOO_LONG),
    (Behaviour(status=400, error_code="content_filter"), ModelFault.REFUSED),
    (Behaviour(status=400, error_type="invalid_request_error"), ModelFault.BAD_REQUEST),
    (Behaviour(status=404, error_type="not_found_error"), ModelFault.BAD_REQUEST),
    (Behaviour(status=408), ModelFault.TRANSPORT),
    (Behaviour(status=409), ModelFault.TRANSPORT),
    (Behaviour(status=500), ModelFault.TRANSPORT),
    (Behaviour(text="a", cut_after=0), ModelFault.TRANSPORT),
    (Behaviour(text="a", error_after=0, error_type="overloaded_error"), ModelFault.OVERLOAD),
    (Behaviour(text="a", error_after=0, error_type="rate_limit_error"), ModelFault.RATE),
    (Behaviour(text="a", error_after=0, error_type="something_new"), ModelFault.TRANSPORT),
    (Behaviour(text="a b", error_after=1, error_type="something_new"), ModelFault.CUT_STREAM),
    (Behaviour(text="a b", cut_after=1), ModelFault.CUT_STREAM),
]


MORE_FAULTS = [
    # A used-up account is a 429 at Anthropic, told apart by a code alone.
    *(
        (Behaviour(status=429, error_type="rate_limit_error", error_code=code), ModelFault.SPEND_LIMIT)
        for code in ("contract_spend_limit_reached", "ramp_limit_exceeded", "linked_organization_spend_limit_reached")
    ),
    # Inside a stream that began with status 200 only the type and the code are left.
    *(
        (Behaviour(text="a", error_after=0, error_type=kind, error_code=code), fault)
        for kind, code, fault in (
            ("rate_limit_error", "enforced_spend_limit_reached", ModelFault.SPEND_LIMIT),
            ("billing_error", "", ModelFault.SPEND_LIMIT),
            ("authentication_error", "", ModelFault.AUTH),
            ("permission_error", "", ModelFault.AUTH),
            ("invalid_request_error", "context_length_exceeded", ModelFault.CONTEXT_TOO_LONG),
            ("invalid_request_error", "content_filter", ModelFault.REFUSED),
            ("invalid_request_error", "", ModelFault.BAD_REQUEST),
            ("api_error", "", ModelFault.TRANSPORT),
        )
    ),
    (Behaviour(first_byte_delay_s=0.01, status=504), ModelFault.TRANSPORT),
]


@DIALECTS
@pytest.mark.parametrize(
    ("behaviour", "fault"), [*FAULTS, *MORE_FAULTS], ids=lambda v: str(v.value) if isinstance(v, ModelFault) else ""
)
async def test_every_fault_has_its_name_and_a_hint_and_is_not_tried_again(
    catalogue: Catalogue, server: ProviderServer, dialect: str, behaviour: Behaviour, fault: ModelFault
) -> None:
    server.script(behaviour)
    with pytest.raises(ModelError) as caught:
        await catalogue.resolve(MODELS[dialect]).complete(QUESTION, ignore)
    assert caught.value.fault is fault
    assert caught.value.hint
    assert caught.value.message.endswith(".")
    assert server.stats.requests == 1


@DIALECTS
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after": "Mon, 23 Nov 2026 00:01:30 GMT"}, 90.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after-ms": "inf", "retry-after": "2"}, 2.0),
        ({"retry-after": "31536000"}, 86_400.0),
        ({"retry-after": "Tue, 23 Nov 2027 00:00:00 GMT"}, 86_400.0),
        ({}, None),
    ],
)
async def test_the_wait_a_provider_asks_for_is_passed_on(
    catalogue: Catalogue, server: ProviderServer, dialect: str, headers: dict[str, str], seconds: float | None
) -> None:
    server.script(Behaviour(status=429, headers=headers))
    with pytest.raises(ModelError) as caught:
        await catalogue.resolve(MODELS[dialect]).complete(QUESTION, ignore)
    assert caught.value.retry_after_s == seconds


@DIALECTS
async def test_a_cut_stream_keeps_what_had_been_written(
    catalogue: Catalogue, server: ProviderServer, dialect: str
) -> None:
    server.script(Behaviour(text=TEN_WORDS, cut_after=4))
    with pytest.raises(ModelError) as caught:
        await catalogue.resolve(MODELS[dialect]).complete(QUESTION, ignore)
    assert caught.value.fault is ModelFault.CUT_STREAM
    assert caught.value.partial_text == "one two three four"
    assert caught.value.output_tokens >= len("one two three four") // 4


@DIALECTS
async def test_an_overload_in_the_middle_keeps_what_had_been_written(
    catalogue: Catalogue, server: ProviderServer, dialect: str
) -> None:
    server.script(Behaviour(text=TEN_WORDS, error_after=2, error_type="overloaded_error"))
    with pytest.raises(ModelError) as caught:
        await catalogue.resolve(MODELS[dialect]).complete(QUESTION, ignore)
    assert caught.value.fault is ModelFault.OVERLOAD
    assert caught.value.partial_text == "one two"


@DIALECTS
async def test_a_call_without_end_is_given_up(
    catalogue: Catalogue, server: ProviderServer, dialect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = catalogue.resolve(MODELS[dialect])
    await model.complete(QUESTION, ignore)
    server.script(Behaviour(text=TEN_WORDS, hang_after=2))
    monkeypatch.setattr(limits, "MODEL_CALL_S", 0.3)
    with anyio.fail_after(20):
        with pytest.raises(ModelError) as caught:
            await model.complete(QUESTION, ignore)
        await server.settled()
    assert caught.value.fault in {ModelFault.CUT_STREAM, ModelFault.TRANSPORT}
    assert server.stats.disconnects == 1


@DIALECTS
async def test_cancelling_closes_the_connection_and_leaves_nothing_in_flight(
    catalogue: Catalogue, server: ProviderServer, dialect: str
) -> None:
    server.script(Behaviour(text=TEN_WORDS, hang_after=3))
    model = catalogue.resolve(MODELS[dialect])
    pieces: list[str] = []
    with anyio.fail_after(20):
        with anyio.CancelScope() as scope:

            def take(piece: str) -> None:
                pieces.append(piece)
                if len(pieces) == 3:
                    scope.cancel()

            await model.complete(QUESTION, take)
        await server.settled()
    assert "".join(pieces) == "one two three"
    assert (server.stats.disconnects, server.stats.in_flight) == (1, 0)
    assert (await model.complete(QUESTION, ignore)).reply.text == "Say some words."


class Meter:
    """Hears what a model says, and what a call used that did not end; cancels after so many pieces."""

    def __init__(self, after: int = 0) -> None:
        self.scope = anyio.CancelScope()
        self.after = after
        self.pieces: list[str] = []
        self.usage: Usage | None = None

    def __call__(self, piece: str) -> None:
        self.pieces.append(piece)
        if len(self.pieces) == self.after:
            self.scope.cancel()

    def used(self, usage: Usage) -> None:
        assert self.usage is None, "told once"
        self.usage = usage


async def test_a_cancelled_stream_is_charged_what_was_counted_and_what_came(
    catalogue: Catalogue, server: ProviderServer
) -> None:
    server.script(Behaviour(text=TEN_WORDS, reasoning="x" * 400, input_tokens=1_000, cached_tokens=900, hang_after=3))
    meter = Meter(after=3)
    with anyio.fail_after(20), meter.scope:
        await catalogue.resolve(MODELS["anthropic"]).complete(QUESTION, meter)
    assert meter.usage is not None
    # The prompt's counts came first; the reasoning and three words are counted by their characters.
    assert (meter.usage.input_tokens, meter.usage.cached_tokens) == (100, 900)
    assert meter.usage.output_tokens == -(-(400 + len("one two three")) // 4)
    assert meter.usage.microusd == 71


async def test_a_stream_cancelled_before_its_prompt_was_counted_tells_what_came(
    catalogue: Catalogue, server: ProviderServer
) -> None:
    server.script(Behaviour(text=TEN_WORDS, reasoning="x" * 400, hang_after=3))
    meter = Meter(after=3)
    with anyio.fail_after(20), meter.scope:
        await catalogue.resolve(MODELS["openai"]).complete(QUESTION, meter)
    assert meter.usage == Usage(output_tokens=-(-(400 + len("one two three")) // 4))


@DIALECTS
async def test_only_what_did_not_end_and_was_begun_is_metered(
    catalogue: Catalogue, server: ProviderServer, dialect: str
) -> None:
    model, meters = catalogue.resolve(MODELS[dialect]), [Meter() for _ in range(4)]
    server.script(
        Behaviour(text=TEN_WORDS),
        Behaviour(status=529),
        Behaviour(text=TEN_WORDS, error_after=0, error_type="overloaded_error"),
        Behaviour(text=TEN_WORDS, cut_after=4),
    )
    await model.complete(QUESTION, meters[0])
    for meter in meters[1:]:
        with pytest.raises(ModelError):
            await model.complete(QUESTION, meter)
    assert [meter.usage is not None for meter in meters] == [False, False, False, True]


@DIALECTS
async def test_cancelling_before_the_first_byte_closes_the_connection_too(
    catalogue: Catalogue, server: ProviderServer, dialect: str
) -> None:
    server.script(Behaviour(first_byte_delay_s=3_600))
    model = catalogue.resolve(MODELS[dialect])
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(model.complete, QUESTION, ignore)
            await server.started(1)
            group.cancel_scope.cancel()
        await server.settled()
    assert server.stats.disconnects == 1


@DIALECTS
async def test_a_bare_refusal_of_a_prompt_beyond_the_window_is_called_by_its_cause(
    catalogue: Catalogue, server: ProviderServer, dialect: str
) -> None:
    info = await catalogue.resolve(MODELS[dialect]).describe()
    server.script(Behaviour(status=400, error_type="invalid_request_error"))
    huge = Prompt(system="", turns=(Turn(role="user", text="x" * 4 * info.context_tokens),))
    with pytest.raises(ModelError) as caught:
        await catalogue.resolve(MODELS[dialect]).complete(huge, ignore)
    assert caught.value.fault is ModelFault.CONTEXT_TOO_LONG


@DIALECTS
async def test_a_key_is_never_repeated_in_an_error(catalogue: Catalogue, server: ProviderServer, dialect: str) -> None:
    server.script(Behaviour(status=401, error_message=f"wrong key: key-of-{dialect}"))
    with pytest.raises(ModelError) as caught:
        await catalogue.resolve(MODELS[dialect]).complete(QUESTION, ignore)
    assert f"key-of-{dialect}" not in str(caught.value)
    assert f"{dialect.upper()}_API_KEY" in caught.value.hint


@DIALECTS
async def test_no_part_of_a_key_is_left_where_a_long_message_is_cut(
    catalogue: Catalogue, server: ProviderServer, dialect: str
) -> None:
    key = f"key-of-{dialect}"
    for before in range(280, 301):
        server.script(Behaviour(status=400, error_message="x" * before + key + "y" * 50))
        with pytest.raises(ModelError) as caught:
            await catalogue.resolve(MODELS[dialect]).complete(QUESTION, ignore)
        assert "xk" not in str(caught.value)
        assert len(caught.value.message) < 400


@DIALECTS
async def test_an_empty_answer_is_an_answer(catalogue: Catalogue, server: ProviderServer, dialect: str) -> None:
    server.script(Behaviour(text=""))
    answer = (await catalogue.resolve(MODELS[dialect]).complete(QUESTION, ignore)).reply
    assert (answer.text, answer.stop) == ("", "end")


@DIALECTS
async def test_variables_meant_for_other_programs_redirect_nothing(
    catalogue: Catalogue, server: ProviderServer, dialect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "OPENAI_BASE_URL": "http://127.0.0.1:1/v1",
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:1",
        "ANTHROPIC_AUTH_TOKEN": "foreign",
        "OPENAI_ORG_ID": "foreign",
        "OPENAI_CUSTOM_HEADERS": "authorization: Bearer foreign\nX-Gateway: foreign",
        "ANTHROPIC_CUSTOM_HEADERS": "Authorization: Bearer foreign\nX-Gateway: foreign",
    }.items():
        monkeypatch.setenv(name, value)
    await catalogue.resolve(MODELS[dialect]).complete(QUESTION, ignore)
    headers = server.requests[-1].headers
    assert headers["authorization"] == f"Bearer key-of-{dialect}"
    assert "foreign" not in json.dumps(dict(headers))


@DIALECTS
async def test_a_limit_reached_says_so(catalogue: Catalogue, server: ProviderServer, dialect: str) -> None:
    server.script(Behaviour(text="a", stop={"openai": "length", "anthropic": "max_tokens"}[dialect]))
    assert (await catalogue.resolve(MODELS[dialect]).complete(QUESTION, ignore)).reply.stop == "length"


@DIALECTS
async def test_a_model_that_declines_says_so(catalogue: Catalogue, server: ProviderServer, dialect: str) -> None:
    server.script(Behaviour(text="a", stop={"openai": "content_filter", "anthropic": "refusal"}[dialect]))
    assert (await catalogue.resolve(MODELS[dialect]).complete(QUESTION, ignore)).reply.stop == "refused"


@DIALECTS
async def test_the_prefix_of_two_requests_is_the_same_to_the_byte(
    catalogue: Catalogue, server: ProviderServer, dialect: str
) -> None:
    tool = ToolSpec(name="add", description="Add.", input_schema='{"type": "object", "b": 1, "a": 2}')
    first = Prompt(system="s", tools=(tool,), turns=(Turn(role="user", text="1"),))
    longer = (*first.turns, Turn(role="assistant", text="2"), Turn(role="user", text="3"))
    model = catalogue.resolve(MODELS[dialect])
    await model.complete(first, ignore)
    await model.complete(Prompt(system="s", tools=(tool,), turns=longer), ignore)
    one, two = (request.body for request in server.requests)
    assert json.dumps(one["tools"]) == json.dumps(two["tools"])
    assert json.dumps(one["messages"]) == json.dumps(two["messages"][: len(one["messages"])])
