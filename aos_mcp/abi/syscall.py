"""The syscall row: what one door needs to know about every act.

From a row come the MCP tool's schema and annotations, the function-tool an agent sees, the policy's default, the audit
category and the reference page. The rows themselves are in `abi.calls`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel

from aos_mcp.abi.errors import ErrorCode
from aos_mcp.abi.journal import EffectClass


class Reach(StrEnum):
    """What a call touches, and so how the gate runs it."""

    READ = "read"
    """Reads the store: one snapshot."""
    WRITE = "write"
    """Changes the store: one transaction, with journal and audit in it."""
    EXTERNAL = "external"
    """Acts on the world: intent, effect, result."""


class Audience(StrEnum):
    """Who may make the call at all."""

    ALL = "all"
    HOSTS = "hosts"
    AGENTS = "agents"
    OPERATORS = "operators"
    """The command line and the dashboard of the kernel's own user; no host and no agent knows that it exists."""
    GUESTS = "guests"
    """Programs that come in through the gateway with a key: these calls, and no others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Syscall:
    """One row. `tool` says whether it is one of the MCP tools; `resource` names the URI form that reads it, if any."""

    name: str
    title: str
    summary: str
    """What the call does, for the model that decides whether to make it."""
    args: type[BaseModel]
    result: type[BaseModel]
    reach: Reach
    effect: EffectClass
    category: str
    """Audit category."""
    audience: Audience = Audience.ALL
    tool: bool = True
    function: bool | None = None
    """Whether agents are offered it as a function; None: where it is a tool, and where it is for agents only."""
    resource: str | None = None
    blocking: bool = False
    """May wait for something other than a device: the process is BLOCKED meanwhile."""
    destructive: bool = False
    open_world: bool = False
    digested: frozenset[str] = frozenset()
    """Arguments that journal and audit log hold by digest and size: a conversation that grows is sent whole each time,
    and would be kept as often."""
    errors: tuple[ErrorCode, ...] = ()
    """Codes beyond those every call may answer: denied, invalid, not_found, internal."""
