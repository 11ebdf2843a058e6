"""`aos tools`: the reference of every call, made from the syscall table, so that it cannot be out of date."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from pydantic import BaseModel

from aos_mcp.abi.calls import ROWS
from aos_mcp.abi.schema import Schema, schema_of
from aos_mcp.abi.syscall import Audience, Syscall
from aos_mcp.cli import output

COMMON_ERRORS = "denied, invalid, not_found, internal"
HEAD = """\
# Tools

Made by `aos tools` from the syscall table; a test fails when this file is stale. Every call may answer these errors: \
{common}. An error is a result with `is_error`, a stable `code`, one sentence and a hint.
"""
AUDIENCES: Mapping[Audience, str] = {
    Audience.ALL: "hosts and agents",
    Audience.HOSTS: "hosts",
    Audience.AGENTS: "agents",
    Audience.OPERATORS: "the operator, by the command line",
    Audience.GUESTS: "programs with a key of the gateway",
}


def tools(json_: output.AsJson = False) -> None:
    """Print the reference of all calls, as Markdown or as JSON."""
    if json_:
        output.document(
            [
                {"name": row.name, "summary": row.summary, "tool": row.tool, "arguments": schema_of(row.args)}
                for row in ROWS
            ]
        )
        return
    print(reference(), end="")


def reference() -> str:
    """Return docs/tools.md."""
    parts = [HEAD.format(common=COMMON_ERRORS), "## MCP tools\n", table([row for row in ROWS if row.tool])]
    parts += [section(row) for row in ROWS if row.tool]
    parts.append("## Calls without a tool of their own\n\nAgents make the first; the others are read as resources.\n")
    parts += [section(row) for row in ROWS if not row.tool]
    return "\n".join(parts)


def table(rows: Sequence[Syscall]) -> str:
    """Return one line for each call; README has it too."""
    lines = ["| tool | what it does |", "|---|---|"]
    lines += [f"| `{row.name}` | {row.summary} |" for row in rows]
    return "\n".join(lines) + "\n"


def section(row: Syscall) -> str:
    """Return the section of one call."""
    errors = ", ".join(str(code) for code in row.errors)
    facts = [f"For {AUDIENCES[row.audience]}", f"effect `{row.effect}`", f"audited as `{row.category}`"]
    if row.resource:
        facts.append(f"also the resource `{row.resource}`")
    if errors:
        facts.append(f"may also answer: {errors}")
    lines = [f"### `{row.name}`\n", f"{row.summary}\n", f"{'; '.join(facts)}.\n"]
    lines += [_fields("Argument", row.args), _fields("Result", row.result, output_side=True)]
    return "\n".join(line for line in lines if line)


def _fields(heading: str, model: type[BaseModel], *, output_side: bool = False) -> str:
    schema = schema_of(model, output=output_side)
    properties = cast("Mapping[str, Schema]", schema.get("properties", {}))
    if not properties:
        return ""
    required = cast("Sequence[str]", schema.get("required", ()))
    lines = [f"| {heading.lower()} | type | |", "|---|---|---|"]
    for name, node in properties.items():
        notes = [str(node["description"])] if "description" in node else []
        if not output_side and name in required:
            notes.append("required")
        if "default" in node:
            notes.append(f"default `{node['default']}`")
        lines.append(f"| `{name}` | {_type(node)} | {'; '.join(notes)} |")
    return "\n".join(lines) + "\n"


def _type(node: Schema) -> str:
    if "enum" in node:
        return " or ".join(f"`{value}`" for value in cast("Sequence[object]", node["enum"]))
    if "const" in node:
        return f"`{node['const']}`"
    if "anyOf" in node:
        return " or ".join(_type(cast("Schema", option)) for option in cast("Sequence[object]", node["anyOf"]))
    kind = node.get("type", "any")
    if isinstance(kind, list):
        return " or ".join(str(one) for one in kind)
    if kind == "array":
        return f"list of {_type(cast('Schema', node.get('items', {})))}"
    return str(kind)
