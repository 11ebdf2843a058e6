"""The port of durable state: what a unit of work can say, and who runs it. See `aos_mcp.ports`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from aos_mcp.abi.approval import Approval, ApprovalState, Grant
from aos_mcp.abi.audit import AuditEntry, AuditHead, AuditRecord
from aos_mcp.abi.budget import Account, Reservation, Usage
from aos_mcp.abi.guest import GuestKey
from aos_mcp.abi.handle import Digest, PageId, Pid
from aos_mcp.abi.journal import Checkpoint, Step
from aos_mcp.abi.message import Message
from aos_mcp.abi.mount import Pin
from aos_mcp.abi.note import Note, NoteChange, NoteLink
from aos_mcp.abi.page import Page, PageHit, PageKind
from aos_mcp.abi.process import Process, ProcessState
from aos_mcp.abi.vector import Vector
from aos_mcp.ports.queue import QueueTransaction
from aos_mcp.ports.upkeep import UpkeepTransaction

T = TypeVar("T")


class Transaction(QueueTransaction, UpkeepTransaction, Protocol):
    """One atomic unit of work on the store, handed to a plain function that does no I/O of its own.

    Reads see the unit's own writes. `*_get` returns None for what is not there; `*_insert` raises `Conflict` when the
    key exists; `*_put` replaces the row it names and raises `NotFound` when there is none. Lists are ordered as said.
    """

    # Processes
    def process_insert(self, process: Process) -> None:
        """Add a row. Raises Conflict for a known pid or a known (owner, idempotency_key)."""
        ...

    def process_get(self, pid: Pid) -> Process | None:
        """Return the row."""
        ...

    def process_put(self, process: Process) -> Process:
        """Compare-and-set: store `process` if the row still has `process.version`; return it with version + 1.

        A put under the same lease holder and fence never shortens the lease, which `process_renew` may have extended.
        Raises Conflict when somebody else wrote since it was read.
        """
        ...

    def process_by_key(self, owner: str, idempotency_key: str) -> Process | None:
        """Return the process that was spawned with this key."""
        ...

    def process_find_prefix(self, owner: str, prefix: str, *, limit: int) -> list[Process]:
        """Return the owner's processes whose pid starts with `prefix`."""
        ...

    def process_list(
        self,
        *,
        owner: str | None = None,
        states: Sequence[ProcessState] = (),
        parent: Pid | None = None,
        program: Pid | None = None,
        after: tuple[float, str] | None = None,
        limit: int,
    ) -> list[Process]:
        """Return rows, newest first by (created_at, pid); `after` continues behind that key. No states = all."""
        ...

    def process_children(self, pid: Pid) -> list[Process]:
        """Return the direct children, oldest first."""
        ...

    def process_count(self, *, states: Sequence[ProcessState], parent: Pid | None = None) -> int:
        """Count rows in any of `states`, of one parent where given."""
        ...

    def process_counts(self) -> Mapping[ProcessState, int]:
        """Count rows by state; a state without rows may be absent."""
        ...

    def process_leased(self) -> list[Process]:
        """Return the RUNNING and BLOCKED rows that somebody has a lease of, and guests, which nobody has one of."""
        ...

    def process_alarm(self) -> float | None:
        """Return the earliest `wake_at` of a READY row; None where none backs off."""
        ...

    def process_renew(self, holder: str, until: float) -> int:
        """Extend every lease that `holder` holds, without a new version; return how many."""
        ...

    def race_join(self, pid: Pid, race: str) -> None:
        """Put a process into a race. Raises Conflict for one that is in a race already."""
        ...

    def race_rivals(self, pid: Pid) -> list[Pid]:
        """Return the others in a process's race; none where it is in none."""
        ...

    # Guests
    def guest_key_insert(self, key: GuestKey) -> None:
        """Add a key. Raises Conflict for a known key or digest."""
        ...

    def guest_key_put(self, key: GuestKey) -> None:
        """Replace when a key was revoked; nothing else of it changes."""
        ...

    def guest_key_get(self, key_id: str) -> GuestKey | None:
        """Return the key."""
        ...

    def guest_key_by_digest(self, digest: str) -> GuestKey | None:
        """Return the key with this digest, revoked or not."""
        ...

    def guest_key_list(self, *, owner: str, pid: Pid | None = None, limit: int) -> list[GuestKey]:
        """Return the keys of an owner's guests, or of one of them, newest first."""
        ...

    # Budgets
    def account_insert(self, account: Account) -> None:
        """Open an account."""
        ...

    def account_get(self, account: str) -> Account | None:
        """Return the account."""
        ...

    def account_chain(self, account: str) -> list[Account]:
        """Return the account and all its ancestors, itself first."""
        ...

    def account_put(self, account: Account) -> None:
        """Replace the account."""
        ...

    def account_add(self, account: str, used: Usage, *, reserved_microusd: int, reserved_tokens: int) -> None:
        """Add to what the account and all its ancestors have used and set aside; amounts may be negative."""
        ...

    def accounts_get(self, accounts: Sequence[str]) -> Mapping[str, Account]:
        """Return those that exist."""
        ...

    def reservation_insert(self, reservation: Reservation) -> None:
        """Add a reservation."""
        ...

    def reservation_take(self, reservation_id: str) -> Reservation | None:
        """Remove and return a reservation; None when it was taken before."""
        ...

    def reservation_list(self) -> list[Reservation]:
        """Return all that are open."""
        ...

    # Payloads
    def payload_put(self, body: bytes) -> Digest:
        """Store bytes once; return their SHA-256."""
        ...

    def payload_keep(self, digest: Digest, body: bytes) -> None:
        """Store bytes whose SHA-256 the caller has taken, as they are: for large bodies, which others wait behind."""
        ...

    def payload_get(self, digest: Digest) -> bytes | None:
        """Return the bytes, checked against the digest."""
        ...

    # Journal
    def step_insert(self, step: Step) -> None:
        """Add a step. Raises Conflict when the number is taken or the process row has a newer fence."""
        ...

    def step_put(self, step: Step) -> None:
        """Replace a step. Raises Conflict when the process row has a newer fence than `step.fence`."""
        ...

    def step_get(self, pid: Pid, number: int) -> Step | None:
        """Return one step."""
        ...

    def step_list(self, pid: Pid, *, after: int = -1, limit: int) -> list[Step]:
        """Return steps with `number > after`, in order."""
        ...

    def step_last(self, pid: Pid, *, limit: int) -> list[Step]:
        """Return the last `limit` steps, in order."""
        ...

    def step_by_request(self, pid: Pid, request_id: str) -> Step | None:
        """Return the newest step that answers this tool request."""
        ...

    def step_open(self, pid: Pid) -> list[Step]:
        """Return the steps in INTENT, in order."""
        ...

    def step_unowned(self) -> list[Step]:
        """Return the steps in INTENT that are no process's: hosts' acts that are under way, or were."""
        ...

    def step_unknown(self, pids: Sequence[Pid]) -> Mapping[Pid, list[int]]:
        """Return the numbers of the steps in UNKNOWN of each of these that has some."""
        ...

    # Pages
    def page_insert(self, page: Page, text: str) -> None:
        """Add a page; `text` is what the lexical index holds (may be empty)."""
        ...

    def page_put(self, page: Page) -> None:
        """Replace a page's row; of a page that `page.pid` inherited, how it stands in that context alone.

        Title, place, weight, uses and residence may differ between contexts; what a page says never does.
        """
        ...

    def page_get(self, page_id: PageId, *, of: Pid | None = None) -> Page | None:
        """Return the page; as it stands in the context of `of`, where that has inherited it: its `pid` is `of` then."""
        ...

    def page_named(self, beginning: str, *, owner: str) -> PageId | None:
        """Return the one page of an owner whose id begins so; None where there is none, or more than one."""
        ...

    def page_labels(self, pid: Pid) -> tuple[str, ...]:
        """Return the labels of all pages of a process and of what it inherited, sorted."""
        ...

    def page_changes(self, pid: Pid, *, after: int) -> list[Page]:
        """Return the pages of a context that were written after a stamp, by position, then page_id."""
        ...

    def page_table(self, pid: Pid, *, at: int | None = None) -> list[Page]:
        """Return all pages of a process, by position, then page_id; with `at`, as they were at that stamp.

        Every write of a page gives its context the next stamp, so a stamp names one state of a page table.
        """
        ...

    def page_tail(self, pid: Pid, *, at: int | None = None) -> list[Page]:
        """Return the last reply and what stands behind it; nothing where there is none. How they stand is not told."""
        ...

    def page_stamp(self, pid: Pid) -> int:
        """Return the stamp of the present state of a page table; 0 where nothing was written yet."""
        ...

    def page_share(self, pid: Pid, base: Pid, *, at: int) -> None:
        """Have the context of `pid` begin as that of `base` was at a stamp. Nothing is copied.

        Raises LimitExceeded for a fork of too many forks.
        """
        ...

    def page_bases(self, pid: Pid) -> list[Pid]:
        """Return whose contexts a process's own begins with, nearest first."""
        ...

    def page_before(self, page: Page) -> Page | None:
        """Return the page that stands before this one in its context."""
        ...

    def page_search(
        self,
        query: str,
        *,
        owner: str,
        near: Vector | None = None,
        pid: Pid | None = None,
        kind: PageKind | None = None,
        program: Pid | None = None,
        source: str | None = None,
        since: float | None = None,
        until: float | None = None,
        namespace: str | None = None,
        label: str | None = None,
        reader: str | None = None,
        limit: int,
    ) -> list[PageHit]:
        """Search by words (BM25) and, where `near` is given, by the vectors of its model; best first, scores above 0.

        Any text is a legal query: it is split into words, never parsed. Pages that stand beside a match in one context,
        or in a context with many, may be found by that. `pid` narrows to one context, `program` to the contexts of one
        tree and the owner's long-term memory, `source` to what one wrote, `since` (included) and `until` (excluded) to
        a span of creation times. A page without a vector is found by its words.

        `label` narrows to what was made from that source, `namespace` to its notes. Notes in a private namespace
        (`abi.note.PRIVATE_MARK`) other than `reader` are hidden, unless `reader` is None. A note that was superseded is
        hidden, unless it still held at `until`. Linked notes are found by one another.
        """
        ...

    # Vectors
    def vector_put(self, page_id: PageId, model: str, parts: Sequence[bytes]) -> None:
        """Keep what `model` makes of a page: a vector for each of its parts (see `abi.vector`), or none.

        Parts that are there stay as they are. Raises NotFound for an unknown page, Conflict when the vectors of one
        model would differ in length.
        """
        ...

    def vector_missing(self, model: str, *, limit: int) -> list[Page]:
        """Return the oldest pages behind the last one that `vector_put` was called for with this model."""
        ...

    def vector_cosines(self, model: str, page_ids: Sequence[PageId], *, to: Sequence[PageId]) -> dict[PageId, float]:
        """Return the cosines of pages to the middle of others: of the nearest part of each, as far as it has vectors.

        None where none of `to` has a vector of this model.
        """
        ...

    def vector_drop_others(self, model: str, *, limit: int) -> int:
        """Remove at most `limit` vectors of other models; return how many."""
        ...

    # Notes
    def note_insert(self, note: Note) -> None:
        """Make a page that is there a note. Raises NotFound for an unknown page, Conflict for one that is a note."""
        ...

    def note_get(self, page_id: PageId) -> Note | None:
        """Return what is known of a page as a note."""
        ...

    def note_put(self, note: Note) -> None:
        """Replace a note's row."""
        ...

    def note_list(self, owner: str, *, namespace: str | None = None, former: bool = False, limit: int) -> list[Note]:
        """Return notes, newest first; with `former`, also those that no longer hold."""
        ...

    def note_nearest(self, near: Vector, *, owner: str, namespace: str, limit: int) -> list[tuple[PageId, float]]:
        """Return the notes of one namespace nearest to a vector that still hold, with their cosines, best first."""
        ...

    def note_link_put(self, link: NoteLink) -> bool:
        """Add a link; False when it was there. Raises Conflict for a note linked to itself."""
        ...

    def note_link_drop(self, source: PageId, target: PageId) -> None:
        """Remove a link, if it is there."""
        ...

    def note_links(self, page_ids: Sequence[PageId]) -> list[NoteLink]:
        """Return the links that begin or end at any of these notes, oldest first."""
        ...

    def note_change_insert(self, change: NoteChange) -> None:
        """Put a change on record; `serial` is given by the store."""
        ...

    def note_changes(self, owner: str, *, writer: str | None = None, after: int = 0, limit: int) -> list[NoteChange]:
        """Return changes with `serial > after` that were not undone, in order; of one writer where named."""
        ...

    def note_change_undo(self, serial: int, at: float) -> None:
        """Note that a change was undone."""
        ...

    # Messages
    def message_insert(self, message: Message) -> None:
        """Add a message."""
        ...

    def message_take(self, recipient: str, owner: str, now: float, *, limit: int) -> list[Message]:
        """Mark the oldest waiting messages as taken and return them, oldest first."""
        ...

    def message_waiting(self, recipient: str, owner: str, *, limit: int) -> list[Message]:
        """Return the oldest waiting messages, oldest first, and leave them waiting."""
        ...

    def message_waiting_at(self, recipient: str, owner: str, at: float, *, limit: int) -> list[Message]:
        """Return the oldest messages that had been sent and not taken at a moment, oldest first."""
        ...

    def message_count(self, recipient: str, owner: str) -> int:
        """Count the waiting messages."""
        ...

    # Checkpoints
    def checkpoint_insert(self, checkpoint: Checkpoint) -> None:
        """Add a checkpoint."""
        ...

    def checkpoint_get(self, checkpoint_id: str) -> Checkpoint | None:
        """Return the checkpoint."""
        ...

    def checkpoint_before(self, pid: Pid, step: int) -> Checkpoint | None:
        """Return the newest checkpoint of a process at or before a step."""
        ...

    def checkpoint_drop(self, pid: Pid, label: str, *, keep: int) -> int:
        """Remove a process's checkpoints under a label but the newest `keep`; return how many."""
        ...

    def checkpoint_list(self, pid: Pid, *, limit: int) -> list[Checkpoint]:
        """Return the checkpoints of a process, newest first."""
        ...

    # Approvals and grants
    def approval_insert(self, approval: Approval) -> None:
        """Add a question."""
        ...

    def approval_get(self, approval_id: str) -> Approval | None:
        """Return the question."""
        ...

    def approval_put(self, approval: Approval) -> None:
        """Replace the question."""
        ...

    def approval_by_digest(self, owner: str, digest: str) -> Approval | None:
        """Return the newest question about this very action that is PENDING, ALLOWED or DENIED."""
        ...

    def approval_list(self, *, owner: str | None, states: Sequence[ApprovalState], limit: int) -> list[Approval]:
        """Return questions, oldest first."""
        ...

    def grant_put(self, grant: Grant) -> None:
        """Remember a decision (replaces one for the same owner, agent and tool)."""
        ...

    def grant_get(self, owner: str, agent: str, tool: str) -> Grant | None:
        """Return the remembered decision."""
        ...

    # Mount pins
    def pin_put(self, pin: Pin) -> None:
        """Add or replace a pin."""
        ...

    def pin_list(self) -> list[Pin]:
        """Return all pins by name."""
        ...

    # Audit
    def audit_stage(self, entry: AuditEntry) -> None:
        """Stage an entry; it becomes a record when the sealer chains it."""
        ...

    def audit_staged(self, *, limit: int) -> list[tuple[int, AuditEntry]]:
        """Return staged entries with their stage ids, oldest first."""
        ...

    def audit_seal(self, records: Sequence[AuditRecord], through: int, head: AuditHead) -> None:
        """Append records, drop staged entries up to stage id `through`, add the head: all or nothing."""
        ...

    def audit_last(self) -> AuditRecord | None:
        """Return the newest record."""
        ...

    def audit_head(self) -> AuditHead | None:
        """Return the newest head."""
        ...

    def audit_list(self, *, after: int, pid: str | None = None, limit: int) -> list[AuditRecord]:
        """Return records with `seq > after`, in order."""
        ...

    def audit_tail(self, *, pid: str | None = None, limit: int) -> list[AuditRecord]:
        """Return the last records, in order."""
        ...

    # Kernel facts
    def fact_get(self, name: str) -> str | None:
        """Return a named fact of this store (schema, kernel identity)."""
        ...

    def fact_put(self, name: str, value: str) -> None:
        """Set a named fact."""
        ...


