"""Vectors in a real file: found, bounded, followed, and the same answer as by reckoning each one."""

from __future__ import annotations

import random
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from aos_mcp.abi.handle import PageId
from aos_mcp.abi.page import PageKind
from aos_mcp.abi.vector import Vector
from aos_mcp.ports import Transaction
from aos_mcp.storage import matrix, retrieval
from aos_mcp.storage.queries import load_queries
from aos_mcp.storage.retrieval import Bounds, Nearest, no_bounds
from aos_mcp.storage.sqlite import QUERIES
from aos_mcp.storage.sqlite_connection import SqliteConnection
from aos_mcp.testing.store_record_checks import OpenStore
from aos_mcp.testing.store_samples import OWNER, a_page

WIDTH = 72
COUNT = 300


def packed(values: list[float]) -> bytes:
    length = sum(value * value for value in values) ** 0.5
    return struct.pack(f"<{len(values)}f", *(value / length for value in values))


def cosine(one: bytes, other: bytes) -> float:
    pair = (struct.unpack(f"<{len(body) // 4}f", body) for body in (one, other))
    return float(sum(a * b for a, b in zip(*pair, strict=True)))


def drawn(source: random.Random) -> bytes:
    return packed([source.gauss(0, 1) for _ in range(WIDTH)])


def bounds(**given: str | float) -> Bounds:
    return no_bounds(OWNER) | given


async def filled(open_store: OpenStore, source: random.Random) -> dict[int, list[bytes]]:
    """Fill a store; page number n has serial n + 1, and every third one two parts."""
    kinds = (PageKind.NOTE, PageKind.DOCUMENT)
    made = {number: [drawn(source) for _ in range(1 + (number % 3 == 0))] for number in range(COUNT)}

    def insert(tx: Transaction) -> None:
        for number, parts in made.items():
            page = a_page(f"pg_{number}", pid=f"p_{number % 7}", kind=kinds[number % 2], position=number)
            tx.page_insert(replace(page, created_at=float(number), source=f"s{number % 5}"), "words")
            tx.vector_put(page.page_id, "model", parts)

    async with open_store() as store:
        await store.write(insert)
    return made


@pytest.mark.parametrize("exact_max", [50_000, 10], ids=["exact", "by signs first"])
async def test_the_nearest_within_any_bounds_are_those_that_reckoning_each_one_finds(
    open_store: OpenStore, path: Path, exact_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrix, "EXACT_MAX", exact_max)
    source = random.Random(7)
    made = await filled(open_store, source)
    query = drawn(source)
    at = SqliteConnection(path, load_queries(QUERIES), query_only=True)
    try:
        for given, fits in (
            ({}, lambda n: True),
            ({"pid": "p_3"}, lambda n: n % 7 == 3),
            ({"kind": "note", "source": "s1"}, lambda n: n % 2 == 0 and n % 5 == 1),
            ({"since": 100.0, "until": 120.0}, lambda n: 100 <= n < 120),
            ({"owner": "other"}, lambda n: False),
        ):
            found = Nearest().search(at, Vector("model", query), bounds(**given), 5)
            reckoned = {n + 1: max(cosine(query, part) for part in parts) for n, parts in made.items() if fits(n)}
            wanted = sorted(reckoned, key=lambda serial: -reckoned[serial])[:5]
            if exact_max > COUNT or len(reckoned) <= exact_max:
                assert list(found) == wanted
            assert found.keys() <= reckoned.keys()
            assert all(abs(found[serial] - reckoned[serial]) < 1e-5 for serial in found)
    finally:
        at.close()


async def test_a_page_with_a_vector_of_another_model_is_found_by_its_words(open_store: OpenStore) -> None:
    source = random.Random(1)
    async with open_store() as store:

        def insert(tx: Transaction) -> None:
            tx.page_insert(a_page("pg_1", title="owl"), "The owl hunts.")
            tx.page_insert(a_page("pg_2", pid=None), "Nothing of the kind.")
            tx.vector_put(PageId("pg_2"), "former", [drawn(source)])

        await store.write(insert)
        for near in (None, Vector("model", drawn(source))):
            hits = await store.read(lambda tx, near=near: tx.page_search("owl", owner=OWNER, near=near, limit=5))  # type: ignore[misc]
            assert [hit.page.page_id for hit in hits] == ["pg_1"]


async def test_vectors_written_after_the_first_search_are_found_by_the_next(open_store: OpenStore) -> None:
    source = random.Random(2)
    wanted = drawn(source)
    async with open_store() as store:
        for number in range(3):

            def insert(tx: Transaction, number: int = number) -> None:
                tx.page_insert(a_page(f"pg_{number}", pid=None), "text")
                tx.vector_put(PageId(f"pg_{number}"), "model", [wanted if number == 2 else drawn(source)])

            await store.write(insert)
            hits = await store.read(
                lambda tx: tx.page_search("absent", owner=OWNER, near=Vector("model", wanted), limit=5)
            )
            assert len(hits) >= number, "the farthest may be left out, never the nearest"
        assert hits[0].page.page_id == "pg_2"


async def test_vectors_of_a_unit_that_was_undone_are_never_found(open_store: OpenStore) -> None:
    vector = drawn(random.Random(3))
    near = Vector("model", vector)

    def fail(tx: Transaction) -> None:
        tx.page_insert(a_page("pg_lost", pid=None), "lost")
        tx.vector_put(PageId("pg_lost"), "model", [vector])
        assert [hit.page.page_id for hit in tx.page_search("x", owner=OWNER, near=near, limit=5)] == ["pg_lost"]
        raise KeyError

    async with open_store() as store:
        with pytest.raises(KeyError):
            await store.write(fail)
        assert await store.read(lambda tx: tx.page_search("x", owner=OWNER, near=near, limit=5)) == []
        await store.write(lambda tx: tx.page_insert(a_page("pg_kept", pid=None), "kept"))
        assert await store.read(lambda tx: tx.page_search("x", owner=OWNER, near=near, limit=5)) == []


async def test_the_commonest_words_of_a_query_are_left_out_where_ranking_by_them_would_be_slow(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrieval, "SEARCH_SMALL", 10)
    monkeypatch.setattr(retrieval, "SEARCH_RANKED", 30)
    async with open_store() as store:

        def insert(tx: Transaction) -> None:
            for number in range(60):
                tx.page_insert(a_page(f"pg_{number}", pid=None), "a lorry" + (" and an owl" if number == 7 else ""))

        await store.write(insert)
        for query, count in (("lorry owl", 1), ("lorry", 20), ("lorry absent", 20), ("owl owl", 1)):
            hits = await store.read(lambda tx, query=query: tx.page_search(query, owner=OWNER, limit=20))  # type: ignore[misc]
            assert len(hits) == count, query
