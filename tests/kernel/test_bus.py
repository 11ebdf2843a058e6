"""The bus: a waiter that took its ticket before it looked is always woken; a listener that lags harms nobody."""

from __future__ import annotations

import anyio

from aos_mcp.abi.event import Event, EventKind
from aos_mcp.kernel.bus import LISTENER_BUFFER, Bus


def event(number: int) -> Event:
    return Event(kind=EventKind.PROCESS, subject=f"p_{number}", owner="o")


async def test_what_is_published_after_the_ticket_wakes_even_before_the_wait() -> None:
    bus = Bus()
    ticket = bus.ticket()
    bus.publish(event(1))
    with anyio.fail_after(5):
        await ticket.wait()


async def test_a_ticket_is_not_set_by_what_was_published_before_it() -> None:
    bus = Bus()
    bus.ticket()
    bus.publish(event(1))
    assert not bus.ticket().is_set()


async def test_every_waiter_is_woken_and_none_is_lost_in_a_storm() -> None:
    bus, state, rounds = Bus(), [0], 2_000
    seen: list[int] = []

    async def waiter() -> None:
        while True:
            ticket = bus.ticket()
            if state[0] >= rounds:
                seen.append(state[0])
                return
            await ticket.wait()

    async def writer() -> None:
        for number in range(rounds):
            state[0] += 1
            bus.publish(event(number))
            if number % 7 == 0:
                await anyio.lowlevel.checkpoint()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(waiter)
            group.start_soon(writer)
    assert seen == [rounds] * 20


async def test_a_listener_gets_what_is_published_while_it_listens_in_order() -> None:
    bus = Bus()
    bus.publish(event(0))
    with bus.listen() as events:
        for number in (1, 2, 3):
            bus.publish(event(number))
        with anyio.fail_after(5):
            assert [(await events.receive()).subject for _ in range(3)] == ["p_1", "p_2", "p_3"]


async def test_a_listener_that_lags_loses_events_and_holds_nobody_up() -> None:
    bus = Bus()
    with bus.listen() as slow, bus.listen() as quick:
        received = 0
        for number in range(LISTENER_BUFFER + 10):
            bus.publish(event(number))
            with anyio.fail_after(5):
                received += (await quick.receive()).subject == f"p_{number}"
        assert received == LISTENER_BUFFER + 10
        assert slow.statistics().current_buffer_used == LISTENER_BUFFER


async def test_a_listener_that_left_is_forgotten() -> None:
    bus = Bus()
    with bus.listen():
        pass
    bus.publish(event(1))
    with bus.listen() as events:
        assert events.statistics().current_buffer_used == 0


async def test_what_a_model_writes_wakes_nobody_who_waits_for_a_change() -> None:
    bus = Bus()
    ticket = bus.ticket()
    bus.publish(Event(kind=EventKind.OUTPUT, subject="p_1", owner="o", detail="word"))
    assert not ticket.is_set()
    bus.publish(event(1))
    assert ticket.is_set()
