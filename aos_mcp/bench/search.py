"""`aos bench search`: what search finds, and how long it takes.

Quality is measured on collections the user names (see `bench.recall`), against the lexical index alone and against
reciprocal rank fusion in the same run; the weights are those of `storage.ranking`, chosen on the first two
conversations of LoCoMo, which no figure is reported on. Time is measured through the kernel's gate on synthetic pages.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path

import anyio

from aos_mcp.abi.handle import PageId
from aos_mcp.abi.vector import Vector
from aos_mcp.bench.figures import Figure
from aos_mcp.bench.recall import (
    Collection,
    Judged,
    Question,
    Text,
    average_precision,
    judge,
    load_cacm,
    load_locomo,
    means,
)
from aos_mcp.embed.minilm import MiniLM, find_files
from aos_mcp.hardware import SystemClock
from aos_mcp.kernel.indexer import parts_of
from aos_mcp.ports import Embedder, Transaction
from aos_mcp.storage import retrieval, search
from aos_mcp.storage.connection import Connection
from aos_mcp.storage.queries import load_queries
from aos_mcp.storage.retrieval import Bounds, Nearest, no_bounds
from aos_mcp.storage.sqlite import QUERIES, open_sqlite
from aos_mcp.storage.sqlite_connection import SqliteConnection
from aos_mcp.testing.kernels import OWNER, TestKernel, kernel_on
from aos_mcp.testing.model import ScriptedModel, ScriptedModels, says

DEPTH = 1_000
RRF_K = 60
DEVELOPMENT = 2
"""Conversations the weights were chosen on: the first of the file."""
UNIT = 500
QUERIES_TIMED = 200
DIMENSIONS = 384
VOCABULARY = 30_000
FUNCTION_WORDS = 100
PAGE_INS = 1_000
EMBEDDED = 20
WORDS_A_PAGE = 60
PAGES_A_CONTEXT = 100
PORTION = 64
RECALLS = 50
RECALLED = 10

TARGETS: Mapping[str, str] = {
    "words: turn R@10": ">= 0.70",
    "words + vectors: turn R@10": ">= 0.76",
    "words + vectors: turn R@10, categories 1-4": ">= 0.75",
    "words + vectors: session hit@10": ">= 0.965",
    "words + vectors: CACM MAP": ">= 0.42",
}


@dataclass(frozen=True, slots=True)
class Library:
    """A filled store, open to read as the store's own transactions read it."""

    at: Connection
    nearest: Nearest
    names: Mapping[int, str]

    def ranked(self, query: str, near: Vector | None) -> list[str]:
        """Return the pages as search ranks them."""
        found = retrieval.find(self.at, self.nearest, query, near, _bounds(), DEPTH)
        return [self.names[serial] for serial, _ in found]

    def lexical(self, query: str) -> list[str]:
        """Return the pages as the lexical index alone ranks them."""
        found = retrieval.matches(self.at, search.content_words(query), _bounds(), DEPTH)
        return [self.names[serial] for serial in found]

    def by_rank(self, query: str, near: Vector) -> list[str]:
        """Return the pages by reciprocal rank fusion of the lexical index and the vectors."""
        legs = (
            retrieval.matches(self.at, search.content_words(query), _bounds(), DEPTH),
            self.nearest.search(self.at, near, _bounds(), DEPTH),
        )
        scores: dict[int, float] = {}
        for leg in legs:
            for place, serial in enumerate(leg, start=1):
                scores[serial] = scores.get(serial, 0.0) + 1 / (RRF_K + place)
        return [self.names[serial] for serial in sorted(scores, key=lambda serial: -scores[serial])]


def _bounds() -> Bounds:
    return no_bounds(OWNER)


@asynccontextmanager
async def _library(collection: Collection, embedder: Embedder | None) -> AsyncIterator[Library]:
    with tempfile.TemporaryDirectory(prefix="aos-bench-") as folder:
        path = Path(folder) / "kernel.db"
        async with open_sqlite(path, SystemClock()) as store:
            for start in range(0, len(collection.texts), UNIT):
                part = collection.texts[start : start + UNIT]
                await store.write(partial(_write, texts=part))
            if embedder is not None:
                made = await _embedded(collection, embedder)
                await store.write(partial(_keep, model=embedder.name, made=made))
        with closing(SqliteConnection(path, load_queries(QUERIES), query_only=True)) as at:
            names = {serial: text.page_id for serial, text in enumerate(collection.texts, start=1)}
            yield Library(at, Nearest(), names)


def _write(tx: Transaction, texts: Sequence[Text]) -> None:
    for text in texts:
        tx.page_insert(text.page(tx.payload_put(text.text.encode())), text.text)


