"""Long-term memory for whoever looks after it: list it, undo a writer's changes, have it put in order."""

from __future__ import annotations

from aos_mcp.abi import arguments as a
from aos_mcp.abi import results as r
from aos_mcp.abi.event import Event, EventKind
from aos_mcp.abi.handle import Pid
from aos_mcp.abi.note import Note
from aos_mcp.kernel import consolidation, notes
from aos_mcp.kernel.call import Call
from aos_mcp.kernel.calls import process
from aos_mcp.ports import Transaction


async def list_notes(call: Call, args: a.ListNotesArgs) -> r.NotesResult:
    """List notes, newest first."""

    def work(tx: Transaction) -> r.NotesResult:
        found = tx.note_list(call.caller.principal, namespace=args.namespace, former=args.former, limit=args.limit)
        return r.NotesResult(notes=[_row(tx, note) for note in found])

    return await call.read(work)


def _row(tx: Transaction, note: Note) -> r.NoteRow:
    page = tx.page_get(note.page_id)
    assert page is not None, "a note is a page"
    return r.NoteRow(
        page_id=note.page_id,
        namespace=note.namespace,
        title=page.title,
        tokens=page.tokens,
        writer=page.source,
        valid_from=note.valid_from,
        valid_until=note.valid_until,
        superseded_by=note.superseded_by,
        links=[*notes.linked_to(tx, note.page_id)],
    )


async def undo_notes(call: Call, args: a.UndoNotesArgs) -> r.UndoNotesResult:
    """Take back all that one writer did to long-term memory."""

    def work(tx: Transaction) -> r.UndoNotesResult:
        call.subject = args.writer
        undone = notes.undo(tx, call.caller.principal, args.writer, call.now)
        call.publish(Event(kind=EventKind.PAGE, subject=args.writer, owner=call.caller.principal))
        return r.UndoNotesResult(undone=undone)

    return await call.commit(work)


async def consolidate_notes(call: Call, args: a.NoArgs) -> r.SpawnResult:
    """Spawn the agent that puts the shared notes in order, under its own budget."""
    owner = call.caller.principal
    asked, through = await call.read(lambda tx: consolidation.asked(tx, call.machine, owner))
    spawned = await process.spawn(call, asked)
    # After the spawn: a crash between the two has the next call find the same process by its key.
    await call.machine.store.write(lambda tx: consolidation.started(tx, owner, Pid(spawned.pid), through, call.now))
    return spawned
