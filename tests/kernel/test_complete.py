"""One model call for a caller: answers that fit a schema, images and files, and arguments checked before they leave."""

from __future__ import annotations

import base64
import gc
import json
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aos_mcp.abi.budget import WORKSPACE_ACCOUNT, Usage
from aos_mcp.abi.completion import Completion, Prompt, Reply
from aos_mcp.abi.errors import AosError, Invalid, ModelError, ModelFault, NotFound
from aos_mcp.kernel.margin import counted_in
from aos_mcp.kernel.recovery import charge_lost, lost_reservations
from aos_mcp.kernel.schema_check import misfit, without_patterns
from aos_mcp.ports import Deliver, Metered
from aos_mcp.testing.devices import RecordingMounts, a_tool
from aos_mcp.testing.kernels import kernel_on
from aos_mcp.testing.model import ScriptedModel, ScriptedModels, calls, says
from tests.kernel.stage import DEADLINE_S, NAME, ended, results_of

PNG = b"\x89PNG\r\n\x1a\n and the rest"
PDF = b"%PDF-1.7 and the rest"
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "ages": {"type": "array", "items": {"type": "integer"}}},
    "required": ["name"],
    "additionalProperties": False,
}


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def seeing(*script: Reply) -> ScriptedModel:
    return ScriptedModel(NAME, script, inputs=frozenset({"text", "image", "file"}))


async def test_an_answer_that_does_not_fit_its_schema_is_asked_for_once_more_with_the_place(tmp_path: Path) -> None:
    wrong, right = '{"name": "Ada", "ages": [36, "x"]}', '{"name": "Ada", "ages": [36]}'
    model = ScriptedModel(NAME, (says(wrong), says(right)))
    async with kernel_on(tmp_path, ScriptedModels(model)) as k:
        with anyio.fail_after(DEADLINE_S):
            done = await k.call("complete", prompt="who?", schema=PERSON)
    assert done.object == {"name": "Ada", "ages": [36]}
    assert [turn.role for turn in model.prompts[1].turns] == ["user", "assistant", "user"]
    assert "ages.1: 'x' is not of type 'integer'" in model.prompts[1].turns[-1].text


async def test_an_answer_that_never_fits_is_an_error_that_names_the_place(tmp_path: Path) -> None:
    model = ScriptedModel(NAME, (says("{}"), says('{"name": 1}')))
    async with kernel_on(tmp_path, ScriptedModels(model)) as k:
        with anyio.fail_after(DEADLINE_S), pytest.raises(Invalid) as caught:
            await k.call("complete", prompt="who?", schema=PERSON)
    assert "name: 1 is not of type 'string'" in caught.value.message
    assert len(model.prompts) == 2


async def test_an_answer_that_was_cut_off_says_so(tmp_path: Path) -> None:
    cut = Reply(text='{"name": "A', stop="length")
    async with kernel_on(tmp_path, ScriptedModels(ScriptedModel(NAME, (cut, cut)))) as k:
        with anyio.fail_after(DEADLINE_S), pytest.raises(Invalid) as caught:
            await k.call("complete", prompt="who?", schema=PERSON)
    assert "cut off at max_tokens" in caught.value.message


async def test_a_schema_that_is_none_costs_nothing(tmp_path: Path) -> None:
    model = ScriptedModel(NAME, (says("{}"),))
    async with kernel_on(tmp_path, ScriptedModels(model)) as k:
        with anyio.fail_after(DEADLINE_S), pytest.raises(Invalid) as caught:
            await k.call("complete", prompt="who?", schema={"properties": {"a": {"type": "strin"}}})
    assert "properties.a.type" in caught.value.message
    assert model.prompts == []


async def test_images_files_and_pages_stand_before_the_text_of_their_message(tmp_path: Path) -> None:
    model = seeing(says("a dot"))
    async with kernel_on(tmp_path, ScriptedModels(model)) as k:
        with anyio.fail_after(DEADLINE_S):
            page = await k.call("page_out", content="what we know")
            parts = [
                {"text": "Look."},
                {"data": base64_of(PNG)},
                {"data": base64_of(PDF)},
                {"data": base64_of(b"plain words")},
                {"page_id": page.page_id},
            ]
            done = await k.call("complete", messages=[{"role": "user", "content": parts}])
    (turn,) = model.prompts[0].turns
    assert done.text == "a dot"
    assert turn.text == "Look.\n\nplain words\n\nwhat we know"
    assert [(each.media_type, each.data) for each in turn.attachments] == [("image/png", PNG), ("application/pdf", PDF)]
    assert counted_in(model.prompts[0]).fixed > sum(each.tokens_max for each in turn.attachments)


