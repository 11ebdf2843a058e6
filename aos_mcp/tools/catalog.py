"""The MCP tools: one for each syscall row that is a tool, in the table's order.

Holds no logic: a tool's name, words and schemas come from its row, its text from its family's module.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType

import mcp_types as types
from pydantic import BaseModel

from aos_mcp.abi.calls import ROWS
from aos_mcp.abi.results import CallToolResult
from aos_mcp.abi.syscall import Syscall
from aos_mcp.tools import audit, execute, memory, message, mount, process
from aos_mcp.tools.render import hints, input_schema, output_schema, structured

FOR_PEOPLE = {"anthropic/requiresUserInteraction": True}
"""Tells a host to have the person confirm each call, whatever was allowed before."""

FAMILIES = (process, memory, message, execute, mount, audit)

ROWS_BY_TOOL: Mapping[str, Syscall] = MappingProxyType({row.name: row for row in ROWS if row.tool})

TEXT_OF: Mapping[str, Callable[[BaseModel], str]] = MappingProxyType(
    {call: family.text for family in FAMILIES for call in family.CALLS}
)

assert TEXT_OF.keys() == ROWS_BY_TOOL.keys()


@cache
def tools() -> tuple[types.Tool, ...]:
    """Return every tool, in a fixed order: hosts cache the list, and models the prompt it becomes part of."""
    return tuple(_tool(row) for row in ROWS_BY_TOOL.values())


def input_schema_of(name: str) -> Mapping[str, object] | None:
    """Return the input schema of a tool, None for an unknown one."""
    return next((tool.input_schema for tool in tools() if tool.name == name), None)


def success(result: BaseModel, call: str, *, modern: bool) -> types.CallToolResult:
    """Return a call's result as MCP carries it: structured, and as text for hosts that read only that.

    Raises:
        Unavailable: a downstream server answered something that is no tool result.
    """
    if isinstance(result, CallToolResult):
        return mount.relay(result, modern=modern)
    body = structured(result)
    text = TEXT_OF.get(call)  # a call of the operator is no tool, and has no words of its own
    words = (text(result) if text else "") or json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return types.CallToolResult(content=[types.TextContent(type="text", text=words)], structured_content=body)


def _tool(row: Syscall) -> types.Tool:
    return types.Tool(
        name=row.name,
        title=row.title,
        description=row.summary,
        input_schema=input_schema(row.args),
        # A downstream's result has the downstream's schema, which search_tools tells; it differs from tool to tool.
        output_schema=None if row.result is CallToolResult else output_schema(row.result),
        annotations=hints(row),
        _meta=FOR_PEOPLE if row.name == "answer_approval" else None,
    )
