"""Embedding on a worker thread, under a deadline: what is the same for every model that computes in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio
import anyio.to_thread

from aos_mcp.abi.errors import TimedOut
from aos_mcp.abi.limits import EMBED_CALL_S


async def embedded(
    name: str, work: Callable[[list[str]], list[bytes]], texts: Sequence[str], threads: anyio.CapacityLimiter, hint: str
) -> Sequence[bytes]:
    """Return the vectors of `texts` that `work` makes on one of `threads`.

    Raises:
        TimedOut: it took longer than `EMBED_CALL_S` seconds; the thread is left to end by itself.
    """
    try:
        with anyio.fail_after(EMBED_CALL_S):
            return await anyio.to_thread.run_sync(work, list(texts), limiter=threads, abandon_on_cancel=True)
    except TimeoutError:
        raise TimedOut(f"{name} did not embed {len(texts)} texts within {EMBED_CALL_S:.0f} s.", hint) from None
