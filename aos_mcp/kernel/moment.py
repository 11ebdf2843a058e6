"""A moment of a process: what is saved of it, and how a new process begins there.

A moment is a journal position with the stamp of the page table that belongs to it. So saving one writes no page, and a
fork shares the pages of its past with the run it comes from; what it writes is its own. The files of a workspace are
`kernel.files`' business; this module knows only the digest of their manifest.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter

from aos_mcp.abi.budget import Account, Budget
from aos_mcp.abi.errors import BudgetExhausted, NotFound
from aos_mcp.abi.handle import Digest, PageId, Pid, workspace_of
from aos_mcp.abi.journal import Checkpoint
from aos_mcp.abi.limits import FORK_MAIL_MAX
from aos_mcp.abi.page import OUTSIDE, Page, PageKind
from aos_mcp.abi.process import Process, ProcessState
from aos_mcp.kernel import budget, journal, pages
from aos_mcp.kernel.requests import last_reply, position_of
from aos_mcp.kernel.retry import chain_of
from aos_mcp.kernel.speech import RESTORED
from aos_mcp.ports import Entropy, Transaction

_PAGES = TypeAdapter(list[Page])
_PROCESS = TypeAdapter(Process)
_BUDGET = TypeAdapter(Budget)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Where a new process can begin."""

    name: str
    """A checkpoint's id, or `PID@STEP`."""
    process: Process
    """As it was; of a step between checkpoints, as it is, for what may have changed since."""
    stamp: int
    at: float
    left: Budget | None
    """What its budget had left; None where that is not on record."""
    manifest: Digest | None
    """The files; None where there were none."""
    files_step: int | None
    """The step that the files belong to; None where there were none."""
    copied: tuple[Page, ...] = ()
    """Of a checkpoint made before releases kept versions of pages: its page table."""


def save(tx: Transaction, pid: Pid, checkpoint_id: str, label: str, manifest: Digest | None, now: float) -> Checkpoint:
    """Put the present moment of a process on record. The caller sees to it that no turn is under way."""
    process = tx.process_get(pid)
    assert process is not None, "a process row is never removed"
    account = tx.account_get(pid)
    ended = process.ended_at if process.ended_at is not None else now
    snapshot = {
        "process": json.loads(_PROCESS.dump_json(process)),
        "stamp": tx.page_stamp(pid),
        "left": json.loads(_BUDGET.dump_json(_left(account, ended))) if account is not None else None,
    }
    row = Checkpoint(
        checkpoint_id=checkpoint_id,
        pid=pid,
        owner=process.owner,
        step=process.step,
        label=label,
        at=now,
        snapshot=tx.payload_put(json.dumps(snapshot, sort_keys=True).encode()),
        manifest=manifest,
    )
    tx.checkpoint_insert(row)
    return row


def _left(account: Account, now: float) -> Budget:
    left = budget.left(account)
    wall_s = left.wall_s
    return left if wall_s is None else replace(left, wall_s=max(0.0, wall_s - (now - account.opened_at)))


def at_checkpoint(tx: Transaction, row: Checkpoint) -> Moment:
    """Return the moment that a checkpoint holds."""
    whole: dict[str, Any] = json.loads(journal.payload(tx, row.snapshot))
    process = _PROCESS.validate_python(whole["process"])
    left = whole.get("left")
    return Moment(
        name=row.checkpoint_id,
        process=process,
        stamp=whole.get("stamp", 0),
        at=row.at,
        left=_BUDGET.validate_python(left) if left is not None else None,
        manifest=row.manifest,
        files_step=row.step if row.manifest is not None else None,
        copied=tuple(_PAGES.validate_python(whole["pages"])) if "pages" in whole else (),
    )


def at_step(tx: Transaction, process: Process, number: int) -> Moment:
    """Return the moment before a step: its page table exactly, its files as the last checkpoint before has them.

    Raises:
        NotFound: the process has no such step.
    """
    step = tx.step_get(process.pid, number)
    if step is None:
        raise NotFound(
            f"{process.pid} has no step {number}; its journal has {process.step}.",
            f"See aos://proc/{process.pid}/journal, or `aos logs`.",
        )
    before = tx.checkpoint_before(process.pid, number)
    manifest = before.manifest if before is not None else None
    return Moment(
        name=f"{process.pid}@{number}",
        process=replace(process, step=number, position=_next_position(tx, process.pid, step.stamp), wake_at=None),
        stamp=step.stamp,
        at=step.started_at,
        left=None,
        manifest=manifest,
        files_step=before.step if before is not None and manifest is not None else None,
    )


