"""Pages near to what an agent works on outlast others: by their vectors, and by words where there are none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import anyio

from aos_mcp.abi.budget import Usage
from aos_mcp.abi.completion import ModelPrice, Prompt, Reply
from aos_mcp.abi.errors import Unavailable
from aos_mcp.abi.handle import Pid
from aos_mcp.abi.page import PageKind
from aos_mcp.abi.settings import Settings
from aos_mcp.ports import Transaction
from aos_mcp.testing.devices import RecordingMounts, a_tool
from aos_mcp.testing.embedder import WordEmbedder
from aos_mcp.testing.kernels import TestKernel, kernel_on
from aos_mcp.testing.model import ScriptedModel, ScriptedModels, calls, says
from tests.kernel.stage import DEADLINE_S, NAME, ended
from tests.kernel.test_indexer import indexed, until

TOPICS = (("car", "automobile"), ("owl", "bird"))
READ = a_tool("lib__read", read_only=True)
TURNS = 30
LAST = TURNS - 1
UNCACHED = ModelPrice(input=1.0, cached=1.0, written=1.0, output=1.0, source="test")
UNBILLED = Usage(output_tokens=10)  # Nothing to learn from: the window is what it is said to be.
NARROW = Settings.model_validate(
    {"context": {"window_tokens": 24_000, "high_water": 0.8, "low_water": 0.75, "round_trip_tokens": 100_000_000}}
)
"""With these only what must leave does: nothing is ever written again, and fetching back is dear."""


def account(number: int, *, named: bool) -> str:
    """About 300 tokens on a car or an owl by turns, under a title that says of which only when `named`."""
    about = "car" if number % 2 else "owl"
    return f"account of {about if named else 'one'}\n" + f"The {about} of day {number} was seen. " * 38


class Reader:
    """An agent that reads accounts, and many at once in its last turn, before which it can be held up."""

    def __init__(self, *, held: bool) -> None:
        self.model = ScriptedModel(NAME, (), context_tokens=1_000_000, price=UNCACHED, usage=UNBILLED)
        self.model.script = (*(self._reads for _ in range(TURNS)), says("done"))
        self.mounts = RecordingMounts({READ: lambda arguments: account(int(str(arguments["n"])), named=not held)})
        self.held = held

    def _reads(self, prompt: Prompt) -> Reply:
        turn = prompt.turn
        if turn == LAST - 1 and self.held:
            self.model.gate = anyio.Event()
        wanted = range(LAST, LAST + 8) if turn == LAST else [turn]
        return calls(*(("lib__read", {"n": n}) for n in wanted), key=f"r{turn}-")


async def left_of_each(k: TestKernel, pid: Pid) -> Counter[str]:
    """How many accounts of a car and of an owl left."""

    def look(tx: Transaction) -> list[str]:
        gone = [page for page in tx.page_table(pid) if page.kind is PageKind.RESULT and not page.resident]
        return [(tx.payload_get(page.digest) or b"").decode() for page in gone]

    return Counter("car" if "car" in text else "owl" for text in await k.machine.store.read(look))


async def left(home: Path, task: str, embedder: WordEmbedder | None, *, held: bool) -> Counter[str]:
    """How many accounts of each kind left; of an agent that is held up until all it has read has its vectors."""
    agent = Reader(held=held)
    await anyio.Path(home).mkdir(parents=True)
    async with kernel_on(
        home, ScriptedModels(agent.model), mounts=agent.mounts, settings=NARROW, embedder=embedder
    ) as k:
        with anyio.fail_after(DEADLINE_S):
            spec = await k.call("spawn_agent", task=task, tools=["lib__*"], budget={"usd": 20, "turns": 60})
            pid = Pid(spec.pid)
            if held:
                await until(k, lambda tx: len(tx.page_table(pid)) == 1 + 2 * LAST)
                await indexed(k, "words")
                assert agent.model.gate is not None
                agent.model.gate.set()
            assert (await ended(k, pid)).exit_code == "done"
            return await left_of_each(k, pid)


async def test_pages_whose_vectors_are_unlike_the_task_leave_before_those_that_are_like_it(tmp_path: Path) -> None:
    for task, unlike in (("Count every automobile.", "owl"), ("Count every bird.", "car")):
        gone = await left(tmp_path / unlike, task, WordEmbedder(TOPICS), held=True)
        assert set(gone) == {unlike}


class Late(WordEmbedder):
    """An embedder that is never done."""

    async def embed(self, texts: Sequence[str]) -> Sequence[bytes]:
        await anyio.sleep_forever()
        raise AssertionError(texts)


async def test_where_there_are_no_vectors_the_words_of_titles_decide_and_nothing_is_waited_for(tmp_path: Path) -> None:
    broken = WordEmbedder(TOPICS)
    broken.failure = Unavailable("The model is not there.", "Fetch it.")
    for name, embedder in (("none", None), ("broken", broken), ("late", Late(TOPICS))):
        for task, unlike in (("Count every car.", "owl"), ("Count every owl.", "car")):
            gone = await left(tmp_path / name / unlike, task, embedder, held=False)
            assert set(gone) == {unlike}
