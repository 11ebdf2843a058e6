"""Does a JSON value fit a JSON Schema? Asked of models' answers, and of arguments before they leave for a tool.

Schemas come from strangers: agents and servers. So nothing is fetched that a schema refers to, patterns are not run
(one may take for ever on a short text), and a check that takes too many steps is given up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

from pydantic import JsonValue

from aos_mcp.abi.errors import Invalid
from aos_mcp.abi.limits import SCHEMA_STEPS_MAX

SAID_CHARS = 300
"""Of what does not fit: enough to see it, not the whole value."""
PATTERNS = frozenset({"pattern", "patternProperties"})
LEANING_ON_PATTERNS = frozenset({"additionalProperties", "unevaluatedProperties"})
NAMED = frozenset({"properties", "$defs", "definitions", "dependentSchemas"})
"""Their keys are names, not words of the language."""
PLAIN = frozenset({"const", "enum", "default", "examples"})
"""They hold values, not schemas."""

_steps_left: ContextVar[list[int]] = ContextVar("schema_steps_left")


class _TooManySteps(Exception):
    """The check is given up."""


def misfit(schema: str, value: JsonValue) -> str | None:
    """Return where and how a value does not fit a schema (JSON text), or None where it fits.

    Raises:
        Invalid: the schema is none, or one that cannot be checked here.
    """
    import jsonschema  # a sixteenth of a second, not before the first schema
    from referencing.exceptions import Unresolvable

    token = _steps_left.set([SCHEMA_STEPS_MAX])
    try:
        error = jsonschema.exceptions.best_match(_checker(schema).iter_errors(value))
    except (_TooManySteps, RecursionError):
        raise Invalid("The schema is too intricate to check a value against it.", "Make it smaller.") from None
    except Unresolvable:
        raise Invalid("The schema refers to something outside of it.", "Put it under $defs.") from None
    except jsonschema.exceptions.UnknownType as unknown:
        raise Invalid(f"The schema has an unknown type {unknown.type!r}.", "Use the types of JSON Schema.") from None
    finally:
        _steps_left.reset(token)
    if error is None:
        return None
    where = ".".join(str(part) for part in error.absolute_path)
    said = error.message if len(error.message) <= SAID_CHARS else f"{error.message[:SAID_CHARS]}…"
    return f"{where}: {said}" if where else said


def check_schema(schema: str) -> None:
    """Check that a JSON text is a schema. Raises Invalid with the place that is wrong."""
    _checker(schema)


@lru_cache(maxsize=512)
def _checker(schema: str) -> Any:
    import jsonschema  # see `misfit`
    from referencing import Registry

    parsed = json.loads(schema)
    kind = jsonschema.validators.validator_for(parsed, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(parsed)
    except jsonschema.exceptions.SchemaError as error:
        where = ".".join(str(part) for part in error.absolute_path) or "its root"
        raise Invalid(f"This is no JSON Schema: {where}: {error.message[:SAID_CHARS]}.", "Mend the schema.") from None
    except RecursionError:
        raise Invalid("The schema is nested too deeply.", "Make it smaller.") from None
    counted = {word: _counted(check) for word, check in kind.VALIDATORS.items()}
    return jsonschema.validators.extend(kind, counted)(without_patterns(parsed), registry=Registry())


def _counted(check: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*given: Any) -> Any:
        left = _steps_left.get()
        left[0] -= 1
        if left[0] < 0:
            raise _TooManySteps
        return check(*given)

    return counted


def without_patterns(schema: JsonValue) -> JsonValue:
    """Return a schema that asks for the same but for its regular expressions, and what leans on them."""
    if isinstance(schema, list):
        return [without_patterns(part) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    dropped = PATTERNS | LEANING_ON_PATTERNS if "patternProperties" in schema else PATTERNS
    kept: dict[str, JsonValue] = {}
    for word, part in schema.items():
        if word in PLAIN:
            kept[word] = part
        elif word in NAMED and isinstance(part, dict):
            kept[word] = {name: without_patterns(inner) for name, inner in part.items()}
        elif word not in dropped:
            kept[word] = without_patterns(part)
    return kept
