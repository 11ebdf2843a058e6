"""Downstream tools: found by words, called by name, shown as they are."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from aos_mcp.abi import arguments as a
from aos_mcp.abi import results as r
from aos_mcp.abi.errors import Invalid, NotFound
from aos_mcp.abi.limits import MOUNT_CALL_S, REPLY_CHARS_MAX
from aos_mcp.abi.mount import MountedTool, ToolOutcome
from aos_mcp.kernel import pages
from aos_mcp.kernel.call import Call
from aos_mcp.kernel.machine import Machine
from aos_mcp.kernel.schema_check import misfit
from aos_mcp.ports import Transaction
from aos_mcp.security.rights import may_call

SETTLE_S = 5.0
"""How long a first look waits for downstream servers that are still starting."""
KEY_META = "aos-mcp/idempotency-key"
KEY_ARGUMENTS = ("idempotency_key", "idempotencyKey")
"""How servers name an argument that is there for such a key."""
WORD = re.compile(r"\w+")


async def search_tools(call: Call, args: a.SearchToolsArgs) -> r.SearchToolsResult:
    """Find downstream tools by the words of their name, title and description."""
    await call.machine.mounts.settled(SETTLE_S)
    tools = [tool for tool in call.machine.mounts.tools() if tool.name not in call.machine.quarantined]
    if call.caller.pid is not None:
        rights = (await call.read(call.own, brief=True)).rights
        tools = [tool for tool in tools if may_call(rights, tool.name)]
    found = rank(args.query, tools)[: args.k]
    return r.SearchToolsResult(
        tools=[
            r.ToolRow(
                name=tool.name,
                description=tool.description,
                input_schema=json.loads(tool.input_schema),
                read_only=tool.read_only,
            )
            for tool in found
        ],
        total=len(tools),
    )


def rank(query: str, tools: Sequence[MountedTool]) -> list[MountedTool]:
    """Order tools by how many words of the query they hold, a word in the name counting three times; no word: all."""
    words = {word.lower() for word in WORD.findall(query)}
    if not words:
        return sorted(tools, key=lambda tool: tool.name)

    def score(tool: MountedTool) -> int:
        name = tool.name.lower()
        body = f"{tool.title} {tool.description}".lower()
        return sum(3 * (word in name) + (word in body) for word in words)

    scored = [(score(tool), tool) for tool in tools]
    return [tool for points, tool in sorted(scored, key=lambda pair: (-pair[0], pair[1].name)) if points]


async def call_tool(call: Call, args: a.CallToolArgs) -> r.CallToolResult:
    """Call a downstream tool once and pass its answer on unchanged."""
    machine = call.machine
    if machine.mounts.tool(args.name) is None:
        await machine.mounts.settled(SETTLE_S)
    tool = machine.mounts.tool(args.name)
    if tool is None:
        near = ", ".join(tool.name for tool in rank(args.name.replace("_", " "), machine.mounts.tools())[:3])
        raise NotFound(
            f"There is no downstream tool {args.name}.",
            f"Near it: {near}." if near else "Find tools with search_tools; see aos://mounts for what is mounted.",
        )
    call.subject = args.name
    server = args.name.partition("__")[0]
    own = machine.settings.mounts.get(server)
    arguments, meta = keyed(args.arguments, tool, call.key)
    _check_arguments(tool, arguments)
    async with machine.admission.tool(server):  # a slow server holds up its own callers only
        outcome = await machine.mounts.call(
            args.name,
            arguments,
            timeout_s=own.timeout_s if own is not None and own.timeout_s is not None else MOUNT_CALL_S,
            progress=call.progress,
            meta=meta,
        )
    return await _shown(call, args.name, outcome)


def _check_arguments(tool: MountedTool, arguments: Mapping[str, JsonValue]) -> None:
    """Check the arguments against the tool's own schema, before the call leaves. Raises Invalid with the place."""
    try:
        problem = misfit(tool.input_schema, dict(arguments))
    except Invalid:
        return  # a schema that cannot be checked here is the server's own affair
    if problem is not None:
        raise Invalid(
            f"The arguments of {tool.name} do not fit its schema: {problem}.",
            "Correct them; search_tools shows the schema.",
        )


def keyed(
    arguments: Mapping[str, JsonValue], tool: MountedTool, key: str
) -> tuple[Mapping[str, JsonValue], Mapping[str, object]]:
    """Return a call's arguments and metadata with its idempotency key in them.

    A server that sees one key twice is asked for one effect. The key is in `_meta` of every call that may change
    something, and in an argument of the tool's own that is there for it, unless the caller has filled that.
    """
    if not key or tool.read_only:
        return arguments, {}
    properties = json.loads(tool.input_schema).get("properties") or {}
    place = next((name for name in KEY_ARGUMENTS if name in properties), None)
    if place is None or place in arguments:
        return arguments, {KEY_META: key}
    return {**arguments, place: key}, {KEY_META: key}


async def _shown(call: Call, name: str, outcome: ToolOutcome) -> r.CallToolResult:
    if len(outcome.result) <= REPLY_CHARS_MAX or call.caller.pid is not None:
        return r.CallToolResult(result=json.loads(outcome.result), is_error=outcome.is_error)
    text = outcome.text or outcome.result

    def keep(tx: Transaction) -> str:
        page = pages.keep(
            tx,
            text,
            pid=None,
            owner=call.caller.principal,
            title=f"result of {name}",
            entropy=call.machine.entropy,
            now=call.now,
            source=name,
        )
        return page.page_id

    page_id = await call.machine.store.write(keep)
    shown: list[JsonValue] = [{"type": "text", "text": text[: REPLY_CHARS_MAX // 4]}]
    return r.CallToolResult(result={"content": shown}, is_error=outcome.is_error, page_id=page_id)


async def list_mounts(call: Call, args: a.NoArgs) -> r.MountsResult:
    """Show the downstream servers."""
    return r.MountsResult(mounts=mount_rows(call.machine))


def mount_rows(machine: Machine) -> list[r.MountRow]:
    """Return one row for each downstream server."""
    return [
        r.MountRow(
            server=status.server,
            transport=status.transport,
            state=status.state,
            tools=status.tools,
            restarts=status.restarts,
            quarantined=sorted(name for name in machine.quarantined if name.startswith(f"{status.server}__")),
            error=status.error,
        )
        for status in machine.mounts.status()
    ]
