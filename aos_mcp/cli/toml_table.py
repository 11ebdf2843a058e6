"""Edits one table of a TOML file in place: it is set or taken out, every other line stays.

Pure. Promises that the text after an edit decodes to what was wanted, or raises: a table in a form that this module
does not write (inline, dotted keys) is left alone.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

_HEADER = re.compile(r"\s*\[\[?(?P<name>[^\]]*)\]\]?\s*(?:#.*)?")


class TomlError(ValueError):
    """The text is not TOML, or holds the table in a form that cannot be edited safely."""


def decode(text: str) -> dict[str, Any]:
    """Return the value of a text. Raises TomlError."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TomlError(str(error)) from None


def set_table(text: str, path: Sequence[str], value: Mapping[str, object]) -> str:
    """Return `text` with `[path]` holding `value`; keys that the old table has beside those are kept.

    Raises:
        TomlError: see there.
    """
    data = decode(text)
    old = _lookup(data, path)
    merged = {**(old or {}), **value}
    if old == merged:
        return text
    block = f"[{'.'.join(path)}]\n" + "".join(f"{_key(k)} = {_literal(v)}\n" for k, v in merged.items())
    before, _, after = _cut(text, path)
    if before and not before.endswith("\n"):
        before += "\n"
    gap_before = "\n" if before.strip() and not before.endswith("\n\n") else ""
    gap_after = "\n" if after.strip() and not after.startswith("\n") else ""
    edited = before + gap_before + block + gap_after + after
    return _checked(
        edited.replace("\r\n", "\n").replace("\n", "\r\n") if "\r\n" in text else edited, data, path, merged
    )


def remove_table(text: str, path: Sequence[str]) -> str:
    """Return `text` without `[path]` and the tables below it; unchanged when there is none. Raises TomlError."""
    data = decode(text)
    if _lookup(data, path) is None:
        return text
    before, _, after = _cut(text, path)
    if not after.strip():
        before = before.rstrip("\r\n") + ("\n" if before.strip() else "")
    elif before.endswith("\n\n") and after.startswith("\n"):
        after = after[1:]
    return _checked(before + after, data, path, None)


def _checked(text: str, data: dict[str, Any], path: Sequence[str], value: Mapping[str, object] | None) -> str:
    wanted = _placed(data, path, value)
    if _pruned(decode(text)) != _pruned(wanted):
        raise TomlError(f"{'.'.join(path)} stands there in a form that cannot be edited safely")
    return text


def _lookup(data: object, path: Sequence[str]) -> dict[str, Any] | None:
    for key in path:
        if not isinstance(data, dict):
            raise TomlError(f"{key} cannot be put into what is not a table")
        if key not in data:
            return None
        data = data[key]
    if not isinstance(data, dict):
        raise TomlError(f"{'.'.join(path)} is not a table")
    return data


def _placed(data: dict[str, Any], path: Sequence[str], value: Mapping[str, object] | None) -> dict[str, Any]:
    rest = {key: item for key, item in data.items() if key != path[0]}
    if len(path) > 1:
        return {**rest, path[0]: _placed(data.get(path[0], {}), path[1:], value)}
    return rest if value is None else {**rest, path[0]: dict(value)}


def _pruned(data: dict[str, Any]) -> dict[str, Any]:
    """Leave empty tables out: a parent table that nothing is left in is not written."""
    inner = {key: _pruned(item) if isinstance(item, dict) else item for key, item in data.items()}
    return {key: item for key, item in inner.items() if item != {}}


def _cut(text: str, path: Sequence[str]) -> tuple[str, str, str]:
    """Part the text into what is before the table, the table with those below it, and what is after."""
    lines = text.splitlines(keepends=True)
    headers = [(n, match["name"]) for n, line in enumerate(lines) if (match := _HEADER.fullmatch(line.rstrip("\r\n")))]
    own = [n for n, name in headers if _split_name(name)[: len(path)] == list(path)]
    if not own:
        return text, "", ""
    following = [n for n, _ in headers if n > own[-1] and n not in own]
    end = following[0] if following else len(lines)
    if any(own[0] < n < own[-1] and n not in own for n, _ in headers):
        raise TomlError(f"the tables of {'.'.join(path)} do not stand together")
    while following and end > own[-1] + 1 and (not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#")):
        end -= 1  # blank lines and comments above the next header belong to it
    return "".join(lines[: own[0]]), "".join(lines[own[0] : end]), "".join(lines[end:])


def _split_name(name: str) -> list[str]:
    parts = re.findall(r'"((?:[^"\\]|\\.)*)"|\'([^\']*)\'|([A-Za-z0-9_-]+)', name)
    return [next(part for part in found if part or part == found[-1]) for found in parts]


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _literal(name)


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_literal, value)) + "]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(k)} = {_literal(v)}" for k, v in value.items()) + " }" if value else "{}"
    raise TomlError(f"a value of type {type(value).__name__} stands in the table")
