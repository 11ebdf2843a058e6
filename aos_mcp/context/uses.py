"""Which pages a model's replies have used, told from the text.

Owns the rule: a word that few pages hold (a path, a name with a number in it, an identifier) and that a reply repeats
was read on the newest page, older than the reply's own question, that holds it. A page_in leaves a mark on its page's
row; reading what is in the window leaves none, and this makes up for it. Pure; it misses what a model only paraphrased.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from aos_mcp.abi.handle import PageId
from aos_mcp.abi.page import STATIC_KINDS, Page, PageKind
from aos_mcp.context.page_table import group_key, in_order

DISTINCTIVE_PART = 0.03  # A word on more of the pages than this tells nothing.
DISTINCTIVE_PAGES = 2  # On so few it always does.
TEXT_CHARS_MAX = 32_768  # Of one page; what is beyond is not looked at.

_WORD = re.compile(r"(?=\w*[\d_./-])[\w./-]{5,64}")


class Reading:
    """Follows a context as it grows. Its size is that of the telling words in the window."""

    def __init__(self) -> None:
        self._spread: Counter[str] = Counter()
        self._holder: dict[str, PageId] = {}
        self._fresh: set[PageId] = set()
        """What came since the last reply: that it is read as it comes says nothing of what follows."""
        self._pages = 0

    def see(self, page: Page, text: str) -> Sequence[PageId]:
        """Take the next page of a context; of a reply, return the pages it used, by their ids."""
        words = frozenset(_WORD.findall(text[:TEXT_CHARS_MAX]))
        self._spread.update(words)
        self._pages += 1
        if page.kind is PageKind.REPLY:
            common = max(DISTINCTIVE_PAGES + 1, DISTINCTIVE_PART * self._pages)
            holder, spread = self._holder, self._spread
            used = {holder[word] for word in words if word in holder and spread[word] <= common} - self._fresh
            self._fresh = set()
            return sorted(used)
        if page.kind not in STATIC_KINDS:
            self._fresh.add(page.page_id)
            self._holder.update(dict.fromkeys(words, page.page_id))
        return ()


def busiest_first(pages: Sequence[Page], victims: Sequence[str]) -> list[Page]:
    """Return the pages whose place changes at a compaction: those that stand alone, behind the first hole, by use.

    They exchange places among themselves, the most used first, so that the next cut is likelier to fall behind them.
    All of it is written again anyway. Turns of the conversation keep their order, which means something.
    """
    gone = frozenset(victims)
    hole = min((page.position for page in pages if page.page_id in gone), default=None)
    if hole is None:
        return []
    loose = [
        page
        for page in in_order(pages)
        if page.resident
        and page.position > hole
        and page.page_id not in gone
        and group_key(page) is None
        and page.kind in {PageKind.NOTE, PageKind.DOCUMENT}
    ]
    by_use = sorted(loose, key=lambda page: (-page.uses - page.faults, page.position))
    moved = [replace(page, position=slot.position) for page, slot in zip(by_use, loose, strict=True)]
    return [page for page, before in zip(moved, by_use, strict=True) if page.position != before.position]
