"""The guest: a program outside the kernel whose model calls come in through the gateway.

To the kernel it is a process like any other (budget, priority, signals, journal), except that it is never scheduled:
it runs by itself, and makes its calls with a key.
"""

from __future__ import annotations

from dataclasses import dataclass

from aos_mcp.abi.handle import Pid


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestKey:
    """A key of a guest. The secret itself is shown once and kept nowhere: `digest` is its SHA-256, in hexadecimal.

    A secret has 128 random bits, so a plain digest cannot be turned back, and can be looked up by.
    """

    key_id: str
    digest: str
    pid: Pid
    created_at: float
    revoked_at: float | None = None
