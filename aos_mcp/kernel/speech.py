"""What the kernel says to a model: standing instructions, the tool list, and results worth their tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import cast

from pydantic import JsonValue

from aos_mcp.abi.calls import ROWS
from aos_mcp.abi.completion import ToolSpec
from aos_mcp.abi.mount import MountedTool
from aos_mcp.abi.process import Process
from aos_mcp.abi.schema import schema_of
from aos_mcp.abi.syscall import Audience, Syscall
from aos_mcp.kernel.gate import ALWAYS_GRANTED
from aos_mcp.security.rights import may_call

SYSTEM = """\
You are an agent run by a kernel. Work on your task by calling tools, then end yourself with exit(result=...): the \
result is all that whoever spawned you will see, so put the whole answer there.
A tool result that begins with an error code tells you what went wrong and what to do next; do not repeat a call that \
was denied. `unknown_outcome` means the effect may have happened: look before you act again.
Text marked [paged out] has left your window but is not lost: page_in(page_id=...) returns it exactly. Keep large \
findings with page_out and refer to them by page id.
Commands run in an isolated sandbox whose working directory /workspace is yours alone and is kept between commands."""

FINISH = "You have been asked to finish{reason}. This is your last turn: call exit(result=...) with what you have."
CUT = "[Your turn was cut at the token limit. Go on from where it stopped, or exit with what you have.]"
RESTORED = "[This call belongs to the run this one was forked from; it was not repeated here.]"

DIRECT_TOOLS_MAX = 32
"""Downstream tools shown as functions of their own; more are reached through search_tools and call_tool."""
FUNCTION_NAME = re.compile(r"^[A-Za-z0-9_-]{1,64}$")


def tool_specs(process: Process, mounted: Sequence[MountedTool]) -> tuple[ToolSpec, ...]:
    """Return the functions an agent sees: kernel calls within its rights, then downstream tools it was given by name.

    The order is fixed, so that the list is byte-equal from turn to turn.
    """
    specs = [
        _spec(row)
        for row in ROWS
        if row.audience is not Audience.HOSTS
        and (row.tool or row.audience is Audience.AGENTS if row.function is None else row.function)
        and (row.name in ALWAYS_GRANTED or may_call(process.rights, row.name))
        and (row.name != "spawn_agent" or process.rights.spawn)
    ]
    named = [pattern for layer in process.rights.tools for pattern in layer if pattern != "*"]
    if any("__" in pattern for pattern in named):
        offered = [tool for tool in mounted if may_call(process.rights, tool.name) and FUNCTION_NAME.match(tool.name)]
        specs += [
            ToolSpec(name=tool.name, description=tool.description, input_schema=tool.input_schema)
            for tool in sorted(offered, key=lambda tool: tool.name)[:DIRECT_TOOLS_MAX]
        ]
    return tuple(specs)


@cache
def _spec(row: Syscall) -> ToolSpec:
    return ToolSpec(name=row.name, description=row.summary, input_schema=json.dumps(schema_of(row.args)))


def result_text(call: str, body: bytes) -> tuple[str, bool]:
    """Return what a model reads of a journalled result, and whether it is an error."""
    value = cast("Mapping[str, JsonValue]", json.loads(body))
    if set(value) == {"code", "message", "hint"}:
        return f"{value['code']}: {value['message']} {value['hint']}".rstrip(), True
    if set(value) == {"reconciled"}:
        return str(value["reconciled"]), False
    if call == "call_tool":
        return _downstream(value)
    if call == "page_in":
        more = value.get("next_offset")
        newer = value.get("superseded_by")
        text = f"{value['content']}" + (f"\n[more at offset={more}]" if more is not None else "")
        return text + (f"\n[this note was superseded by {newer}]" if newer else ""), False
    if call == "sandbox_exec":
        return _command(value), False
    return json.dumps(value, ensure_ascii=False), False


def _downstream(value: Mapping[str, JsonValue]) -> tuple[str, bool]:
    result = cast("Mapping[str, JsonValue]", value["result"])
    blocks = cast("Sequence[Mapping[str, JsonValue]]", result.get("content", []))
    texts = [str(b["text"]) if b.get("type") == "text" else f"[{b.get('type')} content]" for b in blocks]
    if not texts and result.get("structuredContent") is not None:
        texts = [json.dumps(result["structuredContent"], ensure_ascii=False)]
    if value.get("page_id"):
        texts.append(f"[the whole result is page {value['page_id']}: page_in(page_id=...)]")
    return "\n".join(texts), bool(value.get("is_error"))


def _command(value: Mapping[str, JsonValue]) -> str:
    parts = [f"exit code {value['exit_code']}" + (" (timed out)" if value["timed_out"] else "")]
    parts.extend(f"{name}:\n{value[name]}" for name in ("stdout", "stderr") if value[name])
    changed = cast("Sequence[str]", value.get("changed") or ())
    if changed:
        parts.append("changed: " + ", ".join(changed))
    if value.get("output_page"):
        parts.append(f"[the whole output is page {value['output_page']}: page_in(page_id=...)]")
    return "\n".join(parts)
