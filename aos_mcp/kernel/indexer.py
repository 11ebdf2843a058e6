"""The indexer: gives pages their vectors in the background, and a query its own.

It owns when texts are embedded. Search never waits for it: a page without a vector is found by its words. What is done
is in the store, so that a kernel that was killed goes on where it was, and one with another embedder begins again
while the former vectors wait to be dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import anyio

from aos_mcp.abi.errors import AosError, NotFound, TimedOut
from aos_mcp.abi.event import Event, EventKind
from aos_mcp.abi.handle import PageId
from aos_mcp.abi.limits import (
    EMBED_BEFORE_CHARS,
    EMBED_LOOK_S,
    EMBED_PAGES,
    EMBED_PART_CHARS,
    EMBED_PARTS_MAX,
    EMBED_QUERY_S,
    EMBED_QUIET_S,
    EMBED_REST_S,
    EMBED_TEXTS,
    NOTE_LINK_COSINE,
    NOTE_LINKS_FOUND,
    VECTOR_DROP,
)
from aos_mcp.abi.note import Note
from aos_mcp.abi.page import Page, PageKind
from aos_mcp.abi.vector import Vector
from aos_mcp.kernel import notes, pages
from aos_mcp.kernel.machine import Machine
from aos_mcp.kernel.steady import steadily
from aos_mcp.ports import Embedder, Transaction

logger = logging.getLogger(__name__)

KERNEL = "kernel"
"""Who made a link that nobody asked for."""


async def run_indexer(machine: Machine) -> None:
    """Embed what is written while the kernel lives, in the order it was written; return at once without an embedder."""
    embedder = machine.embedder
    if embedder is None:
        return
    indexed = Indexed(machine, embedder)
    await steadily(machine, "indexer", indexed.once)


async def query_vector(machine: Machine, query: str) -> Vector | None:
    """Return the query as a vector; None where there is no embedder, or it fails: search then goes by words."""
    embedder = machine.embedder
    if embedder is None:
        return None
    try:
        with anyio.fail_after(EMBED_QUERY_S):
            found = await embedder.embed([query])
    except TimeoutError:
        machine.metrics.embed_failures.inc()
        return None
    except AosError as error:
        machine.metrics.embed_failures.inc()
        logger.warning("a search goes by words alone: %s", error)
        return None
    return Vector(embedder.name, found[0])


class Indexed:
    """One embedder at work on one store."""

    def __init__(self, machine: Machine, embedder: Embedder) -> None:
        self._machine = machine
        self._embedder = embedder
        self._alone = False
        """The vectors of former models were dropped."""

    async def once(self) -> None:
        """Embed the next pages; with none left, wait until there may be some."""
        ticket = self._machine.bus.ticket()  # before the store is read: then no page is missed
        if await self._some() == EMBED_PAGES:
            return
        await self._drop_former()
        with anyio.move_on_after(EMBED_LOOK_S):  # another kernel may write to the store as well
            await ticket.wait()
        # Changes come in bursts, and a turn that is under way has first call on the processor.
        await self._machine.clock.sleep_until(self._machine.clock.now() + EMBED_QUIET_S)

    async def _some(self) -> int:
        """Embed at most `EMBED_PAGES` pages and commit them; return how many."""
        name = self._embedder.name
        found = await self._machine.store.read(lambda tx: _read(tx, name))
        texts = [text for _, parts in found for text in parts]
        try:
            vectors = iter(await self._embed(texts))
        except AosError as error:
            self._machine.metrics.embed_failures.inc()
            logger.warning("pages wait for their vectors: %s", error)
            await self._machine.clock.sleep_until(self._machine.clock.now() + EMBED_REST_S)
            return 0
        made = [(page, [next(vectors) for _ in parts]) for page, parts in found]

        def keep(tx: Transaction) -> None:
            for page, values in made:
                tx.vector_put(page.page_id, name, values)

        if made:
            await self._machine.store.write(keep)
            await self._link([(page, values[0]) for page, values in made if page.kind is PageKind.NOTE and values])
            self._publish()
            self._machine.metrics.embedded_pages.inc(len(made))
        return len(made)

    async def _link(self, made: Sequence[tuple[Page, bytes]]) -> None:
        """Link new notes to those of their namespace that mean nearly the same."""
        machine, name = self._machine, self._embedder.name
        if not made:
            return

        def look(tx: Transaction) -> list[tuple[Note, PageId]]:
            return [pair for page, values in made for pair in _near(tx, page.page_id, Vector(name, values))]

        pairs = await machine.store.read(look)

        def connect(tx: Transaction) -> None:
            for note, other in pairs:
                notes.link(tx, note, other, KERNEL, machine.clock.now())

        if pairs:
            await machine.store.write(connect)

    async def _embed(self, texts: Sequence[str]) -> list[bytes]:
        """Embed in small portions, so that a query never waits long behind them."""
        vectors: list[bytes] = []
        for start in range(0, len(texts), EMBED_TEXTS):
            portion = texts[start : start + EMBED_TEXTS]
            made = await self._embedder.embed(portion)
            if len(made) != len(portion):
                raise TimedOut(f"{self._embedder.name} did not answer for every text.", "Check the embedder.")
            vectors += made
        return vectors

    async def _drop_former(self) -> None:
        """Once every page has its vector, drop those of other models, a few at a time."""
        name = self._embedder.name
        while not self._alone:
            dropped = await self._machine.store.write(lambda tx: tx.vector_drop_others(name, limit=VECTOR_DROP))
            self._alone = dropped < VECTOR_DROP
            if dropped:
                self._publish()

    def _publish(self) -> None:
        self._machine.bus.publish(Event(kind=EventKind.PAGE, subject=self._embedder.name, owner=""))


def _read(tx: Transaction, model: str) -> list[tuple[Page, list[str]]]:
    found = []
    for page in tx.vector_missing(model, limit=EMBED_PAGES):
        before = tx.page_before(page)
        found.append((page, parts_of(page.title, _said(tx, page), _said(tx, before) if before else "")))
    return found


def _said(tx: Transaction, page: Page) -> str:
    """Return a page's text; nothing where its words were taken out."""
    try:
        return pages.readable(tx, page)
    except NotFound:
        return ""


