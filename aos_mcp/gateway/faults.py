"""Which HTTP status an error of the kernel has, in each dialect's words. One table, no text is looked at.

A spent budget is 402: clients try a 429 again, and no wait cures it. `x-should-retry` tells the vendors' own clients
not to repeat what the kernel has waited out already.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from aos_mcp.abi.errors import AosError, ErrorCode, LimitExceeded, ModelError, ModelFault
from aos_mcp.kernel.budget import BudgetHeld
from aos_mcp.kernel.guests import KeyRefused

HELD_RETRY_S = 1
"""What calls under way hold of a budget comes back when they end: soon."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A status, and the words for it: `type` and `code` of Chat Completions, `type` of Messages."""

    status: int
    chat_type: str
    chat_code: str | None
    messages_type: str
    overloaded: int = 0
    """The status in Messages, where it is another one."""


UNKNOWN_KEY = Kind(401, "invalid_request_error", "invalid_api_key", "authentication_error")
BUSY = Kind(429, "rate_limit_error", "rate_limit_exceeded", "rate_limit_error")
REJECTED = Kind(400, "invalid_request_error", None, "invalid_request_error")
BROKEN = Kind(502, "server_error", "upstream_error", "api_error")
TOO_LARGE = Kind(413, "invalid_request_error", "request_too_large", "request_too_large")
SPENT = Kind(402, "insufficient_quota", "insufficient_quota", "billing_error")

BY_CODE: Mapping[ErrorCode, Kind] = {
    ErrorCode.DENIED: Kind(403, "permission_error", "denied", "permission_error"),
    ErrorCode.APPROVAL_REQUIRED: Kind(403, "permission_error", "approval_required", "permission_error"),
    ErrorCode.NOT_FOUND: Kind(404, "invalid_request_error", "model_not_found", "not_found_error"),
    ErrorCode.INVALID: REJECTED,
    ErrorCode.CONFLICT: Kind(409, "invalid_request_error", "conflict", "invalid_request_error"),
    ErrorCode.LIMIT_EXCEEDED: BUSY,
    ErrorCode.BUDGET_EXHAUSTED: SPENT,
    ErrorCode.TIMED_OUT: Kind(504, "server_error", "timeout", "timeout_error"),
    ErrorCode.UNAVAILABLE: Kind(503, "server_error", "unavailable", "api_error"),
    ErrorCode.UNKNOWN_OUTCOME: BROKEN,
    ErrorCode.CANCELLED: Kind(403, "permission_error", "cancelled", "permission_error"),
    ErrorCode.INTERNAL: Kind(500, "server_error", "internal", "api_error"),
}

BY_FAULT: Mapping[ModelFault, Kind] = {
    ModelFault.RATE: BUSY,
    ModelFault.OVERLOAD: Kind(503, "server_error", "overloaded", "overloaded_error", overloaded=529),
    ModelFault.SPEND_LIMIT: SPENT,
    ModelFault.CONTEXT_TOO_LONG: Kind(400, "invalid_request_error", "context_length_exceeded", "invalid_request_error"),
    ModelFault.REFUSED: Kind(400, "invalid_request_error", "content_policy_violation", "invalid_request_error"),
    # The kernel's own key is wrong, not the client's: it must not look like a 401 of ours.
    ModelFault.AUTH: Kind(503, "server_error", "provider_key_refused", "api_error"),
    ModelFault.BAD_REQUEST: REJECTED,
    ModelFault.TRANSPORT: BROKEN,
    ModelFault.CUT_STREAM: BROKEN,
}


class RequestTooLarge(LimitExceeded):
    """A request has more bytes than the gateway reads. No wait cures it."""


def kind_of(error: AosError) -> Kind:
    """Return the kind of an error."""
    if isinstance(error, KeyRefused):
        return UNKNOWN_KEY
    if isinstance(error, RequestTooLarge):
        return TOO_LARGE
    if isinstance(error, BudgetHeld):
        return BUSY
    if isinstance(error, ModelError):
        return BY_FAULT[error.fault]
    return BY_CODE[error.code]


def headers_of(error: AosError) -> Mapping[str, str]:
    """Return what a client is told about trying again."""
    again = kind_of(error) is BUSY and not isinstance(error, ModelError)
    headers = {"x-should-retry": "true" if again else "false", "x-aos-error": str(error.code)}
    wait_s = error.retry_after_s if isinstance(error, ModelError) else HELD_RETRY_S if again else None
    return headers if wait_s is None else {**headers, "retry-after": str(math.ceil(wait_s))}


def sentence(error: AosError) -> str:
    """Return what a person reads: what is wrong and what to do about it."""
    return f"{error.message} {error.hint}".strip()
