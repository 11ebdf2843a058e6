"""The scheduler: who runs next. Pure: a policy is an ordering over what is ready, given the time.

The default orders by priority, raised by waiting (so that nothing starves), then by how little the whole program has
been served so far, then by how long it has been ready. A tree of agents counts as one program.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from aos_mcp.abi.handle import Pid

AGING_S = 3.0
"""Seconds of waiting worth one step of priority: priority 100 beats a stream of priority 0 after five minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A ready process as a policy sees it. `attained` is the program's service so far: input + 2 x output tokens."""

    pid: Pid
    program: Pid
    owner: str
    priority: int
    ready_at: float
    created_at: float
    attained: int


Key = tuple[float, ...]
Policy = Callable[[Candidate, float], Key]


def _default(c: Candidate, now: float) -> Key:
    steps = int((now - c.ready_at) / AGING_S)
    return (c.priority - steps, c.attained, c.ready_at)


def _fifo(c: Candidate, now: float) -> Key:
    return (c.created_at,)


def _round_robin(c: Candidate, now: float) -> Key:
    return (c.ready_at,)


def _priority(c: Candidate, now: float) -> Key:
    return (c.priority, c.ready_at)


POLICIES: Mapping[str, Policy] = MappingProxyType(
    {
        "default": _default,
        "fifo": _fifo,
        "rr": _round_robin,
        "priority": _priority,
    }
)


def pick(ready: Sequence[Candidate], now: float, policy: str = "default") -> Candidate | None:
    """Return who runs next, or None. Ties go to the smaller pid, so that a run can be replayed."""
    order = POLICIES[policy]
    return min(ready, key=lambda c: (order(c, now), c.pid), default=None)
