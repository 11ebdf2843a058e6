# ruff: noqa: D102 - what each verb must hold is said once, at the same name in `ports.Transaction`.
"""The verbs about notes, over the statements of `note.sql`; see `storage.store`, which is made of this and more."""

from __future__ import annotations

import json
from collections.abc import Sequence

from aos_mcp.abi.errors import Conflict, NotFound
from aos_mcp.abi.handle import PageId
from aos_mcp.abi.note import ChangeKind, Note, NoteChange, NoteLink
from aos_mcp.abi.vector import Vector
from aos_mcp.storage.connection import Connection, Row, Value
from aos_mcp.storage.retrieval import Nearest, no_bounds


class NoteTransaction:
    """The part of a transaction that is about notes."""

    _at: Connection
    _nearest: Nearest

    def note_insert(self, note: Note) -> None:
        if not self._at.execute("note_insert", _note_values(note)):
            raise NotFound(f"There is no page {note.page_id}.", "Write the page first.")

    def note_get(self, page_id: PageId) -> Note | None:
        row = self._at.one("note_get", {"page_id": page_id})
        return _note_from(row) if row else None

    def note_put(self, note: Note) -> None:
        if not self._at.execute("note_put", _note_values(note)):
            raise NotFound(f"There is no note {note.page_id}.", "Find notes with search_pages(kind='note').")

    def note_list(self, owner: str, *, namespace: str | None = None, former: bool = False, limit: int) -> list[Note]:
        values: dict[str, Value] = {"owner": owner, "namespace": namespace, "former": former, "limit": limit}
        return [_note_from(row) for row in self._at.all("note_list", values)]

    def note_nearest(self, near: Vector, *, owner: str, namespace: str, limit: int) -> list[tuple[PageId, float]]:
        bounds = {**no_bounds(owner), "namespace": namespace}
        found = self._nearest.search(self._at, near, bounds, limit)
        rows = self._at.all("page_by_serial", {"serials": json.dumps(list(found))})
        return [(row["page_id"], found[row["serial"]]) for row in rows]

    def note_link_put(self, link: NoteLink) -> bool:
        if link.source == link.target:
            raise Conflict("A note is not linked to itself.", "Name another note.")
        values: dict[str, Value] = {
            "source": link.source, "target": link.target, "made_by": link.made_by, "made_at": link.made_at,
        }  # fmt: skip
        return bool(self._at.execute("note_link_put", values))

    def note_link_drop(self, source: PageId, target: PageId) -> None:
        self._at.execute("note_link_drop", {"source": source, "target": target})

    def note_links(self, page_ids: Sequence[PageId]) -> list[NoteLink]:
        rows = self._at.all("note_links", {"page_ids": json.dumps(list(page_ids))})
        return [
            NoteLink(source=r["source"], target=r["target"], made_by=r["made_by"], made_at=r["made_at"]) for r in rows
        ]

    def note_change_insert(self, change: NoteChange) -> None:
        values: dict[str, Value] = {
            "owner": change.owner, "writer": change.writer, "kind": change.kind.value, "page_id": change.page_id,
            "other": change.other, "at": change.at, "undone_at": change.undone_at,
        }  # fmt: skip
        self._at.execute("note_change_insert", values)

    def note_changes(self, owner: str, *, writer: str | None = None, after: int = 0, limit: int) -> list[NoteChange]:
        values: dict[str, Value] = {"owner": owner, "writer": writer, "after": after, "limit": limit}
        return [_change_from(row) for row in self._at.all("note_changes", values)]

    def note_change_undo(self, serial: int, at: float) -> None:
        self._at.execute("note_change_undo", {"serial": serial, "at": at})


def _note_values(note: Note) -> dict[str, Value]:
    return {
        "page_id": note.page_id,
        "owner": note.owner,
        "namespace": note.namespace,
        "valid_from": note.valid_from,
        "valid_until": note.valid_until,
        "superseded_by": note.superseded_by,
    }


def _note_from(row: Row) -> Note:
    return Note(
        page_id=row["page_id"],
        owner=row["owner"],
        namespace=row["namespace"],
        valid_from=row["valid_from"],
        valid_until=row["valid_until"],
        superseded_by=row["superseded_by"],
    )


def _change_from(row: Row) -> NoteChange:
    return NoteChange(
        serial=row["serial"],
        owner=row["owner"],
        writer=row["writer"],
        kind=ChangeKind(row["kind"]),
        page_id=row["page_id"],
        other=row["other"],
        at=row["at"],
        undone_at=row["undone_at"],
    )
