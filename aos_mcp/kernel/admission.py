"""Admission: how many model calls a provider gets at once, and when it is left alone.

One lane for each provider. A lane has a window of calls in flight; a provider that says "wait" parks its lane, not the
agent. No model slot is ever held by a call that is not on the wire.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio

from aos_mcp.abi.settings import ProviderSettings
from aos_mcp.ports import Clock

LANE_DEFAULT = 32
"""Calls in flight at one provider unless aos.toml says otherwise: below the lowest published concurrency limits."""


@dataclass(slots=True)
class Lane:
    """One provider's window."""

    limiter: anyio.Semaphore
    parked_until: float = 0.0
    waiting: int = 0


class Admission:
    """The lanes of all providers."""

    def __init__(self, providers: Mapping[str, ProviderSettings], clock: Clock) -> None:
        self._providers = providers
        self._clock = clock
        self._lanes: dict[str, Lane] = {}

    @asynccontextmanager
    async def slot(self, model: str) -> AsyncIterator[None]:
        """Hold one place in the lane of `model`'s provider while a call is on the wire."""
        lane = self._lane(model)
        lane.waiting += 1
        try:
            await self._enter(lane)
        finally:
            lane.waiting -= 1
        try:
            yield
        finally:
            lane.limiter.release()

    def park(self, model: str, until: float) -> None:
        """Leave the provider of `model` alone until then (seconds since the epoch)."""
        lane = self._lane(model)
        lane.parked_until = max(lane.parked_until, until)

    def waiting(self) -> Mapping[str, int]:
        """Return how many calls wait in each lane."""
        return {name: lane.waiting for name, lane in self._lanes.items()}

    async def _enter(self, lane: Lane) -> None:
        while True:
            while (until := lane.parked_until) > self._clock.now():
                await self._clock.sleep_until(until)
            await lane.limiter.acquire()
            if lane.parked_until <= self._clock.now():
                return
            lane.limiter.release()  # parked while it waited for a place

    def _lane(self, model: str) -> Lane:
        provider = model.partition("/")[0]
        if provider not in self._lanes:
            own = self._providers.get(provider)
            size = own.concurrency if own is not None and own.concurrency is not None else LANE_DEFAULT
            self._lanes[provider] = Lane(anyio.Semaphore(size))
        return self._lanes[provider]