async def test_an_agent_shows_a_model_a_file_of_its_own_workspace(tmp_path: Path) -> None:
    ask = {"messages": [{"role": "user", "content": [{"file": "plot.png"}, {"text": "What?"}]}]}
    model = seeing(calls(("complete", ask)), says("done"))
    async with kernel_on(tmp_path, ScriptedModels(model)) as k:
        with anyio.fail_after(DEADLINE_S):
            model.gate = anyio.Event()
            pid = (await k.call("spawn_agent", task="x")).pid
            process = await k.machine.store.read(lambda tx: tx.process_get(pid))
            assert process is not None
            k.machine.workspaces.write(process.workspace, "plot.png", PNG)
            model.gate.set()
            await ended(k, pid)
    (seen,) = (turn for prompt in model.prompts for turn in prompt.turns if turn.attachments)
    assert [(each.name, each.data) for each in seen.attachments] == [("plot.png", PNG)]


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ([{"data": "no base64!"}], Invalid),
        ([{"data": base64_of(b"\x00\xff\xfe")}], Invalid),
        ([{"text": "a", "page_id": "pg_x"}], Invalid),
        ([{}], Invalid),
        ([{"page_id": "pg_unknown"}], NotFound),
        ([{"file": "plot.png"}], Invalid),
    ],
)
async def test_a_part_that_is_not_one_readable_thing_is_refused(
    tmp_path: Path, parts: list[dict[str, str]], error: type[Exception]
) -> None:
    model = seeing(says("never"))
    async with kernel_on(tmp_path, ScriptedModels(model)) as k:
        with anyio.fail_after(DEADLINE_S), pytest.raises(error):
            await k.call("complete", messages=[{"role": "user", "content": parts}])
    assert model.prompts == []


async def test_an_image_for_a_model_without_eyes_is_refused_before_anything_is_spent(tmp_path: Path) -> None:
    model = ScriptedModel(NAME, (says("never"),))
    async with kernel_on(tmp_path, ScriptedModels(model)) as k:
        with anyio.fail_after(DEADLINE_S):
            with pytest.raises(Invalid) as caught:
                await k.call("complete", messages=[{"role": "user", "content": [{"data": base64_of(PNG)}]}])
            status = await k.call("kernel_status")
    assert NAME in caught.value.message
    assert (model.prompts, status.budget.usd) == ([], 0)


