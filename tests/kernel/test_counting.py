"""What a provider counts beside what we count: learned from bills, and a window that holds however wrong the guess."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio

from aos_mcp.abi.budget import Usage
from aos_mcp.abi.completion import ModelInfo, Prompt, Reply
from aos_mcp.abi.errors import ModelError, ModelFault
from aos_mcp.kernel import counting
from aos_mcp.kernel.margin import counted_in
from aos_mcp.testing.devices import RecordingMounts, a_tool
from aos_mcp.testing.kernels import kernel_on
from aos_mcp.testing.model import ScriptedModel, ScriptedModels, calls, says
from tests.kernel.stage import DEADLINE_S, NAME
from tests.kernel.test_paging import report

INFO = ModelInfo(
    name=NAME, dialect="openai", context_tokens=100_000, output_tokens_max=4_096, price=None, key_present=True
)


async def test_a_count_follows_what_the_provider_bills_and_outlives_the_kernel(tmp_path: Path) -> None:
    models = ScriptedModels(ScriptedModel(NAME, (says("done"),)))
    async with kernel_on(tmp_path, models) as k:
        store = k.machine.store
        assert await store.read(lambda tx: counting.factor(tx, INFO)) == 1.0
        for _ in range(40):
            await store.write(lambda tx: counting.learn(tx, INFO, 1_000, Usage(input_tokens=200, cached_tokens=1_300)))
        learned = await store.read(lambda tx: counting.factor(tx, INFO))
        assert 1.45 < learned <= 1.5
        await store.write(lambda tx: counting.learn(tx, INFO, 20, Usage(input_tokens=900)))
        assert await store.read(lambda tx: counting.factor(tx, INFO)) == learned, "a short prompt tells nothing"
    async with kernel_on(tmp_path, models) as k:
        assert await k.machine.store.read(lambda tx: counting.factor(tx, INFO)) == learned
        assert await k.machine.store.read(lambda tx: counting.room(tx, INFO, 100_000)) < 100_000 / learned


async def test_the_window_is_kept_however_wrong_the_first_guess(tmp_path: Path) -> None:
    """A provider counts three tokens for one of ours and refuses what is beyond its window; the agent ends well."""
    window = 60_000
    sent: list[str] = []

    def strict(reply: Reply) -> Callable[[Prompt], Reply]:
        def answer(prompt: Prompt) -> Reply:
            if 3 * counted_in(prompt).plain > window:
                sent.append("refused")
                raise ModelError(ModelFault.CONTEXT_TOO_LONG, "Too long.", "Send less.")
            sent.append("answered")
            return reply

        return answer

    script = [strict(calls(("lib__read", {"n": n}), key=f"r{n}-")) for n in range(24)]
    model = ScriptedModel(NAME, (*script, strict(says("done"))), context_tokens=window)
    mounts = RecordingMounts({a_tool("lib__read", read_only=True): lambda arguments: report(arguments["n"])})
    async with kernel_on(tmp_path, ScriptedModels(model), mounts=mounts) as k:
        with anyio.fail_after(DEADLINE_S):
            done = await k.call("spawn_agent", task="read all reports", tools=["lib__*"], wait_s=25)
    assert done.exit_code == "done"
    assert sent.count("answered") == 25
    assert sent.count("refused") <= 3, "a refusal teaches the count"
