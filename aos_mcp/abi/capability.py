"""Who calls, and what it may do.

Rights only ever shrink: a child's rights are its parent's layers and one more. A name is allowed when every layer
has a pattern that matches it, so no arithmetic over patterns is needed to prove that a child cannot exceed its parent.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from aos_mcp.abi.handle import Pid


class CallerKind(StrEnum):
    """From which side of the door a call comes."""

    HOST = "host"
    AGENT = "agent"
    OPERATOR = "operator"
    """The command line or the dashboard of the kernel's own user."""
    GUEST = "guest"
    """A program outside the kernel that makes its model calls with a key (see `abi.guest`)."""
    KERNEL = "kernel"
    """The kernel itself: recovery, the sealer, the watchdog."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who stands at the door. `principal` owns what it makes; `pid` is set for agents and guests only."""

    kind: CallerKind
    principal: str
    pid: Pid | None = None
    host: str = ""
    """Name of the host program, for display and audit; never proof of anything."""
    session: str = ""
    """The host's own session or correlation id, for audit only."""
    project: str = ""
    """The folder the host works in: where its project's agent definitions are looked for."""


class IsolationLevel(StrEnum):
    """How far a sandboxed command may reach; each level contains the one before."""

    READ_ONLY = "read_only"
    STANDARD = "standard"
    NETWORK = "network"


LEVEL_ORDER = (IsolationLevel.READ_ONLY, IsolationLevel.STANDARD, IsolationLevel.NETWORK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """What a process may reach.

    Attributes:
        tools: layers of name patterns (fnmatch); every layer must match.
        network: layers of `host` or `host:port` patterns that the sandbox may reach; empty tuple = no network.
        level: the widest isolation level its commands may ask for.
        spawn: whether it may create children.
    """

    tools: tuple[tuple[str, ...], ...] = (("*",),)
    network: tuple[tuple[str, ...], ...] = ((),)
    level: IsolationLevel = IsolationLevel.STANDARD
    spawn: bool = True
