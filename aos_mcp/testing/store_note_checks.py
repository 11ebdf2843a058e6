"""What notes promise in `ports.Transaction`, as checks. The entry is `testing.store_checks`."""

from __future__ import annotations

import struct
from dataclasses import replace

from aos_mcp.abi.errors import Conflict, NotFound
from aos_mcp.abi.handle import PageId
from aos_mcp.abi.note import ChangeKind, Note, NoteChange, NoteLink
from aos_mcp.abi.page import PageHit, PageKind
from aos_mcp.abi.vector import Vector
from aos_mcp.ports import Transaction
from aos_mcp.testing.store_record_checks import Check, OpenStore, refused
from aos_mcp.testing.store_samples import AT, OWNER, a_page


def _a_note(name: str, namespace: str = "shared") -> Note:
    return Note(page_id=PageId(name), owner=OWNER, namespace=namespace, valid_from=AT)


def _write(tx: Transaction, name: str, text: str, namespace: str = "shared") -> None:
    tx.page_insert(replace(a_page(name, pid=None), kind=PageKind.NOTE, title=""), text)
    tx.note_insert(_a_note(name, namespace))


def _ids(hits: list[PageHit]) -> list[str]:
    return [hit.page.page_id for hit in hits]


async def notes_read_back_as_written(open_store: OpenStore) -> None:
    """Every field comes back, lists are newest first, and a note needs its page."""
    async with open_store() as store:

        def insert(tx: Transaction) -> None:
            for name in ("pg_one", "pg_two"):
                _write(tx, name, "a text")
            _write(tx, "pg_three", "a text", "~ann")

        await store.write(insert)
        former = replace(_a_note("pg_one"), valid_until=AT + 1, superseded_by=PageId("pg_two"))
        await store.write(lambda tx: tx.note_put(former))

        def look(tx: Transaction) -> None:
            assert tx.note_get(PageId("pg_one")) == former
            assert tx.note_get(PageId("pg_none")) is None
            assert [n.page_id for n in tx.note_list(OWNER, limit=9)] == ["pg_three", "pg_two"]
            assert [n.page_id for n in tx.note_list(OWNER, former=True, limit=2)] == ["pg_three", "pg_two"]
            assert [n.page_id for n in tx.note_list(OWNER, namespace="shared", former=True, limit=9)] == [
                "pg_two",
                "pg_one",
            ]
            assert tx.note_list("other", limit=9) == []

        await store.read(look)
        with refused(NotFound):
            await store.write(lambda tx: tx.note_insert(_a_note("pg_none")))
        with refused(NotFound):
            await store.write(lambda tx: tx.note_put(_a_note("pg_none")))
        with refused(Conflict):
            await store.write(lambda tx: tx.note_insert(_a_note("pg_two")))


async def notes_are_found_where_and_while_they_hold(open_store: OpenStore) -> None:
    """A namespace narrows, what is private or former is hidden from words and vectors alike, links lend."""
    north, east = struct.pack("<2f", 1, 0), struct.pack("<2f", 0, 1)
    async with open_store() as store:

        def insert(tx: Transaction) -> None:
            _write(tx, "pg_owl", "the owl hunts")
            _write(tx, "pg_old", "the owl hunted")
            _write(tx, "pg_ann", "the owl of ann", "~ann")
            _write(tx, "pg_far", "invoices are due")
            tx.note_put(replace(_a_note("pg_old"), valid_until=AT + 9))
            tx.note_link_put(NoteLink(source=PageId("pg_far"), target=PageId("pg_owl"), made_by="host", made_at=AT))
            for name, body in (("pg_owl", north), ("pg_old", north), ("pg_ann", north), ("pg_far", east)):
                tx.vector_put(PageId(name), "compass", [body])

        await store.write(insert)
        near = Vector("compass", north)

        def look(tx: Transaction) -> None:
            for vector in (None, near):
                seen = _ids(tx.page_search("owl", owner=OWNER, near=vector, reader="~ben", limit=9))
                assert seen[0] == "pg_owl"
                assert set(seen) == {"pg_owl", "pg_far"}
                own = _ids(tx.page_search("owl", owner=OWNER, near=vector, namespace="~ann", reader="~ann", limit=9))
                assert own == ["pg_ann"]
                then = _ids(tx.page_search("owl", owner=OWNER, near=vector, reader="~ben", until=AT + 5, limit=9))
                assert set(then) == {"pg_owl", "pg_old", "pg_far"}
            assert set(_ids(tx.page_search("owl", owner=OWNER, limit=9))) == {"pg_owl", "pg_far", "pg_ann"}
            nearest = tx.note_nearest(near, owner=OWNER, namespace="shared", limit=2)
            assert [(name, round(cosine, 3)) for name, cosine in nearest] == [("pg_owl", 1.0), ("pg_far", 0.0)]

        await store.read(look)


