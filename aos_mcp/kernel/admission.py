"""Admission: the lanes of all providers, and waiting for a place in one. When a call goes is `kernel.lane`'s decision.

No place is ever held by a call that is not on the wire. Downstream servers and sandboxes have lanes of their own, so
that a slow tool never holds a model's place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import anyio

from aos_mcp.abi.completion import Completion
from aos_mcp.abi.errors import ModelError
from aos_mcp.abi.limits import FALLBACK_WAIT_S, TOOL_CALLS_AT_ONCE
from aos_mcp.abi.settings import ProviderSettings
from aos_mcp.kernel.alarm import set_or_due
from aos_mcp.kernel.lane import Lane, LaneLimits, Ticket
from aos_mcp.kernel.preemption import Lengths, UnderWay, victim
from aos_mcp.ports import Clock


@dataclass(slots=True, eq=False)
class Seat:
    """A call's place in a lane. Whoever has it says how the call ended; one that says nothing was cut."""

    group: str
    ticket: Ticket
    went: bool = False
    called: anyio.Event | None = None
    """Set once it goes, where it had to wait."""
    completion: Completion | None = None
    error: ModelError | None = None
    retry_at: float | None = None
    """Set with an error: nothing goes before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a call asks for: its place in the queue, and the tokens it may take."""

    order: tuple[float, ...]
    input_tokens: int
    output_tokens: int
    due_at: float = math.inf
    """Seconds since the epoch; see `kernel.lane.Ticket`."""


class Admission:
    """The lanes of all providers. `run` must be running while calls wait."""

    def __init__(self, providers: Mapping[str, ProviderSettings], clock: Clock, *, slice_tokens: int) -> None:
        """Take what the operator says of providers, and how much a call writes before it may be preempted."""
        self._providers = providers
        self._clock = clock
        self._lanes: dict[str, Lane] = {}
        self._seats: dict[str, dict[Ticket, Seat]] = {}
        self._changed = anyio.Event()
        self._tools: dict[str, anyio.CapacityLimiter] = {}
        self._under_way: dict[str, dict[UnderWay, None]] = {}
        self._slice_tokens = slice_tokens
        self.lengths = Lengths()
        self.on_room: Callable[[], None] = lambda: None
        """Called when a lane may have a place again: the queue of turns is looked at."""

    async def run(self) -> None:
        """Let calls go when their time comes: when a park ends, a bucket has filled up, or a breaker half-opens."""
        while True:
            self._changed = anyio.Event()
            for group in self._lanes:
                self._pump(group)
            self.on_room()
            now = self._clock.now()
            times = [at for lane in self._lanes.values() if (at := lane.next_at(now)) is not None]
            times += [now + left for lane in self._lanes.values() if (left := lane.blocked_s(now)) > 0]
            await set_or_due(self._clock, self._changed, min(times, default=math.inf))

    async def take(self, model: str, demand: Demand) -> Seat:
        """Wait for a place in the lane of `model`, and hold it until `give_back`."""
        group = self.group_of(model)
        lane = self._lane(group)
        seat = Seat(group, Ticket(demand.order, demand.input_tokens, demand.output_tokens, demand.due_at))
        self._seats[group][seat.ticket] = seat
        lane.offer(seat.ticket)
        self._pump(group)
        if not seat.went:
            seat.called = anyio.Event()
            self._changed.set()  # what it waits for may have an hour that nobody looks out for yet
            self.consider(model)
            try:
                await seat.called.wait()
            except BaseException:
                self.give_back(seat)
                raise
        return seat

    def give_back(self, seat: Seat) -> None:
        """Give a place back. How the call ended is on the seat."""
        del self._seats[seat.group][seat.ticket]
        self._settle(self._lanes[seat.group], seat)
        self._pump(seat.group)
        self._changed.set()

    @contextmanager
    def under_way(self, model: str, one: UnderWay) -> Iterator[None]:
        """Have a generation on the list of those that may be preempted."""
        here = self._under_way.setdefault(self.group_of(model), {})
        here[one] = None
        try:
            yield
        finally:
            del here[one]

    def consider(self, model: str) -> None:
        """Preempt a generation of this lane where somebody of a better class waits, and it pays."""
        group = self.group_of(model)
        lane, here, now = self._lane(group), self._under_way.get(group, {}), self._clock.now()
        waiting = lane.waits_for_a_place(now)
        if waiting is None:
            return
        chosen = victim(here, int(waiting.order[0]), now, self._slice_tokens)
        # Those that are closing already serve as many of the waiting.
        if chosen is not None and sum(one.closing for one in here) < lane.ahead_of((chosen.sched_class,)):
            chosen.closing = True
            chosen.cut()

    def park(self, model: str, until: float) -> None:
        """Leave the lane of `model` alone until then (seconds since the epoch)."""
        self._lane(self.group_of(model)).park(until)
        self._changed.set()

    def is_blocked(self, model: str) -> bool:
        """Tell whether a call would wait for longer than one with another model to go on with should."""
        return self.lane(model).blocked_s(self._clock.now()) > FALLBACK_WAIT_S

    def room(self, model: str) -> int:
        """Return how many more calls of this model could go now. What waits for more has its place in the queue."""
        return self._lane(self.group_of(model)).room(self._clock.now())

    def lane(self, model: str) -> Lane:
        """Return the lane of a model, to look at."""
        return self._lane(self.group_of(model))

    def lanes(self) -> Mapping[str, Lane]:
        """Return every lane that was used so far, by provider, or by model where each has its own."""
        return self._lanes

    def tool(self, name: str) -> anyio.CapacityLimiter:
        """Return what bounds the calls at once of a downstream server, or of the sandbox."""
        if name not in self._tools:
            self._tools[name] = anyio.CapacityLimiter(TOOL_CALLS_AT_ONCE)
        return self._tools[name]

    def _settle(self, lane: Lane, seat: Seat) -> None:
        now, ticket = self._clock.now(), seat.ticket
        if not seat.went:
            lane.withdraw(ticket)
        elif seat.completion is not None:
            used = seat.completion.usage
            fresh = used.input_tokens + used.written_tokens
            lane.succeeded(ticket, now, (fresh, used.output_tokens), seat.completion.limits)
        elif seat.error is not None:
            lane.failed(ticket, now, seat.error.fault, retry_at=seat.retry_at, limits=seat.error.limits)
        else:
            lane.abandoned(ticket, now)

    def _pump(self, group: str) -> None:
        seats = self._seats[group]
        for ticket in self._lanes[group].admit(self._clock.now()):
            seat = seats[ticket]
            seat.went = True
            if seat.called is not None:
                seat.called.set()

    def group_of(self, model: str) -> str:
        """Return what is limited together with a model: its provider, or the model alone where the operator says so."""
        provider = model.partition("/")[0]
        own = self._providers.get(provider)
        return model if own is not None and own.limits_of == "model" else provider

    def _lane(self, group: str) -> Lane:
        if group not in self._lanes:
            own = self._providers.get(group.partition("/")[0]) or ProviderSettings()
            limits = LaneLimits(
                concurrency=own.concurrency,
                requests_per_min=own.requests_per_min,
                input_tokens_per_min=own.input_tokens_per_min,
                output_tokens_per_min=own.output_tokens_per_min,
                tokens_per_min=own.tokens_per_min,
            )
            self._lanes[group] = Lane(limits, self._clock.now())
            self._seats[group] = {}
        return self._lanes[group]
