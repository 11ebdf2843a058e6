"""When the kernel lets pages leave a window that still has room: where it pays, and where it is free."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio

from aos_mcp.abi.completion import ModelPrice, Prompt, Reply
from aos_mcp.context.compaction import TURNS_BETWEEN_CUTS
from aos_mcp.testing.devices import RecordingMounts, a_tool
from aos_mcp.testing.kernels import kernel_on
from aos_mcp.testing.model import ScriptedModel, ScriptedModels, calls, says
from tests.kernel.stage import DEADLINE_S, NAME
from tests.kernel.test_paging import is_prefix, report

TURNS = 42  # The next turn is one in which the pager looks: every fourth from the one in which there is enough.
ROOMY = 1_000_000
READ = a_tool("lib__read", read_only=True)
DEAR = ModelPrice(input=1.0, cached=0.5, written=1.0, output=1.0, source="test")
ALMOST_FREE_TO_READ = ModelPrice(input=1.0, cached=0.0001, written=1.25, output=1.0, source="test")


async def run(home: Path, price: ModelPrice, script: Any, mounts: RecordingMounts) -> tuple[ScriptedModel, list[Any]]:
    model = ScriptedModel(NAME, script, context_tokens=ROOMY, price=price)
    async with kernel_on(home, ScriptedModels(model), mounts=mounts) as k:
        with anyio.fail_after(DEADLINE_S):
            budget = {"usd": 20, "tokens": 20_000_000, "turns": 200}
            pid = (await k.call("spawn_agent", task="read all reports", tools=["lib__*"], budget=budget, wait_s=25)).pid
            return model, list((await k.call("read_context", pid=pid)).pages)


def reading() -> list[Reply]:
    return [calls(("lib__read", {"n": n}), text=f"step {n}", key=f"r{n}-") for n in range(TURNS)]


def mounts() -> RecordingMounts:
    return RecordingMounts({READ: lambda arguments: report(arguments["n"])})


async def test_pages_leave_a_roomy_window_where_it_pays_and_the_prefix_is_stable_in_between(tmp_path: Path) -> None:
    model, pages = await run(tmp_path, DEAR, (*reading(), says("done")), mounts())
    rewritten = [n for n, (one, other) in enumerate(pairwise(model.prompts), 1) if not is_prefix(one, other)]
    assert rewritten
    assert all(later - earlier >= TURNS_BETWEEN_CUTS for earlier, later in pairwise(rewritten))
    assert {page.left_why for page in pages if not page.resident} == {"compaction"}


async def test_nothing_leaves_where_reading_it_again_costs_next_to_nothing(tmp_path: Path) -> None:
    _, pages = await run(tmp_path, ALMOST_FREE_TO_READ, (*reading(), says("done")), mounts())
    assert all(page.resident for page in pages)


async def test_a_change_of_the_tool_list_is_an_occasion_to_compact_for_nothing(tmp_path: Path) -> None:
    library = mounts()

    def change(prompt: Prompt) -> Reply:
        library.replace(replace(READ, description="Reads. Now with a word more."))
        return calls(("lib__read", {"n": TURNS}), key="last-")

    _, pages = await run(tmp_path, ALMOST_FREE_TO_READ, (*reading(), change, says("done")), library)
    assert sum(not page.resident for page in pages) > TURNS
