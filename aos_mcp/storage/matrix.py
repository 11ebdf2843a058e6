"""The vectors of one model as one matrix in memory, searched by one product. Knows no database.

A hundred thousand vectors of 384 dimensions take 160 MB, and a search a few milliseconds. Beside each vector stands
what bounds are about, so that a bounded search misses nothing either. Up to `EXACT_MAX` vectors within the bounds a
search is exact; of more, a fiftieth is chosen by signs first and multiplied exactly, which finds nearly all.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from aos_mcp.abi.handle import PageId
from aos_mcp.storage.connection import Row

_ROWS_MIN = 1_024
_FACTS = ("owner", "pid", "kind", "source")
EXACT_MAX = 50_000
"""Up to so many vectors all are multiplied, in about 3 ms; of more, those whose signs are nearest to the query's."""
_SHORTLIST_PART = 50
_SHORTLIST_MIN = 8
_TINY = 1e-9  # Vectors that cancel one another out have no middle; all are as near to it.
_FEW = 0.2
"""Below this part of the rows it is faster to gather them than to multiply all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Within:
    """Bounds of a search, see `ports.Transaction.page_search`. None is no bound.

    `contexts`: the pids whose pages are meant, and with `memory` those of nobody too. `only`: the pages, by serial, of
    one namespace or label.
    """

    owner: str
    kind: str | None = None
    source: str | None = None
    since: float | None = None
    until: float | None = None
    contexts: Collection[str] | None = None
    memory: bool = True
    only: Collection[int] | None = None


def one_thread() -> None:
    """Have numpy multiply on the thread that asks.

    Its own threads spin while they wait for one another, which makes a product ten times slower on a busy machine; here
    several searches at once are the way to use several processors.
    """
    threadpool_limits(1, user_api="blas")


def cosines(vectors: Sequence[Row], to: Collection[str]) -> dict[PageId, float]:
    """Return, by page, the cosine of its nearest vector to the middle of those of `to`; none where these have none.

    Args:
        vectors: rows of the statement `vector_of`.
        to: pages, by their ids.
    """
    body = np.frombuffer(b"".join(row["body"] for row in vectors), dtype="<f4")
    names = [row["page_id"] for row in vectors]
    aims = [place for place, name in enumerate(names) if name in to]
    if not aims:
        return {}
    one_thread()
    matrix = body.reshape(len(names), -1)
    middle = matrix[aims].mean(axis=0)
    near = matrix @ (middle / max(float(np.linalg.norm(middle)), _TINY))
    found: dict[PageId, float] = {}
    for name, cosine in zip(names, near.tolist(), strict=True):
        found[name] = max(cosine, found.get(name, -1.0))
    return found


class Matrix:
    """Vectors with the facts of their pages, in rows. Rows are only added; one writer, any number of readers."""

    def __init__(self, width: int) -> None:
        """Make an empty matrix for vectors of `width` dimensions."""
        self.count = 0
        self._vectors = np.empty((_ROWS_MIN, width), dtype=np.float32)
        self._signs = np.empty((_ROWS_MIN, -(-width // 64)), dtype=np.uint64, order="F")
        self._pages = np.empty(_ROWS_MIN, dtype=np.int64)
        self._facts = np.empty((_ROWS_MIN, len(_FACTS)), dtype=np.int32, order="F")
        self._created = np.empty(_ROWS_MIN, dtype=np.float64)
        self._codes: dict[str | None, int] = {None: -1}
        self._owners: set[str] = set()

    def add(self, rows: Sequence[Row]) -> None:
        """Add rows of the statement `vector_load`."""
        width = self._vectors.shape[1]
        start, end = self.count, self.count + len(rows)
        self._grow(end)
        joined = b"".join(row["body"] for row in rows)
        self._vectors[start:end] = np.frombuffer(joined, dtype="<f4").reshape(-1, width)
        self._signs[start:end] = _signs_of(self._vectors[start:end])
        self._pages[start:end] = [row["page"] for row in rows]
        self._facts[start:end] = [[self._code(row[name]) for name in _FACTS] for row in rows]
        self._owners.update(row["owner"] for row in rows)
        self._created[start:end] = [row["created_at"] for row in rows]
        self.count = end

    def nearest(self, values: bytes, within: Within, limit: int) -> list[tuple[int, float]]:
        """Return the nearest pages within the bounds by serial, with the cosine of their nearest part, best first."""
        count = self.count
        query = np.frombuffer(values, dtype="<f4").astype(np.float32)
        fits = self._fits(within, count)
        rows = None if fits is None else np.flatnonzero(fits)
        if (count if rows is None else len(rows)) > EXACT_MAX:
            rows = self._shortlist(query, rows, count, limit)
        if rows is None:
            cosines = self._vectors[:count] @ query
        elif len(rows) < _FEW * count:
            cosines = self._vectors[rows] @ query
        else:
            cosines = (self._vectors[:count] @ query)[rows]
        return self._first(cosines, rows, limit)

    def _shortlist(
        self, query: npt.NDArray[np.float32], rows: npt.NDArray[np.intp] | None, count: int, limit: int
    ) -> npt.NDArray[np.intp]:
        """Return the rows that differ from the query in the fewest signs: a thirtieth of the memory is read."""
        signs = self._signs[:count] if rows is None else self._signs[rows]
        differing = np.zeros(len(signs), dtype=np.uint16)
        for column, word in zip(signs.T, _signs_of(query[None, :])[0], strict=True):
            differing += np.bitwise_count(column ^ word)  # by columns: sums over few words are slow by rows
        wanted = min(len(differing), max(_SHORTLIST_MIN * limit, len(differing) // _SHORTLIST_PART))
        short = np.argpartition(differing, wanted - 1)[:wanted]
        return short if rows is None else rows[short]

    def _first(
        self, cosines: npt.NDArray[np.float32], rows: npt.NDArray[np.intp] | None, limit: int
    ) -> list[tuple[int, float]]:
        """Return the best pages. A page may have several rows: more are taken until there are enough pages."""
        wanted = limit
        while True:
            wanted = min(2 * wanted, len(cosines))
            cut = len(cosines) - wanted
            top = np.argpartition(cosines, cut)[cut:] if 0 < cut < len(cosines) else np.arange(wanted)
            top = top[np.argsort(-cosines[top], kind="stable")]
            pages = self._pages[top if rows is None else rows[top]]
            nearest = dict.fromkeys(pages.tolist())
            if len(nearest) >= limit or wanted == len(cosines):
                break
        for page, cosine in zip(pages.tolist(), cosines[top].tolist(), strict=True):
            if nearest[page] is None:
                nearest[page] = cosine
        return [(page, cosine) for page, cosine in nearest.items() if cosine is not None][:limit]

    def _fits(self, within: Within, count: int) -> npt.NDArray[np.bool_] | None:
        """Return which rows are within the bounds; None when all are."""
        if self._owners == {within.owner} and within == Within(owner=within.owner):
            return None
        owners, pids, kinds, sources = self._facts[:count].T
        fits = owners == self._known(within.owner)
        for column, value in ((kinds, within.kind), (sources, within.source)):
            if value is not None:
                fits &= column == self._known(value)
        if within.contexts is not None:
            nobody = [-1] if within.memory else []
            fits &= np.isin(pids, [*nobody, *(self._known(pid) for pid in within.contexts)])
        if within.only is not None:
            fits &= np.isin(self._pages[:count], list(within.only))
        if within.since is not None:
            fits &= self._created[:count] >= within.since
        if within.until is not None:
            fits &= self._created[:count] < within.until
        return None if fits.all() else fits

    def _code(self, value: str | None) -> int:
        return self._codes.setdefault(value, len(self._codes))

    def _known(self, value: str) -> int:
        return self._codes.get(value, -2)

    def _grow(self, rows: int) -> None:
        if rows <= len(self._pages):
            return
        room = max(rows, len(self._pages) * 3 // 2)
        for name in ("_vectors", "_signs", "_pages", "_facts", "_created"):
            old = getattr(self, name)
            new = np.empty((room, *old.shape[1:]), dtype=old.dtype, order="F" if name in {"_facts", "_signs"} else "C")
            new[: self.count] = old[: self.count]
            setattr(self, name, new)


def _signs_of(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.uint64]:
    """Return one bit for each dimension, packed; what fills the last word is the same in all."""
    bits = np.packbits(vectors > 0, axis=1)
    words = np.zeros((len(vectors), -(-vectors.shape[1] // 64) * 8), dtype=np.uint8)
    words[:, : bits.shape[1]] = bits
    return words.view(np.uint64)
