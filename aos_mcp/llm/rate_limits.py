"""Limits as providers tell them in headers, of good answers and of errors. Pure.

Two families of names are in use: OpenAI's, which others have taken over, and Anthropic's, which counts input and output
apart. How long until a bucket is full again comes as seconds (`1.5`), as a duration (`6m0s`, `120ms`) or as a moment in
RFC 3339.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime

from aos_mcp.abi.completion import RateLimits

_FAMILIES: Mapping[str, Mapping[str, str]] = {
    "requests_tokens": {"requests": "x-ratelimit-{}-requests", "tokens": "x-ratelimit-{}-tokens"},
    "input_output": {
        "requests": "anthropic-ratelimit-requests-{}",
        "tokens": "anthropic-ratelimit-tokens-{}",
        "input_tokens": "anthropic-ratelimit-input-tokens-{}",
        "output_tokens": "anthropic-ratelimit-output-tokens-{}",
    },
    "concurrency": {},
}
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def read_limits(headers: Mapping[str, str], kind: str, now: float) -> RateLimits | None:
    """Return what headers say of limits, for a row whose `limits` are of this kind; None where they say nothing."""
    found: dict[str, int | float] = {}
    for bucket, name in _FAMILIES[kind].items():
        limit, left = _count(headers.get(name.format("limit"))), _count(headers.get(name.format("remaining")))
        reset_s = seconds_until(headers.get(name.format("reset")), now)
        for field, value in (("limit", limit), ("left", left), ("reset_s", reset_s)):
            if value is not None:
                found[f"{bucket}_{field}"] = value
    return RateLimits(**found) if found else None  # type: ignore[arg-type]  # counts are whole, seconds are not


def _count(text: str | None) -> int | None:
    number = _number(text)
    return None if number is None else int(number)


def seconds_until(text: str | None, now: float) -> float | None:
    """Return the seconds from `now` (since the epoch) that a reset header means; None where it means none."""
    number = _number(text)
    if text is None or number is not None:
        return number
    if _DURATION.fullmatch(text.strip()):
        return sum(float(amount) * _UNITS[unit] for amount, unit in _PART.findall(text))
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return max(0.0, moment.timestamp() - now) if moment.tzinfo is not None else None


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return max(0.0, number) if math.isfinite(number) else None
