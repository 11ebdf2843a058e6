"""Resources, prompts, completion and subscriptions over both eras."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp.client.subscriptions import ResourcesListChanged, ResourceUpdated
from mcp.shared.exceptions import MCPError

from aos_mcp.abi.calls import ROWS
from aos_mcp.resources.catalog import FORMS
from aos_mcp.testing.model import says
from tests.surface.conftest import ERAS, LEGACY, MODERN, serving

MORE = {"aos://audit/{seq}", "aos://proc/{pid}/journal/{after}"}
"""Second forms of a resource of the table."""


def text_of(result: types.ReadResourceResult) -> str:
    content = result.contents[0]
    assert isinstance(content, types.TextResourceContents)
    return content.text


def test_every_resource_of_the_table_is_served() -> None:
    assert {form.uri for form in FORMS} == {row.resource for row in ROWS if row.resource} | MORE
    assert {form.call for form in FORMS} <= {row.name for row in ROWS}


@ERAS
async def test_everything_about_an_agent_can_be_read(tmp_path: Path, era: str) -> None:
    async with serving(tmp_path, says("done")) as served, served.client(era) as client:
        with anyio.fail_after(20):
            spawned = await client.call_tool("spawn_agent", {"task": "be read", "wait_s": 10})
            pid = spawned.structured_content["pid"]
            taken = await client.call_tool("checkpoint", {"pid": pid})
            await client.call_tool("read_audit", {"verify": True})
            whole = json.loads(text_of(await client.read_resource(f"aos://proc/{pid}")))
            context = json.loads(text_of(await client.read_resource(f"aos://proc/{pid}/context")))
            journal = json.loads(text_of(await client.read_resource(f"aos://proc/{pid}/journal")))
            checkpoint = taken.structured_content["checkpoint_id"]
            saved = json.loads(text_of(await client.read_resource(f"aos://checkpoint/{checkpoint}")))
            agents = json.loads(text_of(await client.read_resource("aos://proc")))
            record = json.loads(text_of(await client.read_resource("aos://audit/1")))
            mounts = json.loads(text_of(await client.read_resource("aos://mounts")))
            approvals = json.loads(text_of(await client.read_resource("aos://approvals")))
            metrics = text_of(await client.read_resource("aos://metrics"))
            listed = [r.uri for r in (await client.list_resources()).resources]
            templates = [t.uri_template for t in (await client.list_resource_templates()).resource_templates]
        assert whole["pid"] == context["pid"] == journal["pid"] == saved["pid"] == agents["agents"][0]["pid"] == pid
        assert journal["steps"][0]["call"] == "model"
        assert record["seq"] == 1
        assert mounts["mounts"] == approvals["approvals"] == []
        assert "aos_syscalls" in metrics
        assert f"aos://proc/{pid}" in listed
        assert sorted(templates) == sorted(form.uri for form in FORMS if form.is_template)


@ERAS
async def test_a_page_reads_as_it_was_written(tmp_path: Path, era: str) -> None:
    text = "line\n" * 5_000
    async with serving(tmp_path) as served, served.client(era) as client:
        with anyio.fail_after(20):
            kept = await client.call_tool("page_out", {"content": text})
            read = await client.read_resource(f"aos://page/{kept.structured_content['page_id']}")
    assert text_of(read) == text


@ERAS
@pytest.mark.parametrize(
    "uri",
    [
        "aos://nothing",
        "aos://proc/p_" + "a" * 26,
        "aos://proc/../x",
        "aos://audit/x",
        "aos://audit/99999",
        "aos://page/1",
    ],
)
async def test_what_is_not_there_is_not_found(tmp_path: Path, era: str, uri: str) -> None:
    async with serving(tmp_path) as served, served.client(era) as client:
        with anyio.fail_after(20), pytest.raises(MCPError) as missing:
            await client.read_resource(uri)
        assert missing.value.error.code == types.INVALID_PARAMS
        assert missing.value.error.data == {"uri": uri}


async def test_a_modern_client_hears_of_changes_on_its_stream(tmp_path: Path) -> None:
    async with serving(tmp_path, says("done")) as served, served.client(MODERN) as client:
        with anyio.fail_after(20):
            async with client.listen(resources_list_changed=True, resource_subscriptions=["aos://proc"]) as stream:
                spawned = await client.call_tool("spawn_agent", {"task": "change something"})
                pid = spawned.structured_content["pid"]
                heard: set[Any] = set()
                async for event in stream:
                    heard.add(event)
                    if heard >= {ResourcesListChanged(), ResourceUpdated(uri="aos://proc")}:
                        break
        assert pid


@pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")
async def test_a_client_with_a_handshake_hears_of_what_it_subscribed_to(tmp_path: Path) -> None:
    heard: list[Any] = []
    enough = anyio.Event()

    async def on_message(message: object) -> None:
        heard.append(message)
        kinds = {type(item) for item in heard}
        if kinds >= {types.ResourceUpdatedNotification, types.ResourceListChangedNotification}:
            enough.set()

    async with serving(tmp_path, says("done")) as served:
        async with served.client(LEGACY, message_handler=on_message) as client:
            with anyio.fail_after(20):
                assert client.server_capabilities.resources is not None
                assert client.server_capabilities.resources.subscribe
                assert client.server_capabilities.resources.list_changed
                await client.subscribe_resource("aos://proc")
                await client.call_tool("spawn_agent", {"task": "change something"})
                await enough.wait()
                await client.unsubscribe_resource("aos://proc")
    updates = {m.params.uri for m in heard if isinstance(m, types.ResourceUpdatedNotification)}
    assert updates == {"aos://proc"}


@ERAS
async def test_prompts_are_filled_in(tmp_path: Path, era: str) -> None:
    async with serving(tmp_path) as served, served.client(era) as client:
        with anyio.fail_after(20):
            names = [prompt.name for prompt in (await client.list_prompts()).prompts]
            delegate = await client.get_prompt("delegate", {"task": "count sheep", "budget_usd": "2"})
            with pytest.raises(MCPError):
                await client.get_prompt("delegate", {})
            with pytest.raises(MCPError):
                await client.get_prompt("no_such_prompt", {})
    assert names == ["delegate", "review_agent", "recover"]
    content = delegate.messages[0].content
    assert isinstance(content, types.TextContent)
    assert "count sheep" in content.text
    assert "2 US dollars" in content.text


@ERAS
async def test_a_pid_is_completed(tmp_path: Path, era: str) -> None:
    async with serving(tmp_path, says("done")) as served, served.client(era) as client:
        with anyio.fail_after(20):
            pid = (await client.call_tool("spawn_agent", {"task": "x"})).structured_content["pid"]
            reference = types.ResourceTemplateReference(uri="aos://proc/{pid}")
            done = await client.complete(reference, {"name": "pid", "value": pid[:6]})
            none = await client.complete(reference, {"name": "pid", "value": "p_nothing"})
    assert done.completion.values == [pid]
    assert none.completion.values == []
