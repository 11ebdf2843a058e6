"""What pages, search and vectors promise in `ports.Transaction`, as checks. The entry is `testing.store_checks`."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace

from aos_mcp.abi.errors import Conflict, LimitExceeded, NotFound
from aos_mcp.abi.handle import PageId, Pid
from aos_mcp.abi.limits import PAGE_LINEAGE_MAX
from aos_mcp.abi.page import PageHit, PageKind
from aos_mcp.abi.vector import Vector
from aos_mcp.ports import Store, Transaction
from aos_mcp.testing.store_record_checks import Check, OpenStore, refused
from aos_mcp.testing.store_samples import AT, OWNER, a_full_page, a_page, a_process

HOSTILE_QUERIES = (
    "", " ", '"', "'", '""', "AND", "AND OR NOT", "owl AND", "NEAR(owl", "owl*", "^owl", "title:owl", "-owl", "(", ")",
    "owl)", "{owl}", "%", "_", "__", ";", "--", "\\", "\N{OWL}", "\N{OWL}\N{ZERO WIDTH JOINER}", "'; DROP TABLE page",
    "\u0301", "a" * 10_000, "owl " * 5_000, "\ud800", "\x00", "\t\n", "١٢٣", "²",
)  # fmt: skip


async def pages_read_back_as_written(open_store: OpenStore) -> None:
    """Every field comes back; a page table is in order."""
    full = a_full_page("pg_full")
    async with open_store() as store:

        def insert(tx: Transaction) -> None:
            tx.page_insert(full, "")
            tx.page_insert(a_page("pg_b", position=1), "")
            tx.page_insert(a_page("pg_a", position=1), "")
            tx.page_insert(a_page("pg_other", pid="p_2"), "")
            tx.page_insert(a_page("pg_memory", pid=None), "")

        await store.write(insert)

        def look(tx: Transaction) -> None:
            assert tx.page_get(full.page_id) == full
            assert [page.page_id for page in tx.page_table(Pid("p_1"))] == ["pg_a", "pg_b", "pg_full"]
            assert tx.page_get(PageId("pg_none")) is None

        await store.read(look)
        changed = replace(a_page("pg_full"), title="anew", resident=False, left_why="cold", left_at=AT)
        await store.write(lambda tx: tx.page_put(changed))
        assert await store.read(lambda tx: tx.page_get(full.page_id)) == changed
        with refused(NotFound):
            await store.write(lambda tx: tx.page_put(a_page("pg_none")))
        with refused(Conflict):
            await store.write(lambda tx: tx.page_insert(full, ""))


async def _library(store: Store) -> None:
    """Fill a store with pages to search."""
    texts = {
        "pg_owl": ("p_1", "birds", "The owl hunted at night, and owls hunt silently. An owl sees."),
        "pg_mouse": ("p_2", "rodents", "A mouse runs from the owl. " + "Nothing else happens here. " * 40),
        "pg_long": ("p_3", "memory", "Some remembered the running of a café in Zürich."),
        "pg_chinese": ("p_1", "", "我们把数据库放在本地磁盘上。"),
    }

    def insert(tx: Transaction) -> None:
        tx.process_insert(a_process("p_1"))
        tx.process_insert(a_process("p_2", parent="p_1", program="p_1"))
        tx.process_insert(a_process("p_3"))
        for page_id, (pid, title, text) in texts.items():
            digest = tx.payload_put(text.encode())
            tx.page_insert(a_page(page_id, pid=pid, title=title, digest=digest), text)
        tx.page_insert(a_page("pg_memory", pid=None, kind=PageKind.NOTE), "An owl of long-term memory.")
        tx.page_insert(a_page("pg_foreign", owner="other"), "A foreign owl.")
        tx.page_insert(a_page("pg_hidden", title="owl"), "")

    await store.write(insert)


def _ids(hits: list[PageHit]) -> list[str]:
    return [hit.page.page_id for hit in hits]


async def search_finds_the_best_page_first(open_store: OpenStore) -> None:
    """Words are found by their stem, in text and title, in any script; better pages score higher."""
    async with open_store() as store:
        await _library(store)

        def look(tx: Transaction) -> None:
            hits = tx.page_search("Where does the owl hunt?", owner=OWNER, limit=9)
            assert hits[0].page.page_id == "pg_owl"
            assert hits[0].page == tx.page_get(PageId("pg_owl"))
            assert "hunt" in hits[0].excerpt
            scores = [hit.score for hit in hits]
            assert scores == sorted(scores, reverse=True)
            assert min(scores) > 0
            assert len(tx.page_search("owl", owner=OWNER, limit=2)) == 2
            assert _ids(tx.page_search("run remember", owner=OWNER, limit=1)) == ["pg_long"]
            assert _ids(tx.page_search("cafe zurich", owner=OWNER, limit=9)) == ["pg_long"]
            assert _ids(tx.page_search("rodents", owner=OWNER, limit=9)) == ["pg_mouse"]
            assert _ids(tx.page_search("数据库", owner=OWNER, limit=9)) == ["pg_chinese"]
            assert "数据库" in tx.page_search("数据库", owner=OWNER, limit=9)[0].excerpt
            assert tx.page_search("elephant", owner=OWNER, limit=9) == []

        await store.read(look)


async def search_stays_within_its_bounds(open_store: OpenStore) -> None:
    """An owner, a context, a program and a kind narrow; a page inserted without text is not found."""
    async with open_store() as store:
        await _library(store)

        def look(tx: Transaction) -> None:
            assert _ids(tx.page_search("owl", owner="other", limit=9)) == ["pg_foreign"]
            assert _ids(tx.page_search("owl", owner=OWNER, pid=Pid("p_1"), limit=9)) == ["pg_owl"]
            assert _ids(tx.page_search("owl", owner=OWNER, kind=PageKind.NOTE, limit=9)) == ["pg_memory"]
            tree = _ids(tx.page_search("owl remembered", owner=OWNER, program=Pid("p_1"), limit=9))
            assert sorted(tree) == ["pg_memory", "pg_mouse", "pg_owl"]
            assert "pg_hidden" not in _ids(tx.page_search("owl", owner=OWNER, limit=9))

        await store.read(look)


async def search_is_bounded_by_writer_and_time(open_store: OpenStore) -> None:
    """A source narrows to what one wrote; a span of time holds its beginning and not its end."""
    async with open_store() as store:

        def insert(tx: Transaction) -> None:
            for number in range(4):
                page = replace(a_page(f"pg_{number}", pid=None), source="ann" if number % 2 else "bob")
                tx.page_insert(replace(page, created_at=AT + number), "an owl")

        def look(tx: Transaction) -> None:
            assert sorted(_ids(tx.page_search("owl", owner=OWNER, source="ann", limit=9))) == ["pg_1", "pg_3"]
            span = tx.page_search("owl", owner=OWNER, since=AT + 1, until=AT + 3, limit=9)
            assert sorted(_ids(span)) == ["pg_1", "pg_2"]
            assert _ids(tx.page_search("owl", owner=OWNER, source="ann", until=AT + 3, limit=9)) == ["pg_1"]

        await store.write(insert)
        await store.read(look)


async def a_page_is_found_by_what_stands_beside_it(open_store: OpenStore) -> None:
    """The answer stands next to its question; a page of another context, or one without text, does not."""
    async with open_store() as store:

        def insert(tx: Transaction) -> None:
            tx.page_insert(a_page("pg_question", position=1), "Where does the owl hunt?")
            tx.page_insert(a_page("pg_answer", position=2, kind=PageKind.REPLY), "Over there, in the woods.")
            tx.page_insert(a_page("pg_silent", position=0), "")
            tx.page_insert(a_page("pg_elsewhere", pid="p_2", position=2), "Nothing of that.")

        def look(tx: Transaction) -> None:
            hits = tx.page_search("owl", owner=OWNER, limit=9)
            assert _ids(hits) == ["pg_question", "pg_answer"]
            assert hits[0].score > hits[1].score > 0
            assert _ids(tx.page_search("owl", owner=OWNER, kind=PageKind.DOCUMENT, limit=9)) == ["pg_question"]
            answer = tx.page_get(PageId("pg_answer"))
            assert answer is not None
            assert tx.page_before(answer) == tx.page_get(PageId("pg_question"))
            assert tx.page_before(a_page("pg_silent", position=0)) is None
            assert tx.page_before(a_page("pg_note", pid=None)) is None

        await store.write(insert)
        await store.read(look)


async def vectors_find_what_words_do_not(open_store: OpenStore) -> None:
    """The nearest page is found, within the bounds; vectors of another model are not compared."""
    east, north, south = (struct.pack("<2f", *direction) for direction in ((1, 0), (0, 1), (0, -1)))
    async with open_store() as store:

        def insert(tx: Transaction) -> None:
            for name, parts in (("pg_east", [east]), ("pg_both", [south, north]), ("pg_nothing", [])):
                tx.page_insert(a_page(name, pid=None), "a text")
                tx.vector_put(PageId(name), "compass", parts)
            tx.page_insert(a_page("pg_foreign", pid=None, owner="other"), "a text")
            tx.vector_put(PageId("pg_foreign"), "compass", [north])
            tx.page_insert(a_page("pg_words", pid=None), "an owl")

        def look(tx: Transaction) -> None:
            north_of = Vector("compass", north)
            assert _ids(tx.page_search("absent", owner=OWNER, near=north_of, limit=9))[0] == "pg_both"
            assert _ids(tx.page_search("absent", owner=OWNER, near=Vector("compass", east), limit=1)) == ["pg_east"]
            assert _ids(tx.page_search("absent", owner="other", near=north_of, limit=9)) == ["pg_foreign"]
            assert _ids(tx.page_search("absent", owner=OWNER, near=Vector("another", north), limit=9)) == []
            assert "pg_words" in _ids(tx.page_search("owl", owner=OWNER, near=north_of, limit=9))

        await store.write(insert)
        await store.read(look)
        with refused(Conflict):
            await store.write(lambda tx: tx.vector_put(PageId("pg_words"), "compass", [b"\0" * 12]))
        with refused(NotFound):
            await store.write(lambda tx: tx.vector_put(PageId("pg_none"), "compass", [east]))


async def pages_wait_for_their_vectors_in_the_order_they_were_written(open_store: OpenStore) -> None:
    """A page that says nothing is done with too; another model begins anew, and drops what former ones left."""
    body = struct.pack("<2f", 1, 0)
    async with open_store() as store:

        def insert(tx: Transaction) -> None:
            for name in ("pg_c", "pg_a", "pg_b"):
                tx.page_insert(a_page(name), "a text")

        def missing(model: str) -> Callable[[Transaction], list[str]]:
            return lambda tx: [page.page_id for page in tx.vector_missing(model, limit=9)]

        await store.write(insert)
        assert await store.read(missing("one")) == ["pg_c", "pg_a", "pg_b"]
        await store.write(lambda tx: tx.vector_put(PageId("pg_c"), "one", [body, body]))
        await store.write(lambda tx: tx.vector_put(PageId("pg_a"), "one", []))
        assert await store.read(missing("one")) == ["pg_b"]
        assert await store.read(missing("two")) == ["pg_c", "pg_a", "pg_b"]
        assert await store.write(lambda tx: tx.vector_drop_others("one", limit=9)) == 0
        assert await store.write(lambda tx: tx.vector_drop_others("two", limit=2)) == 2
        assert await store.write(lambda tx: tx.vector_drop_others("two", limit=2)) == 1
        assert await store.read(missing("one")) == ["pg_c", "pg_a", "pg_b"]


async def vectors_tell_how_near_pages_are_to_others(open_store: OpenStore) -> None:
    """The nearest part of a page counts; what has no vector of the model is left out, and nothing is near to that."""
    east, north = struct.pack("<2f", 1, 0), struct.pack("<2f", 0, 1)
    one, other, both, bare = (PageId(name) for name in ("pg_one", "pg_other", "pg_both", "pg_bare"))
    async with open_store() as store:

        def insert(tx: Transaction) -> None:
            for name, parts in ((one, [east]), (other, [north]), (both, [north, east]), (bare, [])):
                tx.page_insert(a_page(name), "a text")
                tx.vector_put(name, "compass", parts)

        def look(tx: Transaction) -> None:
            asked = [one, other, both, bare, PageId("pg_none")]
            found = tx.vector_cosines("compass", asked, to=[one])
            assert {page_id: round(cosine, 6) for page_id, cosine in found.items()} == {one: 1.0, other: 0.0, both: 1.0}
            assert list(tx.vector_cosines("compass", [other], to=[one])) == [other]
            between = tx.vector_cosines("compass", [one, other], to=[one, other, bare])
            assert {round(cosine, 3) for cosine in between.values()} == {0.707}
            assert tx.vector_cosines("compass", asked, to=[bare]) == {}
            assert tx.vector_cosines("another", asked, to=[one]) == {}
            assert tx.vector_cosines("compass", [], to=[one]) == {}

        await store.write(insert)
        await store.read(look)


async def any_text_is_a_legal_query(open_store: OpenStore) -> None:
    """Operators, quotes, half characters and very long texts are words or nothing, never an error."""
    async with open_store() as store:
        await _library(store)

        def look(tx: Transaction) -> None:
            for query in HOSTILE_QUERIES:
                tx.page_search(query, owner=OWNER, limit=9)
            for query in ("owl*", '"owl', "title:owl", "(owl", "NOT owl", "owl " * 5_000):
                assert "pg_owl" in _ids(tx.page_search(query, owner=OWNER, limit=9)), f"{query!r} holds the word"

        await store.read(look)


async def a_context_is_read_as_it_was_at_any_stamp(open_store: OpenStore) -> None:
    """Each write of a page is a new state of its context; the states before stay readable."""
    async with open_store() as store:

        def work(tx: Transaction) -> None:
            assert tx.page_stamp(Pid("p_1")) == 0
            first, second = a_page("pg_1", position=0), a_page("pg_2", position=1)
            tx.page_insert(first, "")
            before = tx.page_stamp(Pid("p_1"))
            tx.page_put(replace(first, resident=False, left_why="cold", left_at=AT))
            tx.page_insert(a_page("pg_else", pid="p_2"), "")
            between = tx.page_stamp(Pid("p_1"))
            tx.page_insert(second, "")
            tx.page_put(replace(second, uses=3))
            last = tx.page_stamp(Pid("p_1"))
            assert len({0, before, between, last}) == 4
            assert tx.page_table(Pid("p_1"), at=0) == []
            assert tx.page_table(Pid("p_1"), at=before) == [first]
            assert [page.resident for page in tx.page_table(Pid("p_1"), at=between)] == [False]
            assert tx.page_table(Pid("p_1"), at=last) == tx.page_table(Pid("p_1"))

        await store.write(work)


async def a_fork_shares_the_past_and_nothing_after_it(open_store: OpenStore) -> None:
    """What either writes from then on, the other does not see; a fork of a fork has the pasts of both."""
    one, two, three = Pid("p_1"), Pid("p_2"), Pid("p_3")

    def ids(tx: Transaction, pid: Pid) -> list[tuple[str, int]]:
        return [(page.page_id, page.uses) for page in tx.page_table(pid)]

    async with open_store() as store:

        def work(tx: Transaction) -> None:
            for pid in (one, two, three):
                tx.process_insert(a_process(pid))
            reply = replace(a_page("pg_b", position=1, kind=PageKind.REPLY), group=1)
            tx.page_insert(a_page("pg_a", position=0), "an owl")
            tx.page_insert(reply, "")
            tx.page_share(two, one, at=tx.page_stamp(one))
            tx.page_put(replace(a_page("pg_a", position=0), uses=7))
            tx.page_insert(a_page("pg_later", position=2), "an owl")
            assert ids(tx, two) == [("pg_a", 0), ("pg_b", 0)]
            assert {page.pid for page in tx.page_table(two)} == {two}
            shared = tx.page_get(PageId("pg_a"), of=two)
            assert shared == replace(a_page("pg_a", position=0), pid=two)
            tx.page_put(replace(shared, uses=1))
            tx.page_insert(a_page("pg_own", pid=two, position=2, kind=PageKind.RESULT), "a second owl")
            tx.page_share(three, two, at=tx.page_stamp(two))
            tx.page_put(replace(shared, uses=2))
            assert ids(tx, one) == [("pg_a", 7), ("pg_b", 0), ("pg_later", 0)]
            assert ids(tx, two) == [("pg_a", 2), ("pg_b", 0), ("pg_own", 0)]
            assert ids(tx, three) == [("pg_a", 1), ("pg_b", 0), ("pg_own", 0)]
            assert [page.page_id for page in tx.page_tail(three)] == ["pg_b", "pg_own"]
            assert tx.page_bases(three) == [two, one]
            assert tx.page_get(PageId("pg_a"), of=one) == tx.page_get(PageId("pg_a"))

        def look(tx: Transaction) -> None:
            found = tx.page_search("owl", owner=OWNER, pid=two, limit=9)
            assert set(_ids(found)) == {"pg_a", "pg_own"}, "what a context begins with is found in it"
            assert {hit.page.pid for hit in found} == {two}
            tree = tx.page_search("owl", owner=OWNER, program=three, limit=9)
            assert {"pg_a", "pg_own"} <= set(_ids(tree))

        await store.write(work)
        await store.read(look)
        with refused(NotFound):
            await store.write(lambda tx: tx.page_put(a_page("pg_own", pid="p_1")))


async def a_fork_of_too_many_forks_is_refused(open_store: OpenStore) -> None:
    """A page of the last would have to be looked for in too many places."""
    async with open_store() as store:

        def fork(number: int) -> Callable[[Transaction], None]:
            return lambda tx: tx.page_share(Pid(f"p_{number}"), Pid(f"p_{number - 1}"), at=0)

        for number in range(1, PAGE_LINEAGE_MAX + 1):
            await store.write(fork(number))
        with refused(LimitExceeded):
            await store.write(fork(PAGE_LINEAGE_MAX + 1))


PAGE_CHECKS: tuple[Check, ...] = (
    pages_read_back_as_written,
    search_finds_the_best_page_first,
    search_stays_within_its_bounds,
    search_is_bounded_by_writer_and_time,
    a_page_is_found_by_what_stands_beside_it,
    vectors_find_what_words_do_not,
    pages_wait_for_their_vectors_in_the_order_they_were_written,
    vectors_tell_how_near_pages_are_to_others,
    any_text_is_a_legal_query,
    a_context_is_read_as_it_was_at_any_stamp,
    a_fork_shares_the_past_and_nothing_after_it,
    a_fork_of_too_many_forks_is_refused,
)
