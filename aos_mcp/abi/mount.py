"""Downstream MCP servers as the kernel sees them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class MountState(StrEnum):
    """Where a downstream server stands."""

    STARTING = "starting"
    UP = "up"
    DOWN = "down"
    """It failed; the supervisor tries again by itself."""
    DISABLED = "disabled"


class PinState(StrEnum):
    """Whether a tool's definition is the one that was accepted."""

    PINNED = "pinned"
    QUARANTINED = "quarantined"
    """The definition changed: hidden and refused until a person approves the new one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MountedTool:
    """One tool of one downstream. Schemas are JSON text, unchanged; hints are the server's claims, not facts."""

    name: str
    """`server__tool`: the operator's name for the server and the server's name for the tool."""
    server: str
    tool: str
    title: str
    description: str
    input_schema: str
    output_schema: str | None
    read_only: bool
    destructive: bool
    idempotent: bool
    open_world: bool
    digest: str
    """SHA-256 over the canonical definition: what is pinned."""
    definition: str = ""
    """The canonical definition itself, JSON: for the diff when it changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolOutcome:
    """What a downstream answered: `result` is the JSON text of its CallToolResult, unchanged."""

    result: str
    is_error: bool
    text: str
    """All text content joined, for agents and for excerpts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MountStatus:
    """One downstream. `pid` is its operating-system process where there is one; `error` the last failure."""

    server: str
    transport: str
    state: MountState
    tools: int
    restarts: int
    error: str
    pid: int | None = None
    era: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """The definition that was accepted for a tool; `definition` is its canonical JSON, for the diff."""

    name: str
    digest: str
    definition: str
    state: PinState
    pinned_at: float
    offered_digest: str = ""
    offered_definition: str = ""
