"""Words between agents, parents and the host; and that a tree is closed to those outside it."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from aos_mcp.abi.errors import Conflict, NotFound
from aos_mcp.testing.kernels import kernel_on
from aos_mcp.testing.model import ScriptedModel, ScriptedModels, calls, says
from tests.kernel.stage import CHILD, DEADLINE_S, NAME, ended, handle_in, models, results_of


async def test_a_child_speaks_to_its_parent_and_is_answered(tmp_path: Path) -> None:
    parent = ScriptedModel(
        NAME,
        (
            calls(("spawn_agent", {"task": "c", "model": CHILD}), ("wait_agent", {"pids": []}), key="a"),
            lambda p: calls(("send_message", {"to": handle_in(results_of(p)[0], "p_"), "text": "blue"}), key="b"),
            lambda p: calls(("wait_agent", {"pids": [handle_in(results_of(p)[0], "p_")]}), key="c"),
            lambda p: says(results_of(p)[1] + results_of(p)[-1]),
        ),
    )
    child = ScriptedModel(
        CHILD,
        (
            calls(("send_message", {"to": "parent", "text": "which colour?", "topic": "paint"}), key="a"),
            calls(("wait_agent", {"pids": [], "timeout_s": 1}), key="b"),
            # The answer comes by this wait, or before its turn if the parent was quicker.
            lambda p: says(" ".join(turn.text for turn in p.turns)),
        ),
    )
    async with kernel_on(tmp_path, ScriptedModels(parent, child)) as k:
        with anyio.fail_after(DEADLINE_S):
            agent = await ended(k, (await k.call("spawn_agent", task="p")).pid)
    assert "which colour?" in agent.result
    assert "blue" in agent.result


async def test_a_message_that_came_while_nobody_waited_is_read_before_the_next_turn(tmp_path: Path) -> None:
    model = ScriptedModel(NAME, (lambda prompt: says(prompt.turns[-1].text),))
    async with kernel_on(tmp_path, ScriptedModels(model)) as k:
        with anyio.fail_after(DEADLINE_S):
            k.machine.stopping = True
            pid = (await k.call("spawn_agent", task="x")).pid
            await k.call("send_message", to=pid, text="first", topic="plans")
            await k.call("send_message", to=pid, text="second")
            k.machine.stopping = False
            k.machine.wake()
            agent = await ended(k, pid)
    assert "[message from host about plans]\nfirst" in agent.result
    assert agent.result.index("first") < agent.result.index("second")


async def test_a_message_to_the_dead_or_to_nobody_is_refused(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, models(says("x"))) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="x", wait_s=10)).pid
            with pytest.raises(Conflict, match="has ended"):
                await k.call("send_message", to=pid, text="hello?")
            with pytest.raises(NotFound):
                await k.call("send_message", to="p_none", text="hello?")
            with pytest.raises(Conflict, match="You are the host"):
                await k.call("send_message", to="host", text="hello?")


async def test_an_agent_reaches_nobody_outside_its_tree(tmp_path: Path) -> None:
    foreign: dict[str, str] = {}

    def poke(call: str, **more: object) -> tuple[str, dict[str, object]]:
        return (call, more)

    def meddle(prompt: object) -> object:
        pid = foreign["pid"]
        return calls(
            poke("send_message", to=pid, text="psst"),
            poke("signal_agent", pid=pid, signal="kill"),
            poke("wait_agent", pids=[pid], timeout_s=0),
            poke("checkpoint", pid=pid),
            poke("page_out", content="x", pid=pid),
            poke("search_pages", query="x", pid=pid),
            poke("list_agents", parent=pid),
        )

    script = (meddle, lambda prompt: says("\n".join(results_of(prompt))))
    async with kernel_on(tmp_path, models(*script)) as k:  # type: ignore[arg-type]
        with anyio.fail_after(DEADLINE_S):
            k.machine.stopping = True
            foreign["pid"] = (await k.call("spawn_agent", task="another tree")).pid
            await k.call("signal_agent", pid=foreign["pid"], signal="stop")
            k.machine.stopping = False
            agent = await ended(k, (await k.call("spawn_agent", task="meddle")).pid)
            untouched = (await k.call("read_process", pid=foreign["pid"])).state
    answers = agent.result.splitlines()
    assert len(answers) == 7
    assert all(answer.startswith("not_found: There is no process") for answer in answers)
    assert untouched == "stopped"


async def test_an_agent_does_not_signal_itself(tmp_path: Path) -> None:
    script = (
        calls(("list_agents", {}), key="a"),
        lambda p: calls(("signal_agent", {"pid": handle_in(results_of(p)[0], "p_"), "signal": "kill"}), key="b"),
        lambda p: says(results_of(p)[-1]),
    )
    async with kernel_on(tmp_path, models(*script)) as k:
        with anyio.fail_after(DEADLINE_S):
            agent = await ended(k, (await k.call("spawn_agent", task="x")).pid)
    assert agent.result.startswith("denied: An agent does not signal itself.")


async def test_a_signal_to_the_dead_changes_nothing(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, models(says("x"))) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="x", wait_s=10)).pid
            killed = await k.call("signal_agent", pid=pid, signal="kill")
            with pytest.raises(Conflict, match="has ended"):
                await k.call("signal_agent", pid=pid, signal="cont")
            agent = await ended(k, pid)
    assert (killed.state, killed.signalled) == ("exited", 0)
    assert agent.exit_code == "done"


async def test_a_wait_for_any_returns_with_the_first(tmp_path: Path) -> None:
    slow = ScriptedModel(CHILD, (says("never"),), gate=anyio.Event())
    async with kernel_on(tmp_path, ScriptedModels(ScriptedModel(NAME, (says("quick"),)), slow)) as k:
        with anyio.fail_after(DEADLINE_S):
            pids = [(await k.call("spawn_agent", task="x", model=model)).pid for model in (CHILD, NAME)]
            first = await k.call("wait_agent", pids=pids, mode="any", timeout_s=15)
            both = await k.call("wait_agent", pids=pids, mode="all", timeout_s=0)
    assert not first.timed_out
    assert [agent.result for agent in first.agents] == [None, "quick"]
    assert both.timed_out


async def test_agents_outlive_a_kernel_that_stops_and_go_on_under_the_next(tmp_path: Path) -> None:
    busy = ScriptedModel(NAME, (calls(("page_out", {"content": "x"})), says("done")), gate=anyio.Event())
    async with kernel_on(tmp_path, ScriptedModels(busy)) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="x")).pid
            while not busy.prompts:
                await anyio.lowlevel.checkpoint()
    busy.gate = None
    async with kernel_on(tmp_path, ScriptedModels(busy)) as k:
        with anyio.fail_after(DEADLINE_S):
            agent = await ended(k, pid)
    assert (agent.exit_code, agent.result) == ("done", "done")


async def test_the_words_of_a_model_are_heard_while_it_writes(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, models(says("word by word"))) as k:
        with anyio.fail_after(DEADLINE_S), k.kernel.listen() as events:
            pid = (await k.call("spawn_agent", task="x")).pid
            async for event in events:
                if event.kind == "output":
                    break
    assert (event.subject, event.detail) == (pid, "word by word")
