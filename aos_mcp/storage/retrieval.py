"""Retrieval: from a query to pages in order. Candidates by words and by vectors, ranked by `storage.ranking`.

Works with words alone, with vectors alone and with both, whatever part of the pages has a vector yet.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Collection
from typing import TYPE_CHECKING

from aos_mcp.abi.limits import SEARCH_CANDIDATES, SEARCH_LENDING, SEARCH_RANKED, SEARCH_SMALL, SEARCH_WIDTH, VECTOR_LOAD
from aos_mcp.abi.vector import Vector
from aos_mcp.storage import ranking, search
from aos_mcp.storage.connection import Connection, Value
from aos_mcp.storage.ranking import Place, Weights

if TYPE_CHECKING:
    from aos_mcp.storage.matrix import Matrix

Bounds = dict[str, Value]
"""What every page statement takes: the names of `no_bounds`."""

WEIGHTS = Weights()
WIDER = 4


def no_bounds(owner: str) -> Bounds:
    """Return the bounds of a search that are only an owner's; None is no bound."""
    others = ("pid", "kind", "program", "source", "since", "until", "namespace", "label", "reader")
    return {"owner": owner} | dict.fromkeys(others)


class Nearest:
    """The vectors in memory, one model at a time, shared by all transactions that only read.

    A matrix is read to its end at first use and then followed by serial, so that each search sees what its snapshot
    sees. Pages of later commits may be among its answers; the caller's next statement does not find them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._model = ""
        self._through = 0
        self._matrix: Matrix | None = None

    def search(self, at: Connection, near: Vector, bounds: Bounds, limit: int) -> dict[int, float]:
        """Return the cosines of the nearest pages within the bounds, by serial; none while the model has no vector."""
        # Here, because numpy takes a tenth of a second to import and a kernel without an embedder never needs it.
        from aos_mcp.storage.matrix import Within

        matrix = self._followed(at, near)
        if matrix is None:
            return {}
        only = {row["page"] for row in at.all("note_members", bounds)} if bounds["namespace"] else None
        if bounds["label"]:
            labelled = {row["serial"] for row in at.all("page_labelled", bounds)}
            only = labelled if only is None else only & labelled
        within = Within(
            **{name: bounds[name] for name in ("owner", "kind", "source", "since", "until")},  # type: ignore[arg-type]
            contexts=_members(at, bounds),
            memory=bounds["pid"] is None,
            only=only,
        )
        width = limit + limit // 2
        while True:
            found = dict(matrix.nearest(near.values, within, width))
            hidden = {row["serial"] for row in at.all("note_hidden", {**bounds, "serials": json.dumps(list(found))})}
            seen = [pair for pair in found.items() if pair[0] not in hidden]
            if len(seen) >= limit or len(found) < width:
                return dict(seen[:limit])
            width *= WIDER  # most of the nearest are former notes

    def _followed(self, at: Connection, near: Vector) -> Matrix | None:
        from aos_mcp.storage.matrix import Matrix, one_thread

        with self._lock:
            if self._model != near.model:
                self._model, self._through, self._matrix = near.model, 0, None
            while rows := at.all("vector_load", {"model": near.model, "after": self._through, "limit": VECTOR_LOAD}):
                if self._matrix is None:
                    one_thread()
                    self._matrix = Matrix(len(near.values) // 4)
                self._matrix.add(rows)
                self._through = rows[-1]["serial"]
                if len(rows) < VECTOR_LOAD:
                    break
            return self._matrix


def find(
    at: Connection,
    nearest: Nearest,
    query: str,
    near: Vector | None,
    bounds: Bounds,
    limit: int,
    weights: Weights = WEIGHTS,
) -> list[tuple[int, float]]:
    """Return at most `limit` pages by serial with their scores, best first."""
    by_word = matches(at, search.content_words(query), bounds, SEARCH_CANDIDATES)
    by_vector = nearest.search(at, near, bounds, SEARCH_CANDIDATES) if near is not None else {}
    scores = dict(ranking.best(ranking.fuse(by_word, by_vector, weights.near), max(limit, SEARCH_LENDING)))
    places = _places(at, scores, bounds)
    settled = ranking.settle(scores, places, _names(query), weights)
    while True:
        found = ranking.best(settled, limit)
        # Vectors in memory and neighbours may be those of pages whose words were taken out.
        gone = at.all("page_erased", {"serials": json.dumps([serial for serial, _ in found])})
        if not gone:
            return found
        for row in gone:
            del settled[row["serial"]]


def _members(at: Connection, bounds: Bounds) -> set[str] | None:
    """Return whose contexts a search is about; None is everybody's."""
    members = {row["member"] for row in at.all("page_contexts", bounds)} if bounds["program"] is not None else None
    if bounds["pid"] is None:
        return members
    own = {str(bounds["pid"]), *(row["base"] for row in at.all("lineage_list", bounds))}
    return own if members is None else own & members


def matches(at: Connection, words: list[str], bounds: Bounds, limit: int) -> dict[int, float]:
    """Return the pages that match the words best, by serial, with the score of the lexical index (BM25)."""
    if not words:
        return {}
    match = search.match_expression(_telling(at, words))
    wide = at.all("page_match_any", {**bounds, "match": match, "wide": SEARCH_WIDTH})
    found = {row["serial"]: float(row["score"]) for row in wide if row["fits"]}
    if len(found) < limit and len(wide) == SEARCH_WIDTH:
        # Most of the best lie outside of the bounds: ask for those inside, which looks every match up.
        rows = at.all("page_match_within", {**bounds, "match": match, "limit": limit})
        found = {row["serial"]: float(row["score"]) for row in rows}
    return dict(list(found.items())[:limit])


def _telling(at: Connection, words: list[str]) -> list[str]:
    """Return the words to rank by: as many of the rarest as have few enough matches together.

    A word that is in many pages costs most and tells least. In a small store all words are ranked by.
    """
    last = at.one("page_last", {})
    distinct = set(words)
    if len(distinct) == 1 or last is None or last["serial"] <= SEARCH_SMALL:
        return words
    counts = {}
    for word in distinct:
        row = at.one("page_match_count", {"match": search.match_expression([word]), "limit": SEARCH_RANKED})
        counts[word] = row["n"] if row else 0
    telling: set[str] = set()
    total = 0
    for word in sorted(distinct, key=lambda word: (counts[word], word)):
        total += counts[word]
        if total > SEARCH_RANKED and any(counts[other] for other in telling):
            break
        telling.add(word)
    return [word for word in words if word in telling]


def _places(at: Connection, serials: Collection[int], bounds: Bounds) -> dict[int, Place]:
    """Return where the pages stand, and of their neighbours those that are within the bounds."""
    rows = at.all("page_around", {"serials": json.dumps(list(serials))})
    linked: dict[int, list[int]] = {}
    for row in at.all("note_linked", {"serials": json.dumps(list(serials))}):
        linked.setdefault(row["serial"], []).append(row["other"])
    places = {
        row["serial"]: Place(
            row["pid"], row["source"], row["before"], row["behind"], tuple(linked.get(row["serial"], ()))
        )
        for row in rows
    }
    around = {other for place in places.values() for other in (place.before, place.behind, *place.linked)}
    beyond = [serial for serial in around if serial is not None and serial not in places]
    for row in at.all("page_fitting", {**bounds, "serials": json.dumps(beyond)}):
        places[row["serial"]] = Place(row["pid"], row["source"])
    return places


def _names(query: str) -> Collection[str]:
    return {word.lower() for word in query.split()} | set(search.query_words(query))
