"""Context: nothing moves between compactions, nothing is lost by one, and what is large becomes a handle."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest

from aos_mcp.abi.completion import Prompt, Reply, Turn
from aos_mcp.abi.errors import Conflict
from aos_mcp.abi.limits import RESULT_TOKENS_MAX
from aos_mcp.abi.settings import Settings
from aos_mcp.testing.devices import RecordingMounts, RecordingSandbox, a_tool
from aos_mcp.testing.kernels import TestKernel, kernel_on
from aos_mcp.testing.model import ScriptedModel, ScriptedModels, calls, says
from tests.kernel.stage import DEADLINE_S, NAME, ended, handle_in, models, results_of

WINDOW = 20_000
TURNS = 24


def report(number: object) -> str:
    """About 1,500 tokens, different for each number, with what a careless store would spoil."""
    body = " ".join(f"entry-{number}-{index}" for index in range(300))
    return f"report {number} of the café ☕\r\n\t{body}\n\n  trailing spaces  \n"


def reader(turns: int) -> tuple[ScriptedModel, RecordingMounts]:
    script = [calls(("lib__read", {"n": n}), text=f"step {n}", key=f"r{n}-") for n in range(turns)]
    mounts = RecordingMounts({a_tool("lib__read", read_only=True): lambda arguments: report(arguments["n"])})
    return ScriptedModel(NAME, (*script, says("done")), context_tokens=WINDOW), mounts


def content(turn: Turn) -> tuple[object, ...]:
    """What a provider is sent of a turn; cache marks are not part of it."""
    return (turn.role, turn.text, turn.requests, turn.request_id, turn.is_error, turn.reasoning)


def is_prefix(earlier: Prompt, later: Prompt) -> bool:
    said = [content(turn) for turn in earlier.turns]
    same = (earlier.system, earlier.tools) == (later.system, later.tools)
    return same and said == [content(turn) for turn in later.turns[: len(said)]]


async def test_the_prompt_only_grows_between_compactions(tmp_path: Path) -> None:
    model, mounts = reader(2 * TURNS)
    async with kernel_on(tmp_path, ScriptedModels(model), mounts=mounts) as k:
        with anyio.fail_after(DEADLINE_S):
            done = await k.call("spawn_agent", task="read all reports", wait_s=15)
            compactions = samples(await k.call("read_metrics"))["aos_compactions_total"]
    assert (done.exit_code, len(model.prompts)) == ("done", 2 * TURNS + 1)
    rewritten = [n for n, (one, next_one) in enumerate(pairwise(model.prompts), 1) if not is_prefix(one, next_one)]
    assert len(rewritten) == compactions
    assert len(rewritten) >= 2, "the test is about what happens between compactions"
    assert all(b - a >= 4 for a, b in pairwise(rewritten)), "each compaction makes room for several turns"


def samples(metrics: Any) -> dict[str, float]:
    lines = [line.rpartition(" ") for line in metrics.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


async def test_what_left_the_window_is_read_back_byte_for_byte(tmp_path: Path) -> None:
    model, mounts = reader(TURNS)
    async with kernel_on(tmp_path, ScriptedModels(model), mounts=mounts) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="read all reports", wait_s=15)).pid
            table = (await k.call("read_context", pid=pid)).pages
            results = [page for page in table if page.kind == "result"]
            gone = [page for page in results if not page.resident]
            whole = [await read_whole(k, page.page_id) for page in results]
    assert sorted(whole) == sorted(report(n) for n in range(TURNS))
    assert len(gone) > TURNS // 2
    assert {page.left_why for page in gone} == {"compaction"}
    assert all(page.left_at is not None for page in gone)
    assert all(page.resident for page in table if page.kind == "task")


async def read_whole(k: TestKernel, page_id: str) -> str:
    text, offset = "", 0
    while True:
        piece = await k.call("page_in", page_id=page_id, offset=offset, limit=1_000)
        text += str(piece.content)
        if piece.next_offset is None:
            return text
        offset = piece.next_offset


async def test_a_call_and_its_result_leave_together(tmp_path: Path) -> None:
    model, mounts = reader(TURNS)
    async with kernel_on(tmp_path, ScriptedModels(model), mounts=mounts) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="read all reports", wait_s=15)).pid
            table = (await k.call("read_context", pid=pid)).pages
    results = [page for page in table if page.kind == "result"]
    replies = [page for page in table if page.kind == "reply"][: len(results)]
    assert [page.resident for page in replies] == [page.resident for page in results]
    for prompt in model.prompts:
        asked = [request.request_id for turn in prompt.turns for request in turn.requests]
        assert asked == [turn.request_id for turn in prompt.turns if turn.role == "tool"]


async def test_an_agent_finds_a_handle_in_its_window_and_reads_the_page_back(tmp_path: Path) -> None:
    model, mounts = reader(TURNS)
    asked: list[str] = []

    def ask_back(prompt: Prompt) -> Reply:
        lines = [line for turn in prompt.turns for line in turn.text.splitlines()]
        line = next(line for line in lines if line.startswith("[paged out] result"))
        asked.append(line.partition("report ")[2].split()[0])
        return calls(("page_in", {"page_id": line.rpartition("page_in ")[2]}), key="back")

    model.script = (*model.script[:TURNS], ask_back, lambda prompt: calls(("exit", {"result": results_of(prompt)[-1]})))
    async with kernel_on(tmp_path, ScriptedModels(model), mounts=mounts) as k:
        with anyio.fail_after(DEADLINE_S):
            done = await ended(k, (await k.call("spawn_agent", task="read all reports")).pid)
            context = await k.call("read_context", pid=done.pid)
    assert done.result == report(asked[0])
    assert context.faults == 1


async def test_a_small_context_is_never_paged(tmp_path: Path) -> None:
    model, mounts = reader(4)
    async with kernel_on(tmp_path, ScriptedModels(model), mounts=mounts) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="read all reports", wait_s=15)).pid
            pages = (await k.call("read_context", pid=pid)).pages
    assert all(page.resident for page in pages)


async def test_the_operator_may_make_the_window_smaller_than_the_models(tmp_path: Path) -> None:
    model, mounts = reader(TURNS)
    model.context_tokens = 1_000_000
    settings = Settings.model_validate({"context": {"window_tokens": WINDOW}})
    async with kernel_on(tmp_path, ScriptedModels(model), mounts=mounts, settings=settings) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="read all reports", wait_s=15)).pid
            context = await k.call("read_context", pid=pid)
    assert context.window_tokens == WINDOW
    assert not all(page.resident for page in context.pages)


async def test_a_large_tool_result_becomes_its_head_and_a_page(tmp_path: Path) -> None:
    large = "\n".join(f"line {n} of a long listing" for n in range(20_000))

    def read_on(prompt: Prompt) -> Reply:
        shown = results_of(prompt)[-1]
        offset = int(re.findall(r"offset=(\d+)", shown)[-1])
        return calls(("page_in", {"page_id": handle_in(shown, "pg_"), "offset": offset, "limit": 500}), key="b")

    mounts = RecordingMounts({a_tool("big__list", read_only=True): lambda arguments: large})
    model = ScriptedModel(NAME, (calls(("big__list", {}), key="a"), read_on, says("done")))
    async with kernel_on(tmp_path, ScriptedModels(model), mounts=mounts) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="list", wait_s=15)).pid
            documents = [p for p in (await k.call("read_context", pid=pid)).pages if p.kind == "document"]
            kept = await read_whole_fast(k, documents[0].page_id)
    shown = results_of(model.prompts[1])[0]
    assert shown.startswith(large[:1_000])
    assert len(shown) < RESULT_TOKENS_MAX * 4
    assert kept == large
    offset = int(re.findall(r"offset=(\d+)", shown)[-1])
    assert results_of(model.prompts[2])[1].startswith(large[offset : offset + 500])


async def read_whole_fast(k: TestKernel, page_id: str) -> str:
    piece = await k.call("page_in", page_id=page_id, limit=8_000_000)
    assert piece.next_offset is None
    return str(piece.content)


async def test_the_output_of_a_command_that_is_too_long_is_kept_as_a_page(tmp_path: Path) -> None:
    long = b"".join(b"%d bottles of beer on the wall\n" % n for n in range(5_000))
    async with kernel_on(tmp_path, models(says("x")), sandbox=RecordingSandbox(stdout=long)) as k:
        with anyio.fail_after(DEADLINE_S):
            done = await k.call("sandbox_exec", command="sing")
            kept = await read_whole_fast(k, done.output_page)
    assert done.truncated
    assert long.decode().startswith(done.stdout)
    assert kept == long.decode()


async def test_a_downstream_result_too_long_for_a_host_is_kept_as_a_page(tmp_path: Path) -> None:
    large = "x y z " * 20_000
    mounts = RecordingMounts({a_tool("big__list", read_only=True): lambda arguments: large})
    async with kernel_on(tmp_path, models(says("x")), mounts=mounts) as k:
        with anyio.fail_after(DEADLINE_S):
            done = await k.call("call_tool", name="big__list")
            assert await read_whole_fast(k, done.page_id) == large


async def test_an_exit_with_a_huge_result_keeps_all_of_it(tmp_path: Path) -> None:
    huge = "\n".join(f"finding {n}: something worth keeping" for n in range(20_000))
    async with kernel_on(tmp_path, models(calls(("exit", {"result": huge})))) as k:
        with anyio.fail_after(DEADLINE_S):
            agent = await ended(k, (await k.call("spawn_agent", task="x")).pid)
            assert huge.startswith(agent.result)
            assert len(agent.result) < len(huge)
            assert await read_whole_fast(k, agent.result_page) == huge


async def test_a_last_word_that_is_huge_keeps_all_of_it(tmp_path: Path) -> None:
    huge = "\n".join(f"finding {n}: something worth keeping" for n in range(20_000))
    async with kernel_on(tmp_path, models(says(huge))) as k:
        with anyio.fail_after(DEADLINE_S):
            agent = await ended(k, (await k.call("spawn_agent", task="x")).pid)
            assert len(agent.result) < len(huge)
            assert agent.result_page is not None, "there is a way to the rest of it"
            assert await read_whole_fast(k, agent.result_page) == huge


async def test_pages_are_found_by_their_words_and_only_by_their_owners_agents(tmp_path: Path) -> None:
    def look(prompt: Prompt) -> Reply:
        return calls(("search_pages", {"query": "zanzibar"}), key="b")

    script = (look, lambda prompt: calls(("exit", {"result": results_of(prompt)[-1]}), key="c"))
    async with kernel_on(tmp_path, models(*script)) as k:
        with anyio.fail_after(DEADLINE_S):
            k.machine.stopping = True
            other = (await k.call("spawn_agent", task="another tree")).pid
            foreign = await k.call("page_out", content="zanzibar is foreign", title="foreign", pid=other)
            shared = await k.call("page_out", content="zanzibar is shared", title="shared")
            await k.call("signal_agent", pid=other, signal="kill")
            k.machine.stopping = False
            agent = await ended(k, (await k.call("spawn_agent", task="find it")).pid)
            everything = await k.call("search_pages", query="zanzibar")
    assert shared.page_id in agent.result
    assert foreign.page_id not in agent.result
    assert {shared.page_id, foreign.page_id} <= {hit.page_id for hit in everything.hits}


async def test_a_page_of_another_tree_is_as_good_as_missing(tmp_path: Path) -> None:
    foreign: Mapping[str, str] = {}

    def peek(prompt: Prompt) -> Reply:
        return calls(("page_in", {"page_id": foreign["id"]}), ("page_in", {"page_id": "pg_none"}), key="b")

    script = (peek, lambda prompt: calls(("exit", {"result": "\n".join(results_of(prompt))}), key="c"))
    async with kernel_on(tmp_path, models(*script)) as k:
        with anyio.fail_after(DEADLINE_S):
            k.machine.stopping = True
            other = (await k.call("spawn_agent", task="another tree")).pid
            foreign = {"id": (await k.call("page_out", content="secret", pid=other)).page_id}
            await k.call("signal_agent", pid=other, signal="kill")
            k.machine.stopping = False
            agent = await ended(k, (await k.call("spawn_agent", task="peek")).pid)
    told, missing = agent.result.splitlines()
    assert told.replace(foreign["id"], "pg_none") == missing


async def test_a_large_document_lies_in_pieces_that_are_found_and_comes_back_whole(tmp_path: Path) -> None:
    text = "\n\n".join(f"Paragraph {n}: " + f"the word{n}mark stands here. " * 40 for n in range(60))
    async with kernel_on(tmp_path, ScriptedModels()) as k:
        kept = await k.call("page_out", content=text, title="a book", labels=["library"])
        read, offset = "", 0
        while offset is not None:
            part = await k.call("page_in", page_id=kept.page_id, offset=offset)
            read, offset = read + part.content, part.next_offset
        hits = (await k.call("search_pages", query="word41mark")).hits
        piece = await k.call("page_in", page_id=hits[0].page_id)
        row = await k.machine.store.read(lambda tx: tx.page_get(hits[0].page_id))
    assert read == text
    assert "word41mark" in piece.content
    assert piece.content in text
    assert row is not None
    assert (row.origin, row.labels) == (kept.page_id, ("library",))
    assert hits[0].title.startswith("a book (")


async def test_a_page_is_put_into_the_context_of_another_agent_by_reference(tmp_path: Path) -> None:
    def answer(prompt: Prompt) -> Reply:
        return says("seen" if any("the shared plan" in turn.text for turn in prompt.turns) else "missed")

    models = ScriptedModels(ScriptedModel(NAME, (answer,)))
    async with kernel_on(tmp_path, models) as k:
        k.machine.stopping = True  # the agent makes no turn yet
        kept = await k.call("page_out", content="the shared plan", title="plan", labels=["plan"])
        pid = (await k.call("spawn_agent", task="wait for it")).pid
        await k.call("page_in", page_id=kept.page_id, pid=pid)
    async with kernel_on(tmp_path, models) as k:
        with anyio.fail_after(DEADLINE_S):
            done = await ended(k, pid)
        rows = await k.machine.store.read(lambda tx: tx.page_table(done.pid))
        source = await k.machine.store.read(lambda tx: tx.page_get(kept.page_id))
        with pytest.raises(Conflict):
            await k.call("page_in", page_id=kept.page_id, pid=pid)
    mapped = next(row for row in rows if row.origin == kept.page_id)
    assert done.result == "seen"
    assert source is not None
    assert (mapped.digest, mapped.labels, mapped.resident) == (source.digest, ("plan",), True)
    assert not source.resident
