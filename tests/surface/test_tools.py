"""Each tool over both eras, in memory."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import jsonschema
import mcp_types as types
import pytest

from aos_mcp.abi.calls import ROWS
from aos_mcp.abi.errors import ApprovalRequired
from aos_mcp.abi.journal import EffectClass
from aos_mcp.abi.mount import ToolOutcome
from aos_mcp.testing.devices import RecordingMounts, RecordingSandbox, a_tool
from aos_mcp.testing.model import says
from aos_mcp.tools.catalog import TEXT_OF, tools
from aos_mcp.tools.render import error_result
from tests.surface.conftest import ERAS, MODERN, serving

CHARS_PER_TOKEN = 4
LIST_TOKENS_MAX = 4_500


class WholeResults(RecordingMounts):
    """Downstream servers that answer more than text."""

    async def call(self, *args: Any, **options: Any) -> ToolOutcome:
        outcome = await super().call(*args, **options)
        whole = {
            "content": [{"type": "text", "text": "ok"}, {"type": "image", "data": "aGk=", "mimeType": "image/png"}],
            "structuredContent": {"a": [1, None]},
            "_meta": {"vendor/x": 1},
        }
        return replace(outcome, result=json.dumps(whole))


def text_of(result: types.CallToolResult) -> str:
    return "\n".join(block.text for block in result.content if isinstance(block, types.TextContent))


def test_the_whole_tool_list_costs_less_than_4500_tokens() -> None:
    whole = types.ListToolsResult(tools=list(tools()))
    wire = whole.model_dump_json(by_alias=True, exclude_none=True)
    assert len(wire) / CHARS_PER_TOKEN < LIST_TOKENS_MAX


def test_the_seventeen_tools_come_in_the_order_of_the_table() -> None:
    assert [tool.name for tool in tools()] == [row.name for row in ROWS if row.tool]
    assert len(tools()) == 17
    assert set(TEXT_OF) == {row.name for row in ROWS if row.tool}


def test_every_schema_is_an_object_schema_that_hosts_can_read() -> None:
    for tool in tools():
        for schema in filter(None, (tool.input_schema, tool.output_schema)):
            jsonschema.Draft202012Validator.check_schema(schema)
            assert schema["type"] == "object"
            assert "anyOf" not in schema
            assert "$ref" not in json.dumps(schema)


@pytest.mark.parametrize("tool", tools(), ids=lambda tool: tool.name)
def test_an_error_goes_by_the_output_schema_that_clients_hold_it_to(tool: types.Tool) -> None:
    error = error_result(ApprovalRequired("Wait.", "Ask.", approval_id="ap_x")).structured_content
    if tool.output_schema is not None:
        jsonschema.Draft202012Validator(tool.output_schema).validate(error)


def test_a_host_is_told_which_tools_only_read() -> None:
    hints = {tool.name: tool.annotations for tool in tools()}
    pure = {row.name for row in ROWS if row.tool and row.effect is EffectClass.PURE}
    assert {name for name, hint in hints.items() if hint is not None and hint.read_only_hint} == pure


@ERAS
async def test_an_agent_is_spawned_listed_waited_for_and_signalled(tmp_path: Path, era: str) -> None:
    async with serving(tmp_path, says("42")) as served, served.client(era) as client:
        with anyio.fail_after(20):
            spawned = await client.call_tool("spawn_agent", {"task": "6 x 7", "name": "calc", "budget": {"usd": 0.5}})
            pid = spawned.structured_content["pid"]
            waited = await client.call_tool("wait_agent", {"pids": [pid], "timeout_s": 10})
            listed = await client.call_tool("list_agents", {})
            signalled = await client.call_tool("signal_agent", {"pid": pid, "signal": "kill"})
        assert waited.structured_content["agents"][0]["result"] == "42"
        assert "42" in text_of(waited)
        assert listed.structured_content["agents"][0]["name"] == "calc"
        assert pid in text_of(listed)
        assert signalled.is_error or signalled.structured_content["state"] == "exited"


@ERAS
async def test_text_is_paged_out_found_and_read_back_exactly(tmp_path: Path, era: str) -> None:
    text = "The wombat's burrow\nis 3 m deep — ✓"
    async with serving(tmp_path) as served, served.client(era) as client:
        with anyio.fail_after(20):
            out = await client.call_tool("page_out", {"content": text, "title": "wombats"})
            page_id = out.structured_content["page_id"]
            back = await client.call_tool("page_in", {"page_id": page_id})
            found = await client.call_tool("search_pages", {"query": "burrow"})
        assert back.structured_content["content"] == text
        assert text_of(back) == text
        assert [hit["page_id"] for hit in found.structured_content["hits"]] == [page_id]


@ERAS
async def test_a_command_runs_in_the_sandbox(tmp_path: Path, era: str) -> None:
    sandbox = RecordingSandbox(stdout=b"hello\n")
    async with serving(tmp_path, sandbox=sandbox) as served, served.client(era) as client:
        with anyio.fail_after(20):
            done = await client.call_tool("sandbox_exec", {"command": ["echo", "hello"]})
        assert done.structured_content["stdout"] == "hello\n"
        assert "hello" in text_of(done)
        assert sandbox.commands[0].argv == ("echo", "hello")


@ERAS
async def test_a_model_is_asked_once(tmp_path: Path, era: str) -> None:
    async with serving(tmp_path, says("four")) as served, served.client(era) as client:
        with anyio.fail_after(20):
            done = await client.call_tool("complete", {"prompt": "2 + 2", "model": "scripted/one"})
        assert done.structured_content["text"] == "four"


@ERAS
async def test_a_downstream_tool_answers_unchanged(tmp_path: Path, era: str) -> None:
    mounts = WholeResults({a_tool("git__log", read_only=True): lambda arguments: "ok"})
    async with serving(tmp_path, mounts=mounts) as served, served.client(era) as client:
        with anyio.fail_after(20):
            found = await client.call_tool("search_tools", {"query": "log"})
            done = await client.call_tool("call_tool", {"name": "git__log", "arguments": {"n": 1}})
        assert found.structured_content["tools"][0]["name"] == "git__log"
        assert [block.type for block in done.content] == ["text", "image"]
        assert done.structured_content == {"a": [1, None]}
        assert (done.meta or {})["vendor/x"] == 1
        assert mounts.calls == [("git__log", {"n": 1})]


@ERAS
async def test_answers_and_errors_carry_an_anchor_of_the_log_that_verification_takes(tmp_path: Path, era: str) -> None:
    mounts = WholeResults({a_tool("git__log", read_only=True): lambda arguments: ""})
    async with serving(tmp_path, mounts=mounts) as served, served.client(era) as client:
        with anyio.fail_after(20):
            await client.call_tool("kernel_status", {})
            await client.call_tool("read_audit", {"verify": True})
            for name, arguments in (
                ("kernel_status", {}),
                ("page_in", {"page_id": "pg_none"}),
                ("call_tool", {"name": "git__log", "arguments": {}}),
            ):
                anchor = ((await client.call_tool(name, arguments)).meta or {})["aos-mcp/audit"]
                kept = f"{anchor['size']}:{anchor['root']}"
                checked = await client.call_tool("read_audit", {"verify": True, "anchor": kept})
                assert checked.structured_content["verified"]["ok"] is True
            bent = await client.call_tool("read_audit", {"verify": True, "anchor": f"{anchor['size']}:{'A' * 43}="})
            assert bent.structured_content["verified"]["ok"] is False


@ERAS
async def test_the_log_and_the_status_are_told(tmp_path: Path, era: str) -> None:
    async with serving(tmp_path) as served, served.client(era) as client:
        with anyio.fail_after(20):
            await client.call_tool("page_out", {"content": "x"})
            log = await client.call_tool("read_audit", {"verify": True, "limit": 5})
            status = await client.call_tool("kernel_status", {})
        assert log.structured_content["verified"]["ok"] is True
        assert status.structured_content["version"] == "test"
        assert "aos-mcp test" in text_of(status)


@ERAS
async def test_a_checkpoint_is_taken_and_restored_as_a_new_agent(tmp_path: Path, era: str) -> None:
    async with serving(tmp_path, says("one"), says("two")) as served, served.client(era) as client:
        with anyio.fail_after(20):
            spawned = await client.call_tool("spawn_agent", {"task": "count", "wait_s": 10})
            pid = spawned.structured_content["pid"]
            taken = await client.call_tool("checkpoint", {"pid": pid, "label": "end"})
            fork = await client.call_tool("restore", {"checkpoint_id": taken.structured_content["checkpoint_id"]})
        assert fork.structured_content["pid"] != pid


@ERAS
async def test_errors_are_results_with_code_sentence_and_hint(tmp_path: Path, era: str) -> None:
    async with serving(tmp_path) as served, served.client(era) as client:
        with anyio.fail_after(20):
            missing = await client.call_tool("page_in", {"page_id": "pg_missing"})
            unknown = await client.call_tool("no_such_tool", {})
            hidden = await client.call_tool("read_process", {"pid": "p_missing"})
            invalid = await client.call_tool("spawn_agent", {"task": 7})
        codes = [result.structured_content["code"] for result in (missing, unknown, hidden, invalid)]
        assert codes == ["not_found", "not_found", "not_found", "invalid"]
        for result in (missing, unknown, hidden, invalid):
            assert result.is_error
            assert result.structured_content["message"] in text_of(result)
            assert result.structured_content["hint"]


@ERAS
async def test_progress_reaches_a_client_that_asks_for_it(tmp_path: Path, era: str) -> None:
    told: list[str | None] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        told.append(message)

    async with serving(tmp_path, says("42")) as served, served.client(era) as client:
        with anyio.fail_after(20):
            spawned = await client.call_tool("spawn_agent", {"task": "6 x 7"})
            pids = [spawned.structured_content["pid"]]
            done = await client.call_tool("wait_agent", {"pids": pids}, progress_callback=on_progress)
        assert not done.is_error


async def test_the_instructions_fit_what_hosts_show(tmp_path: Path) -> None:
    async with serving(tmp_path) as served, served.client("auto") as client:
        assert client.instructions is not None
        assert len(client.instructions) < 2_048


@pytest.mark.parametrize("name", [row.name for row in ROWS if row.tool])
async def test_wrong_arguments_are_refused_by_code_and_the_server_goes_on(tmp_path: Path, name: str) -> None:
    fields = list(next(tool for tool in tools() if tool.name == name).input_schema["properties"])
    wrong: list[dict[str, object]] = [
        {"no_such_argument": 1},
        {field: {"deep": [None]} for field in fields},
        dict.fromkeys(fields, "a\x00b"),
        dict.fromkeys(fields, "\ud800"),
        {"pid": "p_" + "a" * 26, "pids": ["p_" + "a" * 26], "page_id": "pg_" + "a" * 26},
    ]
    async with serving(tmp_path) as served, served.client(MODERN) as client:
        with anyio.fail_after(20):
            for arguments in wrong:
                if not arguments:
                    continue
                result = await client.call_tool(name, arguments)
                assert result.is_error, arguments.keys()
                assert result.structured_content["code"] in {"invalid", "not_found"}
            assert not (await client.call_tool("kernel_status", {})).is_error
