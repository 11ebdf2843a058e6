"""Death at a chosen moment: a store that kills its own process before or after the n-th commit.

No clean-up code runs, as in `kill -9`. Counting first and then dying at each point in turn covers every moment between
two commits, and so every state a crash can leave.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import TypeVar

from aos_mcp.ports import Store, Transaction

T = TypeVar("T")


class MortalStore:
    """Wraps a store. Every write has two points: before its commit and after it."""

    def __init__(self, inner: Store, *, die_at: int | None) -> None:
        """Die at point `die_at`, counted from 1; None lives and counts."""
        self._inner = inner
        self._die_at = die_at
        self.points = 0

    async def write(self, work: Callable[[Transaction], T], *, flush: bool = False) -> T:
        """See `ports.Store`."""
        self._point()
        result = await self._inner.write(work, flush=flush)
        self._point()
        return result

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """See `ports.Store`."""
        return await self._inner.read(work)

    async def changed(self, timeout_s: float) -> None:
        """See `ports.Store`."""
        await self._inner.changed(timeout_s)

    def _point(self) -> None:
        self.points += 1
        if self.points == self._die_at:
            os.kill(os.getpid(), signal.SIGKILL)
