"""Pages: context in content-addressed pieces. What leaves the window keeps its address."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from aos_mcp.abi.handle import Digest, PageId, Pid


class PageKind(StrEnum):
    """What a page holds, and so where it stands in a prompt."""

    SYSTEM = "system"
    TASK = "task"
    PLAN = "plan"
    MESSAGE = "message"
    """Text from a host or another agent; a user turn."""
    REPLY = "reply"
    """The model's turn; the payload is the JSON form of `abi.completion.Reply`."""
    RESULT = "result"
    """One tool result; belongs to the reply with the same `group`."""
    DOCUMENT = "document"
    """Paged out on purpose or too large for the window: reached by handle."""
    NOTE = "note"
    SUMMARY = "summary"


OUTSIDE = -1
"""`Page.position` of a page that was never in the context: it has an address, and no place in a prompt."""

STATIC_KINDS = frozenset({PageKind.SYSTEM, PageKind.TASK})
"""Never leave the window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One row of a page table. The bytes are the payload named by `digest`."""

    page_id: PageId
    pid: Pid | None
    """Whose context it belongs to; `None` is the owner's long-term memory."""
    owner: str
    kind: PageKind
    title: str
    digest: Digest
    tokens: int
    size_bytes: int
    position: int
    """Order in the context; never changes between compactions."""
    group: int | None = None
    """A reply and its results share the reply's position here: they leave together."""
    request_id: str | None = None
    """Of a RESULT: the tool request it answers."""
    is_error: bool = False
    importance: float = 0.5
    pinned: bool = False
    resident: bool = True
    source: str = ""
    """Who wrote it: `host`, a pid, or the call it came from."""
    labels: tuple[str, ...] = ()
    """What its text was made from, sorted, carried on to all that is made from it: `mount:NAME`, a host's own words."""
    origin: PageId | None = None
    """The page this one is a copy of, or a piece of."""
    pieces: int = 0
    """Of a large page: how many pieces its bytes lie in. Its payload is a list of their digests then."""
    created_at: float
    used_at: float
    uses: int = 0
    faults: int = 0
    left_at: float | None = None
    left_why: str | None = None
    listed: bool = True
    """Whether it has a handle of its own while it is out of the window; decided at compactions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageHit:
    """A page that answers a search. `score` is higher for a better match."""

    page: Page
    excerpt: str
    score: float
