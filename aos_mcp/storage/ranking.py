"""Ranking: scores of words and of vectors become one order, by what stands around each page. Pure.

Three facts about contexts are used. An answer stands next to the words one remembers of it; what belongs together was
written in one context; and who asks names who said it. Scores are fused by a convex sum, because ranks alone forget
how much better the first hit is than the tenth.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

STRONGEST = 3
"""A context is judged by so many of its best pages."""


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each sign counts. Chosen on two conversations that no figure is reported on; see docs/search.md."""

    near: float = 0.3
    """Of the vectors' score, 0 to 1; the words' score has the rest."""
    before: float = 0.5
    """Of its score a page lends to the one behind it."""
    behind: float = 0.35
    """Of its score a page lends to the one before it."""
    context: float = 0.4
    """Of the strength of its context, the strongest being 1."""
    source: float = 0.5
    """What a page gains, as a part of its score, when the query names who wrote it and nobody else."""
    linked: float = 0.3
    """Of its score a note lends to each note it is linked with. Not fitted: no collection at hand has links."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page stands: its context, its writer, the pages (by serial) before and behind it, and linked notes."""

    pid: str | None
    source: str
    before: int | None = None
    behind: int | None = None
    linked: tuple[int, ...] = ()


def fuse(lexical: Mapping[int, float], near: Mapping[int, float], weight: float) -> dict[int, float]:
    """Return one score in 0 to 1 for each page in either; `weight` is the vectors' part.

    Words are scaled from nought to the best: a page without any of them has nought. Vectors are scaled from the
    farthest of those found to the nearest, since no cosine means "unrelated".
    """
    if not near:
        return _scaled(lexical, 0.0)
    by_word, by_vector = _scaled(lexical, 0.0), _scaled(near, min(near.values()))
    return {
        serial: (1 - weight) * by_word.get(serial, 0.0) + weight * by_vector.get(serial, 0.0)
        for serial in [*by_word, *(serial for serial in by_vector if serial not in by_word)]
    }


def settle(
    scores: Mapping[int, float], places: Mapping[int, Place], words: Collection[str], weights: Weights
) -> dict[int, float]:
    """Return the scores once neighbours, contexts and writers have had their say, for every page in `places`."""
    lent = {serial: scores.get(serial, 0.0) for serial in places}
    for serial, score in scores.items():
        place = places.get(serial)
        if place is None:
            continue
        if place.behind in lent:
            lent[place.behind] += weights.before * score
        if place.before in lent:
            lent[place.before] += weights.behind * score
        for other in place.linked:
            if other in lent:
                lent[other] += weights.linked * score
    named = _named({place.source for place in places.values()}, words)
    said = {
        serial: score * (1 + weights.source) if places[serial].source == named else score
        for serial, score in lent.items()
    }
    strength = _strengths(said, places)
    return {
        serial: score + weights.context * strength[places[serial].pid or serial]
        for serial, score in said.items()
        if score > 0
    }


def best(scores: Mapping[int, float], limit: int) -> list[tuple[int, float]]:
    """Return the best pages, best first; of equals the older one."""
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[:limit]


def _scaled(scores: Mapping[int, float], low: float) -> dict[int, float]:
    span = max(scores.values(), default=0.0) - low
    if span <= 0:
        return dict.fromkeys(scores, 1.0)
    return {serial: (score - low) / span for serial, score in scores.items()}


def _named(sources: Iterable[str], words: Collection[str]) -> str | None:
    named = [source for source in sources if source.lower() in words]
    return named[0] if len(named) == 1 else None


def _strengths(scores: Mapping[int, float], places: Mapping[int, Place]) -> dict[str | int, float]:
    """Return how much speaks for each context, the strongest being 1. A page outside of any is a context of its own."""
    members: dict[str | int, list[float]] = {}
    for serial, score in scores.items():
        members.setdefault(places[serial].pid or serial, []).append(score)
    strengths = {
        context: found[0] if isinstance(context, int) else sum(sorted(found, reverse=True)[:STRONGEST]) / STRONGEST
        for context, found in members.items()
    }
    top = max(strengths.values(), default=0.0) or 1.0
    return {context: strength / top for context, strength in strengths.items()}
