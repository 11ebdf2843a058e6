"""The text of memory calls."""

from __future__ import annotations

from pydantic import BaseModel

from aos_mcp.abi.results import PageInResult, PageOutResult, SearchPagesResult

CALLS = frozenset({"page_out", "page_in", "search_pages"})


def text(result: BaseModel) -> str:
    """Return what a person or a text-only host reads."""
    match result:
        case PageOutResult():
            return f"{result.page_id} ({result.tokens} tokens)"
        case PageInResult():
            more = "" if result.next_offset is None else f"\n(more: offset {result.next_offset})"
            return result.content + more
        case SearchPagesResult():
            return "\n".join(f"{hit.page_id} {hit.title}: {hit.excerpt}" for hit in result.hits) or "Nothing found."
    raise AssertionError(f"no memory call answers {type(result).__name__}")
