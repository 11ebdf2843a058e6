"""The MCP resources: every URI form, and how one is read. Each is one syscall; nothing is decided here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

import mcp_types as types
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel

from aos_mcp.abi.errors import AosError, Invalid, NotFound
from aos_mcp.abi.results import AgentRow
from aos_mcp.resources import audit, metrics, mounts, page, proc
from aos_mcp.resources.form import JSON, Form

FORMS: tuple[Form, ...] = (*proc.FORMS, *page.FORMS, *audit.FORMS, *mounts.FORMS, *metrics.FORMS)

KERNEL_ERROR = 1_000
"""JSON-RPC code of a kernel error that is no missing resource or malformed URI; outside the reserved range."""

AGENTS_LISTED = 20
"""Newest agents that are listed by name, so that a host can offer them to a person."""

Read = Callable[[str, Mapping[str, object]], Awaitable[BaseModel]]


def resources(agents: Sequence[AgentRow]) -> list[types.Resource]:
    """Return the resources that are always there, then the given agents."""
    fixed = [
        types.Resource(
            uri=form.uri, name=form.name, title=form.title, description=form.description, mime_type=form.mime_type
        )
        for form in FORMS
        if not form.is_template
    ]
    return fixed + [
        types.Resource(
            uri=f"aos://proc/{row.pid}",
            name=row.pid,
            title=row.name,
            description=f"Agent, {row.state}.",
            mime_type=JSON,
        )
        for row in agents[:AGENTS_LISTED]
    ]


def templates() -> list[types.ResourceTemplate]:
    """Return the resource templates."""
    return [
        types.ResourceTemplate(
            uri_template=form.uri,
            name=form.name,
            title=form.title,
            description=form.description,
            mime_type=form.mime_type,
        )
        for form in FORMS
        if form.is_template
    ]


async def read_resource(uri: str, read: Read) -> types.ReadResourceResult:
    """Read one resource.

    Raises:
        MCPError: -32602 with the URI for an unknown, foreign or malformed one; `KERNEL_ERROR` for whatever else.
    """
    for form in FORMS:
        values = form.match(uri)
        if values is not None:
            return await _read(form, uri, values, read)
    raise _missing(uri)


async def _read(form: Form, uri: str, values: Mapping[str, str], read: Read) -> types.ReadResourceResult:
    try:
        text = form.render(await read(form.call, form.arguments(values)))
    except (NotFound, Invalid, ValueError):
        raise _missing(uri) from None
    except AosError as error:
        data = {"code": str(error.code), "hint": error.hint, "uri": uri}
        raise MCPError(KERNEL_ERROR, f"{error.message} {error.hint}", data) from None
    return types.ReadResourceResult(contents=[types.TextResourceContents(uri=uri, mime_type=form.mime_type, text=text)])


def _missing(uri: str) -> MCPError:
    return MCPError(types.INVALID_PARAMS, "Resource not found", {"uri": uri})
