"""Turns that meet a limit: of the window, of the reply, of the retries, of what is left to spend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio

from aos_mcp.abi.completion import Prompt, Reply
from aos_mcp.abi.errors import ModelError, ModelFault
from aos_mcp.abi.limits import MODEL_RETRIES_MAX
from aos_mcp.testing.kernels import kernel_on
from aos_mcp.testing.model import ScriptedModel, ScriptedModels, calls, says
from tests.kernel.stage import DEADLINE_S, NAME, ended, models, results_of, until


def fault(kind: ModelFault, **rest: Any) -> ModelError:
    return ModelError(kind, f"The provider says {kind}.", "None.", **rest)


def prompt_chars(prompt: Prompt) -> int:
    return sum(len(turn.text) for turn in prompt.turns)


class NarrowModel(ScriptedModel):
    """A model whose window is smaller than what it says of itself."""

    limit_chars = 8_000

    async def complete(self, prompt: Prompt, deliver: Any) -> Any:
        if prompt_chars(prompt) > self.limit_chars:
            self.prompts.append(prompt)
            raise fault(ModelFault.CONTEXT_TOO_LONG)
        return await ScriptedModel.complete(self, prompt, deliver)


async def test_a_prompt_that_does_not_fit_after_all_is_compacted_and_sent_again(tmp_path: Path) -> None:
    script = (
        *[calls(("page_in", {"page_id": "pg_none" + "x" * 50}), text="w" * 2_000, key=f"k{n}") for n in range(6)],
    )
    model = NarrowModel(NAME, (*script, says("made it")))
    async with kernel_on(tmp_path, ScriptedModels(model)) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="x")).pid
            agent = await ended(k, pid)
            context = await k.call("read_context", pid=pid)
    assert (agent.exit_code, agent.result) == ("done", "made it")
    assert any(not page.resident and page.left_why == "compaction" for page in context.pages)


async def test_a_task_that_can_never_fit_ends_with_the_providers_words(tmp_path: Path) -> None:
    model = NarrowModel(NAME, (says("never"),))
    async with kernel_on(tmp_path, ScriptedModels(model)) as k:
        with anyio.fail_after(DEADLINE_S):
            agent = await ended(k, (await k.call("spawn_agent", task="y" * 9_000)).pid)
    assert agent.exit_code == "failed"
    assert "context_too_long" in agent.reason
    assert len(model.prompts) == 1


async def test_waiting_out_a_provider_uses_up_no_tries(tmp_path: Path) -> None:
    busy = [fault(ModelFault.RATE, retry_after_s=0.001) for _ in range(2 * MODEL_RETRIES_MAX)]
    broken = [fault(ModelFault.TRANSPORT, retry_after_s=0.001)]
    async with kernel_on(tmp_path, models(says("ok"), failures=[*busy, *broken])) as k:
        with anyio.fail_after(DEADLINE_S):
            agent = await ended(k, (await k.call("spawn_agent", task="x")).pid)
    assert (agent.exit_code, agent.result) == ("done", "ok")


async def test_a_model_that_is_always_cut_is_given_up(tmp_path: Path) -> None:
    cut = Reply(text="and then", stop="length")
    model = ScriptedModel(NAME, (cut,) * 90)
    async with kernel_on(tmp_path, ScriptedModels(model)) as k:
        with anyio.fail_after(DEADLINE_S):
            agent = await ended(k, (await k.call("spawn_agent", task="x")).pid)
    assert agent.exit_code == "failed"
    assert "token limit" in agent.reason
    assert len(model.prompts) < 20


async def test_what_a_finishing_agent_says_beside_its_last_calls_is_its_result(tmp_path: Path) -> None:
    gate = anyio.Event()
    script = (
        calls(("page_out", {"content": "x"}), key="a"),
        calls(("page_out", {"content": "y"}), text="so far: 7", key="b"),
    )
    model = ScriptedModel(NAME, script, gate=gate)
    async with kernel_on(tmp_path, ScriptedModels(model)) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="x")).pid
            await until(lambda: bool(model.prompts))
            await k.call("signal_agent", pid=pid, signal="term")
            gate.set()
            agent = await ended(k, pid)
    assert (agent.exit_code, agent.result) == ("terminated", "so far: 7")


async def test_an_agent_does_not_wait_for_itself(tmp_path: Path) -> None:
    script = (
        calls(("list_agents", {}), key="a"),
        lambda p: calls(("wait_agent", {"pids": [own_pid(p)], "timeout_s": 3_600}), key="b"),
        lambda p: says(results_of(p)[-1]),
    )
    async with kernel_on(tmp_path, models(*script)) as k:
        with anyio.fail_after(DEADLINE_S):
            agent = await ended(k, (await k.call("spawn_agent", task="x")).pid)
    assert agent.result.startswith("denied: An agent does not wait for itself.")


def own_pid(prompt: Prompt) -> str:
    text = results_of(prompt)[-1]
    start = text.index("p_")
    return text[start : start + 28]


async def test_a_spawn_that_waits_leaves_the_hosts_mail_alone(tmp_path: Path) -> None:
    script = (calls(("send_message", {"to": "host", "text": "hello"}), key="a"), says("done"))
    async with kernel_on(tmp_path, models(*script)) as k:
        with anyio.fail_after(DEADLINE_S):
            first = await k.call("spawn_agent", task="x", wait_s=60)
            assert (first.exit_code, first.result) == ("done", "done")
            waited = await k.call("wait_agent", pids=[first.pid])
    assert [message.text for message in waited.messages] == ["hello"]


async def test_an_agent_may_spawn_and_wait_in_one_call(tmp_path: Path) -> None:
    child = ScriptedModel("scripted/child", (says("the answer"),))
    parent = ScriptedModel(
        NAME,
        (
            calls(("spawn_agent", {"task": "c", "model": "scripted/child", "wait_s": 60}), key="a"),
            lambda p: says(results_of(p)[-1]),
        ),
    )
    async with kernel_on(tmp_path, ScriptedModels(parent, child)) as k:
        with anyio.fail_after(DEADLINE_S):
            agent = await ended(k, (await k.call("spawn_agent", task="x")).pid)
    assert '"result": "the answer"' in agent.result


async def test_an_agent_with_nothing_left_is_not_spawned_to_die(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, models(calls(("spawn_agent", {"task": "c"}), key="a"))) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="x", budget={"turns": 1})).pid
            assert (await ended(k, pid)).exit_code == "budget_exhausted"
            assert len((await k.call("list_agents")).agents) == 1
            log = await k.call("read_audit", verify=True, limit=200)
    refused = [row.detail for row in log.records if (row.call, row.outcome) == ("spawn_agent", "budget_exhausted")]
    assert "No turns are left for another agent." in refused[0]
