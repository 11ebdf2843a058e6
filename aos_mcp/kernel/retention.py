"""Retention: the words of agents that ended long ago are taken out in the background, a few agents at a time.

The decision whom nobody asks about any more is a query, the act is a call like any other (`forget_ended`), which the
operator may make too. This is only the alarm. Off until a time is set; the store then keeps everything.
"""

from __future__ import annotations

from functools import partial

from aos_mcp.abi.capability import Caller, CallerKind
from aos_mcp.abi.limits import FORGET_LOOK_S, FORGET_REST_S
from aos_mcp.kernel.autosave import AUTOMATIC
from aos_mcp.kernel.gate import Gate
from aos_mcp.kernel.machine import Machine
from aos_mcp.kernel.steady import steadily
from aos_mcp.ports import Transaction

DAY_S = 86_400.0


async def run_retention(machine: Machine, gate: Gate, owner: str) -> None:
    """Forget who ended long enough ago, as long as the kernel lives; return at once where everything is kept."""
    days = machine.settings.retention.ended_days
    if days is None:
        return
    caller = Caller(kind=CallerKind.KERNEL, principal=owner)

    async def once() -> None:
        before = machine.clock.now() - days * DAY_S
        due = await machine.store.read(partial(_any, before=before))
        if due:
            await gate.syscall(caller, "forget_ended", {"before": before})
        await machine.clock.sleep_until(machine.clock.now() + (FORGET_REST_S if due else FORGET_LOOK_S))

    await steadily(machine, "retention", once)


def _any(tx: Transaction, before: float) -> bool:
    return bool(tx.process_forgettable(before=before, automatic=AUTOMATIC, limit=1))
