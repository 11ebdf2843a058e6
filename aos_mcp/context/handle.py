"""The one line a page leaves behind: what it was, how large, how it began, and the call that brings it back.

Owns the wording and the size of handles. Titles and first lines come from tools and models, so everything that could
break out of the line or hide in it is taken out here.
"""

from __future__ import annotations

import unicodedata

from aos_mcp.abi.handle import PageId
from aos_mcp.abi.page import Page

TITLE_CHARS_MAX = 80  # A title that needs more is a text.
FIRST_LINE_CHARS_MAX = 80  # Enough to recognise a page; more would be a second copy of it.
ID_CHARS = 10  # Of a page's id, behind its prefix: fifty random bits tell the pages of one owner apart.
FRAME_TOKENS = 26  # The words around title and first line; a third of it is the page id, which is random base32.
CHARS_PER_TOKEN = 4
COLLAPSED_TOKENS = 12  # The line that stands for pages whose own handles are not listed.

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
"""Unicode categories that no reader sees: controls, formats (bidi among them), surrogates, private use, separators."""


def handle_line(page: Page, first_line: str) -> str:
    """Return the handle of a page that is not in the window, one line of at most about 100 tokens.

    It depends on nothing that changes while the page is out, so a prompt that holds it stays byte-stable.
    """
    parts = [f"[paged out] {page.kind}"]
    title = visible(page.title, TITLE_CHARS_MAX)
    if title:
        parts[0] += f" “{title}”"
    parts.append(f"{page.tokens:,} tokens")
    opening = visible(first_line, FIRST_LINE_CHARS_MAX)
    if opening and not title.endswith(opening):
        parts.append(opening)
    parts.append(f"page_in {short_id(page.page_id)}")
    return " · ".join(parts)


def short_id(page_id: PageId) -> str:
    """Return the beginning of a page's id, as its handle names it; `page_in` takes it for the whole."""
    prefix, mark, rest = page_id.partition("_")
    return f"{prefix}{mark}{rest[:ID_CHARS]}"


def collapsed_line(count: int) -> str:
    """Return the one line that stands for `count` pages whose own handles are not listed."""
    return f"[paged out] {count:,} more pages · search_pages finds them"


def handle_tokens(page: Page) -> int:
    """Return about how many tokens the page's handle takes, without reading the page."""
    return FRAME_TOKENS + (min(len(page.title), TITLE_CHARS_MAX) + FIRST_LINE_CHARS_MAX // 2) // CHARS_PER_TOKEN


def visible(text: str, limit: int) -> str:
    """Return the first line of `text` that shows anything, as a reader would see it, at most `limit` characters.

    White space is folded and characters without a shape are dropped. Only the first 16 x `limit` characters are read.
    """
    for line in text[: limit * 16].splitlines():
        shown = " ".join("".join(c for c in line if c == "\t" or unicodedata.category(c) not in _HIDDEN).split())
        if shown:
            return shown if len(shown) <= limit else shown[: limit - 1].rstrip() + "…"
    return ""
