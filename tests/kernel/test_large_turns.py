"""What is larger than a window ends no agent: a turn of many results, a long letter, a page read at one stroke."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from aos_mcp.abi.budget import Usage
from aos_mcp.abi.completion import Prompt, Reply
from aos_mcp.abi.settings import Settings
from aos_mcp.context.tokens import count
from aos_mcp.kernel.calls.memory import AGENT_CHARS_MAX
from aos_mcp.testing.kernels import kernel_on
from aos_mcp.testing.model import ScriptedModel, ScriptedModels, calls, says
from tests.kernel.stage import DEADLINE_S, NAME, ended, results_of

WINDOW = 16_000
TEXT = "\n".join(f"line {number}: the quick brown fox jumps over the lazy dog" for number in range(4_000))


def narrow(prompt: Prompt) -> None:
    """Check that a prompt fits the window, as the provider would."""
    assert sum(count(turn.text) for turn in prompt.turns) < WINDOW


@pytest.mark.parametrize("reads", [3, 12])
async def test_results_that_exceed_the_window_together_leave_as_handles(tmp_path: Path, reads: int) -> None:
    pages: list[str] = []

    def read(prompt: Prompt) -> Reply:
        return calls(*[("page_in", {"page_id": pages[0], "limit": 2_000_000, "offset": n}) for n in range(reads)])

    def answer(prompt: Prompt) -> Reply:
        narrow(prompt)
        return says(f"{len(results_of(prompt))} results, handles: {'page_in pg_' in ' '.join(results_of(prompt))}")

    model = ScriptedModel(NAME, (read, answer), usage=Usage())
    settings = Settings.model_validate({"context": {"window_tokens": WINDOW}})
    async with kernel_on(tmp_path, ScriptedModels(model), settings=settings) as k:
        with anyio.fail_after(DEADLINE_S):
            pages.append((await k.call("page_out", content=TEXT)).page_id)
            done = await k.call("spawn_agent", task="read it all", wait_s=DEADLINE_S)
    assert done.result == f"{reads} results, handles: True"


async def test_an_agent_is_given_a_page_in_portions_and_a_host_as_much_as_it_asks_for(tmp_path: Path) -> None:
    pages: list[str] = []

    def read(prompt: Prompt) -> Reply:
        return calls(("page_in", {"page_id": pages[0], "limit": 2_000_000}))

    model = ScriptedModel(NAME, (read, lambda prompt: says(results_of(prompt)[-1][-300:])))
    async with kernel_on(tmp_path, ScriptedModels(model)) as k:
        with anyio.fail_after(DEADLINE_S):
            pages.append((await k.call("page_out", content=TEXT)).page_id)
            done = await k.call("spawn_agent", task="read it all", wait_s=DEADLINE_S)
            whole = await k.call("page_in", page_id=pages[0], limit=2_000_000)
    assert f"offset={AGENT_CHARS_MAX}" in done.result
    assert (whole.content, whole.next_offset) == (TEXT, None)


async def test_a_long_letter_is_shown_by_its_beginning_and_can_be_read_whole(tmp_path: Path) -> None:
    model = ScriptedModel(NAME, (calls(("wait_agent", {"pids": [], "timeout_s": 0.1})), says("read")), usage=Usage())
    settings = Settings.model_validate({"context": {"window_tokens": WINDOW}})
    async with kernel_on(tmp_path, ScriptedModels(model), settings=settings) as k:
        with anyio.fail_after(DEADLINE_S):
            agent = (await k.call("spawn_agent", task="wait for mail")).pid
            await k.call("send_message", to=agent, text=TEXT)
            done = await ended(k, agent)
            rows = (await k.call("read_context", pid=agent)).pages
            kept = next(row for row in rows if row.title == "message from host")
            assert (await k.call("page_in", page_id=kept.page_id, limit=len(TEXT))).content == TEXT
    assert done.exit_code == "done"
    for prompt in model.prompts:
        narrow(prompt)


async def test_a_page_in_pieces_is_found_by_any_beginning_of_its_id_that_a_handle_may_show(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, ScriptedModels(ScriptedModel(NAME, ()))) as k:
        page_id = (await k.call("page_out", content=TEXT)).page_id
        for chars in (13, 20, len(page_id)):
            assert (await k.call("page_in", page_id=page_id[:chars], limit=10)).content == TEXT[:10]