def _near(tx: Transaction, page_id: PageId, near: Vector) -> list[tuple[Note, PageId]]:
    note = tx.note_get(page_id)
    if note is None or note.valid_until is not None:
        return []
    found = tx.note_nearest(near, owner=note.owner, namespace=note.namespace, limit=NOTE_LINKS_FOUND + 1)
    return [(note, other) for other, cosine in found if other != page_id and cosine >= NOTE_LINK_COSINE]


def parts_of(title: str, text: str, before: str) -> list[str]:
    """Return the texts that stand for a page: pieces of it, cut at blanks, the first behind the end of the page before.

    Empty for a page that says nothing.
    """
    text = text.strip()
    if not text:
        return []
    head = "" if text.startswith(title.rstrip("…")) else f"{title}\n"
    pieces = _pieces(text)
    lead = before.strip()[-EMBED_BEFORE_CHARS:]
    return [f"{lead}\n{head}{pieces[0]}".lstrip(), *(head + each for each in pieces[1:])]


def _pieces(text: str) -> list[str]:
    pieces: list[str] = []
    start = 0
    while start < len(text) and len(pieces) < EMBED_PARTS_MAX:
        end = start + EMBED_PART_CHARS
        if end < len(text):
            blank = max(text.rfind("\n", start, end), text.rfind(" ", start, end))
            end = blank if blank > start + EMBED_PART_CHARS // 2 else end
        pieces.append(text[start:end].strip())
        start = end
    return [piece for piece in pieces if piece]