def _next_position(tx: Transaction, pid: Pid, stamp: int) -> int:
    tail = tx.page_tail(pid, at=stamp) or tx.page_table(pid, at=stamp)
    reply, requests = last_reply(tx, tail)
    kept = position_of(reply, len(requests)) if reply is not None else 0
    return max([kept, *(page.position + 1 for page in tail if page.position != OUTSIDE)])


def share(tx: Transaction, moment: Moment, *, asked: Budget, above: str, default: Budget) -> Budget:
    """Return the budget that a process which begins at a moment gets, see `begin`. Raises BudgetExhausted."""
    left = moment.left if moment.left is not None else default
    _check_left(left, asked)
    limit = budget.within(asked, left, budget.left_of_chain(tx.account_chain(above)))
    budget.check_alive(limit, asked)
    return limit


def begin(
    tx: Transaction, moment: Moment, forked: Process, *, asked: Budget, above: str, default: Budget, entropy: Entropy
) -> Process:
    """Store a new process that begins at a moment, with its account, its context and the mail that waited then.

    Its budget is what is asked for, else what was left then, else `default`; never more than there is under `above`.

    Raises:
        BudgetExhausted: nothing was left then, or there is less than is asked for.
    """
    now = forked.created_at
    limit = share(tx, moment, asked=asked, above=above, default=default)
    tx.process_insert(forked)
    tx.account_insert(Account(account=forked.pid, parent=above, limit=limit, opened_at=now))
    if moment.copied:
        for page in moment.copied:
            copied = replace(page, page_id=PageId(entropy.handle("pg_")), pid=forked.pid)
            tx.page_insert(copied, pages.searchable(tx, page))
    else:
        tx.page_share(forked.pid, moment.process.pid, at=moment.stamp)
    _answer_open_requests(tx, forked, entropy, now)
    waiting = tx.message_waiting_at(moment.process.pid, forked.owner, moment.at, limit=FORK_MAIL_MAX)
    for message in waiting:
        own = replace(message, message_id=entropy.handle("m_"), recipient=forked.pid, taken_at=None)
        tx.message_insert(own)
    return forked


def _check_left(left: Budget, asked: Budget) -> None:
    parts = (
        ("usd", left.microusd, asked.microusd),
        ("tokens", left.tokens, asked.tokens),
        ("turns", left.turns, asked.turns),
        ("wall_s", left.wall_s, asked.wall_s),
    )
    for name, part, wanted in parts:
        if part is not None and part <= 0 and wanted is None:
            raise BudgetExhausted(
                f"It had no {name} left at that moment, and a restored agent gets what was left.",
                f"Give it a budget of its own: budget={{{name!r}: …}}.",
            )


def _answer_open_requests(tx: Transaction, forked: Process, entropy: Entropy, now: float) -> None:
    """Answer the calls that were under way at the moment: they belong to the run that made them."""
    tail = tx.page_tail(forked.pid)
    reply, requests = last_reply(tx, tail)
    if reply is None:
        return
    answered = {page.position for page in tail if page.kind is PageKind.RESULT}
    for index, request in enumerate(requests):
        if position_of(reply, index) in answered:
            continue
        pages.make(
            tx,
            page_id=entropy.handle("pg_"),
            pid=forked.pid,
            owner=forked.owner,
            kind=PageKind.RESULT,
            body=RESTORED.encode(),
            text=RESTORED,
            position=position_of(reply, index),
            now=now,
            source="kernel",
            group=reply.group,
            request_id=request.request_id,
        )


def fresh_row(
    moment: Moment, pid: Pid, *, parent: Process | None, name: str | None, model: str, key: str | None, now: float
) -> Process:
    """Return the row of a process that begins at a moment: no lease, no signals, no past of its own.

    `model` may be a chain.
    """
    old = moment.process
    first, *rest = chain_of(model)
    pause_s = max(0.0, old.wake_at - moment.at) if old.wake_at is not None else None
    return Process(
        pid=pid,
        parent=parent.pid if parent is not None else None,
        program=parent.program if parent is not None else pid,
        depth=parent.depth + 1 if parent is not None else 0,
        owner=old.owner,
        name=name or old.name,
        agent=old.agent,
        state=ProcessState.READY,
        model=first,
        fallbacks=tuple(rest),
        priority=old.priority,
        rights=old.rights,
        workspace=workspace_of(pid),
        position=old.position,
        wake_at=now + pause_s if pause_s else None,
        faults=old.faults if pause_s else 0,
        idempotency_key=key,
        forked_from=moment.name,
        created_at=now,
        updated_at=now,
    )
