"""A turn's tool requests: each answered once, in its own place, whatever a model calls it."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from aos_mcp.abi.completion import Reply, ToolRequest
from aos_mcp.abi.errors import UnknownOutcome
from aos_mcp.abi.limits import TOOL_REQUESTS_PER_TURN_MAX
from aos_mcp.abi.settings import Rule, Settings
from aos_mcp.testing.devices import RecordingMounts, RecordingSandbox, a_tool
from aos_mcp.testing.kernels import kernel_on
from aos_mcp.testing.model import ScriptedModel, ScriptedModels, calls, says
from tests.kernel.stage import DEADLINE_S, NAME, models, results_of

ALLOWED = Settings(rules=[Rule(effect="allow", tool="s__*")])


async def test_a_model_that_uses_one_id_in_every_turn_gets_every_answer(tmp_path: Path) -> None:
    mounts = RecordingMounts({a_tool("s__say", read_only=True): lambda arguments: f"said {arguments['n']}"})
    script = [calls(("s__say", {"n": n}), key="same") for n in range(3)]
    model = ScriptedModel(NAME, (*script, lambda prompt: says(" ".join(results_of(prompt)))))
    async with kernel_on(tmp_path, ScriptedModels(model), mounts=mounts) as k:
        with anyio.fail_after(DEADLINE_S):
            done = await k.call("spawn_agent", task="x", wait_s=15)
    assert done.result == "said 0 said 1 said 2"
    assert len(mounts.calls) == 3


async def test_a_model_that_uses_one_id_twice_in_a_turn_gets_both_answers(tmp_path: Path) -> None:
    mounts = RecordingMounts({a_tool("s__do"): lambda arguments: f"did {arguments['n']}"})
    twins = tuple(ToolRequest(request_id="call", name="s__do", arguments=f'{{"n": {n}}}') for n in range(2))
    model = ScriptedModel(
        NAME, (Reply(requests=twins, stop="tools"), lambda prompt: says(" ".join(results_of(prompt))))
    )
    async with kernel_on(tmp_path, ScriptedModels(model), mounts=mounts, settings=ALLOWED) as k:
        with anyio.fail_after(DEADLINE_S):
            done = await k.call("spawn_agent", task="x", wait_s=15)
    assert done.result == "did 0 did 1"
    assert [arguments["n"] for _, arguments in mounts.calls] == [0, 1]


async def test_arguments_that_are_no_json_object_are_told_to_the_model(tmp_path: Path) -> None:
    bad = tuple(
        ToolRequest(request_id=f"r{n}", name="page_out", arguments=text) for n, text in enumerate(["{", "[1]", "7"])
    )
    model = ScriptedModel(NAME, (Reply(requests=bad, stop="tools"), lambda prompt: says("\n".join(results_of(prompt)))))
    async with kernel_on(tmp_path, ScriptedModels(model)) as k:
        with anyio.fail_after(DEADLINE_S):
            done = await k.call("spawn_agent", task="x", wait_s=15)
    assert done.exit_code == "done"
    assert all(line.startswith("invalid: The arguments of page_out are not") for line in done.result.splitlines())


async def test_more_calls_than_a_turn_may_have_are_refused_one_by_one(tmp_path: Path) -> None:
    many = TOOL_REQUESTS_PER_TURN_MAX + 2
    mounts = RecordingMounts({a_tool("s__say", read_only=True): lambda arguments: "ok"})
    script = (calls(*[("s__say", {"n": n}) for n in range(many)]), lambda prompt: says("\n".join(results_of(prompt))))
    async with kernel_on(tmp_path, models(*script), mounts=mounts) as k:
        with anyio.fail_after(DEADLINE_S):
            done = await k.call("spawn_agent", task="x", wait_s=15)
    answers = done.result.splitlines()
    assert answers[:TOOL_REQUESTS_PER_TURN_MAX] == ["ok"] * TOOL_REQUESTS_PER_TURN_MAX
    assert [answer.split(":")[0] for answer in answers[TOOL_REQUESTS_PER_TURN_MAX:]] == ["limit_exceeded"] * 2
    assert len(mounts.calls) == TOOL_REQUESTS_PER_TURN_MAX


async def test_what_may_have_happened_is_told_and_stays_unknown_in_the_journal(tmp_path: Path) -> None:
    sandbox = RecordingSandbox(failure=UnknownOutcome("The box died while it ran.", "Look first."))
    script = (calls(("sandbox_exec", {"command": "make"})), lambda prompt: says(results_of(prompt)[-1]))
    async with kernel_on(tmp_path, models(*script), sandbox=sandbox) as k:
        with anyio.fail_after(DEADLINE_S):
            done = await k.call("spawn_agent", task="x", wait_s=15)
            steps = (await k.call("read_journal", pid=done.pid)).steps
    assert done.result.startswith("unknown_outcome: The box died while it ran.")
    assert [(step.call, step.state) for step in steps] == [
        ("model", "done"),
        ("sandbox_exec", "unknown"),
        ("model", "done"),
    ]
    assert len(sandbox.commands) == 1


@pytest.mark.parametrize("how", ["read_only", "idempotent"])
async def test_of_a_call_that_can_be_made_again_nobody_is_asked_whether_it_happened(tmp_path: Path, how: str) -> None:
    def dies(arguments: object) -> str:
        raise UnknownOutcome("The server died while it ran.", "Look first.")

    mounts = RecordingMounts({a_tool("s__do", read_only=how == "read_only", idempotent=how == "idempotent"): dies})
    script = (calls(("s__do", {})), lambda prompt: says(results_of(prompt)[-1]))
    settings = Settings(rules=[Rule(effect="allow", tool="s__*")])
    async with kernel_on(tmp_path, models(*script), mounts=mounts, settings=settings) as k:
        with anyio.fail_after(DEADLINE_S):
            done = await k.call("spawn_agent", task="x", tools=["s__*"], wait_s=15)
            steps = (await k.call("read_journal", pid=done.pid)).steps
            asked = (await k.call("list_approvals")).approvals
    assert done.result.startswith("unknown_outcome: The server died while it ran.")
    assert [step.state for step in steps] == ["done", "failed", "done"]
    assert asked == []


async def test_nothing_after_an_exit_is_done(tmp_path: Path) -> None:
    sandbox = RecordingSandbox()
    script = (calls(("exit", {"result": "over"}), ("sandbox_exec", {"command": "too late"})),)
    async with kernel_on(tmp_path, models(*script), sandbox=sandbox) as k:
        with anyio.fail_after(DEADLINE_S):
            done = await k.call("spawn_agent", task="x", wait_s=15)
    assert (done.exit_code, done.result, sandbox.commands) == ("done", "over", [])


async def test_an_agent_that_gives_up_ends_as_failed_with_its_reason(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, models(calls(("exit", {"result": "no such file", "failed": True})))) as k:
        with anyio.fail_after(DEADLINE_S):
            done = await k.call("spawn_agent", task="x", wait_s=15)
    assert (done.exit_code, done.result) == ("failed", "no such file")


async def test_a_call_for_hosts_is_refused_to_an_agent_and_one_for_agents_to_a_host(tmp_path: Path) -> None:
    script = (
        calls(
            ("kernel_status", {}), ("read_audit", {}), ("answer_approval", {"approval_id": "ap_x", "decision": "allow"})
        ),
        lambda prompt: says("\n".join(results_of(prompt))),
    )
    async with kernel_on(tmp_path, models(*script)) as k:
        with anyio.fail_after(DEADLINE_S):
            done = await k.call("spawn_agent", task="x", wait_s=15)
            refused = await k.call("read_audit", limit=500, verify=True)
    assert [line.split(":")[0] for line in done.result.splitlines()] == ["denied"] * 3
    assert {row.call for row in refused.records if row.outcome == "denied"} == {
        "kernel_status",
        "read_audit",
        "answer_approval",
    }
