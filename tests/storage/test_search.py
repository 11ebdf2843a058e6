"""What is indexed, how a query is read, and what is shown."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from aos_mcp.abi.limits import SEARCH_EXCERPT_CHARS, SEARCH_WORD_CHARS_MAX, SEARCH_WORDS_MAX
from aos_mcp.storage.packing import pack, unpack
from aos_mcp.storage.search import excerpt, indexable, match_expression, query_words


def test_a_query_is_its_distinct_words() -> None:
    assert query_words('Where is "the owl"? The OWL!') == ["where", "is", "the", "owl"]
    assert query_words("?!") == []
    assert len(query_words(" ".join(map(str, range(1_000))))) == SEARCH_WORDS_MAX


@given(st.text())
def test_no_query_leaves_its_quotes(query: str) -> None:
    expression = match_expression(query_words(query))
    assert re.fullmatch(r'("[\w ]+"( OR "[\w ]+")*)?', expression)


def test_encoded_data_is_not_indexed() -> None:
    key = "a" * SEARCH_WORD_CHARS_MAX
    assert key in indexable(f"before {key} after")
    assert indexable(f"before {key}a after").split() == ["before", "after"]


def test_an_excerpt_surrounds_the_first_word_that_matches() -> None:
    text = "x " * 200 + "the owl\n\thunted" + " y" * 200
    shown = excerpt(text, ["hunting", "owls", "owl"])
    assert "the owl hunted" in shown
    assert shown.startswith("…") and shown.endswith("…")
    assert len(shown) <= 2 * SEARCH_EXCERPT_CHARS + len("owl") + 2


def test_an_excerpt_finds_a_word_by_its_beginning_else_shows_the_opening() -> None:
    assert excerpt("many runs", ["running"]) == "many runs"
    assert excerpt("short", ["absent"]) == "short"
    assert excerpt("", ["absent"]) == ""


@given(st.binary(max_size=5_000) | st.binary(min_size=1, max_size=50).map(lambda piece: piece * 100))
def test_what_was_packed_comes_back(body: bytes) -> None:
    packed, stored = pack(body)
    assert unpack(stored, packed=packed, size_bytes=len(body)) == body
    assert unpack(stored, packed=packed, size_bytes=10) == body[:10]
    assert len(stored) <= len(body)
