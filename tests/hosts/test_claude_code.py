"""A real host on the real command: two runs of Claude Code, and a person at the command line between them.

The first run uses the kernel for everything it offers and leaves an agent behind that waits for a word. Then the person
allows what the host may not allow itself. The second run, another process, gives the word and takes the answer.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from aos_mcp.abi.calls import ROWS
from aos_mcp.testing.providers import Behaviour, Call, Request, provider_server
from tests.hosts.claude_code import Session, calls, claude_code, looks_up, own_call, says
from tests.hosts.home import (
    LAST_APPROVAL,
    LAST_PAGE,
    LAST_PID,
    SERVER,
    furnish,
    kernel_environment,
    kernel_home,
    needs,
)
from tests.surface.conftest import COMMAND, daemon_pid

pytestmark = [pytest.mark.hosts, needs("claude"), pytest.mark.timeout(300)]

SANDBOX = "bwrap" if shutil.which("bwrap") else "docker+runc"
SETTINGS = f"""
[sandbox]
drivers = ["{SANDBOX}"]

[[rules]]
effect = "ask"
tool = "clock__convert_time"

[mounts.clock]
command = "{COMMAND[0]}"
args = ["-m", "mcp_server_time", "--local-timezone", "UTC"]
"""

NOTE = "The plover nests in May.\n" * 3
TO_TOKYO = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}

FIRST = (
    looks_up(*(row.name for row in ROWS if row.tool)),
    calls("kernel_status"),
    calls("spawn_agent", task="Say hello.", model="replay/hello", name="greeter"),
    calls("wait_agent", pids=[LAST_PID], timeout_s=60),
    calls("spawn_agent", task="How many legs has a plover?", name="thinker", wait_s=60),
    calls("page_out", content=NOTE, title="Birds"),
    calls("page_in", page_id=LAST_PAGE),
    calls("search_pages", query="plover"),
    calls("sandbox_exec", command="echo hi"),
    calls("search_tools", query="convert time"),
    calls("call_tool", name="clock__convert_time", arguments=TO_TOKYO),
    calls("answer_approval", approval_id=LAST_APPROVAL, decision="allow"),
    own_call("ReadMcpResourceTool", server=SERVER, uri="aos://approvals"),
    calls("spawn_agent", task="Wait for a word.", model="replay/patient", name="patient"),
    calls("read_audit", verify=True, limit=100),
    says("That was the first run."),
)
THINKER = Behaviour(
    when='"name": "exit"',
    calls=(Call(name="exit", arguments='{"result": "Two."}'),),
    input_tokens=1_000,
    output_tokens=10,
)
"""How the model answers the agent that runs on the host's own provider: it is the one that has the tool `exit`."""


@dataclass(frozen=True)
class Story:
    """What came of it."""

    first: Session
    second: Session
    requests: list[Request]
    daemons: tuple[int | None, int | None]

    def approval_id(self) -> str:
        """Return the question that the host may not answer."""
        return str(self.first.answer("answer_approval").arguments["approval_id"])

    def pid(self, number: int) -> str:
        """Return the pid of the agent that was spawned so many-th."""
        return str(self.first.answer("spawn_agent", number).body["pid"])


@pytest.fixture(scope="module")
async def story(home: Path) -> AsyncIterator[Story]:
    furnish(home, SETTINGS)
    async with provider_server() as model:
        first = await claude_code(home, model, THINKER, *FIRST)
        before = daemon_pid(kernel_home(home))
        told = Story(first, first, [], (before, None))
        _allow(home, told.approval_id())
        second = await claude_code(home, model, *_second(told))
        yield Story(first, second, model.requests, (before, daemon_pid(kernel_home(home))))


def _second(told: Story) -> list[Behaviour]:
    patient = told.pid(2)
    return [
        looks_up("kernel_status", "list_agents", "send_message", "wait_agent", "page_in", "call_tool"),
        calls("kernel_status"),
        calls("list_agents"),
        calls("send_message", to=patient, text="Here the word is plover."),
        calls("wait_agent", pids=[patient], timeout_s=60),
        calls("page_in", page_id=told.first.answer("page_out").body["page_id"]),
        calls("call_tool", name="clock__convert_time", arguments=TO_TOKYO),
        calls("call_tool", name="clock__convert_time", arguments=TO_TOKYO),
        says("That was the second run."),
    ]


def _allow(home: Path, approval_id: str) -> None:
    command = [*COMMAND, "approvals", "allow", approval_id]
    subprocess.run(command, env={**os.environ, **kernel_environment(home)}, check=True, timeout=60)


async def test_the_host_connects_and_works_through_the_whole_script(story: Story) -> None:
    for session, last in ((story.first, "That was the first run."), (story.second, "That was the second run.")):
        assert session.exit_code == 0
        servers = session.event("system")["mcp_servers"]
        assert [(server["name"], server["status"]) for server in servers] == [(SERVER, "connected")]
        assert (session.event("result")["subtype"], session.event("result")["result"]) == ("success", last)


