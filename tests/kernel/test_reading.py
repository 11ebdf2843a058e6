"""What can be read of a kernel: processes, journals, page tables, checkpoints, lists in pieces, status and metrics."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from aos_mcp.abi.errors import NotFound
from aos_mcp.abi.settings import Settings
from aos_mcp.testing.clock import FakeClock
from aos_mcp.testing.devices import RecordingMounts, RecordingSandbox, a_tool
from aos_mcp.testing.kernels import HOST, kernel_on
from aos_mcp.testing.model import ScriptedModel, ScriptedModels, calls, says
from tests.kernel.stage import CHILD, DEADLINE_S, NAME, ended, family, models


async def test_a_journal_is_read_in_pieces_and_has_no_gap(tmp_path: Path) -> None:
    script = [calls(("page_out", {"content": f"finding {n}"}), key=f"t{n}") for n in range(5)]
    async with kernel_on(tmp_path, models(*script, says("done"))) as k:
        with anyio.fail_after(DEADLINE_S):
            agent = await ended(k, (await k.call("spawn_agent", task="x")).pid)
            whole = (await k.call("read_journal", pid=agent.pid)).steps
            pieces, after = [], -1
            while piece := (await k.call("read_journal", pid=agent.pid, after=after, limit=4)).steps:
                pieces += piece
                after = piece[-1].number
    assert pieces == whole
    assert [step.number for step in whole] == list(range(11))
    assert [step.call for step in whole] == ["model", "page_out"] * 5 + ["model"]
    assert all(step.result and step.ended_at for step in whole)
    assert {step.effect for step in whole} == {"llm", "idempotent"}


async def test_a_process_is_shown_with_its_family_budget_and_rights(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, family(says("child done"))) as k:
        with anyio.fail_after(DEADLINE_S):
            spawned = await k.call(
                "spawn_agent", task="p", name="boss", priority=7, tools=["spawn_*"], budget={"usd": 0.5, "turns": 9}
            )
            await ended(k, spawned.pid)
            parent = await k.call("read_process", pid=spawned.pid)
            child = await k.call("read_process", pid=parent.children[0])
    assert (parent.name, parent.priority, parent.depth, parent.program) == ("boss", 7, 0, parent.pid)
    assert parent.budget["usd"] == 0.5
    assert parent.budget["turns"] == 9
    assert parent.tools[-1] == ["spawn_*"]
    assert (child.parent, child.depth, child.program, child.model) == (parent.pid, 1, parent.pid, CHILD)
    assert child.tools == parent.tools
    assert child.workspace != parent.workspace
    assert child.ended_at >= child.created_at


async def test_a_person_may_name_a_process_by_the_beginning_of_its_pid(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, models(says("x"))) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="x", wait_s=10)).pid
            assert (await k.call("read_process", pid=pid[:8])).pid == pid
            with pytest.raises(NotFound):
                await k.call("read_process", pid="p_zzzzzz")


async def test_a_list_is_read_in_pieces_newest_first_and_each_agent_once(tmp_path: Path) -> None:
    clock = FakeClock()
    async with kernel_on(tmp_path, models(says("x")), clock=clock) as k:
        with anyio.fail_after(DEADLINE_S):
            k.machine.stopping = True
            made = []
            for number in range(7):
                clock.advance(number % 2)
                made.append((await k.call("spawn_agent", task=f"t{number}")).pid)
            seen, cursor, pieces = [], None, 0
            while True:
                piece = await k.call("list_agents", limit=3, **({"cursor": cursor} if cursor else {}))
                seen += [agent.pid for agent in piece.agents]
                cursor, pieces = piece.next_cursor, pieces + 1
                if cursor is None:
                    break
            with pytest.raises(NotFound):
                await k.call("list_agents", cursor="yesterday~p_x")
    assert sorted(seen) == sorted(made)
    assert seen[0] in made[-2:]
    assert pieces == 3


async def test_a_list_is_narrowed_by_state_and_parent(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, family(says("child done"))) as k:
        with anyio.fail_after(DEADLINE_S):
            parent = (await ended(k, (await k.call("spawn_agent", task="p")).pid)).pid
            k.machine.stopping = True
            held = (await k.call("spawn_agent", task="held")).pid
            await k.call("signal_agent", pid=held, signal="stop")
            stopped = (await k.call("list_agents", state="stopped")).agents
            children = (await k.call("list_agents", parent=parent)).agents
    assert [agent.pid for agent in stopped] == [held]
    assert [(agent.parent, agent.model) for agent in children] == [(parent, CHILD)]


async def test_an_agent_lists_its_own_tree_only(tmp_path: Path) -> None:
    script = (calls(("list_agents", {})), lambda prompt: says(prompt.turns[-1].text))
    async with kernel_on(tmp_path, models(*script)) as k:
        with anyio.fail_after(DEADLINE_S):
            other = await ended(k, (await k.call("spawn_agent", task="another tree")).pid)
            agent = await ended(k, (await k.call("spawn_agent", task="look")).pid)
    assert agent.pid in agent.result
    assert other.pid not in agent.result


async def test_a_checkpoint_is_shown_to_its_owner_and_nobody_else(tmp_path: Path) -> None:
    stranger = replace(HOST, principal="local:other")
    async with kernel_on(tmp_path, models(says("x"))) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="x", wait_s=10)).pid
            saved = await k.call("checkpoint", pid=pid, label="here")
            shown = await k.call("read_checkpoint", checkpoint_id=saved.checkpoint_id)
            with pytest.raises(NotFound):
                await k.call("read_checkpoint", stranger, checkpoint_id=saved.checkpoint_id)
            assert (await k.call("read_process", pid=pid)).checkpoints == [saved.checkpoint_id]
    assert (shown.pid, shown.label, shown.step, shown.files) == (pid, "here", saved.step, 0)


async def test_the_status_says_what_is_proven_spent_and_mounted(tmp_path: Path) -> None:
    mounts = RecordingMounts({a_tool("git__log", read_only=True): lambda arguments: "ok"})
    settings = Settings.model_validate({"workspace_budget": {"usd": 3}})
    async with kernel_on(tmp_path, models(says("x")), mounts=mounts, settings=settings) as k:
        with anyio.fail_after(DEADLINE_S):
            await k.call("spawn_agent", task="x", wait_s=10)
            await k.machine.sandbox_tried.wait()
            status = await k.call("kernel_status")
    assert (status.default_model, status.agents) == (NAME, {"exited": 1})
    assert [(row.name, row.ready) for row in status.providers] == [("scripted", True)]
    assert [(row.server, row.state) for row in status.mounts] == [("git", "up")]
    assert (status.sandbox.driver, status.sandbox.memory_limit) == ("recording", "none")
    assert (status.budget.usd, status.budget.usd_limit) == (0.0002, 3.0)


async def test_a_sandbox_that_did_not_prove_itself_is_told_with_the_reason_and_runs_nothing(tmp_path: Path) -> None:
    sandbox = RecordingSandbox(passes=False)
    script = (calls(("sandbox_exec", {"command": "id"})), lambda prompt: says(prompt.turns[-1].text))
    async with kernel_on(tmp_path, models(*script), sandbox=sandbox) as k:
        with anyio.fail_after(DEADLINE_S):
            done = await k.call("spawn_agent", task="x", wait_s=10)
            status = await k.call("kernel_status")
    assert done.result.startswith("unavailable: No sandbox is usable here (recording: the test says so).")
    assert (status.sandbox.driver, status.sandbox.reason) == (None, "recording: the test says so")
    assert sandbox.commands == []


async def test_the_metrics_count_calls_turns_tokens_and_money(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, models(calls(("page_out", {"content": "x"})), says("done"))) as k:
        with anyio.fail_after(DEADLINE_S):
            await ended(k, (await k.call("spawn_agent", task="x")).pid)
            with pytest.raises(NotFound):
                await k.call("page_in", page_id="pg_none")
            lines = (await k.call("read_metrics")).text.splitlines()
    for wanted in (
        'aos_syscalls_total{call="spawn_agent",outcome="ok"} 1.0',
        'aos_syscalls_total{call="page_in",outcome="not_found"} 1.0',
        f'aos_model_calls_total{{model="{NAME}",outcome="ok"}} 2.0',
        f'aos_tokens_total{{kind="input",model="{NAME}"}} 200.0',
        f'aos_spent_usd_total{{model="{NAME}"}} 0.0004',
        'aos_processes{state="exited"} 1.0',
        'aos_ready_wait_seconds_count{class="normal",policy="default"} 2.0',
        'aos_turn_seconds_count{class="normal",policy="default"} 2.0',
    ):
        assert wanted in lines


async def test_one_model_call_is_made_for_a_host_and_charged_to_the_workspace(tmp_path: Path) -> None:
    model = ScriptedModel(NAME, (says('{"a": 1}'),))
    async with kernel_on(tmp_path, ScriptedModels(model)) as k:
        with anyio.fail_after(DEADLINE_S):
            text = await k.call("complete", prompt="hello", system="be brief")
            shaped = await k.call("complete", messages=[{"role": "user", "content": "hi"}], schema={"type": "object"})
            status = await k.call("kernel_status")
    assert (text.text, text.object) == ('{"a": 1}', None)
    assert (shaped.text, shaped.object) == (None, {"a": 1})
    assert model.prompts[0].system == "be brief"
    assert status.budget.usd == pytest.approx(0.0004)


async def test_an_answer_that_is_no_json_is_asked_for_once_more(tmp_path: Path) -> None:
    model = ScriptedModel(NAME, (says("certainly! here it is"), says('```json\n{"a": 2}\n```')))
    async with kernel_on(tmp_path, ScriptedModels(model)) as k:
        with anyio.fail_after(DEADLINE_S):
            done = await k.call("complete", prompt="hello", schema={"type": "object"})
    assert done.object == {"a": 2}
    assert "not valid JSON" in model.prompts[1].turns[-1].text
