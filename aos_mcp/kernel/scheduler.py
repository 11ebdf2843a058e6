"""The scheduler: who runs next. Pure: a policy is an ordering over what is ready, given the time.

The default orders by priority, raised by waiting (so that nothing starves), then by how little the whole program has
been served so far, then by how long it has been ready. A tree of agents counts as one program.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from aos_mcp.abi.process import Candidate

AGING_S = 3.0
"""Seconds of waiting worth one step of priority: priority 100 beats a stream of priority 0 after five minutes."""


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


def rank(ready: Sequence[Candidate], now: float, policy: str, count: int) -> list[Candidate]:
    """Return the first `count`, in the order in which they run. Ties go to the smaller pid: a run can be replayed."""
    order = POLICIES[policy]
    return heapq.nsmallest(count, ready, key=lambda c: (order(c, now), c.pid))


def pick(ready: Sequence[Candidate], now: float, policy: str = "default") -> Candidate | None:
    """Return who runs next, or None when nothing is ready."""
    return next(iter(rank(ready, now, policy, 1)), None)
