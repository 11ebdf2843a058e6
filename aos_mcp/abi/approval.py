"""Approvals: durable questions to a person, bound to one action, claimed once."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from aos_mcp.abi.handle import Pid


class ApprovalState(StrEnum):
    """Where a question stands."""

    PENDING = "pending"
    ALLOWED = "allowed"
    DENIED = "denied"
    CLAIMED = "claimed"
    """Allowed, and the action has been taken."""
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """One question. `digest` binds it to the caller, the call and its arguments: an answer fits nothing else."""

    approval_id: str
    owner: str
    pid: Pid | None
    call: str
    tool: str
    """What the rule matched: a call's name or `server__tool`."""
    digest: str
    question: str
    state: ApprovalState
    asked_at: float
    expires_at: float
    answered_at: float | None = None
    answered_by: str = ""
    remember: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """An answer that was to be remembered: the same tool by the same agent is not asked about again."""

    owner: str
    agent: str
    tool: str
    decision: str
    at: float
