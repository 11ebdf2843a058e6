"""An alarm: a wait for something that may happen at any time, and for a time at which it is looked at anyway."""

from __future__ import annotations

import math

import anyio

from aos_mcp.ports import Clock


async def set_or_due(clock: Clock, event: anyio.Event, at: float) -> None:
    """Return once `event` is set, or at `at` (seconds since the epoch; infinite is never)."""
    if at == math.inf:
        await event.wait()
        return
    async with anyio.create_task_group() as group:

        async def alarm() -> None:
            await clock.sleep_until(at)
            group.cancel_scope.cancel()

        group.start_soon(alarm)
        await event.wait()
        group.cancel_scope.cancel()
