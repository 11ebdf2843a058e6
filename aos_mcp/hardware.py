"""The real clock, the real randomness, and whose machine it is. Everything else takes them as arguments."""

from __future__ import annotations

import gc
import os
import random
import secrets
import time

import anyio

HANDLE_BYTES = 16
"""128 random bits: not to be guessed."""
_SPARE_BITS = 2
"""Of 26 characters of five bits each, what 128 bits leave over."""
_SHIFTS = range(8 * HANDLE_BYTES + _SPARE_BITS - 10, -1, -10)
_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
_PAIRS = tuple(first + second for first in _BASE32 for second in _BASE32)
"""Ten bits, spelt: each call makes several handles, and the standard library spells them byte by byte."""
SLEEP_S_MAX = 3_600.0
"""A longer sleep is cut, so that a change of the system's clock is seen."""
COLLECT_AFTER_OBJECTS = 20_000
"""A few megabytes of them at most."""


def local_principal() -> str:
    """Return the name of the person this kernel works for: the user it runs as."""
    return f"local:{os.getuid()}"


def collect_seldom() -> None:
    """Have the collector of cycles look seldom: calls leave none, and looks at many agents took a tenth of all time."""
    gc.set_threshold(COLLECT_AFTER_OBJECTS)


class SystemClock:
    """The time of this machine."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()  # noqa: TID251 - the one place that asks the system

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    async def sleep_until(self, when: float) -> None:
        """Return once `now() >= when`."""
        # A long sleep is cut in pieces: this waits for the clock, not for another task.
        while (left_s := when - self.now()) > 0:  # noqa: ASYNC110
            await anyio.sleep(min(left_s, SLEEP_S_MAX))


class SystemEntropy:
    """The randomness of this machine: the operating system's for handles, a fast generator for jitter."""

    def __init__(self) -> None:
        self._random = random.Random(secrets.randbits(64))

    def handle(self, prefix: str) -> str:
        """Return `prefix` and 26 characters of base32."""
        bits = int.from_bytes(secrets.token_bytes(HANDLE_BYTES), "big") << _SPARE_BITS
        return prefix + "".join([_PAIRS[bits >> shift & 1_023] for shift in _SHIFTS])

    def random(self) -> float:
        """Return a number in [0, 1)."""
        return self._random.random()
