"""Large texts cut at natural boundaries: between paragraphs, outside of code blocks, else between lines.

Promises: the pieces joined are the text, to the character; none is empty; none is larger than asked for, as far as
tokens can be told from characters. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

CHARS_PER_TOKEN = 3
"""Few enough that a piece of program text or JSON is not larger than asked for by much."""
_FENCE = re.compile(r"^\s*(```|~~~)")


def split(text: str, tokens_max: int) -> list[str]:
    """Return the pieces of a text, in order; the whole where it is small."""
    chars_max = max(1, tokens_max * CHARS_PER_TOKEN)
    pieces: list[str] = []
    current = ""
    for block in _blocks(text):
        if current and len(current) + len(block) > chars_max:
            pieces.append(current)
            current = ""
        current += block
        while len(current) > chars_max:  # one block alone is too large
            cut = current.rfind("\n", 0, chars_max) + 1 or chars_max
            pieces.append(current[:cut])
            current = current[cut:]
    return [*pieces, current] if current else pieces


def _blocks(text: str) -> Iterator[str]:
    """Yield paragraphs with the blank lines behind them, and code blocks whole."""
    block, fenced, blank = "", False, False
    for line in text.splitlines(keepends=True):
        if blank and line.strip() and not fenced:
            yield block
            block = ""
        if _FENCE.match(line):
            fenced = not fenced
        blank = not line.strip()
        block += line
    if block:
        yield block
