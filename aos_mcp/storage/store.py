# ruff: noqa: D102 - what each verb must hold is said once, at the same name in `ports.Transaction`.
"""The transaction, once for every database: `ports.Transaction` over named statements.

It owns the meaning of each verb; the statements are in `sql/<dialect>/*.sql` under the same names, and a driver adds
an adapter (`storage.connection`) and nothing else. It promises what `ports.Transaction` promises; that the unit is
atomic and isolated is the driver's promise. It knows nothing of rights, budgets' rules or the hash chain.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from aos_mcp.abi.approval import Approval, ApprovalState, Grant
from aos_mcp.abi.audit import AuditEntry, AuditHead, AuditRecord
from aos_mcp.abi.budget import Account, Reservation, Usage
from aos_mcp.abi.errors import AosError, Conflict, LimitExceeded, NotFound, Unavailable
from aos_mcp.abi.guest import GuestKey
from aos_mcp.abi.handle import Digest, PageId, Pid
from aos_mcp.abi.journal import Checkpoint, Step
from aos_mcp.abi.limits import PAGE_LINEAGE_MAX, PROCESS_DEPTH_MAX, SEARCH_TEXT_CHARS_MAX
from aos_mcp.abi.message import Message
from aos_mcp.abi.mount import Pin
from aos_mcp.abi.page import Page, PageHit, PageKind
from aos_mcp.abi.process import Process, ProcessState
from aos_mcp.abi.vector import Vector
from aos_mcp.storage import packing, retrieval, rows, search
from aos_mcp.storage.connection import Connection, Row
from aos_mcp.storage.notes import NoteTransaction
from aos_mcp.storage.queue import QueueTransaction
from aos_mcp.storage.retrieval import Nearest
from aos_mcp.storage.upkeep import UpkeepTransaction

_CHAIN_HEIGHT_MAX = PROCESS_DEPTH_MAX + 2
"""A process at the greatest depth, its ancestors and the workspace: a longer chain is a loop."""
_LAST = 2**63 - 1
"""A stamp behind all others."""


class StoreTransaction(NoteTransaction, QueueTransaction, UpkeepTransaction):
    """One unit of work on one connection."""

    def __init__(self, connection: Connection, nearest: Nearest | None = None) -> None:
        """Speak through `connection`, inside whatever transaction it has begun.

        `nearest` holds what is committed, so only a transaction that reads may share one.
        """
        self._at = connection
        self._nearest = nearest or Nearest()

    # Processes

    def process_insert(self, process: Process) -> None:
        self._at.execute("process_insert", rows.process_values(process))

    def process_get(self, pid: Pid) -> Process | None:
        row = self._at.one("process_get", {"pid": pid})
        return rows.process_from(row) if row else None

    def process_put(self, process: Process) -> Process:
        row = self._at.one("process_put", rows.process_values(process))
        if row:
            return replace(process, version=row["version"], lease_until=row["lease_until"])
        if self.process_get(process.pid) is None:
            raise _missing("process", process.pid)
        raise Conflict(
            f"Process {process.pid} was written by somebody else since it was read.",
            "Read it again and decide anew.",
        )

    def process_by_key(self, owner: str, idempotency_key: str) -> Process | None:
        row = self._at.one("process_by_key", {"owner": owner, "idempotency_key": idempotency_key})
        return rows.process_from(row) if row else None

    def process_find_prefix(self, owner: str, prefix: str, *, limit: int) -> list[Process]:
        found = self._at.all("process_find_prefix", {"owner": owner, "prefix": prefix, "limit": limit})
        return [rows.process_from(row) for row in found]

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
        values: rows.Values = {
            "owner": owner,
            "states": _texts(states) if states else None,
            "parent": parent,
            "program": program,
            "after_at": after[0] if after else None,
            "after_pid": after[1] if after else None,
            "limit": limit,
        }
        # One statement for each leading filter, so that each is answered from its own index.
        if parent is not None:
            name = "process_list_by_parent"
        elif program is not None:
            name = "process_list_by_program"
        elif states:
            name = "process_list_by_state"
        else:
            name = "process_list"
        return [rows.process_from(row) for row in self._at.all(name, values)]

    def process_children(self, pid: Pid) -> list[Process]:
        return [rows.process_from(row) for row in self._at.all("process_children", {"parent": pid})]

    def process_count(self, *, states: Sequence[ProcessState], parent: Pid | None = None) -> int:
        name = "process_count" if parent is None else "process_count_children"
        return self._count(name, {"states": _texts(states), "parent": parent})

    def process_counts(self) -> Mapping[ProcessState, int]:
        return {ProcessState(row["state"]): int(row["n"]) for row in self._at.all("process_counts", {})}

    def process_leased(self) -> list[Process]:
        return [rows.process_from(row) for row in self._at.all("process_leased", {})]

    def process_alarm(self) -> float | None:
        row = self._at.one("process_alarm", {})
        return row["wake_at"] if row else None

    def process_renew(self, holder: str, until: float) -> int:
        return self._at.execute("process_renew", {"holder": holder, "until": until})

    def race_join(self, pid: Pid, race: str) -> None:
        self._at.execute("racer_insert", {"pid": pid, "race": race})

    def race_rivals(self, pid: Pid) -> list[Pid]:
        return [Pid(row["pid"]) for row in self._at.all("racer_rivals", {"pid": pid})]

    # Guests

    def guest_key_insert(self, key: GuestKey) -> None:
        self._at.execute("guest_key_insert", rows.guest_key_values(key))

    def guest_key_put(self, key: GuestKey) -> None:
        if not self._at.execute("guest_key_put", rows.guest_key_values(key)):
            raise _missing("key", key.key_id)

    def guest_key_get(self, key_id: str) -> GuestKey | None:
        row = self._at.one("guest_key_get", {"key_id": key_id})
        return rows.guest_key_from(row) if row else None

    def guest_key_by_digest(self, digest: str) -> GuestKey | None:
        row = self._at.one("guest_key_by_digest", {"digest": digest})
        return rows.guest_key_from(row) if row else None

    def guest_key_list(self, *, owner: str, pid: Pid | None = None, limit: int) -> list[GuestKey]:
        found = self._at.all("guest_key_list", {"owner": owner, "pid": pid, "limit": limit})
        return [rows.guest_key_from(row) for row in found]

    # Budgets

    def account_insert(self, account: Account) -> None:
        self._at.execute("account_insert", rows.account_values(account))

    def account_get(self, account: str) -> Account | None:
        row = self._at.one("account_get", {"account": account})
        return rows.account_from(row) if row else None

    def account_chain(self, account: str) -> list[Account]:
        found = self._at.all("account_chain", {"account": account, "height_max": _CHAIN_HEIGHT_MAX})
        return [rows.account_from(row) for row in found]

    def account_put(self, account: Account) -> None:
        if not self._at.execute("account_put", rows.account_values(account)):
            raise _missing("account", account.account)

    def account_add(self, account: str, used: Usage, *, reserved_microusd: int, reserved_tokens: int) -> None:
        values = rows.usage_values(used)
        values |= {"account": account, "height_max": _CHAIN_HEIGHT_MAX}
        values |= {"reserved_microusd": reserved_microusd, "reserved_tokens": reserved_tokens}
        if not self._at.execute("account_add", values):
            raise _missing("account", account)

    def accounts_get(self, accounts: Sequence[str]) -> Mapping[str, Account]:
        found = self._at.all("accounts_get", {"accounts": _texts(accounts)})
        return {row["account"]: rows.account_from(row) for row in found}

    def reservation_insert(self, reservation: Reservation) -> None:
        self._at.execute("reservation_insert", rows.reservation_values(reservation))

    def reservation_take(self, reservation_id: str) -> Reservation | None:
        row = self._at.one("reservation_take", {"reservation_id": reservation_id})
        return rows.reservation_from(row) if row else None

    def reservation_list(self) -> list[Reservation]:
        return [rows.reservation_from(row) for row in self._at.all("reservation_list", {})]

    # Payloads

    def payload_put(self, body: bytes) -> Digest:
        digest = hashlib.sha256(body).hexdigest()
        if self._at.one("payload_known", {"digest": digest}) is None:
            packed, stored = packing.pack(body)
            values: rows.Values = {"digest": digest, "size_bytes": len(body), "packed": packed, "body": stored}
            self._at.execute("payload_put", values)
        return Digest(digest)

    def payload_keep(self, digest: Digest, body: bytes) -> None:
        values: rows.Values = {"digest": digest, "size_bytes": len(body), "packed": 0, "body": body}
        self._at.execute("payload_put", values)

    def payload_get(self, digest: Digest) -> bytes | None:
        row = self._at.one("payload_get", {"digest": digest})
        if row is None:
            return None
        if row["erased_at"] is not None:
            at = datetime.fromtimestamp(row["erased_at"], UTC).isoformat(" ", "seconds")
            raise NotFound(f"The payload {digest} was erased at {at}.", "It was taken out for good; nobody has it.")
        body = packing.unpack(bytes(row["body"]), packed=bool(row["packed"]), size_bytes=row["size_bytes"])
        if body is None or hashlib.sha256(body).hexdigest() != digest:
            raise Unavailable(
                f"The stored payload {digest} is damaged: its bytes do not fit its digest.",
                "Restore the store from a backup; until then this payload cannot be had.",
            )
        return body

    # Journal

    def step_insert(self, step: Step) -> None:
        if not self._at.execute("step_insert", rows.step_values(step)):
            raise _fenced(step)

    def step_put(self, step: Step) -> None:
        if self._at.execute("step_put", rows.step_values(step)):
            return
        if self.step_get(step.pid, step.number) is None:
            raise _missing("step", f"{step.pid}/{step.number}")
        raise _fenced(step)

    def step_get(self, pid: Pid, number: int) -> Step | None:
        row = self._at.one("step_get", {"pid": pid, "number": number})
        return rows.step_from(row) if row else None

    def step_list(self, pid: Pid, *, after: int = -1, limit: int) -> list[Step]:
        found = self._at.all("step_list", {"pid": pid, "after": after, "limit": limit})
        return [rows.step_from(row) for row in found]

    def step_last(self, pid: Pid, *, limit: int) -> list[Step]:
        found = self._at.all("step_last", {"pid": pid, "limit": limit})
        return [rows.step_from(row) for row in reversed(found)]

    def step_by_request(self, pid: Pid, request_id: str) -> Step | None:
        row = self._at.one("step_by_request", {"pid": pid, "request_id": request_id})
        return rows.step_from(row) if row else None

    def step_open(self, pid: Pid) -> list[Step]:
        return [rows.step_from(row) for row in self._at.all("step_open", {"pid": pid})]

    def step_unowned(self) -> list[Step]:
        return [rows.step_from(row) for row in self._at.all("step_unowned", {})]

    def step_unknown(self, pids: Sequence[Pid]) -> Mapping[Pid, list[int]]:
        found: dict[Pid, list[int]] = {}
        for row in self._at.all("step_unknown", {"pids": _texts(pids)}):
            found.setdefault(Pid(row["pid"]), []).append(row["number"])
        return found

    # Pages

    def page_insert(self, page: Page, text: str) -> None:
        row = self._at.one("page_insert", rows.page_values(page))
        assert row is not None, "an insert that did not fail returns its row"
        if text:
            body, title = search.indexable(text), search.indexable(page.title)
            self._at.execute("page_index", {"serial": row["serial"], "title": title, "body": body})

    def page_put(self, page: Page) -> None:
        stamp = self.page_stamp(page.pid) + 1 if page.pid is not None else 0
        values = {**rows.page_values(page), "stamp": stamp}
        self._at.execute("page_version_keep", values)
        if self._at.execute("page_put", values):
            return
        if self._at.one("page_inherited", {"pid": page.pid, "page_id": page.page_id}) is None:
            raise _missing("page", page.page_id)
        self._at.execute("page_version_end", values)
        self._at.execute("page_version_put", values)

    def page_get(self, page_id: PageId, *, of: Pid | None = None) -> Page | None:
        row = self._at.one("page_get", {"page_id": page_id})
        if row is not None and of is not None and row["pid"] not in {None, of}:
            row = self._at.one("page_inherited", {"pid": of, "page_id": page_id}) or row
        return rows.page_from(row) if row else None

    def page_named(self, beginning: str, *, owner: str) -> PageId | None:
        found = self._at.all("page_named", {"beginning": beginning, "owner": owner})
        return PageId(found[0]["page_id"]) if len(found) == 1 else None

    def page_labels(self, pid: Pid) -> tuple[str, ...]:
        found = [
            rows.labels_from(row["labels"])
            for each in (pid, *self.page_bases(pid))
            for row in self._at.all("page_labels", {"pid": each})
        ]
        return tuple(sorted({label for labels in found for label in labels}))

    def page_changes(self, pid: Pid, *, after: int) -> list[Page]:
        if not after:
            return self.page_table(pid)
        place: rows.Values = {"pid": pid, "after": after}
        found = [rows.page_from(row) for row in self._at.all("page_changes", place)]
        inherited = [
            self.page_get(PageId(row["page_id"]), of=pid) for row in self._at.all("page_changes_inherited", place)
        ]
        found += [page for page in inherited if page is not None]
        return sorted(found, key=lambda page: (page.position, page.page_id))

    def page_table(self, pid: Pid, *, at: int | None = None) -> list[Page]:
        if at is None and not self._at.one("lineage_list", {"pid": pid}):
            return [rows.page_from(row) for row in self._at.all("page_table", {"pid": pid})]
        found = self._at.all("page_table_at", {"pid": pid, "at": _LAST if at is None else at})
        return [rows.page_from(row) for row in found]

    def page_tail(self, pid: Pid, *, at: int | None = None) -> list[Page]:
        places: list[rows.Values] = [{"base": pid, "through": _LAST if at is None else at}]
        places += [{"base": row["base"], "through": row["through"]} for row in self._lineage(pid)]
        for number, place in enumerate(places):
            last = self._at.one("page_last_reply", place)
            if last is not None:
                begun = [{**each, "position": last["position"]} for each in reversed(places[: number + 1])]
                return [rows.page_from(row) for each in begun for row in self._at.all("page_tail", each)]
        return []

    def page_stamp(self, pid: Pid) -> int:
        row = self._at.one("page_stamp", {"pid": pid})
        assert row is not None, "an aggregate is one row"
        return int(row["stamp"])

    def page_share(self, pid: Pid, base: Pid, *, at: int) -> None:
        further = [(str(row["base"]), int(row["through"])) for row in self._lineage(base)]
        places = [(str(base), at), *further]
        if len(places) > PAGE_LINEAGE_MAX:
            raise LimitExceeded(
                f"{base} is the last of {PAGE_LINEAGE_MAX} forks, each of the one before.",
                "Restore an earlier checkpoint, or one of another agent.",
            )
        for number, (each, through) in enumerate(places, start=1):
            self._at.execute("lineage_insert", {"pid": pid, "depth": number, "base": each, "through": through})

    def page_bases(self, pid: Pid) -> list[Pid]:
        return [Pid(row["base"]) for row in self._lineage(pid)]

    def _lineage(self, pid: Pid) -> list[Row]:
        return self._at.all("lineage_list", {"pid": pid})

    def page_before(self, page: Page) -> Page | None:
        if page.pid is None:
            return None
        row = self._at.one("page_before", {"pid": page.pid, "position": page.position})
        return rows.page_from(row) if row else None

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
        bounds: rows.Values = {
            "owner": owner,
            "pid": pid,
            "kind": kind.value if kind else None,
            "program": program,
            "source": source,
            "since": since,
            "until": until,
            "namespace": namespace,
            "label": label,
            "reader": reader,
        }
        found = retrieval.find(self._at, self._nearest, query, near, bounds, limit)
        pages = self._at.all("page_by_serial", {"serials": json.dumps([serial for serial, _ in found])})
        words = search.content_words(query)
        hits = []
        for row, (_, score) in zip(pages, found, strict=True):
            page = self._within(rows.page_from(row), pid)
            if page is not None:
                hits.append(PageHit(page=page, excerpt=self._excerpt(page, words), score=score))
        return hits

    def _within(self, page: Page, pid: Pid | None) -> Page | None:
        """Return a page as it stands in a context; None for one that its base has written since."""
        if pid is None or page.pid == pid:
            return page
        row = self._at.one("page_inherited", {"pid": pid, "page_id": page.page_id})
        return rows.page_from(row) if row else None

    def _excerpt(self, page: Page, words: list[str]) -> str:
        row = self._at.one("payload_opening", {"digest": page.digest, "size_bytes": SEARCH_TEXT_CHARS_MAX})
        if row is None:
            return page.title
        opening = packing.unpack(bytes(row["opening"]), packed=bool(row["packed"]), size_bytes=SEARCH_TEXT_CHARS_MAX)
        return search.excerpt(opening.decode("utf-8", "replace"), words) if opening is not None else page.title

    # Vectors

    def vector_put(self, page_id: PageId, model: str, parts: Sequence[bytes]) -> None:
        width = self._at.one("vector_width", {"model": model})
        sizes = {len(part) for part in parts} | ({width["size_bytes"]} if width else set())
        if len(sizes) > 1:
            raise Conflict(
                f"The vectors of {model} have different dimensions.",
                "Give each model a name of its own, and the same number of dimensions to all its vectors.",
            )
        if self.page_get(page_id) is None:
            raise _missing("page", page_id)
        for number, body in enumerate(parts or [b""]):
            values: rows.Values = {"model": model, "page_id": page_id, "part": number, "body": body}
            self._at.execute("vector_put", values)

    def vector_missing(self, model: str, *, limit: int) -> list[Page]:
        return [rows.page_from(row) for row in self._at.all("vector_missing", {"model": model, "limit": limit})]

    def vector_cosines(self, model: str, page_ids: Sequence[PageId], *, to: Sequence[PageId]) -> dict[PageId, float]:
        # Here, because numpy takes a tenth of a second to import and a kernel without an embedder never needs it.
        from aos_mcp.storage.matrix import cosines

        asked = frozenset(page_ids)
        found = self._at.all("vector_of", {"model": model, "page_ids": json.dumps(sorted(asked.union(to)))})
        return {page_id: cosine for page_id, cosine in cosines(found, frozenset(to)).items() if page_id in asked}

    def vector_drop_others(self, model: str, *, limit: int) -> int:
        return self._at.execute("vector_drop", {"model": model, "limit": limit})

    # Messages

    def message_insert(self, message: Message) -> None:
        self._at.execute("message_insert", rows.message_values(message))

    def message_take(self, recipient: str, owner: str, now: float, *, limit: int) -> list[Message]:
        values: rows.Values = {"recipient": recipient, "owner": owner, "now": now, "limit": limit}
        found = sorted(self._at.all("message_take", values), key=lambda row: (row["sent_at"], row["serial"]))
        return [rows.message_from(row) for row in found]

    def message_waiting(self, recipient: str, owner: str, *, limit: int) -> list[Message]:
        values: rows.Values = {"recipient": recipient, "owner": owner, "limit": limit}
        return [rows.message_from(row) for row in self._at.all("message_waiting", values)]

    def message_waiting_at(self, recipient: str, owner: str, at: float, *, limit: int) -> list[Message]:
        values: rows.Values = {"recipient": recipient, "owner": owner, "at": at, "limit": limit}
        return [rows.message_from(row) for row in self._at.all("message_waiting_at", values)]

    def message_count(self, recipient: str, owner: str) -> int:
        return self._count("message_count", {"recipient": recipient, "owner": owner})

    # Checkpoints

    def checkpoint_insert(self, checkpoint: Checkpoint) -> None:
        self._at.execute("checkpoint_insert", rows.checkpoint_values(checkpoint))

    def checkpoint_get(self, checkpoint_id: str) -> Checkpoint | None:
        row = self._at.one("checkpoint_get", {"checkpoint_id": checkpoint_id})
        return rows.checkpoint_from(row) if row else None

    def checkpoint_before(self, pid: Pid, step: int) -> Checkpoint | None:
        row = self._at.one("checkpoint_before", {"pid": pid, "step": step})
        return rows.checkpoint_from(row) if row else None

    def checkpoint_drop(self, pid: Pid, label: str, *, keep: int) -> int:
        return self._at.execute("checkpoint_drop", {"pid": pid, "label": label, "keep": keep})

    def checkpoint_list(self, pid: Pid, *, limit: int) -> list[Checkpoint]:
        found = self._at.all("checkpoint_list", {"pid": pid, "limit": limit})
        return [rows.checkpoint_from(row) for row in found]

    # Approvals and grants

    def approval_insert(self, approval: Approval) -> None:
        self._at.execute("approval_insert", rows.approval_values(approval))

    def approval_get(self, approval_id: str) -> Approval | None:
        row = self._at.one("approval_get", {"approval_id": approval_id})
        return rows.approval_from(row) if row else None

    def approval_put(self, approval: Approval) -> None:
        if not self._at.execute("approval_put", rows.approval_values(approval)):
            raise _missing("approval", approval.approval_id)

    def approval_by_digest(self, owner: str, digest: str) -> Approval | None:
        row = self._at.one("approval_by_digest", {"owner": owner, "digest": digest})
        return rows.approval_from(row) if row else None

    def approval_list(self, *, owner: str | None, states: Sequence[ApprovalState], limit: int) -> list[Approval]:
        wanted = states or tuple(ApprovalState)
        values: rows.Values = {"owner": owner, "states": _texts(wanted), "limit": limit}
        return [rows.approval_from(row) for row in self._at.all("approval_list", values)]

    def grant_put(self, grant: Grant) -> None:
        self._at.execute("grant_put", rows.grant_values(grant))

    def grant_get(self, owner: str, agent: str, tool: str) -> Grant | None:
        row = self._at.one("grant_get", {"owner": owner, "agent": agent, "tool": tool})
        return rows.grant_from(row) if row else None

    # Mount pins

    def pin_put(self, pin: Pin) -> None:
        self._at.execute("pin_put", rows.pin_values(pin))

    def pin_list(self) -> list[Pin]:
        return [rows.pin_from(row) for row in self._at.all("pin_list", {})]

    # Audit

    def audit_stage(self, entry: AuditEntry) -> None:
        self._at.execute("audit_stage", rows.entry_values(entry))

    def audit_staged(self, *, limit: int) -> list[tuple[int, AuditEntry]]:
        found = self._at.all("audit_staged", {"limit": limit})
        return [(int(row["stage"]), rows.entry_from(row)) for row in found]

    def audit_seal(self, records: Sequence[AuditRecord], through: int, head: AuditHead) -> None:
        last = self.audit_last()
        expected = last.seq + 1 if last else 1
        if [record.seq for record in records] != list(range(expected, expected + len(records))):
            raise Conflict(
                f"These audit records do not follow record {expected - 1}, the last of the chain.",
                "Read the last record again and chain from there.",
            )
        for record in records:
            self._at.execute("audit_append", rows.record_values(record))
        self._at.execute("audit_unstage", {"through": through})
        self._at.execute("audit_head_put", rows.head_values(head))

    def audit_last(self) -> AuditRecord | None:
        row = self._at.one("audit_last", {})
        return rows.record_from(row) if row else None

    def audit_head(self) -> AuditHead | None:
        row = self._at.one("audit_head", {})
        return rows.head_from(row) if row else None

    def audit_list(self, *, after: int, pid: str | None = None, limit: int) -> list[AuditRecord]:
        name = "audit_list" if pid is None else "audit_list_by_pid"
        found = self._at.all(name, {"after": after, "pid": pid, "limit": limit})
        return [rows.record_from(row) for row in found]

    def audit_tail(self, *, pid: str | None = None, limit: int) -> list[AuditRecord]:
        name = "audit_tail" if pid is None else "audit_tail_by_pid"
        found = self._at.all(name, {"pid": pid, "limit": limit})
        return [rows.record_from(row) for row in reversed(found)]

    # Kernel facts

    def fact_get(self, name: str) -> str | None:
        row = self._at.one("fact_get", {"name": name})
        return str(row["value"]) if row else None

    def fact_put(self, name: str, value: str) -> None:
        self._at.execute("fact_put", {"name": name, "value": value})

    def _count(self, name: str, values: rows.Values) -> int:
        row = self._at.one(name, values)
        assert row is not None, "a count is one row"
        return int(row["n"])


def _texts(values: Sequence[str]) -> str:
    return json.dumps([str(value) for value in values])


def _missing(noun: str, key: str) -> AosError:
    return NotFound(f"There is no {noun} {key}.", "List what there is, and use a handle from there.")


def _fenced(step: Step) -> AosError:
    return Conflict(
        f"Process {step.pid} has been taken over since: fence {step.fence} is no longer the newest.",
        "Stop working on this process; whoever holds it now goes on from its journal.",
    )
