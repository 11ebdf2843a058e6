"""JSON Schema of arguments and results, cut to what a reader needs: a tool list is paid for at each call.

Titles are dropped, definitions are put where they are used, and "this or null" becomes "this": leaving an optional
argument out is how a caller says null.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from pydantic import BaseModel, JsonValue

Schema = dict[str, JsonValue]

DROPPED = frozenset({"title", "$defs"})
KEPT_WITH_OPTIONAL = ("description", "default")


def schema_of(model: type[BaseModel], *, output: bool = False) -> Schema:
    """Return the compact schema of a model; always an object schema without references."""
    whole = cast("Schema", model.model_json_schema(mode="serialization" if output else "validation"))
    definitions = cast("Mapping[str, Schema]", whole.get("$defs", {}))
    compact = cast("Schema", _compact(whole, definitions, output=output))
    compact.pop("description", None)
    return compact


def _compact(node: JsonValue, definitions: Mapping[str, Schema], *, output: bool) -> JsonValue:
    if isinstance(node, list):
        return [_compact(item, definitions, output=output) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        name = cast("str", node["$ref"]).rpartition("/")[2]
        merged = {**definitions[name], **{k: v for k, v in node.items() if k != "$ref"}}
        return _compact(merged, definitions, output=output)
    result: Schema = {}
    for key, value in node.items():
        if key == "properties":
            properties = cast("Schema", value)
            result[key] = {name: _compact(p, definitions, output=output) for name, p in properties.items()}
        elif key not in DROPPED and not (key == "default" and value is None) and not (output and key == "default"):
            result[key] = _compact(value, definitions, output=output)
    if "enum" in result or (output and result.get("type") == "object"):
        result.pop("description", None)  # a docstring of ours, not advice for the caller
    return _without_null(result, nullable=output)


def _without_null(node: Schema, *, nullable: bool) -> Schema:
    options = node.get("anyOf")
    if not isinstance(options, list):
        return node
    real = [option for option in options if option != {"type": "null"}]
    if len(real) != 1 or len(real) == len(options):
        return node
    only = cast("Schema", real[0])
    kept = {key: node[key] for key in KEPT_WITH_OPTIONAL if key in node}
    if not nullable:
        return {**only, **kept}
    if isinstance(only.get("type"), str) and "enum" not in only:
        return {**only, **kept, "type": [only["type"], "null"]}
    return node