class Store(Protocol):
    """Durable state. One writer commits in groups; a unit of work is atomic and isolated.

    `work` runs on a worker thread, does no I/O but through its transaction, and may be run again from the start when
    the first try met a conflict between machines: it must have no effect of its own. An exception from `work` undoes
    the unit and comes out of the call; other units of the same group are not touched.

    `brief` work touches a few rows that it names by their keys, and takes less than a hop to a thread would: a driver
    may run it in the event loop's own thread.
    """

    async def write(self, work: Callable[[Transaction], T], *, flush: bool = False, brief: bool = False) -> T:
        """Run a unit and commit it. After return it survives `kill -9`; with `flush`, a power cut too.

        Raises Unavailable when the disk is full or fails: nothing was changed then.
        """
        ...

    async def read(self, work: Callable[[Transaction], T], *, brief: bool = False) -> T:
        """Run a unit that only reads, on a snapshot, without waiting for the writer."""
        ...

    async def changed(self, timeout_s: float) -> None:
        """Return when another kernel on the store may have changed something, or after `timeout_s`: only a hint."""
        ...


class StoreFile(Protocol):
    """The file that holds the store, for its upkeep."""

    async def backup(self, path: str) -> int:
        """Copy the store to a new file, in one consistent state, while it is in use; return the file's bytes.

        Raises Conflict when the file exists, Unavailable when it cannot be written.
        """
        ...

    async def compact(self) -> None:
        """Give disk space that is not used back to the file system. Raises Unavailable."""
        ...
