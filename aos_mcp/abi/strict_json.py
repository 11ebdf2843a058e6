"""JSON that a model or a program wrote, held to what every reader can read."""

from __future__ import annotations

import json
import math
from typing import Any

DEPTH_MAX = 100
"""How deep it may be nested: readers give up at some depth, each at another."""


def object_in(text: str) -> dict[str, Any] | None:
    """Return the JSON object that a text is; None where it is none that everybody can read."""
    try:
        found = json.loads(text, parse_constant=finite, parse_float=finite)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and _is_within(found, DEPTH_MAX) else None


def finite(text: str) -> float:
    """Return a number of JSON. Raises ValueError for what some writers put there: NaN, or one beyond all bounds."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no number of JSON")
    return number


def _is_within(value: object, depth: int) -> bool:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return depth > 0 and all(_is_within(part, depth - 1) for part in parts)
