"""The indexer gives pages their vectors in the background, and search is never worse for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anyio

from aos_mcp.abi.capability import CallerKind
from aos_mcp.abi.errors import Unavailable
from aos_mcp.kernel.indexer import parts_of
from aos_mcp.ports import Transaction
from aos_mcp.testing.embedder import WordEmbedder
from aos_mcp.testing.kernels import HOST, TestKernel, kernel_on
from aos_mcp.testing.model import ScriptedModel, ScriptedModels, says

MODELS = ScriptedModels(ScriptedModel("scripted/none", (says("nothing"),)))
TOPICS = (("car", "automobile", "lorry"), ("owl", "bird"))


async def found(kernel: TestKernel, query: str) -> list[str]:
    return [hit.title for hit in (await kernel.call("search_pages", query=query)).hits]


async def until(kernel: TestKernel, true: Callable[[Transaction], bool]) -> None:
    """Return once something is true of the store."""
    with anyio.fail_after(30):
        while True:
            ticket = kernel.machine.bus.ticket()
            if await kernel.machine.store.read(true):
                return
            await ticket.wait()


async def indexed(kernel: TestKernel, model: str) -> None:
    """Return once no page waits for a vector of this model."""
    await until(kernel, lambda tx: not tx.vector_missing(model, limit=1))


async def test_a_page_is_found_by_its_meaning_once_it_is_embedded(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, MODELS, embedder=WordEmbedder(TOPICS)) as kernel:
        await kernel.call("page_out", content="A lorry went by.", title="road")
        await kernel.call("page_out", content="An owl sat there.", title="tree")
        await kernel.call("page_out", content="Nothing at all.", title="void")
        await indexed(kernel, "words")
        assert (await found(kernel, "automobile"))[0] == "road"
        assert (await found(kernel, "owl"))[0] == "tree"


async def test_a_kernel_with_another_embedder_begins_again_and_drops_the_former_vectors(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, MODELS, embedder=WordEmbedder(TOPICS, name="former")) as kernel:
        await kernel.call("page_out", content="A lorry went by.", title="road")
        await kernel.call("page_out", content="An owl sat there.", title="tree")
        await indexed(kernel, "former")
    later = WordEmbedder(TOPICS, name="later")
    async with kernel_on(tmp_path, MODELS, embedder=later) as kernel:
        await indexed(kernel, "later")
        assert (await found(kernel, "automobile"))[0] == "road"
        await until(kernel, lambda tx: len(tx.vector_missing("former", limit=9)) == 2)
    embedded = len(later.seen)
    async with kernel_on(tmp_path, MODELS, embedder=later) as kernel:
        await kernel.call("page_out", content="Another bird.", title="new")
        await indexed(kernel, "later")
    assert [text for text in later.seen[embedded:] if text != "automobile"] == ["new\nAnother bird."]


async def test_search_goes_by_words_while_the_embedder_fails(tmp_path: Path) -> None:
    embedder = WordEmbedder(TOPICS)
    embedder.failure = Unavailable("The model is not there.", "Fetch it.")
    async with kernel_on(tmp_path, MODELS, embedder=embedder) as kernel:
        await kernel.call("page_out", content="A lorry went by.", title="road")
        assert await found(kernel, "lorry") == ["road"]
        assert await found(kernel, "automobile") == []


async def test_a_kernel_without_an_embedder_searches_by_words(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, MODELS) as kernel:
        await kernel.call("page_out", content="A lorry went by.", title="road")
        assert await found(kernel, "lorry") == ["road"]


async def test_a_search_is_bounded_by_time_and_writer(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, MODELS) as kernel:
        await kernel.call("page_out", content="A lorry went by.", title="road")
        now = kernel.machine.clock.now()
        for bounds, titles in (({"until": now + 60}, ["road"]), ({"since": now + 60}, []), ({"source": "p_1"}, [])):
            hits = (await kernel.call("search_pages", query="lorry", **bounds)).hits
            assert [hit.title for hit in hits] == titles


def test_a_page_is_embedded_in_pieces_behind_the_end_of_the_page_before() -> None:
    assert parts_of("", "  \n ", "before") == []
    assert parts_of("Yes, I saw it.", "Yes, I saw it.", "Did you see the owl?") == [
        "Did you see the owl?\nYes, I saw it."
    ]
    assert parts_of("title", "text", "") == ["title\ntext"]
    long = parts_of("t", "word " * 2_000, "")
    assert len(long) == 4
    assert all(part.startswith("t\nword") and part.endswith("word") for part in long)
    assert len(parts_of("t", "x" * 10_000, "")) == 4


async def test_erased_words_stop_neither_search_nor_the_indexer(tmp_path: Path) -> None:
    operator = replace(HOST, kind=CallerKind.OPERATOR)
    models = ScriptedModels(ScriptedModel("scripted/none", (says("An owl sat there."),)))
    async with kernel_on(tmp_path, models, embedder=WordEmbedder(TOPICS)) as kernel:
        await kernel.call("page_out", content="A bird flew by.", title="air")
        agent = await kernel.call("spawn_agent", task="Look for a bird.", wait_s=20)
        await indexed(kernel, "words")
        await kernel.call("erase_payloads", operator, target=agent.pid)
        assert await found(kernel, "owl") == ["air"]
        await kernel.call("page_out", content="A lorry went by.", title="road")
        await indexed(kernel, "words")
        assert (await found(kernel, "automobile"))[0] == "road"


async def test_a_note_of_many_versions_is_found_by_its_meaning(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, MODELS, embedder=WordEmbedder(TOPICS)) as kernel:
        last: list[str] = []
        for number in range(330):
            page = await kernel.call("page_out", content=f"A bird, {number}.", namespace="n", supersedes=last)
            last = [page.page_id]
        await indexed(kernel, "words")
        hits = (await kernel.call("search_pages", query="owl", kind="note")).hits
        assert [hit.page_id for hit in hits] == last
