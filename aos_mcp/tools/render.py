"""Schemas and results in the form hosts read: as few tokens as still say everything.

Owns the shortening of JSON Schemas, the tool annotations, and the form of an error. Promises that a shortened input
schema accepts only what the kernel accepts in shape, and that a shortened output schema fits every result. Knows
nothing of a running kernel.
"""

from __future__ import annotations

from base64 import b64encode
from typing import cast

import mcp_types as types
from pydantic import BaseModel, JsonValue

from aos_mcp.abi.audit import AuditHead
from aos_mcp.abi.errors import AosError, ApprovalRequired
from aos_mcp.abi.journal import EffectClass
from aos_mcp.abi.schema import Schema, schema_of
from aos_mcp.abi.syscall import Syscall

REPEATABLE = frozenset({"signal_agent", "answer_approval"})
"""Calls that change something and may be sent twice with one effect. The other idempotent rows are so only for the
kernel, which repeats them under one key; a host that repeats them makes a second thing."""

AUDIT_META = "aos-mcp/audit"
"""Where in an answer's `_meta` the size and root of the audit log stand."""

UNSAID = frozenset(
    {
        "additionalProperties",
        "exclusiveMinimum",
        "maxItems",
        "maxLength",
        "minItems",
        "minLength",
        "pattern",
    }
)
"""Keywords that protect the kernel and steer no model. The kernel checks them; the list would pay for them."""
BOUND_SAID_MAX = 1_000
"""A bound up to this number steers a model's choice and is said; a wider one is not."""


def input_schema(args: type[BaseModel]) -> Schema:
    """Return the JSON Schema of a call's arguments, without what a model does not need to choose them."""
    return _object(schema_of(args), output=False)


def output_schema(result: type[BaseModel]) -> Schema:
    """Return the JSON Schema of a call's result as `structured` dumps it: absent fields are left out, never null.

    No field is required, for an error goes by the same schema: clients hold its code and hint to it too.
    """
    return _object(schema_of(result, output=True), output=True)


def structured(result: BaseModel) -> Schema:
    """Return a result as JSON, without the fields that hold nothing."""
    return cast("Schema", result.model_dump(mode="json", by_alias=True, exclude_none=True))


def hints(row: Syscall) -> types.ToolAnnotations:
    """Return the hints for one row; those that equal the protocol's default are left out."""
    if row.effect is EffectClass.PURE:
        return types.ToolAnnotations(read_only_hint=True, open_world_hint=None if row.open_world else False)
    return types.ToolAnnotations(
        destructive_hint=None if row.destructive or row.effect is EffectClass.UNSAFE else False,
        idempotent_hint=True if row.name in REPEATABLE else None,
        open_world_hint=None if row.open_world else False,
    )


def error_result(error: AosError) -> types.CallToolResult:
    """Return an error as a result that a model can act on: code, sentence, hint, and the id of a waiting approval."""
    body: dict[str, str] = {"code": str(error.code), "message": error.message, "hint": error.hint}
    if isinstance(error, ApprovalRequired):
        body["approval_id"] = error.approval_id
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=str(error))], structured_content=body, is_error=True
    )


def anchored(answer: types.CallToolResult, head: AuditHead | None) -> types.CallToolResult:
    """Return an answer with the size and root (base64) of the audit log: whoever keeps them holds the log to them."""
    if head is None or not head.root:
        return answer
    anchor = {"size": head.seq, "root": b64encode(bytes.fromhex(head.root)).decode()}
    return answer.model_copy(update={"meta": {**(answer.meta or {}), AUDIT_META: anchor}})


def cut(text: str, limit: int) -> str:
    """Return `text`, or its first `limit` characters and how many are missing."""
    return text if len(text) <= limit else f"{text[:limit]}… (+{len(text) - limit} characters)"


def _object(schema: Schema, *, output: bool) -> Schema:
    fields = cast("dict[str, Schema]", schema["properties"])
    required = [name for name in cast("list[str]", schema.get("required", [])) if not _is_nullable(fields[name])]
    lean: Schema = {
        "type": "object",
        "properties": {name: _lean(field, output=output) for name, field in fields.items()},
    }
    if required and not output:
        lean["required"] = cast("JsonValue", required)
    if not output:
        lean["additionalProperties"] = False
    return lean


def _lean(schema: Schema, *, output: bool) -> Schema:
    if "properties" in schema:
        return _object(schema, output=output)
    lean: Schema = {}
    for key, value in schema.items():
        if key == "items" and isinstance(value, dict):
            lean[key] = _lean(value, output=output)
        elif key == "anyOf" and isinstance(value, list):
            lean[key] = [_lean(cast("Schema", option), output=output) for option in value]
        elif key not in UNSAID and not _is_noise(key, value, output=output):
            lean[key] = value
    return _present(lean) if output else lean


def _is_noise(key: str, value: JsonValue, *, output: bool) -> bool:
    if key in {"minimum", "maximum"}:
        return output or not (isinstance(value, int | float) and 0 < value <= BOUND_SAID_MAX)
    if key == "default":
        return output or value in ("", [], False)
    return output and key in {"description", "enum", "const"}


def _is_nullable(schema: Schema) -> bool:
    kind, options = schema.get("type"), schema.get("anyOf")
    return (isinstance(kind, list) and "null" in kind) or (isinstance(options, list) and {"type": "null"} in options)


def _present(schema: Schema) -> Schema:
    """Return the schema of a value that is there: a result's null is left out."""
    kind, options = schema.get("type"), schema.get("anyOf")
    if isinstance(kind, list):
        return {**schema, "type": next(name for name in kind if name != "null")}
    if not isinstance(options, list):
        return schema
    real = [option for option in options if option != {"type": "null"}]
    return cast("Schema", real[0]) if len(real) == 1 else {"anyOf": real}
