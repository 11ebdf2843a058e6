"""Standing tasks that outlive a device's failure: a full disk stops the work, not the kernel."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from aos_mcp.abi.errors import AosError
from aos_mcp.kernel.machine import Machine

logger = logging.getLogger(__name__)

PAUSE_S = 1.0
"""After a failure, before the next try: long enough not to fill the log, short enough to go on when the disk does."""


async def steadily(machine: Machine, name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Do `work` again and again. A failure that has a code is logged and waited out; a defect ends the kernel."""
    while True:
        try:
            await work()
        except AosError as error:
            logger.warning("%s: %s", name, error)
            await machine.clock.sleep_until(machine.clock.now() + PAUSE_S)
