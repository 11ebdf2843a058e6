"""Pins: a tool is trusted as it was when it was first listed; a changed definition is hidden until accepted."""

from __future__ import annotations

import difflib
import json

import anyio

from aos_mcp.abi.approval import Approval, ApprovalState
from aos_mcp.abi.event import Event, EventKind
from aos_mcp.abi.limits import APPROVAL_TTL_S
from aos_mcp.abi.mount import MountedTool, Pin, PinState
from aos_mcp.kernel.machine import Machine
from aos_mcp.kernel.steady import steadily
from aos_mcp.ports import Transaction

PIN_CALL = "pin"
"""`Approval.call` of a question about a changed definition; `Approval.tool` names the tool, `digest` the new one."""
QUESTION_CHARS_MAX = 2_000
APPROVAL_TTL_PINS_S = APPROVAL_TTL_S * 30


async def run_pins(machine: Machine, owner: str) -> None:
    """Compare definitions with their pins whenever a downstream's tool list may have changed."""
    wake = anyio.Event()

    def changed(server: str) -> None:
        machine.bus.publish(Event(kind=EventKind.MOUNT, subject=server, owner="", uris=("aos://mounts",)))
        wake.set()

    machine.mounts.on_change(changed)

    async def once() -> None:
        nonlocal wake
        await machine.store.write(lambda tx: check_pins(tx, machine, owner))
        await wake.wait()
        wake = anyio.Event()

    await steadily(machine, "pins", once)


def check_pins(tx: Transaction, machine: Machine, owner: str) -> None:
    """Pin what is new, quarantine what changed, and ask a person about each change once."""
    now = machine.clock.now()
    pins = {pin.name: pin for pin in tx.pin_list()}
    for tool in machine.mounts.tools():
        pin = pins.get(tool.name)
        if pin is None:
            pin = Pin(
                name=tool.name,
                digest=tool.digest,
                definition=definition(tool),
                state=PinState.PINNED,
                pinned_at=now,
            )
            tx.pin_put(pin)
        elif pin.digest != tool.digest and pin.offered_digest != tool.digest:
            pin = _quarantine(tx, machine, owner, pin, tool)
        if pin.digest == tool.digest:
            machine.quarantined.discard(tool.name)
        else:
            machine.quarantined.add(tool.name)


def _quarantine(tx: Transaction, machine: Machine, owner: str, pin: Pin, tool: MountedTool) -> Pin:
    now = machine.clock.now()
    changed = Pin(
        name=pin.name,
        digest=pin.digest,
        definition=pin.definition,
        state=PinState.QUARANTINED,
        pinned_at=pin.pinned_at,
        offered_digest=tool.digest,
        offered_definition=definition(tool),
    )
    tx.pin_put(changed)
    diff = "\n".join(
        difflib.unified_diff(pin.definition.splitlines(), changed.offered_definition.splitlines(), "was", "is", n=1)
    )
    tx.approval_insert(
        Approval(
            approval_id=machine.entropy.handle("ap_"),
            owner=owner,
            pid=None,
            call=PIN_CALL,
            tool=tool.name,
            digest=tool.digest,
            question=f"The definition of {tool.name} changed. Accept the new one?\n{diff}"[:QUESTION_CHARS_MAX],
            state=ApprovalState.PENDING,
            asked_at=now,
            expires_at=now + APPROVAL_TTL_PINS_S,
        )
    )
    return changed


def accept_pin(tx: Transaction, machine: Machine, approval: Approval, now: float) -> None:
    """Pin the definition that a person accepted, if it is still the one that is offered."""
    pin = next((pin for pin in tx.pin_list() if pin.name == approval.tool), None)
    if pin is None or pin.offered_digest != approval.digest:
        return
    tx.pin_put(
        Pin(
            name=pin.name,
            digest=pin.offered_digest,
            definition=pin.offered_definition,
            state=PinState.PINNED,
            pinned_at=now,
        )
    )
    machine.quarantined.discard(pin.name)


def definition(tool: MountedTool) -> str:
    """Return the text that the digest of a tool covers, one key a line, as a person reads it in a diff."""
    return json.dumps(json.loads(tool.definition), indent=1, ensure_ascii=False, sort_keys=True)
