"""Every error a caller may see, drawn as a tree.

AosError
├── Denied             a rule or a right forbids it
├── ApprovalRequired   a person must allow it first
├── NotFound           no such handle, or it belongs to somebody else (one error for both)
├── Invalid            the arguments do not decode
├── Conflict           the state does not admit it now
├── LimitExceeded      a fixed bound of the kernel
├── BudgetExhausted    a budget would be overdrawn
├── TimedOut           a deadline passed
├── Unavailable        a device is not there
├── UnknownOutcome     it may have happened, or not
├── Cancelled          the caller or a signal ended it
├── Internal           our bug; the process that met it ends, the kernel goes on
└── ModelError         a language model did not answer (see ModelFault); `Unavailable` to the caller

An `AosError` is something its reader can act on: a stable `code`, one sentence, and a hint that says what to do
next. Errors of foreign libraries are translated in the driver that met them, by code, never by text.
"""

from __future__ import annotations

from enum import StrEnum

from aos_mcp.abi.completion import RateLimits


class ErrorCode(StrEnum):
    """The stable codes of the outside contract."""

    DENIED = "denied"
    APPROVAL_REQUIRED = "approval_required"
    NOT_FOUND = "not_found"
    INVALID = "invalid"
    CONFLICT = "conflict"
    LIMIT_EXCEEDED = "limit_exceeded"
    BUDGET_EXHAUSTED = "budget_exhausted"
    TIMED_OUT = "timed_out"
    UNAVAILABLE = "unavailable"
    UNKNOWN_OUTCOME = "unknown_outcome"
    CANCELLED = "cancelled"
    INTERNAL = "internal"


class AosError(Exception):
    """The kernel could not do what was asked."""

    code: ErrorCode = ErrorCode.INTERNAL

    def __init__(self, message: str, hint: str) -> None:
        """Say what is wrong (one sentence) and what to do next (the hint)."""
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.code}: {self.message} {self.hint}".rstrip()


class Denied(AosError):
    """A rule or a missing right forbids this."""

    code = ErrorCode.DENIED


class ApprovalRequired(AosError):
    """A person must allow this first; `approval_id` names the question."""

    code = ErrorCode.APPROVAL_REQUIRED

    def __init__(self, message: str, hint: str, *, approval_id: str) -> None:
        """Carry the durable question beside the sentence."""
        super().__init__(message, hint)
        self.approval_id = approval_id


class NotFound(AosError):
    """There is no such thing, or it is not the caller's."""

    code = ErrorCode.NOT_FOUND


class Invalid(AosError):
    """The arguments do not decode."""

    code = ErrorCode.INVALID


class Conflict(AosError):
    """The present state does not admit this."""

    code = ErrorCode.CONFLICT


class LimitExceeded(AosError):
    """A fixed bound of the kernel stands in the way."""

    code = ErrorCode.LIMIT_EXCEEDED


class BudgetExhausted(AosError):
    """A budget would be overdrawn; the sentence names it and what is left."""

    code = ErrorCode.BUDGET_EXHAUSTED


class TimedOut(AosError):
    """A deadline passed before an answer came."""

    code = ErrorCode.TIMED_OUT


class Unavailable(AosError):
    """A device, a server or a provider is not there."""

    code = ErrorCode.UNAVAILABLE


class UnknownOutcome(AosError):
    """The effect may have happened; nobody can tell from here."""

    code = ErrorCode.UNKNOWN_OUTCOME


class Cancelled(AosError):
    """A signal or the caller ended it."""

    code = ErrorCode.CANCELLED


class Internal(AosError):
    """A defect of the kernel. The log holds the traceback."""

    code = ErrorCode.INTERNAL


class ModelFault(StrEnum):
    """Why a model call failed: one taxonomy over all providers."""

    RATE = "rate"
    """Too many requests or tokens; waiting cures it (429)."""
    OVERLOAD = "overload"
    """The provider is overloaded; waiting cures it (529, 503)."""
    SPEND_LIMIT = "spend_limit"
    """The account's money is used up; waiting does not cure it (402, enforced limits)."""
    CONTEXT_TOO_LONG = "context_too_long"
    """The prompt does not fit the model's window."""
    REFUSED = "refused"
    """The provider refused the content."""
    AUTH = "auth"
    """The key is missing, wrong or lacks a right (401, 403)."""
    BAD_REQUEST = "bad_request"
    """The provider does not accept the request as sent."""
    TRANSPORT = "transport"
    """No connection, or it broke before the first token; a new try may do (408, 409, 5xx)."""
    CUT_STREAM = "cut_stream"
    """The stream broke after the first token; `partial_text` holds what came."""


RETRYABLE_FAULTS = frozenset({ModelFault.RATE, ModelFault.OVERLOAD, ModelFault.TRANSPORT, ModelFault.CUT_STREAM})


class ModelError(AosError):
    """A language model did not answer.

    Attributes:
        fault: why, in the taxonomy above.
        retry_after_s: how long the provider asks to wait, in seconds, where it says so.
        partial_text: what had been generated before a stream was cut.
        output_tokens: how many tokens were generated (and billed) before the failure.
        limits: what the provider said of its limits, where it did.
    """

    code = ErrorCode.UNAVAILABLE

    def __init__(
        self,
        fault: ModelFault,
        message: str,
        hint: str,
        *,
        retry_after_s: float | None = None,
        partial_text: str = "",
        output_tokens: int = 0,
        limits: RateLimits | None = None,
    ) -> None:
        """Translate a provider's failure."""
        super().__init__(message, hint)
        self.fault = fault
        self.retry_after_s = retry_after_s
        self.partial_text = partial_text
        self.output_tokens = output_tokens
        self.limits = limits
