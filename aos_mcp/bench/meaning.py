"""What the pages of a recorded session mean: the vectors that an embedder makes of them, as the kernel's indexer would.

Owns which vector is whose in a played session: a page that was fetched back means what it meant before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import anyio

from aos_mcp.abi.handle import PageId
from aos_mcp.abi.page import Page
from aos_mcp.bench.traces import Trace
from aos_mcp.context.nearness import focus
from aos_mcp.kernel.indexer import parts_of
from aos_mcp.ports import Embedder
from aos_mcp.storage.matrix import cosines

PORTION = 64


class Meaning:
    """The vectors of one session's pages, by their names in its trace."""

    def __init__(self, vectors: Mapping[str, Sequence[bytes]]) -> None:
        self._vectors = vectors

    def cosines(self, pages: Sequence[Page]) -> dict[PageId, float]:
        """Return how near the pages in the window are to what is worked on, as the store tells the kernel."""
        aims = frozenset(page.page_id for page in focus(pages))
        rows = [
            {"page_id": page.page_id, "body": body}
            for page in pages
            if page.resident or page.page_id in aims
            for body in self._vectors.get(page.page_id.partition("@")[0], ())
        ]
        return cosines(rows, aims)


def meaning_of(trace: Trace, embedder: Embedder, say: Callable[[str], None]) -> Meaning:
    """Embed all pages of a trace that has texts, one behind the other, which takes a minute or more."""
    say(f"{trace.name}: {len(trace.pages):,} pages are embedded")
    parts: list[tuple[str, str]] = []
    before = ""
    for page in trace.pages.values():
        parts += [(page.page_id, part) for part in parts_of(page.title, page.text, before)]
        before = page.text
    return Meaning(anyio.run(_embedded, embedder, parts))


async def _embedded(embedder: Embedder, parts: Sequence[tuple[str, str]]) -> dict[str, list[bytes]]:
    made: dict[str, list[bytes]] = {}
    for start in range(0, len(parts), PORTION):
        portion = parts[start : start + PORTION]
        vectors = await embedder.embed([text for _, text in portion])
        for (page_id, _), vector in zip(portion, vectors, strict=True):
            made.setdefault(page_id, []).append(vector)
    return made