async def _embedded(collection: Collection, embedder: Embedder) -> dict[str, list[bytes]]:
    """Return the vectors of every page's parts, cut as the kernel's indexer cuts them."""
    parts: list[tuple[str, str]] = []
    before: Text | None = None
    for text in collection.texts:
        beside = before.text if before and text.context is not None and before.context == text.context else ""
        parts += [(text.page_id, part) for part in parts_of(text.title, text.text, beside)]
        before = text
    made: dict[str, list[bytes]] = {text.page_id: [] for text in collection.texts}
    for start in range(0, len(parts), PORTION):
        portion = parts[start : start + PORTION]
        vectors = await embedder.embed([part for _, part in portion])
        for (page_id, _), vector in zip(portion, vectors, strict=True):
            made[page_id].append(vector)
    return made


Say = Callable[[str], None]
"""Told what is under way."""
Ranked = Mapping[str, list[str]]
"""What each way of searching ranks for one question, by the way's name."""


async def _rankings(collection: Collection, embedder: Embedder | None, say: Say) -> list[tuple[Question, Ranked]]:
    say(f"{collection.name}: {len(collection.texts)} pages, {len(collection.questions)} queries")
    found: list[tuple[Question, Ranked]] = []
    async with _library(collection, embedder) as library:
        for question in collection.questions:
            ways = {"FTS5 alone": library.lexical(question.text), "words": library.ranked(question.text, None)}
            if embedder is not None:
                near = Vector(embedder.name, (await embedder.embed([question.text]))[0])
                ways["RRF k=60"] = library.by_rank(question.text, near)
                ways["words + vectors"] = library.ranked(question.text, near)
            found.append((question, ways))
    return found


async def _locomo(path: Path, embedder: Embedder | None, say: Say) -> list[Figure]:
    judged: dict[str, list[Judged]] = {}
    for collection in load_locomo(path)[DEVELOPMENT:]:
        for question, ways in await _rankings(collection, embedder, say):
            for way, ranked in ways.items():
                judged.setdefault(way, []).append(judge(question, ranked))
    plain = dict(means(judged["FTS5 alone"]))
    return [
        _figure(f"{way}: {name}", value, plain[name]) for way, those in judged.items() for name, value in means(those)
    ]


async def _cacm(folder: Path, embedder: Embedder | None, say: Say) -> list[Figure]:
    precisions: dict[str, list[float]] = {}
    for question, ways in await _rankings(load_cacm(folder), embedder, say):
        for way, ranked in ways.items():
            precisions.setdefault(way, []).append(average_precision(question, ranked))
    mean = {way: sum(those) / len(those) for way, those in precisions.items()}
    return [_figure(f"{way}: CACM MAP", value, mean["FTS5 alone"]) for way, value in mean.items()]


def _figure(name: str, value: float, plain: float) -> Figure:
    return Figure(
        name=name, value=value, unit="", target=TARGETS.get(name, "-"), baseline="FTS5 alone", baseline_value=plain
    )


class _Directions:
    """An embedder whose vectors are random: what is timed is the search, not a model."""

    name = "random"

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    async def embed(self, texts: Sequence[str]) -> Sequence[bytes]:
        """See `ports.Embedder.embed`."""
        import numpy as np  # a benchmark of numpy pays for it only when it is run

        drawn = np.random.default_rng(self._random.getrandbits(32)).standard_normal((len(texts), DIMENSIONS))
        drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
        return [row.tobytes() for row in drawn.astype("<f4")]


def _made_up(count: int, seed: int) -> Collection:
    """Return pages whose words are as unevenly spread as those of a language (Zipf), and queries of five words.

    The commonest words are in every page and in no query, as the function words of a language are.
    """
    source = random.Random(seed)
    words = [f"w{number:x}" for number in range(VOCABULARY)]
    spread = list(accumulate(1 / (number + 1) for number in range(VOCABULARY)))
    rarer = list(accumulate(1 / (number + 1) for number in range(FUNCTION_WORDS, VOCABULARY)))
    texts = [
        Text(
            page_id=f"pg_{number}",
            context=f"p_{number // PAGES_A_CONTEXT}",
            position=number % PAGES_A_CONTEXT,
            source="host",
            title=f"page {number}",
            text=" ".join(source.choices(words, cum_weights=spread, k=WORDS_A_PAGE)),
            at=float(number),
        )
        for number in range(count)
    ]
    asked = [" ".join(source.choices(words[FUNCTION_WORDS:], cum_weights=rarer, k=5)) for _ in range(QUERIES_TIMED)]
    return Collection("made up", texts, [Question(query, frozenset()) for query in asked])


async def _scale(count: int, with_vectors: bool, say: Say) -> list[Figure]:
    """Time search and `page_in` through the gate of a kernel whose store holds `count` pages."""
    say(f"writing {count} pages" + (" with vectors" if with_vectors else ""))
    collection, embedder = _made_up(count, seed=1), _Directions(seed=2)
    figures = []
    with tempfile.TemporaryDirectory(prefix="aos-bench-") as folder:
        home = Path(folder)
        async with open_sqlite(home / "kernel.db", SystemClock()) as store:
            for start in range(0, count, UNIT):
                part = collection.texts[start : start + UNIT]
                await store.write(partial(_write, texts=part))
                if with_vectors:
                    vectors = await embedder.embed([text.page_id for text in part])
                    made = {text.page_id: [vector] for text, vector in zip(part, vectors, strict=True)}
                    await store.write(partial(_keep, model=embedder.name, made=made))
        figures += await _timed(home, collection, "words", None)
        if with_vectors:
            figures += await _timed(home, collection, "words + vectors", embedder)
            figures.append(await _shortlist_recall(home, count, embedder))
    return figures


