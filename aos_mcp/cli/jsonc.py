"""Edits JSON and JSON with comments in place: one member is set or taken out, every other character stays.

Owns a scanner that knows where each member stands. Promises that the text after an edit decodes to what was wanted, or
raises. Pure. Reads comments and trailing commas, as the hosts whose files these are do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

DEPTH_MAX = 128  # Deeper than any configuration; keeps the scanner's recursion bounded.
INDENT = "  "

_SPACE = re.compile(r"(?:[ \t\r\n]+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_LINE_COMMENT = re.compile(r"[ \t]*(?://[^\r\n]*|/\*[^\r\n]*?\*/[ \t]*)(?=\r?\n)")
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_SCALAR = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null")


class JsonError(ValueError):
    """The text is not JSON (with comments), or does not have the shape an edit needs."""


@dataclass(slots=True)
class Node:
    """A value in its place: `text[start:end]`. `members` only of an object."""

    start: int
    end: int
    value: Any
    members: dict[str, Member] | None = None


@dataclass(slots=True)
class Member:
    """A member of an object: where its key starts, its value, and its comma, where it has one."""

    start: int
    node: Node
    comma: int | None = field(default=None)


def decode(text: str) -> Any:
    """Return the value of a text. Raises JsonError."""
    return _scan(text).value


def set_member(text: str, path: Sequence[str], value: Mapping[str, object]) -> str:
    """Return `text` with the object member at `path` set; objects on the way are made where they are missing.

    Members that the old value has beside those of `value` are kept. A blank text counts as an empty object.

    Raises:
        JsonError: the text does not decode, or something on the way is not an object.
    """
    if not text.strip():
        return _render(_nested(path, value), INDENT) + "\n"
    root = _scan(text)
    old = _find(root, path)
    if old is not None and isinstance(old.value, dict) and old.value == {**old.value, **value}:
        return text
    wanted = _with(root.value, path, value)
    edited = _replace(text, root, old, value) if old is not None else _insert(text, root, path, value)
    return _checked(edited, wanted)


def remove_member(text: str, path: Sequence[str]) -> str:
    """Return `text` without the member at `path`; unchanged when there is none. Raises JsonError."""
    if not text.strip():
        return text
    root = _scan(text)
    parent = _find(root, path[:-1])
    if parent is None or not parent.members or path[-1] not in parent.members:
        return text
    member = parent.members[path[-1]]
    before = [m for m in parent.members.values() if m.start < member.start]
    comma = member.comma
    if comma is None and before:
        comma = before[-1].comma  # the last one goes: the comma before it has nothing to part
    start = member.start
    line_start = text.rfind("\n", 0, start) + 1
    if not text[line_start:start].strip():
        start = max(0, line_start - 1)
        start -= start > 0 and text[start - 1] == "\r"
    spans = [(start, member.node.end)] + ([(comma, comma + 1)] if comma is not None else [])
    for begin, end in sorted(spans, reverse=True):
        text = text[:begin] + text[end:]
    wanted = _without(root.value, path)
    return _checked(text, wanted)


def _checked(text: str, wanted: object) -> str:
    if decode(text) != wanted:
        raise JsonError("the file has a form that cannot be edited safely")
    return text


def _find(root: Node, path: Sequence[str]) -> Node | None:
    node = root
    for key in path:
        if node.members is None or key not in node.members:
            return None
        node = node.members[key].node
    return node


def _replace(text: str, root: Node, old: Node, value: Mapping[str, object]) -> str:
    merged = {**old.value, **value} if isinstance(old.value, dict) else dict(value)
    indent = _line_indent(text, old.start)
    rendered = _render(merged, _unit(text, root)).replace("\n", "\n" + indent)
    return text[: old.start] + _with_newlines_of(text, rendered) + text[old.end :]


def _insert(text: str, root: Node, path: Sequence[str], value: Mapping[str, object]) -> str:
    """Add a member to the deepest object on the path that is there."""
    depth = 0
    node = root
    while node.members is not None and path[depth] in node.members:
        node = node.members[path[depth]].node
        depth += 1
    if node.members is None:
        raise JsonError(f"{'.'.join(path[:depth]) or 'the file'} is not an object")
    unit = _unit(text, root)
    member = f"{json.dumps(path[depth])}: " + _render(_nested(path[depth + 1 :], value), unit)
    if not node.members:
        outer = _line_indent(text, node.start)
        inner = outer + unit
        body = _with_newlines_of(text, f"\n{inner}{member.replace(chr(10), chr(10) + inner)}")
        rest = text[node.start + 1 :]
        tail = "" if "\n" in text[node.start : node.end] else _with_newlines_of(text, f"\n{outer}")
        return text[: node.start + 1] + body + tail + rest
    last = max(node.members.values(), key=lambda m: m.start)
    inner = _line_indent(text, last.start)
    member = _with_newlines_of(text, f"\n{inner}{member.replace(chr(10), chr(10) + inner)}")
    if last.comma is not None:
        behind = _comment_end(text, last.comma + 1)
        return text[:behind] + member + "," + text[behind:]
    behind = _comment_end(text, last.node.end)
    return text[: last.node.end] + "," + text[last.node.end : behind] + member + text[behind:]


def _comment_end(text: str, position: int) -> int:
    """Return where the comment behind `position` ends, if it is all that is left on the line."""
    match = _LINE_COMMENT.match(text, position)
    return match.end() if match else position


def _render(value: object, unit: str) -> str:
    return json.dumps(value, indent=unit, ensure_ascii=False)


def _nested(path: Sequence[str], value: Mapping[str, object]) -> Mapping[str, object]:
    for key in reversed(path):
        value = {key: value}
    return value


def _with(root: object, path: Sequence[str], value: Mapping[str, object]) -> object:
    if not path:
        return {**root, **value} if isinstance(root, dict) else dict(value)
    inside = root if isinstance(root, dict) else {}
    return {**inside, path[0]: _with(inside.get(path[0]), path[1:], value)}


def _without(root: dict[str, Any], path: Sequence[str]) -> dict[str, Any]:
    if len(path) == 1:
        return {key: value for key, value in root.items() if key != path[0]}
    return {**root, path[0]: _without(root[path[0]], path[1:])}


def _line_indent(text: str, position: int) -> str:
    line_start = text.rfind("\n", 0, position) + 1
    line = text[line_start:position]
    return line[: len(line) - len(line.lstrip())]


def _unit(text: str, root: Node) -> str:
    """Return what one level is indented by in this file."""
    first = next(iter((root.members or {}).values()), None)
    indent = _line_indent(text, first.start) if first is not None else ""
    return indent or INDENT


def _with_newlines_of(text: str, piece: str) -> str:
    return piece.replace("\n", "\r\n") if "\r\n" in text else piece


def _scan(text: str) -> Node:
    node = _value(text, _skip(text, 0), 0)
    if _skip(text, node.end) != len(text):
        raise JsonError(f"line {_line(text, node.end)}: something stands behind the value")
    return node


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _value(text: str, position: int, depth: int) -> Node:
    if depth > DEPTH_MAX:
        raise JsonError("the file is nested too deeply")
    opening = text[position : position + 1]
    if opening == "{":
        return _object(text, position, depth)
    if opening == "[":
        return _array(text, position, depth)
    match = (_STRING if opening == '"' else _SCALAR).match(text, position)
    if match is None:
        raise JsonError(f"line {_line(text, position)}: a value is expected")
    try:
        return Node(position, match.end(), json.loads(match.group()))
    except ValueError as error:
        raise JsonError(f"line {_line(text, position)}: {error}") from None


def _object(text: str, position: int, depth: int) -> Node:
    node = Node(position, position, {}, {})
    assert node.members is not None
    position = _skip(text, position + 1)
    while text[position : position + 1] != "}":
        match = _STRING.match(text, position)
        if match is None:
            raise JsonError(f"line {_line(text, position)}: a key or }} is expected")
        key = json.loads(match.group())
        colon = _skip(text, match.end())
        if text[colon : colon + 1] != ":":
            raise JsonError(f"line {_line(text, colon)}: a colon is expected")
        value = _value(text, _skip(text, colon + 1), depth + 1)
        member = node.members[key] = Member(position, value)
        node.value[key] = value.value
        position = _skip(text, value.end)
        if text[position : position + 1] == ",":
            member.comma = position
            position = _skip(text, position + 1)
        elif text[position : position + 1] != "}":
            raise JsonError(f"line {_line(text, position)}: a comma or }} is expected")
    node.end = position + 1
    return node


def _array(text: str, position: int, depth: int) -> Node:
    node = Node(position, position, [])
    position = _skip(text, position + 1)
    while text[position : position + 1] != "]":
        item = _value(text, position, depth + 1)
        node.value.append(item.value)
        position = _skip(text, item.end)
        if text[position : position + 1] == ",":
            position = _skip(text, position + 1)
        elif text[position : position + 1] != "]":
            raise JsonError(f"line {_line(text, position)}: a comma or ] is expected")
    node.end = position + 1
    return node
