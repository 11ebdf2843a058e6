"""Failures as a person or a script meets them: one sentence, a hint, and a stable exit code.

Owns the table from error codes to exit codes. Knows nothing of sockets or terminals.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from aos_mcp.abi.errors import ErrorCode
from aos_mcp.abi.process import ExitCode

DONE, FAILED, USAGE, DENIED, BUDGET, NOT_FOUND, UNAVAILABLE, TIMED_OUT = range(8)

EXIT_OF_ERROR: Mapping[ErrorCode, int] = MappingProxyType(
    {
        ErrorCode.DENIED: DENIED,
        ErrorCode.APPROVAL_REQUIRED: DENIED,
        ErrorCode.NOT_FOUND: NOT_FOUND,
        ErrorCode.INVALID: USAGE,
        ErrorCode.CONFLICT: FAILED,
        ErrorCode.LIMIT_EXCEEDED: FAILED,
        ErrorCode.BUDGET_EXHAUSTED: BUDGET,
        ErrorCode.TIMED_OUT: TIMED_OUT,
        ErrorCode.UNAVAILABLE: UNAVAILABLE,
        ErrorCode.UNKNOWN_OUTCOME: FAILED,
        ErrorCode.CANCELLED: FAILED,
        ErrorCode.INTERNAL: FAILED,
    }
)
"""The exit code of a command that met this error."""

EXIT_OF_AGENT: Mapping[ExitCode, int] = MappingProxyType(
    {
        ExitCode.DONE: DONE,
        ExitCode.FAILED: FAILED,
        ExitCode.TERMINATED: FAILED,
        ExitCode.KILLED: FAILED,
        ExitCode.BUDGET: BUDGET,
        ExitCode.HUNG: TIMED_OUT,
    }
)
"""The exit code of a command that waited for an agent which ended like this."""


class CliError(Exception):
    """A command could not do what was asked."""

    def __init__(self, code: ErrorCode, message: str, hint: str = "") -> None:
        """Say what is wrong (one sentence) and what to do next (the hint)."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.code}: {self.message} {self.hint}".rstrip()


def error_code(text: object) -> ErrorCode:
    """Return the code a kernel named; one this version does not know counts as `internal`."""
    return next((code for code in ErrorCode if code == text), ErrorCode.INTERNAL)
