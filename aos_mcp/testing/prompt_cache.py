"""Prompt caches as providers really keep them, for requests as they come over the wire and for the benchmark's.

Promises: a prefix is read from the cache only where an entry of an earlier request stands, is of the same text, and has
not expired. Knows nothing of pages or policies: a request is a chain of segments, each known by a number that stands
for all the text up to its end.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from aos_mcp.context.tokens import count

MARKS_MAX = 4  # Of one request; more are refused.
LOOKBACK_BLOCKS = 20  # A mark finds entries at most so many blocks before it.
LATEST_ENTRIES = 80  # An exact cache compares a request with so many of its newest entries.
UNIT_TOKENS = 8_192  # Distance of the units of a cache on disk. The provider does not say; this is an assumption.


class Entries(StrEnum):
    """Where a provider's cache has entries."""

    MARKS = "marks"
    """At a request's marks; a mark also finds entries a few blocks before it."""
    EXACT = "exact"
    """At a request's marks; the newest entries are compared, none is matched in part."""
    UNITS = "units"
    """At the ends of requests and at fixed distances."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRules:
    """By which rules a provider caches: where entries are, of which length at least, and for how long unused."""

    entries: Entries
    tokens_min: int
    ttl_s: float


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt. `chain[i]` stands for all text up to the end of segment i, `ends[i]` for its tokens."""

    chain: Sequence[int]
    ends: Sequence[int]
    marks: Sequence[int]
    """Segments that end at a cache mark, in order; the last segment is one."""


class PrefixCache:
    """The entries that one session has with one provider."""

    def __init__(self, rules: CacheRules) -> None:
        self._rules = rules
        self._expires: dict[int, float] = {}

    def read(self, request: Request, now: float) -> int:
        """Return how many tokens of the request are read from the cache, and keep its own entries."""
        hit = self._find(request, now)
        chain, until = request.chain, now + self._rules.ttl_s
        for index in (*([hit] if hit >= 0 else []), *self._written(request)):
            if request.ends[index] >= self._rules.tokens_min:
                self._expires.pop(chain[index], None)  # an entry that is used again is the newest
                self._expires[chain[index]] = until
        if self._rules.entries is Entries.EXACT:
            for old in list(self._expires)[:-LATEST_ENTRIES]:
                del self._expires[old]
        return request.ends[hit] if hit >= 0 else 0

    def _find(self, request: Request, now: float) -> int:
        places: Sequence[int] = range(len(request.chain))
        if self._rules.entries is Entries.MARKS:
            reach = {place for mark in request.marks for place in range(max(0, mark - LOOKBACK_BLOCKS + 1), mark + 1)}
            places = sorted(reach)
        expires, chain = self._expires, request.chain
        return next((place for place in reversed(places) if expires.get(chain[place], -1.0) >= now), -1)

    def _written(self, request: Request) -> Sequence[int]:
        if self._rules.entries is not Entries.UNITS:
            return request.marks
        last = len(request.ends) - 1
        line = 0
        units: list[int] = []
        for place, end in enumerate(request.ends):
            if end // UNIT_TOKENS > line:
                line = end // UNIT_TOKENS
                units.append(place)
        return [*units, last]


class WireCache:
    """The cache in front of a model, as the requests of all its clients meet it."""

    def __init__(self, rules: CacheRules) -> None:
        self._cache = PrefixCache(rules)
        self._rules = rules
        self.prompt_tokens = 0
        """Of all requests so far;"""
        self.cached_tokens = 0
        """of these, those that were read from the cache."""

    def read(self, body: Mapping[str, Any], now: float) -> tuple[int, int, int]:
        """Take one request in either dialect; return its tokens, those read from the cache, and those written to it."""
        segments = list(_segments(body))
        chain: list[int] = []
        ends: list[int] = []
        digest, total = hashlib.sha256(), 0
        for text, _ in segments:
            digest.update(text.encode())
            total += count(text)
            chain.append(int.from_bytes(digest.digest()[:8]))
            ends.append(total)
        marks = [place for place, (_, marked) in enumerate(segments) if marked]
        if self._rules.entries is Entries.EXACT:
            marks = sorted({*marks, len(segments) - 1})  # the newest message is marked by the provider itself
        cached = self._cache.read(Request(chain, ends, marks), now)
        self.prompt_tokens += total
        self.cached_tokens += cached
        charged = self._rules.entries is not Entries.UNITS and marks and ends[marks[-1]] >= self._rules.tokens_min
        return total, cached, max(0, ends[marks[-1]] - cached) if charged else 0


def marks_in(body: Mapping[str, Any]) -> int:
    """Return how many cache marks a request of either dialect carries."""
    return sum(marked for _, marked in _segments(body))


def _segments(body: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """Yield what a provider reads, in its order: each tool, then each block of the system text and of the messages."""
    for tool in body.get("tools", ()):
        yield _segment("tool", tool)
    for block in _blocks(body.get("system")):
        yield _segment("system", block)
    for message in body.get("messages", ()):
        for block in _blocks(message.get("content")):
            yield _segment(message["role"], block)
        more = {key: value for key, value in message.items() if key not in {"role", "content"}}
        if more:
            yield _segment(message["role"], more)


def _blocks(content: object) -> Sequence[Mapping[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return content if isinstance(content, list) else []


def _segment(role: str, block: Mapping[str, Any]) -> tuple[str, bool]:
    marks = {"cache_control", "prompt_cache_breakpoint"}
    text = json.dumps({key: value for key, value in block.items() if key not in marks}, ensure_ascii=False)
    return f"\n{role}: {text}", bool(marks & block.keys())
