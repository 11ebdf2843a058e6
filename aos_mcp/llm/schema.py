"""Structured output: how a schema is put to a model whose provider cannot, or only nearly, hold it to one. Pure."""

from __future__ import annotations

import json

from aos_mcp.abi.completion import Prompt
from aos_mcp.llm.draft import Draft

ANSWER_TOOL = "answer"
"""The tool whose arguments are the answer, where a provider has no other way; see `answer_tool`."""


def answer_tool(prompt: Prompt) -> str:
    """Return the name of the answer tool beside those tools that a prompt offers itself."""
    name, taken = ANSWER_TOOL, {tool.name for tool in prompt.tools}
    while name in taken:
        name += "_"
    return name


def stated(system: str, schema: str) -> str:
    """Return the system text with the schema at its end."""
    return f"{system}\n\nAnswer with one JSON object and nothing else. It must fit this JSON Schema:\n{schema}".strip()


def is_closed(schema: object) -> bool:
    """Tell whether every object in the schema requires all its properties and admits no others.

    Only then does the strict form of Chat Completions accept it; any other schema is a request error there.
    """
    if isinstance(schema, list):
        return all(is_closed(item) for item in schema)
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object" or "properties" in schema:
        properties = schema.get("properties", {})
        if schema.get("additionalProperties") is not False or set(schema.get("required", [])) != set(properties):
            return False
    return all(is_closed(value) for value in schema.values())


def is_holdable(schema: object) -> bool:
    """Tell whether the Messages dialect can hold a model to the schema.

    It wants a kind for every part and a list of properties for every object; maps with keys of any name, and parts of
    any kind, are beyond it.
    """
    if not isinstance(schema, dict):
        return False
    definitions = schema.get("$defs", {}).values()
    if not all(is_holdable(part) for part in definitions):
        return False
    if "$ref" in schema or _is_plain(schema.get("const", {})) or all(map(_is_plain, schema.get("enum") or [{}])):
        return True
    variants = next((schema[key] for key in ("anyOf", "oneOf", "allOf") if key in schema), None)
    if variants is not None:
        return all(is_holdable(part) for part in variants)
    if schema.get("type") == "object":
        properties = schema.get("properties", {})
        return (
            bool(properties) and not schema.get("additionalProperties") and all(map(is_holdable, properties.values()))
        )
    if schema.get("type") == "array":
        return is_holdable(schema.get("items"))
    return schema.get("type") in ("string", "integer", "number", "boolean", "null")


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, str | int | float)


def parsed(schema: str) -> dict[str, object]:
    """Return the schema as an object."""
    fields = json.loads(schema)
    assert isinstance(fields, dict), "the gate lets only objects through"
    return fields


def take_answer(draft: Draft) -> None:
    """Make the arguments of the answer tool the text of the answer, where a schema was asked for."""
    if draft.prompt.output_schema is None:
        return
    name = answer_tool(draft.prompt)
    answers = [r for r in draft.requests if r.name == name]
    if answers:
        draft.requests = [r for r in draft.requests if r.name != name]
        draft.text.clear()
        draft.say("".join(answers[0].arguments))
        draft.stop = "tools" if draft.requests else "end"
