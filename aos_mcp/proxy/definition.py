"""Tool definitions of a downstream: names, hygiene and the digest that is pinned. Pure.

Owns what the rest of the kernel may believe of a definition. Everything in it comes from a program nobody vouches
for: names are composed here from the operator's key, text is capped and stripped of what a reader cannot see, and a
tool that does not fit is left out with a reason. It does not know how definitions travel.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from aos_mcp.abi import limits
from aos_mcp.abi.errors import Invalid
from aos_mcp.abi.mount import MountedTool

SEPARATOR = "__"
"""Between the server's and the tool's part of a name. A server's part never holds it, so the first one divides."""

_SERVER_CHARS_MAX = 32
_TITLE_CHARS_MAX = 128
_FOREIGN = re.compile(r"[^A-Za-z0-9_.-]+")
_TOOL_NAME = re.compile(rf"[A-Za-z0-9_.-]{{1,{limits.TOOL_NAME_CHARS_MAX}}}")
_UNSEEN = re.compile("[\u202a-\u202e\u2066-\u2069\U000e0000-\U000e01ef]")
"""Direction overrides, tag characters and variation selectors of the supplement: text for the model only."""
_REASONS_SHOWN_MAX = 3


@dataclass(frozen=True, slots=True)
class Listing:
    """What one server offers: tools by name, and a sentence for each that was left out."""

    tools: tuple[MountedTool, ...]
    left_out: tuple[str, ...]

    @property
    def note(self) -> str:
        """One line for the status; empty when nothing was left out."""
        if not self.left_out:
            return ""
        shown = " ".join(self.left_out[:_REASONS_SHOWN_MAX])
        more = len(self.left_out) - _REASONS_SHOWN_MAX
        return f"{shown} And {more} more." if more > 0 else shown


def server_name(key: str) -> str:
    """Return the operator's key as the first part of tool names.

    Raises:
        Invalid: nothing usable is left of it.
    """
    name = re.sub("_+", "_", _FOREIGN.sub("-", key)).strip("_.-")[:_SERVER_CHARS_MAX].rstrip("_.-")
    if not name:
        raise Invalid(
            f"{plain(key, _TITLE_CHARS_MAX)!r} cannot name a server.", "Use letters, digits, hyphens and dots."
        )
    return name


def take_listing(server: str, definitions: Iterable[Mapping[str, object]], patterns: Sequence[str]) -> Listing:
    """Return what is offered of `definitions` (the wire form, each `{"name": …, "inputSchema": …}`).

    Tools that match none of `patterns` (fnmatch, on the server's own name for the tool) are dropped without a word:
    the operator asked for that. The first of two tools with one name stays.
    """
    tools: dict[str, MountedTool] = {}
    left_out: list[str] = []
    for definition in definitions:
        own = str(definition.get("name", ""))
        if not any(fnmatchcase(own, pattern) for pattern in patterns):
            continue
        tool = _mounted(server, own, definition)
        if isinstance(tool, str):
            left_out.append(f"{plain(own, _TITLE_CHARS_MAX)!r} is left out: {tool}.")
        elif tool.name in tools:
            left_out.append(f"{own!r} is left out: the server lists it twice.")
        elif len(tools) == limits.MOUNT_TOOLS_MAX:
            left_out.append(f"{own!r} is left out: a server may offer {limits.MOUNT_TOOLS_MAX} tools.")
        else:
            tools[tool.name] = tool
    return Listing(tuple(tools[name] for name in sorted(tools)), tuple(left_out))


def canonical(definition: Mapping[str, object]) -> str:
    """Return the JSON text a digest is taken over: what a model or a person is shown of a tool, keys sorted."""
    annotations = definition.get("annotations")
    shown = {
        "name": definition.get("name"),
        "title": definition.get("title"),
        "description": definition.get("description"),
        "inputSchema": definition.get("inputSchema"),
        "outputSchema": definition.get("outputSchema"),
        "annotations": annotations,
    }
    return json.dumps(shown, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def plain(text: str, chars_max: int) -> str:
    """Return `text` without control, format and private characters (newlines and tabs stay), at most `chars_max`."""
    seen = "".join(char for char in text if _is_seen(char)).strip()
    return seen if len(seen) <= chars_max else seen[: chars_max - 1] + "…"


def _is_seen(char: str) -> bool:
    return char in "\n\t" or (unicodedata.category(char)[0] != "C" and not _UNSEEN.match(char))


def _mounted(server: str, own: str, definition: Mapping[str, object]) -> MountedTool | str:
    """Return the tool, or why it cannot be offered."""
    name = f"{server}{SEPARATOR}{own}"
    if not own or not _TOOL_NAME.fullmatch(name):
        return (
            f"its full name must be at most {limits.TOOL_NAME_CHARS_MAX} letters, digits, hyphens, dots and underscores"
        )
    text = canonical(definition)
    body = text.encode("utf-8", "surrogatepass")
    if len(body) > limits.MOUNT_DEFINITION_BYTES_MAX:
        return f"its definition is longer than {limits.MOUNT_DEFINITION_BYTES_MAX} bytes"
    schema, output = definition.get("inputSchema"), definition.get("outputSchema")
    input_schema = json.dumps(schema, ensure_ascii=False)
    output_schema = None if output is None else json.dumps(output, ensure_ascii=False)
    if _UNSEEN.search(input_schema) or _UNSEEN.search(output_schema or ""):
        return "its schema holds characters that a person cannot see"
    claims = definition.get("annotations")
    hints: Mapping[str, object] = claims if isinstance(claims, Mapping) else {}
    title = definition.get("title") or hints.get("title") or own
    read_only = hints.get("readOnlyHint") is True
    return MountedTool(
        name=name,
        server=server,
        tool=own,
        title=plain(str(title), _TITLE_CHARS_MAX),
        description=plain(str(definition.get("description") or ""), limits.TOOL_DESCRIPTION_CHARS_MAX),
        input_schema=input_schema,
        output_schema=output_schema,
        read_only=read_only,
        # The protocol's defaults: what is not said is destructive and reaches the world.
        destructive=not read_only and hints.get("destructiveHint") is not False,
        idempotent=hints.get("idempotentHint") is True,
        open_world=hints.get("openWorldHint") is not False,
        digest=hashlib.sha256(body).hexdigest(),
        definition=text,
    )
