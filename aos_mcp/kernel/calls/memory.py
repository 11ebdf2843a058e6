"""Memory: pages out, in, and found again."""

from __future__ import annotations

from dataclasses import replace

from aos_mcp.abi import arguments as a
from aos_mcp.abi import results as r
from aos_mcp.abi.budget import Usage
from aos_mcp.abi.errors import Conflict, Invalid, LimitExceeded, NotFound
from aos_mcp.abi.event import Event, EventKind
from aos_mcp.abi.handle import PageId, Pid
from aos_mcp.abi.limits import PAGE_BYTES_MAX, RESULT_TOKENS_MAX
from aos_mcp.abi.message import HOST
from aos_mcp.abi.page import OUTSIDE, Page, PageHit, PageKind
from aos_mcp.abi.process import Process, ProcessState
from aos_mcp.context.compaction import fault_counts, low_water_mark, thrash
from aos_mcp.context.handle import short_id
from aos_mcp.context.page_table import WHOLE_TOKENS_MAX, in_order, resident_tokens
from aos_mcp.context.tokens import count
from aos_mcp.kernel import counting, notes, pages, provenance
from aos_mcp.kernel.call import Call
from aos_mcp.kernel.calls import views
from aos_mcp.kernel.indexer import query_vector
from aos_mcp.kernel.summaries import summarized
from aos_mcp.ports import Transaction

PAGE_IN_CHARS = RESULT_TOKENS_MAX * 3
"""Shown of a page when the caller sets no limit: about what a result may weigh."""
AGENT_CHARS_MAX = 4 * PAGE_IN_CHARS
"""An agent is given no more at once, whatever it asks for: it stands in its window."""
FORK_LINKS_MAX = 16


async def page_out(call: Call, args: a.PageOutArgs) -> r.PageOutResult:
    """Keep text under a page id: in an agent's context, as a note of long-term memory, or outside of both."""
    body = args.content.encode()
    if len(body) > PAGE_BYTES_MAX:
        raise LimitExceeded(f"A page holds at most {PAGE_BYTES_MAX} bytes.", "Split it into several pages.")
    is_note = bool(args.namespace or args.supersedes or args.links)
    if is_note and args.pid is not None:
        raise Invalid("A note is in no agent's context.", "Leave out pid, or namespace, supersedes and links.")

    def work(tx: Transaction) -> r.PageOutResult:
        process = None if is_note else _context_of(tx, call, args.pid)
        page = pages.make(
            tx,
            page_id=call.machine.entropy.handle("pg_"),
            pid=process.pid if process else None,
            owner=call.caller.principal,
            kind=PageKind.NOTE if is_note else PageKind.DOCUMENT,
            body=body,
            text=args.content,
            position=OUTSIDE,
            now=call.now,
            source=call.caller.pid or HOST,
            title=args.title,
            importance=args.importance,
            pinned=args.pinned,
            resident=False,
            labels=provenance.joined(args.labels, tx.page_labels(call.caller.pid) if call.caller.pid else ()),
        )
        if is_note:
            notes.write(
                tx,
                page,
                args.content,
                namespace=args.namespace,
                supersedes=args.supersedes,
                links=args.links,
                process=_own(tx, call),
                writer=page.source,
                now=call.now,
            )
        call.subject = page.page_id
        uris = (f"aos://proc/{process.pid}/context",) if process else ()
        call.publish(Event(kind=EventKind.PAGE, subject=page.page_id, owner=page.owner, uris=uris))
        return r.PageOutResult(page_id=page.page_id, tokens=page.tokens)

    return await call.commit(work)


def _context_of(tx: Transaction, call: Call, pid: str | None) -> Process | None:
    return call.find(tx, pid) if pid is not None else _own(tx, call)


def _own(tx: Transaction, call: Call) -> Process | None:
    return call.own(tx) if call.caller.pid is not None else None


async def page_in(call: Call, args: a.PageInArgs) -> r.PageInResult:
    """Return the exact characters of a page from `offset`, and count the fault where it had left the window."""

    def work(tx: Transaction) -> r.PageInResult:
        page = find_page(tx, call, args.page_id)
        call.subject = page.page_id
        text = pages.readable(tx, page)
        limit = args.limit or PAGE_IN_CHARS
        end = args.offset + (limit if call.caller.pid is None else min(limit, AGENT_CHARS_MAX))
        content = text[args.offset : end]
        # A person who looks is no reason to keep a page, nor is an agent that it does not belong to.
        if call.caller.pid is not None and page.pid in {None, call.caller.pid}:
            fault = not page.resident and page.left_why == "compaction"
            tx.page_put(replace(page, uses=page.uses + 1, used_at=call.now, faults=page.faults + fault))
            call.machine.metrics.page_faults.inc(fault)
        if args.pid is not None:
            _map(tx, call, page, call.find(tx, args.pid))
        note = tx.note_get(page.page_id)
        return r.PageInResult(
            content=content,
            tokens=count(content),
            next_offset=end if end < len(text) else None,
            superseded_by=note.superseded_by if note else None,
            links=[*notes.linked_to(tx, page.page_id)] if note else [],
        )

    return await call.commit(work)


