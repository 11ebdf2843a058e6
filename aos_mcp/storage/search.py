"""Lexical search: what is indexed of a text, how a query is read, and what of a page is shown. Pure.

It knows the match expression of FTS5 only as far as quoted phrases joined by OR go; any text is a legal query.
"""

from __future__ import annotations

import re

from aos_mcp.abi.limits import (
    SEARCH_EXCERPT_CHARS,
    SEARCH_TEXT_CHARS_MAX,
    SEARCH_WORD_CHARS_MAX,
    SEARCH_WORDS_MAX,
)

_WORD = re.compile(r"\w+")
_ENCODED = re.compile(rf"\w{{{SEARCH_WORD_CHARS_MAX + 1},}}")
_IDEOGRAPH = re.compile("([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff])")
_SPACE = re.compile(r"\s+")
_FUNCTION_WORDS = frozenset(
    """a about an and are as at be been being but by can could d did do does doing for from had has have having he her
    here hers him his how i if in into is it its just ll m me my of on or our re s she should so some t than that the
    their them then there these they this those to us ve was we were what when where which while who whom whose why will
    with would you your""".split()
)
"""English words that carry no subject: in a question they only make the search slower and less exact."""


def indexable(text: str) -> str:
    """Return what of a text goes to the index.

    Scripts that put no space between words are indexed by the character, so that a word of them is found as a phrase.
    """
    spread = _IDEOGRAPH.sub(r" \1 ", text[:SEARCH_TEXT_CHARS_MAX])
    return _ENCODED.sub(" ", spread).encode("utf-8", "replace").decode("utf-8")


def query_words(query: str) -> list[str]:
    """Return the distinct words of a query in lower case, in order, at most as many as the limit allows."""
    return list(dict.fromkeys(_words(query)))[:SEARCH_WORDS_MAX]


def content_words(query: str) -> list[str]:
    """Return the words of a query that tell pages apart: without those that only make it a question.

    A query of nothing else is searched as it is. Words of other languages than English are all kept. What a query says
    several times is there as often: it is what the query is about.
    """
    words = _words(query)
    return ([word for word in words if word not in _FUNCTION_WORDS] or words)[:SEARCH_WORDS_MAX]


def _words(query: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(query) if len(word) <= SEARCH_WORD_CHARS_MAX]


def match_expression(words: list[str]) -> str:
    """Return the expression that matches a page with any of the words. A word holds no quote."""
    return " OR ".join('"' + _IDEOGRAPH.sub(r" \1 ", word) + '"' for word in words)


def excerpt(text: str, words: list[str]) -> str:
    """Return the surroundings of the first word that matches, else the opening, on one line.

    The index matches stems, so a word is looked for whole, then by its beginning, then anywhere.
    """
    whole = "|".join(re.escape(word) for word in words)
    stems = "|".join(re.escape(word[: max(3, len(word) - 4)]) for word in words)
    tries = (rf"\b(?:{whole})\b", rf"\b(?:{stems})", whole)
    found = next((hit for hit in (re.search(each, text, re.IGNORECASE) for each in tries) if hit), None)
    middle = found.start() if found else 0
    end_of_word = found.end() if found else 0
    start = max(0, middle - SEARCH_EXCERPT_CHARS)
    end = min(len(text), end_of_word + SEARCH_EXCERPT_CHARS)
    piece = _SPACE.sub(" ", text[start:end]).strip()
    return ("…" if start > 0 else "") + piece + ("…" if end < len(text) else "")
