"""Notes: how long-term memory is written, replaced and taken back. Every change is on record, by who made it.

A note is replaced by compare-and-set: of two writers who supersede one note at the same moment the second is told of
the first's, and nothing is lost. What a writer did can be undone, as long as nobody has built on it since.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from aos_mcp.abi.errors import Conflict, Invalid, NotFound
from aos_mcp.abi.handle import PageId
from aos_mcp.abi.limits import NOTE_CHANGES_MAX, NOTE_LINKS_MAX
from aos_mcp.abi.note import PRIVATE, PRIVATE_MARK, SHARED, ChangeKind, Note, NoteChange, NoteLink
from aos_mcp.abi.page import Page
from aos_mcp.abi.process import Process
from aos_mcp.ports import Transaction

MENTION = re.compile(r"\[\[(pg_[a-z0-9]+)\]\]")
"""A note that names another one like this is linked to it."""


def reader_of(process: Process | None) -> str | None:
    """Return the private namespace a caller may read; None for a host or operator, who may read all.

    Agents of one definition share theirs, so that the next run finds what the last one kept; an agent without a
    definition shares it with its tree.
    """
    return None if process is None else f"{PRIVATE_MARK}{process.agent or process.program}"


def stored_name(namespace: str, process: Process | None) -> str:
    """Return the namespace as it is stored. A host's private one is nobody's but the hosts'."""
    if namespace != PRIVATE:
        return namespace
    return reader_of(process) or PRIVATE_MARK


def may_read(note: Note, reader: str | None) -> bool:
    """Tell whether a reader (see `reader_of`) may see a note."""
    return reader is None or not note.namespace.startswith(PRIVATE_MARK) or note.namespace == reader


def write(
    tx: Transaction,
    page: Page,
    text: str,
    *,
    namespace: str | None,
    supersedes: Sequence[str],
    links: Sequence[str],
    process: Process | None,
    writer: str,
    now: float,
) -> Note:
    """Make a new page a note, in place of those it supersedes and linked to those it names.

    Without a namespace it goes where what it supersedes was. A superseded note's links go over to the new one.

    Raises:
        NotFound: a note is named that is not there, or not the caller's to see.
        Conflict: a note is named that was superseded meanwhile; the sentence names the newer one.
        Invalid: the notes it supersedes are of several namespaces, and none is named.
    """
    former = [_current(tx, page_id, page.owner, process) for page_id in dict.fromkeys(supersedes)]
    note = Note(
        page_id=page.page_id,
        owner=page.owner,
        namespace=_namespace(namespace, former, process),
        valid_from=now,
    )
    tx.note_insert(note)
    _record(tx, note, writer, ChangeKind.WROTE, now)
    for old in former:
        tx.note_put(replace(old, valid_until=now, superseded_by=note.page_id))
        _record(tx, old, writer, ChangeKind.SUPERSEDED, now, other=note.page_id)
    named = [find(tx, page_id, page.owner, process).page_id for page_id in dict.fromkeys(links)]
    named += [other for other in dict.fromkeys(MENTION.findall(text)) if _visible(tx, other, page.owner, process)]
    named += [other for old in former for other in linked_to(tx, old.page_id)]
    gone = {old.page_id for old in former}
    for other in list(dict.fromkeys(named))[:NOTE_LINKS_MAX]:
        if other not in gone and other != note.page_id:
            link(tx, note, PageId(other), writer, now)
    return note


def link(tx: Transaction, note: Note, other: PageId, writer: str, now: float) -> None:
    """Link two notes, once and whichever way round."""
    if other not in linked_to(tx, note.page_id) and tx.note_link_put(
        NoteLink(source=note.page_id, target=other, made_by=writer, made_at=now)
    ):
        _record(tx, note, writer, ChangeKind.LINKED, now, other=other)


def linked_to(tx: Transaction, page_id: PageId) -> list[PageId]:
    """Return the notes that a note is linked with, oldest link first."""
    found = tx.note_links([page_id])
    return [each.target if each.source == page_id else each.source for each in found]


def find(tx: Transaction, page_id: str, owner: str, process: Process | None) -> Note:
    """Return a note the caller may see.

    Raises:
        NotFound: there is none.
    """
    note = _visible(tx, page_id, owner, process)
    if note is None:
        raise NotFound(f"There is no note {page_id}.", "Find notes with search_pages(kind='note').")
    return note


def undo(tx: Transaction, owner: str, writer: str, now: float) -> int:
    """Take back all that a writer did to long-term memory, newest first; return how many changes that were.

    Notes it wrote are withdrawn, and keep their address; what it superseded holds again; its links go.

    Raises:
        NotFound: there is nothing of this writer's that was not undone.
        Conflict: somebody superseded one of its notes since; nothing was changed.
    """
    changes = tx.note_changes(owner, writer=writer, limit=NOTE_CHANGES_MAX)
    if not changes:
        raise NotFound(f"There is nothing of {writer}'s to undo.", "See `aos notes list` for who wrote what.")
    for change in reversed(changes):
        _undo_one(tx, change, now)
        tx.note_change_undo(change.serial, now)
    return len(changes)


def _undo_one(tx: Transaction, change: NoteChange, now: float) -> None:
    note = tx.note_get(change.page_id)
    assert note is not None, "a change is about a note that is there"
    if change.kind is ChangeKind.LINKED:
        assert change.other is not None, "a link has two ends"
        tx.note_link_drop(change.page_id, change.other)
    elif change.kind is ChangeKind.SUPERSEDED:
        if note.superseded_by == change.other:
            tx.note_put(replace(note, valid_until=None, superseded_by=None))
    elif note.superseded_by is not None:
        raise Conflict(
            f"{note.page_id} has been superseded by {note.superseded_by} since.",
            "Undo what that note's writer did first, or supersede it by a note of your own.",
        )
    else:
        tx.note_put(replace(note, valid_until=now))


def _namespace(named: str | None, former: Sequence[Note], process: Process | None) -> str:
    if named is not None:
        return stored_name(named, process)
    if not former:
        return SHARED
    spaces = {note.namespace for note in former}
    if len(spaces) > 1:
        raise Invalid("The notes it supersedes are of several namespaces.", "Name the namespace of the new one.")
    return spaces.pop()


def _current(tx: Transaction, page_id: str, owner: str, process: Process | None) -> Note:
    note = find(tx, page_id, owner, process)
    if note.valid_until is None:
        return note
    if note.superseded_by is None:
        raise Conflict(f"{page_id} was withdrawn.", "Write a note of your own.")
    newest = note
    while newest.superseded_by is not None:
        following = tx.note_get(newest.superseded_by)
        assert following is not None, "a note is superseded by one that is there"
        newest = following
    raise Conflict(
        f"{page_id} was superseded by {newest.page_id} meanwhile.",
        f"Read that with page_in(page_id='{newest.page_id}'), and supersede it if yours still says more.",
    )


def _visible(tx: Transaction, page_id: str, owner: str, process: Process | None) -> Note | None:
    note = tx.note_get(PageId(page_id))
    mine = note is not None and note.owner == owner and may_read(note, reader_of(process))
    return note if mine else None


def _record(
    tx: Transaction, note: Note, writer: str, kind: ChangeKind, now: float, *, other: PageId | None = None
) -> None:
    tx.note_change_insert(
        NoteChange(owner=note.owner, writer=writer, kind=kind, page_id=note.page_id, other=other, at=now)
    )