async def test_arguments_that_do_not_fit_a_tool_s_schema_never_leave(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
    tool = replace(a_tool("files__read", read_only=True), input_schema=json.dumps(schema))
    mounts = RecordingMounts({tool: lambda arguments: f"read {arguments['path']}"})
    script = (calls(("files__read", {"path": 7})), calls(("files__read", {"path": "a"}), key="s"), says("done"))
    model = ScriptedModel(NAME, script)
    async with kernel_on(tmp_path, ScriptedModels(model), mounts=mounts) as k:
        with anyio.fail_after(DEADLINE_S):
            await ended(k, (await k.call("spawn_agent", task="x")).pid)
    assert [arguments for _, arguments in mounts.calls] == [{"path": "a"}]
    assert "path: 7 is not of type 'string'" in results_of(model.prompts[1])[-1]
    assert "read a" in results_of(model.prompts[2])[-1]


class CutModel(ScriptedModel):
    """Says something, tells what was used until then, and is cut."""

    async def complete(self, prompt: Prompt, deliver: Deliver) -> Completion:
        deliver("Well,")
        assert isinstance(deliver, Metered)
        deliver.used(Usage(input_tokens=7, cached_tokens=90, output_tokens=40, microusd=123))
        if self.gate is not None:
            await self.gate.wait()
        raise ModelError(ModelFault.REFUSED, "It broke off.", "Ask for something else.", output_tokens=2)


@pytest.mark.parametrize("killed", [False, True])
async def test_a_call_that_did_not_end_is_charged_what_its_provider_had_counted(tmp_path: Path, killed: bool) -> None:
    model = CutModel(NAME, (), gate=anyio.Event() if killed else None)
    async with kernel_on(tmp_path, ScriptedModels(model)) as k:
        with anyio.fail_after(DEADLINE_S), k.kernel.listen() as events:
            pid = (await k.call("spawn_agent", task="x")).pid
            if killed:
                async for event in events:
                    if event.kind == "output":
                        break
                await k.call("signal_agent", pid=pid, signal="kill")
            while not (usage := (await ended(k, pid)).usage).output_tokens:
                pass  # a killed agent has ended before its call is settled
    assert (usage.input_tokens, usage.cached_tokens, usage.output_tokens) == (7, 90, 40)
    assert usage.usd == pytest.approx(0.000123)


# The check itself ----------------------------------------------------------------------------------------------------


def test_a_pattern_is_not_run() -> None:
    hostile = {"type": "string", "pattern": "^(a+)+$"}
    assert misfit(json.dumps(hostile), "a" * 40 + "b") is None
    named = {"type": "object", "properties": {"pattern": {"type": "integer"}}}
    assert misfit(json.dumps(named), {"pattern": "x"}) is not None


def test_nothing_outside_of_a_schema_is_fetched() -> None:
    with pytest.raises(Invalid):
        misfit('{"$ref": "http://127.0.0.1:1/schema.json"}', 1)


def test_a_check_that_would_take_for_ever_is_given_up() -> None:
    definitions = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
    bomb = {"$defs": {**definitions, "d40": {"type": "integer"}}, "$ref": "#/$defs/d0"}
    with pytest.raises(Invalid):
        misfit(json.dumps(bomb), 1)


def test_a_schema_that_contains_itself_is_checked_as_deep_as_the_value_goes() -> None:
    tree = json.dumps({"type": "object", "properties": {"child": {"$ref": "#"}}, "additionalProperties": False})
    assert misfit(tree, {"child": {"child": {}}}) is None
    assert misfit(tree, {"child": {"child": {"x": 1}}}) == (
        "child.child: Additional properties are not allowed ('x' was unexpected)"
    )
    with pytest.raises(Invalid):
        misfit('{"$ref": "#"}', 1)


schemas = st.recursive(
    st.sampled_from([{}, {"type": "integer"}, {"type": "string"}, {"enum": ["a", 1]}]),
    lambda part: (
        st.dictionaries(st.sampled_from(["a", "pattern", "const"]), part, max_size=2).map(
            lambda properties: {"type": "object", "properties": properties}
        )
        | part.map(lambda items: {"type": "array", "items": items})
    ),
    max_leaves=6,
)


@given(schemas)
def test_a_schema_without_patterns_stays_as_it_is(schema: dict[str, object]) -> None:
    assert without_patterns(schema) == schema  # type: ignore[arg-type]


async def test_a_call_leaves_nothing_for_the_collector_of_cycles_which_therefore_looks_seldom(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, ScriptedModels(ScriptedModel(NAME, (says("x"),) * 120))) as k:
        with anyio.fail_after(DEADLINE_S):
            for _ in range(20):  # what is made once is made by now
                await k.call("complete", prompt="who?")
            gc.collect()
            gc.disable()
            try:
                for _ in range(100):
                    await k.call("complete", prompt="who?")
                left = gc.collect()
            finally:
                gc.enable()
    assert left < 100, "less than one object a call"


async def test_what_an_answer_that_could_not_be_put_on_record_had_set_aside_is_charged(tmp_path: Path) -> None:
    beyond = Usage(input_tokens=2**70, output_tokens=1)
    async with kernel_on(tmp_path, ScriptedModels(ScriptedModel(NAME, (says("x"),), usage=beyond))) as k:
        with anyio.fail_after(DEADLINE_S), pytest.raises(AosError):
            await k.call("complete", prompt="hi")
        gc.collect()
        assert len(await k.machine.store.read(lambda tx: lost_reservations(tx, k.machine))) == 1
        await k.machine.store.write(lambda tx: charge_lost(tx, k.machine))
        account = await k.machine.store.read(lambda tx: tx.account_get(WORKSPACE_ACCOUNT))
        assert account is not None
        assert (account.reserved_tokens, account.reserved_microusd) == (0, 0)
        assert account.used.tokens > 4_000
        log = await k.call("read_audit", verify=True, limit=200)
        assert any("never settled" in row.detail for row in log.records)
