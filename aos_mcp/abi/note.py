"""Notes: pages of long-term memory, in namespaces, linked to one another and replaced in time.

A note is a page of kind NOTE outside of any context. What a note says is never changed: a newer one supersedes it, and
the old one keeps its bytes, its address and the span in which it held.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from aos_mcp.abi.handle import PageId

SHARED = "shared"
"""The namespace of whoever names none."""
PRIVATE = "private"
"""What a caller writes for the namespace of its own; it is stored as `PRIVATE_MARK` and who that is."""
PRIVATE_MARK = "~"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What the store knows of a note beside its page. Times are seconds since the epoch."""

    page_id: PageId
    owner: str
    namespace: str
    valid_from: float
    valid_until: float | None = None
    """When it was superseded or withdrawn; None while it holds."""
    superseded_by: PageId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteLink:
    """Two notes belong together. A link has no direction for whoever searches."""

    source: PageId
    target: PageId
    made_by: str
    """A pid, `host`, or `kernel` where the vectors of both are near."""
    made_at: float


class ChangeKind(StrEnum):
    """What was done to long-term memory."""

    WROTE = "wrote"
    SUPERSEDED = "superseded"
    LINKED = "linked"


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteChange:
    """One change, so that it can be undone. `other`: the note that supersedes, or the link's target."""

    serial: int = 0
    """Set by the store; rises."""
    owner: str
    writer: str
    kind: ChangeKind
    page_id: PageId
    other: PageId | None = None
    at: float
    undone_at: float | None = None
