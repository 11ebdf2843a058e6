"""The page table, read: what is in the window, and which pages stand or fall together.

Owns the notion of a group. Pure; knows neither bodies nor policies.
"""

from __future__ import annotations

from collections.abc import Sequence

from aos_mcp.abi.page import STATIC_KINDS, Page, PageKind
from aos_mcp.context.handle import handle_tokens


def in_window(page: Page) -> bool:
    """Return whether a page's own text is in the window. Static pages always are."""
    return page.resident or page.kind in STATIC_KINDS


def resident_tokens(pages: Sequence[Page]) -> int:
    """Return the tokens that the pages put in the window: their own where resident, a handle's where not."""
    return sum(page.tokens if in_window(page) else handle_tokens(page) for page in pages)


def in_order(pages: Sequence[Page]) -> list[Page]:
    """Return the pages by position, then id."""
    return sorted(pages, key=lambda page: (page.position, page.page_id))


def group_key(page: Page) -> int | None:
    """Return what a reply and its results have in common, or None for a page that stands alone."""
    if page.kind is PageKind.REPLY:
        return page.position if page.group is None else page.group
    return page.group if page.kind is PageKind.RESULT else None


def groups(pages: Sequence[Page]) -> list[tuple[Page, ...]]:
    """Return a reply with its results as one group, every other page as its own, by position of the first member."""
    found: list[list[Page]] = []
    open_groups: dict[int, list[Page]] = {}
    for page in in_order(pages):
        key = group_key(page)
        if key is not None and key in open_groups:
            open_groups[key].append(page)
            continue
        group = [page]
        found.append(group)
        if key is not None:
            open_groups[key] = group
    return [tuple(group) for group in found]