async def _shortlist_recall(home: Path, count: int, embedder: _Directions) -> Figure:
    """Compare what the vectors' search returns with the product over all of them. Random directions are its worst case.

    Two directions drawn at random are as good as orthogonal, so that signs tell least.
    """
    import numpy as np  # see _Directions

    asked = await embedder.embed(["any"] * RECALLS)
    hits = 0
    with closing(SqliteConnection(home / "kernel.db", load_queries(QUERIES), query_only=True)) as at:
        nearest = Nearest()
        rows = at.all("vector_load", {"model": embedder.name, "after": 0, "limit": count})
        every = np.frombuffer(b"".join(row["body"] for row in rows), dtype="<f4").reshape(-1, DIMENSIONS)
        for query in asked:
            cosines = every @ np.frombuffer(query, dtype="<f4")
            best = {rows[place]["page"] for place in np.argsort(-cosines)[:RECALLED].tolist()}
            found = nearest.search(at, Vector(embedder.name, query), _bounds(), RECALLED)
            hits += len(best & found.keys())
    return Figure(
        name=f"vectors: recall@{RECALLED} of the shortlist, random directions, {count} pages",
        value=hits / (RECALLED * RECALLS),
        unit="",
        target="-",
        baseline="the exact product",
        baseline_value=1.0,
    )


def _keep(tx: Transaction, model: str, made: Mapping[str, Sequence[bytes]]) -> None:
    for page_id, vectors in made.items():
        tx.vector_put(PageId(page_id), model, vectors)


async def _timed(home: Path, collection: Collection, way: str, embedder: Embedder | None) -> list[Figure]:
    models = ScriptedModels(ScriptedModel("scripted/none", (says("nothing"),)))
    asked = [question.text for question in collection.questions]
    size = f"{len(collection.texts)} pages"
    async with kernel_on(home, models, embedder=embedder) as kernel:
        first = await _spent_ms(kernel, "search_pages", [{"query": asked[0]}])
        found = await _spent_ms(kernel, "search_pages", [{"query": query} for query in asked])
        drawn = random.Random(3).choices(collection.texts, k=PAGE_INS)
        brought = await _spent_ms(kernel, "page_in", [{"page_id": text.page_id} for text in drawn])
    times = [
        _time(f"{way}: search_pages p50, {size}", statistics.median(found), "< 15 ms"),
        _time(f"{way}: search_pages p95, {size}", _quantile(found, 0.95), "-"),
        _time(f"{way}: first search_pages after start, {size}", first[0], "-"),
    ]
    return times if embedder else [*times, _time(f"page_in p99, {size}", _quantile(brought, 0.99), "< 5 ms")]


async def _spent_ms(kernel: TestKernel, call: str, arguments: Sequence[Mapping[str, object]]) -> list[float]:
    spent = []
    for each in arguments:
        began = time.perf_counter()
        await kernel.call(call, **each)
        spent.append((time.perf_counter() - began) * 1_000)
    return spent


def _time(name: str, value: float, target: str) -> Figure:
    return Figure(name=name, value=value, unit="ms", target=target)


def _quantile(values: Sequence[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


async def _first_vectors(folder: Path) -> list[Figure]:
    """Time a fresh embedder: its first text, then single queries."""
    embedder = MiniLM(folder)
    spent = []
    for number in range(EMBEDDED + 1):
        began = time.perf_counter()
        await embedder.embed([f"When did they go to the support group, and who went along the {number}th time?"])
        spent.append((time.perf_counter() - began) * 1_000)
    return [
        _time("MiniLM: first embedding, loading included", spent[0], "< 1000 ms"),
        _time("MiniLM: one query, median", statistics.median(spent[1:]), "-"),
    ]


def run(
    locomo: Path | None, cacm: Path | None, pages: int, model_path: str, say: Say, *, with_vectors: bool = True
) -> list[Figure]:
    """Measure what the arguments name: a collection each, and times at a number of pages (0: none).

    `with_vectors` gives those pages vectors of 384 dimensions: 1.5 kB each. Without a `model_path` the embedder's files
    are those of an installed package.

    Raises:
        Invalid: a collection is not in its form.
    """
    folder = find_files(model_path)
    embedder = MiniLM(folder) if folder else None
    if embedder is None:
        say("absent: all-MiniLM-L6-v2 (name its folder with --model-path); searching by words alone")
    figures = anyio.run(_first_vectors, folder) if folder else []
    for path, option, measure in ((locomo, "--locomo", _locomo), (cacm, "--cacm", _cacm)):
        if path is None:
            say(f"absent: {option} PATH")
        else:
            figures += anyio.run(measure, path, embedder, say)
    return figures + (anyio.run(_scale, pages, with_vectors, say) if pages else [])