async def test_the_model_is_told_of_the_kernel_and_finds_all_its_tools(story: Story) -> None:
    opening, informed = (request.body for request in story.requests[:2])
    assert "operating-system kernel for AI agents" in json.dumps(opening["messages"]) + json.dumps(opening["system"])
    found = {tool["name"]: tool for tool in informed["tools"] if tool["name"].startswith(f"mcp__{SERVER}__")}
    assert found.keys() == {f"mcp__{SERVER}__{row.name}" for row in ROWS if row.tool}
    assert found[f"mcp__{SERVER}__spawn_agent"]["input_schema"]["required"] == ["task"]


async def test_only_what_a_person_must_allow_fails(story: Story) -> None:
    failed = [(answered.name, answered.arguments.get("name")) for answered in story.first.answered if answered.is_error]
    assert failed == [("call_tool", "clock__convert_time"), ("answer_approval", None)]


async def test_the_status_tells_of_this_kernel(story: Story) -> None:
    status = story.first.answer("kernel_status").body
    assert status["default_model"].startswith("anthropic/"), "the host's key is in its server's environment"
    assert [mount["server"] for mount in status["mounts"]] == ["clock"]


async def test_an_agent_is_spawned_and_waited_for(story: Story) -> None:
    [agent] = story.first.answer("wait_agent").body["agents"]
    assert (agent["pid"], agent["name"], agent["exit_code"]) == (story.pid(0), "greeter", "done")
    assert agent["result"].startswith("Hello.")
    assert agent["replayed"] is True


async def test_an_agent_runs_on_the_hosts_own_provider_without_any_configuration(story: Story) -> None:
    thinker = story.first.answer("spawn_agent", 1).body
    assert (thinker["state"], thinker["exit_code"], thinker["result"]) == ("exited", "done", "Two.")
    [row] = [row for row in story.second.answer("list_agents").body["agents"] if row["pid"] == thinker["pid"]]
    assert (row["usage"]["input_tokens"], row["usage"]["output_tokens"]) == (1_000, 10)
    assert row["usage"]["usd"] > 0


async def test_a_page_comes_back_exactly_and_is_found_by_its_words(story: Story) -> None:
    page_id = story.first.answer("page_out").body["page_id"]
    assert story.first.answer("page_in").body["content"] == NOTE
    assert page_id in [hit["page_id"] for hit in story.first.answer("search_pages").body["hits"]]


async def test_a_command_runs_in_a_proven_sandbox(story: Story) -> None:
    done = story.first.answer("sandbox_exec").body
    assert (done["exit_code"], done["stdout"], done["isolation"]) == (0, "hi\n", SANDBOX)


async def test_a_downstream_tool_is_found_but_a_rule_wants_a_person_asked(story: Story) -> None:
    """With nobody at the keyboard the host closes the form at once, and the question stays open."""
    found = story.first.answer("search_tools").body["tools"]
    assert found[0]["name"] == "clock__convert_time"
    refused = story.first.answer("call_tool")
    assert refused.text.startswith("approval_required: ")
    assert story.approval_id() in refused.text
    [waiting] = _resource(story.first)["approvals"]
    assert (waiting["approval_id"], waiting["state"]) == (story.approval_id(), "pending")
    assert "Asia/Tokyo" in waiting["question"]


def _resource(session: Session) -> Any:
    return json.loads(session.answer("ReadMcpResourceTool").body["contents"][0]["text"])


async def test_the_model_cannot_allow_its_own_call(story: Story) -> None:
    denied = story.first.event("result")["permission_denials"]
    assert [denial["tool_name"] for denial in denied] == [f"mcp__{SERVER}__answer_approval"]


async def test_every_act_of_the_host_and_of_its_agents_is_on_the_verified_log(story: Story) -> None:
    log = story.first.answer("read_audit").body
    assert log["verified"]["ok"] is True
    acts = {(record["actor"].partition(":")[0], record["call"], record["outcome"]) for record in log["records"]}
    assert {("host", "spawn_agent", "ok"), ("host", "sandbox_exec", "ok"), (story.pid(0), "exit", "ok")} <= acts
    assert ("host", "answer_approval", "ok") not in acts


async def test_the_daemon_outlives_the_host_and_serves_the_next_one(story: Story) -> None:
    before, after = story.daemons
    assert before is not None
    assert after == before
    nodes = {session.answer("kernel_status").body["node"] for session in (story.first, story.second)}
    assert len(nodes) == 1


async def test_agents_outlive_the_host_that_spawned_them(story: Story) -> None:
    rows = {row["pid"]: row for row in story.second.answer("list_agents").body["agents"]}
    assert [rows[story.pid(number)]["name"] for number in range(3)] == ["greeter", "thinker", "patient"]
    assert rows[story.pid(2)]["state"] != "exited"
    [agent] = story.second.answer("wait_agent").body["agents"]
    assert (agent["name"], agent["exit_code"], agent["result"]) == ("patient", "done", "I heard plover.")


async def test_a_page_outlives_the_host_that_kept_it(story: Story) -> None:
    assert story.second.answer("page_in").body["content"] == NOTE


async def test_what_a_person_allowed_between_two_runs_happens_once(story: Story) -> None:
    allowed, again = (story.second.answer("call_tool", number) for number in range(2))
    assert not allowed.is_error
    assert "Asia/Tokyo" in allowed.text
    assert again.text.startswith("approval_required: ")
    assert story.approval_id() not in again.text, "an answered question is not asked again: this is a new one"
