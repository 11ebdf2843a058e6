"""Long-term memory: notes in namespaces, linked, superseded without loss, put in order and taken back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from aos_mcp.abi.capability import Caller, CallerKind
from aos_mcp.abi.completion import Reply
from aos_mcp.abi.definition import AgentDefinition
from aos_mcp.abi.errors import Conflict, Invalid, NotFound
from aos_mcp.abi.settings import MemorySettings, Settings
from aos_mcp.testing.clock import FakeClock
from aos_mcp.testing.embedder import WordEmbedder
from aos_mcp.testing.kernels import OWNER, TestKernel, kernel_on
from aos_mcp.testing.model import ScriptedModel, ScriptedModels, calls, says
from tests.kernel.stage import DEADLINE_S, NAME, ended, results_of

OPERATOR = Caller(kind=CallerKind.OPERATOR, principal=OWNER, host="aos-cli")
WRITERS = 24
TOPICS = (("owl", "owls"), ("mice", "voles", "rats"), ("night",), ("invoices",), ("release", "train"))


def nobody() -> ScriptedModels:
    return ScriptedModels(ScriptedModel(NAME, (says("nothing"),)))


async def note(k: TestKernel, content: str, **more: object) -> str:
    kept = await k.call("page_out", content=content, **({"namespace": "shared"} | more))
    return str(kept.page_id)


async def found(k: TestKernel, query: str, **more: object) -> list[str]:
    """Return the notes a search finds, best first."""
    return [hit.page_id for hit in (await k.call("search_pages", query=query, k=20, kind="note", **more)).hits]


async def test_a_note_that_was_superseded_keeps_its_bytes_and_is_found_only_in_its_time(tmp_path: Path) -> None:
    clock = FakeClock()
    async with kernel_on(tmp_path, nobody(), clock=clock) as k:
        old = await note(k, "The deploy key lives in vault A.")
        clock.advance(100)
        between = clock.now()
        clock.advance(100)
        new = await note(k, "The deploy key lives in vault B.", supersedes=[old])
        assert await found(k, "deploy key") == [new]
        assert await found(k, "deploy key", until=between) == [old]
        read = await k.call("page_in", page_id=old)
        assert (read.content, read.superseded_by) == ("The deploy key lives in vault A.", new)


async def test_of_two_who_supersede_one_note_the_second_is_told_of_the_first(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, nobody()) as k:
        old = await note(k, "one")
        new = await note(k, "two", supersedes=[old])
        with pytest.raises(Conflict) as refused:
            await note(k, "another two", supersedes=[old])
        assert new in refused.value.message
        assert new in refused.value.hint
        assert [row.page_id for row in (await k.call("list_notes", OPERATOR, former=True)).notes] == [new, old]


async def test_many_writers_at_once_lose_nothing_and_corrupt_nothing(tmp_path: Path) -> None:
    """Each adds its word to one note by superseding what it read, and tries again when another was faster."""
    async with kernel_on(tmp_path, nobody()) as k:
        await note(k, "words:", title="the list")

        async def write(number: int) -> None:
            await note(k, f"a note of writer {number}")
            while True:
                (current,) = [row for row in (await k.call("list_notes", OPERATOR)).notes if row.title == "the list"]
                text = (await k.call("page_in", page_id=current.page_id)).content
                try:
                    await note(k, f"{text} w{number}", title="the list", supersedes=[current.page_id])
                except Conflict:
                    continue
                return

        with anyio.fail_after(DEADLINE_S):
            async with anyio.create_task_group() as group:
                for number in range(WRITERS):
                    group.start_soon(write, number)
        everything = (await k.call("list_notes", OPERATOR, former=True, limit=200)).notes
        assert len([row for row in everything if row.title == "the list"]) == WRITERS + 1
        (last,) = [row for row in everything if row.title == "the list" and row.valid_until is None]
        words = (await k.call("page_in", page_id=last.page_id)).content.split()[1:]
        assert sorted(words) == sorted(f"w{number}" for number in range(WRITERS))
        assert len([row for row in everything if row.title.startswith("a note of")]) == WRITERS


async def test_linked_notes_are_found_by_one_another(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, nobody()) as k:
        person = await note(k, "Ann Miller runs the billing team.")
        named = await note(k, f"The quarterly invoices are checked by [[{person}]] on Fridays.")
        told = await note(k, "Refunds above 500 need two signatures.", links=[person])
        hits = (await k.call("search_pages", query="invoices", k=20)).hits
        assert [hit.page_id for hit in hits] == [named, person], "only the one says it, the other belongs to it"
        assert hits[0].links == [person]
        assert set((await k.call("page_in", page_id=person)).links) == {named, told}
        newer = await note(k, "Ben Stone runs the billing team.", supersedes=[person])
        assert set((await k.call("page_in", page_id=newer)).links) == {named, told}, "links go over to what replaces it"
        with pytest.raises(NotFound):
            await note(k, "leads nowhere", links=["pg_nothing"])
        with pytest.raises(Invalid):
            await k.call("page_out", content="both", pid="p_abc", namespace="shared")


async def test_notes_that_mean_the_same_are_linked_in_the_background(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, nobody(), embedder=WordEmbedder(TOPICS)) as k:
        one = await note(k, "the owl hunts mice at night")
        two = await note(k, "the owl hunts voles at night")
        far = await note(k, "quarterly invoices are due")
        other = await note(k, "the owl hunts rats at night", namespace="birds")
        with anyio.fail_after(DEADLINE_S):
            while not (links := (await k.call("page_in", page_id=two)).links):
                await anyio.lowlevel.checkpoint()
        assert links == [one]
        assert (await k.call("page_in", page_id=far)).links == []
        assert (await k.call("page_in", page_id=other)).links == [], "a namespace is linked within itself"


def definition(name: str) -> AgentDefinition:
    return AgentDefinition(name=name, description="", prompt="", path="")


async def test_a_private_note_is_for_the_next_run_of_the_same_agent_and_for_nobody_else(tmp_path: Path) -> None:
    model = ScriptedModel(NAME, (calls(("search_pages", {"query": "secret handshake", "k": 9})), says("done")))
    writes = (
        calls(("page_out", {"content": "the secret handshake of ann", "namespace": "private"})),
        says("kept"),
    )
    writer = ScriptedModel("scripted/writer", writes)
    known = {name: definition(name) for name in ("ann", "ben")}
    async with kernel_on(tmp_path, ScriptedModels(model, writer), definitions=known) as k:
        with anyio.fail_after(DEADLINE_S):
            await k.call("spawn_agent", task="keep it", agent="ann", model="scripted/writer", wait_s=15)
            (kept,) = (await k.call("list_notes", OPERATOR)).notes
            assert kept.namespace == "~ann"
            for agent, sees in (("ann", True), ("ben", False)):
                await k.call("spawn_agent", task="look", agent=agent, model=NAME, wait_s=15)
                (result,) = results_of(model.prompts[-1])
                assert (kept.page_id in result) is sees
            reads = calls(("page_in", {"page_id": kept.page_id}))
            model.script = (reads, says("done"))
            await k.call("spawn_agent", task="read", agent="ben", model=NAME, wait_s=15)
            (result,) = results_of(model.prompts[-1])
            assert result.startswith("not_found"), "as if it were not there"
            assert await found(k, "handshake") == [kept.page_id], "its owner sees it"


async def test_a_namespace_narrows_a_search(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, nobody(), embedder=WordEmbedder(TOPICS)) as k:
        here = await note(k, "the release train leaves on Monday", namespace="project-x")
        await note(k, "the release train leaves on Tuesday", namespace="project-y")
        await k.call("page_out", content="the release train, a document")
        assert await found(k, "release train", namespace="project-x") == [here]
        assert await found(k, "release train", namespace="project-z") == []


def merges(ids: Sequence[str]) -> Reply:
    return calls(("page_out", {"content": "the merged note", "supersedes": list(ids)}), key="m")


async def test_what_a_writer_did_is_undone_whole(tmp_path: Path) -> None:
    ids: list[str] = []
    model = ScriptedModel(NAME, (lambda _: merges(ids), says("merged")))
    async with kernel_on(tmp_path, ScriptedModels(model)) as k:
        ids += [await note(k, f"fact {n}") for n in range(3)]
        with anyio.fail_after(DEADLINE_S):
            done = await k.call("spawn_agent", task="merge", wait_s=15)
        assert await found(k, "fact") == []
        assert (await k.call("undo_notes", OPERATOR, writer=done.pid)).undone == 4, "one written, three superseded"
        assert sorted(await found(k, "fact")) == sorted(ids)
        assert await found(k, "merged") == []
        with pytest.raises(NotFound):
            await k.call("undo_notes", OPERATOR, writer=done.pid)
        with pytest.raises(NotFound):
            await k.call("undo_notes", writer="host")


async def test_what_somebody_has_built_on_is_not_undone_under_him(tmp_path: Path) -> None:
    ids: list[str] = []
    model = ScriptedModel(NAME, (lambda _: merges(ids), says("merged")))
    async with kernel_on(tmp_path, ScriptedModels(model)) as k:
        ids += [await note(k, "fact")]
        with anyio.fail_after(DEADLINE_S):
            done = await k.call("spawn_agent", task="merge", wait_s=15)
        (merged,) = await found(k, "merged")
        newest = await note(k, "a correction", supersedes=[merged])
        with pytest.raises(Conflict) as refused:
            await k.call("undo_notes", OPERATOR, writer=done.pid)
        assert newest in refused.value.message
        assert await found(k, "correction") == [newest]
        assert await found(k, "fact") == [], "nothing was changed by the refusal"


async def test_consolidation_is_an_agent_under_its_own_budget_when_it_is_due_and_only_then(tmp_path: Path) -> None:
    clock, ids = FakeClock(), list[str]()
    model = ScriptedModel(NAME, (lambda _: merges(ids), says("two notes became one")))
    settings = Settings(memory=MemorySettings(consolidate_every_h=1, consolidate_usd=0.05))

    async def consolidators(k: TestKernel) -> list[Any]:
        return [row for row in (await k.call("list_agents")).agents if row.name == "consolidator"]

    async with kernel_on(tmp_path, ScriptedModels(model), settings=settings, clock=clock) as k:
        ids += [await note(k, "Ann is in Oslo"), await note(k, "Ann is in Oslo, Norway")]
        await note(k, "nobody else's business", namespace="private")
        with anyio.fail_after(DEADLINE_S):
            while not (running := await consolidators(k)):
                clock.advance(300)
                await anyio.lowlevel.checkpoint()
            done = await ended(k, running[0].pid)
            assert (done.exit_code, done.result) == ("done", "two notes became one")
            limit = (await k.call("read_process", pid=done.pid)).budget
            assert limit["usd"] == 0.05
            task = model.prompts[0].turns[0].text
            assert all(page_id in task for page_id in ids)
            assert "business" not in task, "what is private is left alone"
            assert await found(k, "Oslo merged") == await found(k, "merged")
            for _ in range(30):  # two hours and a half, and nothing new but its own work
                clock.advance(300)
                await k.call("list_notes", OPERATOR)
            assert len(await consolidators(k)) == 1
            assert (await k.call("undo_notes", OPERATOR, writer=done.pid)).undone == 3
            assert sorted(await found(k, "Oslo")) == sorted(ids)


async def test_consolidation_is_off_unless_it_is_asked_for(tmp_path: Path) -> None:
    clock = FakeClock()
    async with kernel_on(tmp_path, nobody(), clock=clock) as k:
        with pytest.raises(NotFound):
            await k.call("consolidate_notes", OPERATOR)
        await note(k, "a fact")
        for _ in range(300):
            clock.advance(3_600)
            await anyio.lowlevel.checkpoint()
        assert (await k.call("list_agents")).agents == []
        asked = await k.call("consolidate_notes", OPERATOR)
        assert (await k.call("list_agents")).agents[0].pid == asked.pid
        with pytest.raises(NotFound):
            await k.call("consolidate_notes")
