"""Consolidation: an agent that puts the shared notes in order, in the background and under a budget of its own.

Off unless the operator sets an interval. The agent may read and write notes and do nothing else, and whatever it
changed can be undone by its pid.
"""

from __future__ import annotations

from functools import partial

from pydantic import BaseModel

from aos_mcp.abi.arguments import BudgetArgs, SpawnArgs
from aos_mcp.abi.capability import Caller, CallerKind
from aos_mcp.abi.errors import NotFound
from aos_mcp.abi.handle import Pid
from aos_mcp.abi.limits import CONSOLIDATION_LOOK_S, CONSOLIDATION_NOTES_MAX, NOTE_CHANGES_MAX
from aos_mcp.abi.note import PRIVATE_MARK, ChangeKind, Note, NoteChange
from aos_mcp.abi.process import ProcessState
from aos_mcp.kernel.gate import Gate
from aos_mcp.kernel.machine import Machine
from aos_mcp.kernel.steady import steadily
from aos_mcp.ports import Transaction

NAME = "consolidator"
TOOLS = ["page_in", "page_out", "search_pages"]
TURNS = 40

PRIORITY = 90
"""Behind everything a person waits for."""

TASK = """\
Put these long-term notes in order. Read each with page_in. Where several say the same, or one corrects another, write \
one note with page_out that holds all that still stands, and name those it replaces in `supersedes`. Where two belong \
together, write what connects them as a note of its own only if it says something neither does. Copy names, numbers \
and dates exactly. Leave alone what is in order: to change nothing is a good end. Exit with one line that says \
what you did.

{notes}"""


class _Run(BaseModel):
    """The last consolidation, as a fact of the store."""

    pid: Pid
    through: int
    at: float


async def run_consolidation(machine: Machine, gate: Gate, owner: str) -> None:
    """Spawn the consolidator whenever it is due and there is something new; return at once where it is off."""
    every_h = machine.settings.memory.consolidate_every_h
    if every_h is None:
        return
    caller = Caller(kind=CallerKind.KERNEL, principal=owner)

    async def once() -> None:
        await machine.clock.sleep_until(machine.clock.now() + min(CONSOLIDATION_LOOK_S, every_h * 3_600))
        if await machine.store.read(partial(_is_due, machine=machine, owner=owner, every_s=every_h * 3_600)):
            await gate.syscall(caller, "consolidate_notes", {})

    await steadily(machine, "consolidation", once)


def asked(tx: Transaction, machine: Machine, owner: str) -> tuple[SpawnArgs, int]:
    """Return the spawn of a consolidator for the notes that are new since the last one, and the change it reaches to.

    Raises:
        NotFound: there are none.
    """
    changes = _fresh(tx, owner)
    found = (tx.note_get(change.page_id) for change in changes if change.kind is ChangeKind.WROTE)
    fresh = [
        note for note in found if note and note.valid_until is None and not note.namespace.startswith(PRIVATE_MARK)
    ]
    if not fresh:
        raise NotFound("There is no shared note that a consolidation has not seen.", "Write some with page_out.")
    settings, through = machine.settings.memory, changes[-1].serial
    shown = "\n".join(_line(tx, note) for note in fresh[-CONSOLIDATION_NOTES_MAX:])
    spawn = SpawnArgs(
        task=TASK.format(notes=shown),
        name=NAME,
        model=settings.consolidate_model,
        priority=PRIORITY,
        tools=TOOLS,
        budget=BudgetArgs(usd=settings.consolidate_usd, turns=TURNS),
        network=[],
        idempotency_key=f"{NAME}/{through}",
    )
    return spawn, through


def started(tx: Transaction, owner: str, pid: Pid, through: int, now: float) -> None:
    """Put on record that the changes up to `through` are in a consolidator's hands."""
    tx.fact_put(_fact(owner), _Run(pid=pid, through=through, at=now).model_dump_json())


def _is_due(tx: Transaction, *, machine: Machine, owner: str, every_s: float) -> bool:
    last = _last(tx, owner)
    if last is not None:
        process = tx.process_get(last.pid)
        running = process is not None and process.state is not ProcessState.EXITED
        if running or machine.clock.now() - last.at < every_s:
            return False
    return any(change.kind is ChangeKind.WROTE for change in _fresh(tx, owner))


def _fresh(tx: Transaction, owner: str) -> list[NoteChange]:
    """Return what others than the last consolidator changed since it was given its list."""
    last = _last(tx, owner)
    after, own = (last.through, last.pid) if last is not None else (0, None)
    return [change for change in tx.note_changes(owner, after=after, limit=NOTE_CHANGES_MAX) if change.writer != own]


def _last(tx: Transaction, owner: str) -> _Run | None:
    body = tx.fact_get(_fact(owner))
    return _Run.model_validate_json(body) if body is not None else None


def _fact(owner: str) -> str:
    return f"consolidation/{owner}"


def _line(tx: Transaction, note: Note) -> str:
    page = tx.page_get(note.page_id)
    assert page is not None, "a note is a page"
    return f"- {note.page_id} ({note.namespace}, {page.tokens} tokens): {page.title}"
