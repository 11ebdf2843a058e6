"""Faults: what a provider answered, in the kernel's taxonomy. Decided by status and code, never by the wording.

Pure. The only text that crosses is the provider's own sentence, shortened, for the person who reads the log.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime

from aos_mcp.abi.completion import RateLimits
from aos_mcp.abi.errors import ModelError, ModelFault
from aos_mcp.llm.providers import Row

_SAID_CHARS_MAX = 300
_DEPTH_MAX = 3
_RETRY_AFTER_S_MAX = 86_400.0
"""A day: who asks for more means that something is broken, and is asked again then."""

_BY_CAUSE: Mapping[str, ModelFault] = {
    # These say more than the status they come with: a used-up account is a 429 at some providers.
    **dict.fromkeys(
        (
            "insufficient_quota",
            "billing_hard_limit_reached",
            "billing_not_active",
            "billing_error",
            "enforced_spend_limit_reached",
            "contract_spend_limit_reached",
            "ramp_limit_exceeded",
            "linked_organization_spend_limit_reached",
            "exceeded_current_quota_error",
            "arrearage",
            "insufficient_balance",
            "1113",
            "1008",
        ),
        ModelFault.SPEND_LIMIT,
    ),
    **dict.fromkeys(
        (
            "context_length_exceeded",
            "string_above_max_length",
            "model_context_window_exceeded",
            "exceed_context_size_error",
            "request_too_large",
            "1261",
            "1039",
        ),
        ModelFault.CONTEXT_TOO_LONG,
    ),
    **dict.fromkeys(
        ("content_filter", "content_policy_violation", "data_inspection_failed", "datainspectionfailed", "1301"),
        ModelFault.REFUSED,
    ),
    **dict.fromkeys(
        ("overloaded_error", "engine_overloaded_error", "server_overloaded", "slow_down", "unavailable"),
        ModelFault.OVERLOAD,
    ),
}

_BY_KIND: Mapping[str, ModelFault] = {
    # These only repeat a status, and are asked when there is none: in the middle of a stream.
    **dict.fromkeys(
        ("rate_limit_error", "rate_limit_exceeded", "rate_limit_reached_error", "resource_exhausted", "429"),
        ModelFault.RATE,
    ),
    **dict.fromkeys(("529", "503"), ModelFault.OVERLOAD),
    "402": ModelFault.SPEND_LIMIT,
    **dict.fromkeys(
        ("authentication_error", "permission_error", "invalid_api_key", "unauthenticated", "401", "403"),
        ModelFault.AUTH,
    ),
    **dict.fromkeys(("invalid_request_error", "not_found_error", "invalid_argument", "400"), ModelFault.BAD_REQUEST),
}

_BY_STATUS: Mapping[int, ModelFault] = {
    401: ModelFault.AUTH,
    402: ModelFault.SPEND_LIMIT,
    403: ModelFault.AUTH,
    408: ModelFault.TRANSPORT,
    409: ModelFault.TRANSPORT,
    413: ModelFault.CONTEXT_TOO_LONG,
    429: ModelFault.RATE,
    503: ModelFault.OVERLOAD,
    529: ModelFault.OVERLOAD,
}

_HINTS: Mapping[ModelFault, str] = {
    ModelFault.RATE: "Wait; the call is tried again when the provider allows it.",
    ModelFault.OVERLOAD: "Wait, or use a model of another provider.",
    ModelFault.SPEND_LIMIT: "Add credit or raise the limit in the provider's console, or use another model.",
    ModelFault.CONTEXT_TOO_LONG: "Shorten the prompt, or use a model with a larger window.",
    ModelFault.REFUSED: "Change the request: the provider does not answer it as it is.",
    ModelFault.BAD_REQUEST: "Check the model's name, and the quirks of the provider in aos.toml.",
    ModelFault.TRANSPORT: "Check the network and the provider's base_url; a new try may do.",
    ModelFault.CUT_STREAM: "Try again; what had been written is kept with the error.",
}


def fault_for(status: int | None, codes: frozenset[str]) -> ModelFault | None:
    """Return the fault for a status (None inside a stream) and the codes in the body; None where neither says."""
    for code in sorted(codes):
        if code in _BY_CAUSE:
            return _BY_CAUSE[code]
    if status is None or status < 400:
        return next((_BY_KIND[code] for code in sorted(codes) if code in _BY_KIND), None)
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return ModelFault.TRANSPORT if status >= 500 else ModelFault.BAD_REQUEST


def codes_of(body: object) -> frozenset[str]:
    """Return every code an error body carries, in lower case, whatever the dialect."""
    return frozenset(_codes(body, 0))


def _codes(body: object, depth: int) -> Iterator[str]:
    if isinstance(body, list):
        body = body[0] if body else None
    if not isinstance(body, dict) or depth > _DEPTH_MAX:
        return
    for key in ("type", "code", "status", "error_code", "status_code"):
        value = body.get(key)
        if isinstance(value, str | int) and value != "error":
            yield str(value).lower()
    for key in ("error", "details", "base_resp"):
        yield from _codes(body.get(key), depth + 1)


def said_by(body: object) -> str:
    """Return the provider's own sentence, whole, or an empty text. It may hold the key."""
    for _ in range(_DEPTH_MAX):
        if isinstance(body, list):
            body = body[0] if body else None
        if isinstance(body, dict):
            inner = body.get("error")
            body = body.get("message") if inner is None else inner
    return body.strip() if isinstance(body, str) else ""


def retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """Return how long the provider asks to wait, in seconds: `retry-after-ms`, seconds or an HTTP date."""
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            asked = float(headers[name]) * scale
        except (KeyError, ValueError):
            continue
        if math.isfinite(asked):
            return _bounded(asked)
    try:
        return _bounded(parsedate_to_datetime(headers["retry-after"]).timestamp() - now)
    except (KeyError, ValueError, OverflowError):
        return None


def _bounded(seconds: float) -> float:
    return min(max(0.0, seconds), _RETRY_AFTER_S_MAX)


def model_error(
    row: Row,
    fault: ModelFault,
    said: str,
    *,
    retry_after_s: float | None = None,
    partial_text: str = "",
    output_tokens: int = 0,
    limits: RateLimits | None = None,
) -> ModelError:
    """Build the error for a fault at a provider.

    `said` is what it answered, without the key, or what happened to the connection. It is cut here and not before: of a
    key that was cut in two nothing would be found.
    """
    hint = _HINTS.get(fault, "")
    if fault is ModelFault.AUTH:
        where = " or ".join(row.key_variables) or f"key under [providers.{row.name}] in aos.toml"
        hint = f"Check {where}: the provider does not accept the key for this."
    said = said[:_SAID_CHARS_MAX].rstrip(".")
    return ModelError(
        fault,
        f"{row.name} did not answer ({fault.value}){': ' + said if said else ''}.",
        hint,
        retry_after_s=retry_after_s,
        partial_text=partial_text,
        output_tokens=output_tokens,
        limits=limits,
    )
