"""Calls to downstream servers. `call_tool` hands the downstream's own result on, unchanged."""

from __future__ import annotations

import mcp_types as types
from pydantic import BaseModel, ValidationError

from aos_mcp.abi.errors import Unavailable
from aos_mcp.abi.results import CallToolResult, SearchToolsResult

CALLS = frozenset({"search_tools", "call_tool"})


def text(result: BaseModel) -> str:
    """Return what a person or a text-only host reads."""
    assert isinstance(result, SearchToolsResult), type(result)
    lines = [f"{tool.name}: {tool.description}" for tool in result.tools]
    return "\n".join([*lines, f"{len(result.tools)} of {result.total} tools."])


def relay(result: CallToolResult, *, modern: bool) -> types.CallToolResult:
    """Return the downstream's result, or the way to the page that holds it when it is too large.

    The handshake revisions know structured content as an object only; another value stays in the text content there.

    Raises:
        Unavailable: what the downstream answered is no tool result.
    """
    if result.page_id is not None:
        where = f"The result is large: page_in {result.page_id} reads it."
        return types.CallToolResult(content=[types.TextContent(type="text", text=where)], is_error=result.is_error)
    try:
        whole = types.CallToolResult.model_validate(result.result, by_name=False)
    except ValidationError:
        raise Unavailable(
            "The downstream server answered something that is no tool result.", "Report it to the server's makers."
        ) from None
    if modern or isinstance(whole.structured_content, dict | None):
        return whole
    return whole.model_copy(update={"structured_content": None})
