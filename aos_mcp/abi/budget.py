"""Budgets: a tree of accounts. Every charge is made to an account and all its ancestors; none may be overdrawn.

Money is integer micro-dollars, so that sums are exact.
"""

from __future__ import annotations

from dataclasses import dataclass

WORKSPACE_ACCOUNT = "workspace"
"""The root account: what all agents of this kernel may spend together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Limits; `None` is no limit of its own (the ancestors' still hold)."""

    microusd: int | None = None
    tokens: int | None = None
    turns: int | None = None
    tool_calls: int | None = None
    wall_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What was spent. `tokens` of a budget counts fresh + cached + written + output."""

    input_tokens: int = 0
    """Prompt tokens that were neither read from nor written to a provider's cache."""
    cached_tokens: int = 0
    written_tokens: int = 0
    output_tokens: int = 0
    microusd: int = 0
    turns: int = 0
    tool_calls: int = 0

    @property
    def prompt_tokens(self) -> int:
        """What was read, whether fresh, from a cache or into one."""
        return self.input_tokens + self.cached_tokens + self.written_tokens

    @property
    def tokens(self) -> int:
        """All tokens together."""
        return self.prompt_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            written_tokens=self.written_tokens + other.written_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            microusd=self.microusd + other.microusd,
            turns=self.turns + other.turns,
            tool_calls=self.tool_calls + other.tool_calls,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One node of the tree. `account` is a pid or `WORKSPACE_ACCOUNT`."""

    account: str
    parent: str | None
    limit: Budget
    used: Usage = Usage()
    reserved_microusd: int = 0
    reserved_tokens: int = 0
    opened_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """A worst case set aside before a model call. One left over by a crash is charged in full: never overspent."""

    reservation_id: str
    account: str
    microusd: int
    tokens: int
    at: float