def _map(tx: Transaction, call: Call, page: Page, process: Process) -> None:
    """Put a page into a process's context too, at its end. Its bytes are shared, and can be changed by neither.

    Raises:
        Conflict: the process has ended.
        LimitExceeded: the page is too large to stand in a window.
    """
    if process.state is ProcessState.EXITED:
        raise Conflict(f"{process.pid} has ended.", "Restore it from a checkpoint first.")
    if page.pieces or page.tokens > RESULT_TOKENS_MAX:
        raise LimitExceeded(
            f"A page of {page.tokens} tokens is too large to be put into a window.", "Send its id instead."
        )
    digest = page.digest if page.kind is not PageKind.REPLY else tx.payload_put(pages.readable(tx, page).encode())
    mapped = replace(
        page,
        page_id=PageId(call.machine.entropy.handle("pg_")),
        pid=process.pid,
        kind=PageKind.DOCUMENT,
        digest=digest,
        position=process.position,
        group=None,
        request_id=None,
        resident=True,
        left_at=None,
        left_why=None,
        listed=True,
        origin=page.origin or page.page_id,
        created_at=call.now,
        used_at=call.now,
        uses=0,
        faults=0,
    )
    tx.page_insert(mapped, "")
    tx.process_put(replace(process, position=process.position + 1, updated_at=call.now))
    uris = (f"aos://proc/{process.pid}/context",)
    call.publish(Event(kind=EventKind.PAGE, subject=mapped.page_id, owner=mapped.owner, uris=uris))


def find_page(tx: Transaction, call: Call, page_id: str) -> Page:
    """Return a page the caller may read: an agent reads its own tree's, what it was forked from, and shared ones.

    Raises:
        NotFound: there is none that is the caller's.
    """
    page = tx.page_get(PageId(page_id), of=call.caller.pid)
    if page is None and len(page_id) >= len(short_id(PageId(page_id))):
        named = tx.page_named(page_id, owner=call.caller.principal)
        page = tx.page_get(named, of=call.caller.pid) if named is not None else None
    if page is None or page.owner != call.caller.principal or not _readable_by(tx, call, page):
        raise NotFound(f"There is no page {page_id}.", "Find pages with search_pages.")
    return page


def _readable_by(tx: Transaction, call: Call, page: Page) -> bool:
    if call.caller.pid is None:
        return True
    own = call.own(tx)
    if page.pid is None:
        note = tx.note_get(page.page_id)
        return note is None or notes.may_read(note, notes.reader_of(own))
    writer = tx.process_get(page.pid)
    return writer is not None and (writer.program == own.program or writer.pid in _ancestry(tx, own))


def _ancestry(tx: Transaction, process: Process) -> set[Pid]:
    """Return whose pages an agent may read because its context, or what it was told there, begins with them."""
    found: set[Pid] = set(tx.page_bases(process.pid))
    link: Process | None = process
    while link is not None and link.forked_from is not None and len(found) < FORK_LINKS_MAX:
        checkpoint = tx.checkpoint_get(link.forked_from)
        if checkpoint is None:
            break
        found.add(checkpoint.pid)
        link = tx.process_get(checkpoint.pid)
    return found


async def search(call: Call, args: a.SearchPagesArgs) -> r.SearchPagesResult:
    """Search by words and by meaning: an agent its tree and the shared memory, a host everything of its owner."""
    near = await query_vector(call.machine, args.query)

    def work(tx: Transaction) -> r.SearchPagesResult:
        pid = call.find(tx, args.pid).pid if args.pid else None
        own = _own(tx, call)
        hits = tx.page_search(
            args.query,
            owner=call.caller.principal,
            near=near,
            pid=pid,
            kind=args.kind,
            program=own.program if own else None,
            source=args.source,
            since=args.since,
            until=args.until,
            label=args.label,
            namespace=notes.stored_name(args.namespace, own) if args.namespace else None,
            reader=notes.reader_of(own),
            limit=args.k,
        )
        return r.SearchPagesResult(hits=[_hit(tx, hit) for hit in hits])

    return await call.read(work)


def _hit(tx: Transaction, hit: PageHit) -> r.HitResult:
    page = hit.page
    return r.HitResult(
        page_id=page.page_id,
        title=page.title,
        excerpt=pages.readable(tx, page) if page.tokens <= WHOLE_TOKENS_MAX else hit.excerpt,
        score=round(hit.score, 4),
        links=[*notes.linked_to(tx, page.page_id)] if page.kind is PageKind.NOTE else [],
    )


async def read_context(call: Call, args: a.PidArgs) -> r.ContextResult:
    """Show a page table."""
    process = await call.read(lambda tx: call.find(tx, args.pid))
    settings = call.machine.settings.context
    info = await call.machine.models.resolve(process.model).describe()
    window = settings.window_tokens or info.context_tokens

    def work(tx: Transaction) -> r.ContextResult:
        rows = in_order(tx.page_table(process.pid))
        return r.ContextResult(
            pid=process.pid,
            resident_tokens=resident_tokens([row for row in rows if row.position != OUTSIDE]),
            window_tokens=window,
            counted_by=counting.described(tx, info),
            **fault_counts(rows),
            thrash=round(thrash(rows), 2),
            low_water=round(low_water_mark(rows, settings.low_water, settings.high_water), 2),
            hit_rate=_hit_rate(tx, process.pid),
            pages=[views.page(row, summarized(tx, row) if row.kind is PageKind.SUMMARY else ()) for row in rows],
        )

    return await call.read(work)


def _hit_rate(tx: Transaction, pid: Pid) -> float | None:
    """Return the part of a process's prompt tokens that was billed as read from a cache."""
    account = tx.account_get(pid)
    used = account.used if account is not None else Usage()
    return round(used.cached_tokens / used.prompt_tokens, 3) if used.prompt_tokens else None
