"""A clock and a source of randomness that a test holds in its hands."""

from __future__ import annotations

import random

import anyio

BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
HANDLE_CHARS = 26


class FakeClock:
    """Time that moves only when told to. Sleepers wake when it passes their hour."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._now = now
        self._moved = anyio.Event()

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._now

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return self._now

    async def sleep_until(self, when: float) -> None:
        """Return once the clock was moved to `when` or past it."""
        while self._now < when:
            await self._moved.wait()

    def advance(self, seconds: float) -> None:
        """Move the clock forward and wake whoever slept until then."""
        self._now += seconds
        moved, self._moved = self._moved, anyio.Event()
        moved.set()


class SeededEntropy:
    """Randomness from a seed: the same run twice gives the same handles."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)

    def handle(self, prefix: str) -> str:
        """Return `prefix` and 26 characters of base32."""
        return prefix + "".join(self._random.choices(BASE32, k=HANDLE_CHARS))

    def random(self) -> float:
        """Return a number in [0, 1)."""
        return self._random.random()
