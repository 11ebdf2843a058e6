"""Writing pages: every way a page comes into being, in one place."""

from __future__ import annotations

import json
from dataclasses import replace

from aos_mcp.abi.completion import Reply
from aos_mcp.abi.handle import Digest, PageId, Pid
from aos_mcp.abi.limits import RESULT_TOKENS_MAX
from aos_mcp.abi.page import OUTSIDE, Page, PageKind
from aos_mcp.abi.process import Process
from aos_mcp.context.layout import decode_reply
from aos_mcp.context.pieces import split
from aos_mcp.context.tokens import count
from aos_mcp.kernel import journal
from aos_mcp.ports import Entropy, Transaction

TITLE_CHARS = 80
PIECE_TOKENS = 1_000
"""Of one piece of a page that is too large to be shown whole: what a search finds, and one look reads."""
HEAD_CHARS = 4_000
"""What is shown of a text that is too large for the window; the rest is one page_in away."""


def title_of(text: str) -> str:
    """Return the first line of a text, short enough for a handle."""
    first = text.strip().partition("\n")[0].strip()
    return first if len(first) <= TITLE_CHARS else first[: TITLE_CHARS - 1] + "…"


def make(
    tx: Transaction,
    *,
    page_id: str,
    pid: Pid | None,
    owner: str,
    kind: PageKind,
    body: bytes,
    text: str,
    position: int,
    now: float,
    source: str,
    title: str | None = None,
    importance: float = 0.5,
    pinned: bool = False,
    resident: bool = True,
    group: int | None = None,
    request_id: str | None = None,
    is_error: bool = False,
    labels: tuple[str, ...] = (),
    origin: PageId | None = None,
    whole: bool = False,
) -> Page:
    """Store a page. `body` is what is kept; `text` is what is searched and counted.

    A large document outside the window is stored in pieces, unless it is to be kept `whole`.
    """
    page = Page(
        page_id=PageId(page_id),
        pid=pid,
        owner=owner,
        kind=kind,
        title=title if title else title_of(text),
        digest=tx.payload_put(body),
        tokens=count(text),
        size_bytes=len(body),
        position=position,
        group=group,
        request_id=request_id,
        is_error=is_error,
        importance=importance,
        pinned=pinned,
        resident=resident,
        source=source,
        created_at=now,
        used_at=now,
        left_at=None if resident else now,
        left_why=None if resident else "kept outside the window from the start",
        labels=labels,
        origin=origin,
    )
    if kind is PageKind.DOCUMENT and position == OUTSIDE and page.tokens > RESULT_TOKENS_MAX and not whole:
        return _in_pieces(tx, page, text)
    tx.page_insert(page, text)
    return page


def append(
    tx: Transaction,
    process: Process,
    text: str,
    *,
    entropy: Entropy,
    now: float,
    source: str,
    title: str | None = None,
    importance: float = 0.5,
) -> Process:
    """Put a message at the end of a process's context; return its row as it is then."""
    make(
        tx,
        page_id=entropy.handle("pg_"),
        pid=process.pid,
        owner=process.owner,
        kind=PageKind.MESSAGE,
        body=text.encode(),
        text=text,
        position=process.position,
        now=now,
        source=source,
        title=title,
        importance=importance,
    )
    return tx.process_put(replace(process, position=process.position + 1, updated_at=now))


def _in_pieces(tx: Transaction, whole: Page, text: str) -> Page:
    """Store a large page as pieces cut at natural boundaries, each found by its own words, and one that joins them."""
    parts = split(text, PIECE_TOKENS)
    digests = [tx.payload_put(part.encode()) for part in parts]
    whole = replace(whole, digest=tx.payload_put(json.dumps(digests).encode()), pieces=len(parts))
    tx.page_insert(whole, "")
    for number, (part, digest) in enumerate(zip(parts, digests, strict=True), start=1):
        piece = replace(
            whole,
            page_id=PageId(f"{whole.page_id}{number:05d}"),
            title=f"{whole.title} ({number} of {len(parts)})",
            digest=digest,
            tokens=count(part),
            size_bytes=len(part.encode()),
            origin=whole.page_id,
            pieces=0,
        )
        tx.page_insert(piece, part)
    return whole


def said(reply: Reply) -> str:
    """Return what a reply is searched by and counted as: its text and the calls it made."""
    return reply.text + "".join(f"\n{request.name} {request.arguments}" for request in reply.requests)


def searchable(tx: Transaction, page: Page) -> str:
    """Return what a page is searched by: the text that `make` was given; of one in pieces its pieces are."""
    if page.pieces:
        return ""
    body = journal.payload(tx, page.digest)
    return said(decode_reply(body)) if page.kind is PageKind.REPLY else body.decode()


def pieces(tx: Transaction, page: Page) -> list[Digest]:
    """Return the payloads of the pieces that a large page lies in; none of others."""
    return [Digest(digest) for digest in json.loads(journal.payload(tx, page.digest))] if page.pieces else []


def readable(tx: Transaction, page: Page) -> str:
    """Return a page's text; a reply is shown with the calls it made."""
    if page.pieces:
        return "".join(journal.payload(tx, digest).decode() for digest in pieces(tx, page))
    body = journal.payload(tx, page.digest)
    if page.kind is not PageKind.REPLY:
        return body.decode()
    reply = decode_reply(body)
    return "\n".join([reply.text, *(f"[called {q.name} {q.arguments}]" for q in reply.requests)]).strip()


def keep(
    tx: Transaction,
    text: str,
    *,
    pid: Pid | None,
    owner: str,
    title: str,
    entropy: Entropy,
    now: float,
    source: str,
    whole: bool = False,
) -> Page:
    """Keep a text outside the window: it has an address, and takes no place in a prompt."""
    return make(
        tx,
        page_id=entropy.handle("pg_"),
        pid=pid,
        owner=owner,
        kind=PageKind.DOCUMENT,
        body=text.encode(),
        text=text,
        position=OUTSIDE,
        now=now,
        source=source,
        title=title,
        resident=False,
        whole=whole,
    )


def keep_result(tx: Transaction, process: Process, text: str, *, entropy: Entropy, now: float) -> None:
    """Write the page that holds the whole of a process's result, where it is too long to be shown whole."""
    if count(text) <= RESULT_TOKENS_MAX:
        return
    keep(
        tx,
        text,
        pid=process.pid,
        owner=process.owner,
        title=f"result of {process.name}",
        entropy=entropy,
        now=now,
        source=process.pid,
        whole=True,  # its bytes are in the store already: they are the process's result
    )


def shortened(
    tx: Transaction, process: Process, text: str, *, title: str, entropy: Entropy, now: float, source: str
) -> str:
    """Return a text as it is, or, when it is too large for the window, its head and the page that has all of it."""
    tokens = count(text)
    if tokens <= RESULT_TOKENS_MAX:
        return text
    page = keep(tx, text, pid=process.pid, owner=process.owner, title=title, entropy=entropy, now=now, source=source)
    return (
        f"{text[:HEAD_CHARS]}\n[{tokens - count(text[:HEAD_CHARS])} tokens more are not shown. The whole text is page "
        f"{page.page_id}: page_in(page_id='{page.page_id}', offset={HEAD_CHARS}) goes on from here.]"
    )