async def changes_to_notes_are_kept_in_order_until_they_are_undone(open_store: OpenStore) -> None:
    """By writer and from a serial on; a link is made once and may be removed."""
    link = NoteLink(source=PageId("pg_a"), target=PageId("pg_b"), made_by="host", made_at=AT)
    async with open_store() as store:

        def insert(tx: Transaction) -> None:
            for name in ("pg_a", "pg_b"):
                _write(tx, name, "a text")
            assert tx.note_link_put(link)
            assert not tx.note_link_put(link), "once"
            for writer, page in (("host", "pg_a"), ("p_1", "pg_b"), ("host", "pg_b")):
                tx.note_change_insert(
                    NoteChange(owner=OWNER, writer=writer, kind=ChangeKind.WROTE, page_id=PageId(page), at=AT)
                )

        await store.write(insert)
        first, second, third = await store.read(lambda tx: tx.note_changes(OWNER, limit=9))
        assert first.serial < second.serial < third.serial
        assert (second.writer, second.page_id, second.kind) == ("p_1", "pg_b", ChangeKind.WROTE)
        await store.write(lambda tx: tx.note_change_undo(first.serial, AT + 1))

        def look(tx: Transaction) -> None:
            assert tx.note_changes(OWNER, writer="host", limit=9) == [third]
            assert tx.note_changes(OWNER, after=second.serial, limit=9) == [third]
            assert tx.note_changes("other", limit=9) == []
            assert tx.note_links([PageId("pg_b")]) == [link]

        await store.read(look)
        await store.write(lambda tx: tx.note_link_drop(link.source, link.target))
        assert await store.read(lambda tx: tx.note_links([PageId("pg_a")])) == []
        with refused(Conflict):
            await store.write(lambda tx: tx.note_link_put(replace(link, target=link.source)))


async def what_was_made_from_a_source_is_found_by_its_label(open_store: OpenStore) -> None:
    """By words and by vectors; a label is one of a set, and found whole."""
    north = struct.pack("<2f", 1, 0)
    async with open_store() as store:

        def insert(tx: Transaction) -> None:
            for name, labels in (("pg_git", ("host", "mount:git")), ("pg_github", ("mount:github",)), ("pg_none", ())):
                tx.page_insert(replace(a_page(name), labels=labels), "the owl hunts")
                tx.vector_put(PageId(name), "compass", [north])

        await store.write(insert)

        def look(tx: Transaction) -> None:
            for near in (None, Vector("compass", north)):
                assert _ids(tx.page_search("owl", owner=OWNER, near=near, label="mount:git", limit=9)) == ["pg_git"]
                assert tx.page_search("owl", owner=OWNER, near=near, label="mount", limit=9) == []

        await store.read(look)


NOTE_CHECKS: tuple[Check, ...] = (
    notes_read_back_as_written,
    notes_are_found_where_and_while_they_hold,
    changes_to_notes_are_kept_in_order_until_they_are_undone,
    what_was_made_from_a_source_is_found_by_its_label,
)
