"""Events: what is published after a commit. Losing one loses nothing; whoever cares re-reads the state."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class EventKind(StrEnum):
    """What changed."""

    PROCESS = "process"
    PAGE = "page"
    MESSAGE = "message"
    APPROVAL = "approval"
    AUDIT = "audit"
    MOUNT = "mount"
    OUTPUT = "output"
    """A piece of what a model is writing: progress for whoever waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One change. `subject` is the handle it concerns; `uris` are the resources that now read differently."""

    kind: EventKind
    subject: str
    owner: str
    detail: str = ""
    uris: tuple[str, ...] = ()
