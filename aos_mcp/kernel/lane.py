"""A lane: how many calls one key group gets at once, when, and in which order. A state machine without a clock.

A key group is what a provider limits together: one provider with one key. Four things bound a lane. The *window* is the
number of calls in flight: half as many again until the first refusal, then held where the provider still answers and
tried one wider now and then; cut by a part where the limit is of another kind. *Buckets* hold requests and tokens a
minute, reserved before a call and settled after; where nobody tells them, requests are found (`kernel.pace`). A
provider that says "wait" *parks* the lane, not the agents. A *breaker* leaves a provider alone that fails without a
word, and tries it again with one call.

Whoever may go, goes, in the order of `Ticket.order`; nothing waits for a batch to fill. One call in `OVERDUE_SHARE` may
be one that waits beyond its `due_at`, so that nothing waits for ever behind what is better. The same code runs under
the kernel, under the simulator and under the property tests: time comes in as an argument, in seconds, and nothing is
drawn at random.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count
from math import inf
from typing import Any

from aos_mcp.abi.completion import RateLimits
from aos_mcp.abi.errors import ModelFault
from aos_mcp.kernel.pace import Pace

WINDOW_START = 8
"""Calls in flight at one provider unless aos.toml says otherwise."""
STEEP = 0.5
"""What each answer adds until the first refusal: half as many again go at once, and at most so many are refused."""
WINDOW_MAX = 512
WINDOW_CUT = 0.7
"""What is left of the window after a refusal; of those that were on the wire together only the first cuts it."""
HOLD, HOLD_MAX = 64, 1_024
"""Answers that must come before a window that was found is tried wider; twice as many each time that is refused."""
NEAR = 1.5
"""A limit that is so near to the window is one of places."""
FEWER = 0.9
"""A call that is refused beside so much fewer than were served before was refused for another reason."""
MINUTE_S = 60.0
ROUNDING = 1e-6
"""Units that sums of refills may be short of; waiting for them, time would not move."""
BREAKER_FAILURES = 5
"""Calls in a row that a provider failed without an answer, until it is left alone."""
BREAKER_S, BREAKER_CAP_S = 5.0, 120.0
OVERDUE_SHARE = 8
"""One call in so many may be an overdue one, as with the scheduler's picks."""
OUTPUT_SAMPLES = 64
"""Calls whose output is remembered, to reserve what the next is likely to write."""
OUTPUT_SAMPLES_MIN = 8
BUCKETS = ("requests", "input_tokens", "output_tokens", "tokens")
CROWDED = frozenset({ModelFault.RATE, ModelFault.OVERLOAD})
"""Faults that say the lane is too wide."""
DOWN = frozenset({ModelFault.TRANSPORT})
"""Faults that say nobody is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneLimits:
    """What an operator or a provider's row says of a lane; None is not known."""

    concurrency: int | None = None
    requests_per_min: int | None = None
    input_tokens_per_min: int | None = None
    output_tokens_per_min: int | None = None
    tokens_per_min: int | None = None


@dataclass(slots=True, eq=False)
class Ticket:
    """One call that wants to go. `order` sorts the queue, smallest first; a call that is tried again keeps it."""

    order: tuple[float, ...]
    input_tokens: int
    output_tokens_max: int
    due_at: float = inf
    """Once it waits beyond this, it goes in its turn among those that do."""
    reserved: dict[str, float] = field(default_factory=dict)
    sent_at: float | None = None
    needed: dict[str, float] = field(default_factory=dict)
    """What it was taken for when it went, also where no bucket was known yet."""
    spent: dict[str, float] = field(default_factory=dict)
    """What the lane had spent by then, this call included."""
    beside: int = 0
    """How many others were on the wire when it went."""
    probe: bool = False


class Bucket:
    """So many units a minute. Refills evenly; a debt (more was used than was reserved) is paid off first."""

    def __init__(self, per_min: float, now: float) -> None:
        self.per_min = per_min
        self.level = per_min
        self._at = now

    def refill(self, now: float) -> None:
        """Bring the level up to this moment."""
        if now > self._at:
            self.level = min(self.per_min, self.level + (now - self._at) * self.per_min / MINUTE_S)
            self._at = now

    def admits_at(self, amount: float, now: float) -> float:
        """Return when `amount` can be taken. One that is larger than the bucket goes when the bucket is full."""
        wanted = min(amount, self.per_min)
        missing = wanted - self.level
        return now if missing < ROUNDING else now + missing * MINUTE_S / self.per_min

    def empty_until(self, when: float) -> None:
        """Hold nothing, and save nothing up before `when`."""
        self.level, self._at = 0.0, when

    def heard(self, per_min: float, left: float) -> None:
        """Take a provider's word for what there is."""
        self.per_min = per_min
        self.level = min(left, per_min)


class BreakerState(StrEnum):
    """Whether a lane lets calls through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Opens after failures in a row, and lets one call through when its time is over."""

    def __init__(self) -> None:
        self.state = BreakerState.CLOSED
        self.until = 0.0
        self._failures = 0
        self._opened = 0

    def look(self, now: float) -> None:
        """Half-open it when its time has come."""
        if self.state is BreakerState.OPEN and now >= self.until:
            self.state = BreakerState.HALF_OPEN

    def succeeded(self) -> None:
        """An answer came, be it a refusal: somebody is there."""
        self.state, self._failures, self._opened = BreakerState.CLOSED, 0, 0

    def failed(self, now: float) -> None:
        """Nobody answered."""
        self._failures += 1
        if self.state is BreakerState.HALF_OPEN or self._failures >= BREAKER_FAILURES:
            self.state = BreakerState.OPEN
            self.until = now + min(BREAKER_CAP_S, BREAKER_S * 2**self._opened)
            self._opened += 1


class Lane:
    """One key group's calls. `offer`, then `admit` says who goes; `done` when a call has ended, however it did."""

    def __init__(self, limits: LaneLimits, now: float) -> None:
        self.window_max = float(limits.concurrency or WINDOW_MAX)
        self.window = float(limits.concurrency or WINDOW_START)
        self.parked_until = 0.0
        self.breaker = Breaker()
        self.in_flight: set[Ticket] = set()
        self.buckets: dict[str, Bucket] = {}
        for name in BUCKETS:
            per_min = getattr(limits, f"{name}_per_min")
            if per_min is not None:
                self.buckets[name] = Bucket(per_min, now)
        self._told = frozenset(self.buckets)
        """Limits the operator set: a provider may say less, never more."""
        self._cut_at = -inf
        self._steep = True
        """Nothing was refused yet."""
        self._was = self._least = self._held = self.window
        """Before the last refusals, what they may narrow it to at most, and what they did."""
        self._hold, self._hold_next = 0, HOLD
        """Answers until the window is tried wider, and until it is after the next refusal."""
        self._left, self._full = 0, 0
        """Calls that went on at the last refusal, and the most that did at any of the last minute."""
        self._pace = Pace()
        self._found: Bucket | None = None
        """Requests a minute that nobody told, while that is what bounds it."""
        self._spent = dict.fromkeys(BUCKETS, 0.0)
        """Since the lane was made; calls that are over count as what they used."""
        self._outputs: deque[int] = deque(maxlen=OUTPUT_SAMPLES)
        self._usual_output: int | None = None
        """What nine calls in ten do not write more than, once enough were seen."""
        self._queue: list[tuple[tuple[float, ...], int, Ticket]] = []
        self._due: list[tuple[float, int, Ticket]] = []
        self._since_overdue = 0
        """Calls that went since the last overdue one."""
        self._waiting: set[Ticket] = set()
        self._numbers = count()

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return len(self._waiting)

    def room(self, now: float) -> int:
        """Return how many more calls could go now, as far as the window, the park and the breaker are concerned."""
        if self.blocked_s(now) > 0:
            return 0
        return max(0, self._width(now) - len(self.in_flight) - len(self._waiting))

    def blocked_s(self, now: float) -> float:
        """Return for how long nothing goes at all: the provider asked for that, or is left alone."""
        self.breaker.look(now)
        left_alone = self.breaker.until if self.breaker.state is BreakerState.OPEN else now
        return max(0.0, left_alone - now, self.parked_until - now)

    def offer(self, ticket: Ticket) -> None:
        """Put a call in the queue."""
        number = next(self._numbers)
        self._waiting.add(ticket)
        heapq.heappush(self._queue, (ticket.order, number, ticket))
        if ticket.due_at < inf:
            heapq.heappush(self._due, (ticket.due_at, number, ticket))

    def withdraw(self, ticket: Ticket) -> None:
        """Take a call that has not gone out of the queue."""
        self._waiting.discard(ticket)

    def admit(self, now: float) -> list[Ticket]:
        """Return the calls that go now, in order; they are in flight from here on."""
        admitted = []
        while (ticket := self.first(now)) is not None and self._admits_at(ticket, now) <= now:
            self._since_overdue = 0 if self._is_overdue(ticket, now) else self._since_overdue + 1
            self._waiting.discard(ticket)
            self._reserve(ticket, now)
            admitted.append(ticket)
        return admitted

    def next_at(self, now: float) -> float | None:
        """Return when the first in line may go if no call ends before; None when only the end of a call can help."""
        ticket = self.first(now)
        at = None if ticket is None else self._admits_at(ticket, now)
        return None if at is None or at == inf else at

    def succeeded(self, ticket: Ticket, now: float, used: tuple[int, int], limits: RateLimits | None) -> None:
        """Settle a call that was answered. `used`: the input and output tokens that were billed as fresh."""
        self._end(ticket, now, {"requests": 1, "input_tokens": used[0], "output_tokens": used[1], "tokens": sum(used)})
        self.breaker.succeeded()
        if self._found is not None and self._waiting:
            self._found.per_min *= self._pace.faster(now)
        self._outputs.append(used[1])
        if self.buckets and len(self._outputs) >= OUTPUT_SAMPLES_MIN:
            self._usual_output = sorted(self._outputs)[len(self._outputs) * 9 // 10]
        # Wider only where the width was what held calls back.
        if len(self.in_flight) + 1 >= int(self.window) and (ticket.sent_at or 0.0) > self._cut_at:
            self._widen()
        self._heard(ticket, limits, now)

    def failed(
        self, ticket: Ticket, now: float, fault: ModelFault, *, retry_at: float | None, limits: RateLimits | None
    ) -> None:
        """Settle a call that failed. With `retry_at`, nothing goes before it."""
        # What a provider refused it did not count as tokens; the request it did.
        self._end(ticket, now, {"requests": 1, "input_tokens": 0, "output_tokens": 0, "tokens": 0})
        if fault in CROWDED:
            self._narrow(ticket, fault, now, retry_at or now)
        if fault in DOWN:
            self.breaker.failed(now)
        else:
            self.breaker.succeeded()
        if retry_at is not None:
            self.park(retry_at)
        self._heard(ticket, limits, now)

    def _widen(self) -> None:
        """Take one more answer into the window: it grows by half at first, later by one for a window of answers."""
        if self._hold > 0:
            self._hold -= 1
            grown = 1.0 if self._hold == 0 else 0.0
        else:
            grown = STEEP if self._steep else 1 / self.window
        self.window = min(self.window_max, self.window + grown)

    def _narrow(self, ticket: Ticket, fault: ModelFault, now: float, back_at: float) -> None:
        """Take a refusal into the window.

        By one at least, and by a part at most for all calls that were on the wire together: down to what is left on the
        wire when their refusals are in, which is about what the provider has places for. Where that is near the window,
        the limit is found, and the window holds before it is tried wider. Where not, the limit is of another kind. One
        that refuses a call beside much fewer than it served before counts them by the minute. A provider that is
        overloaded takes the whole part, unless it told so to one call alone.
        """
        sent_at = ticket.sent_at or 0.0
        alone = sent_at > self._cut_at
        if alone:
            failed_probe = not self._steep and self._held < self.window <= self._held + NEAR
            self._hold_next = min(HOLD_MAX, 2 * self._hold_next) if failed_probe else HOLD
            self._full = max(self._left, self._full if now - self._cut_at < MINUTE_S else 0)
            self._hold, self._steep, self._cut_at = self._hold_next, False, now
            self._least, self._was = max(1.0, self.window * WINDOW_CUT), self.window
            self.window = max(self._least, self.window - 1)
        overloaded = fault is ModelFault.OVERLOAD
        self._left = len(self.in_flight)
        left = (self.window if alone else self._least) if overloaded else float(self._left)
        self._held = self.window = max(self._least, min(self.window, left))
        if overloaded or self.window < self._was - NEAR:
            self._hold = 0
        if not overloaded and (self._found is not None or ticket.beside < FEWER * self._full):
            self._slow_down(sent_at, now, back_at)

    def _slow_down(self, sent_at: float, now: float, back_at: float) -> None:
        """Take a refusal for one of too many calls a minute, where nothing else was told."""
        if self.buckets.get("requests", self._found) is not self._found:
            return
        per_min = self._pace.refused(sent_at, now)
        if per_min is not None:
            self.buckets["requests"] = self._found = Bucket(per_min, now)
        if self._found is not None:
            self._found.empty_until(back_at)
            self.window = self._was  # the pace bounds it, not the width

    def abandoned(self, ticket: Ticket, now: float) -> None:
        """Settle a call that was cut by its own caller: it says nothing of the provider."""
        self._end(ticket, now, ticket.needed)
        if ticket.probe and self.breaker.state is BreakerState.HALF_OPEN:
            self.breaker.state, self.breaker.until = BreakerState.OPEN, now  # nobody has tried it yet

    def park(self, until: float) -> None:
        """Let nothing go before `until`."""
        self.parked_until = max(self.parked_until, until)

    def first(self, now: float) -> Ticket | None:
        """Return the call that is next to go."""
        overdue = self._top(self._due)
        if overdue is not None and self._is_overdue(overdue, now) and self._since_overdue >= OVERDUE_SHARE - 1:
            return overdue
        return self._top(self._queue)

    def waits_for_a_place(self, now: float) -> Ticket | None:
        """Return the call that would go if one on the wire gave its place away; None where that would help nobody."""
        ticket = self.first(now)
        if ticket is None or len(self.in_flight) < self._width(now) or self.blocked_s(now) > 0:
            return None
        return ticket if self._buckets_admit_at(ticket, now) <= now else None

    def ahead_of(self, order: tuple[float, ...]) -> int:
        """Return how many waiting calls go before one of this order."""
        return sum(ticket.order < order for ticket in self._waiting)

    def _top(self, queue: list[tuple[Any, int, Ticket]]) -> Ticket | None:
        while queue and queue[0][2] not in self._waiting:
            heapq.heappop(queue)
        return queue[0][2] if queue else None

    def _is_overdue(self, ticket: Ticket, now: float) -> bool:
        return now >= ticket.due_at

    def _width(self, now: float) -> int:
        self.breaker.look(now)
        return 1 if self.breaker.state is BreakerState.HALF_OPEN else int(self.window)

    def _admits_at(self, ticket: Ticket, now: float) -> float:
        width = self._width(now)
        if self.breaker.state is BreakerState.OPEN:
            return max(self.breaker.until, self.parked_until)
        if len(self.in_flight) >= width:
            return inf
        return max(self.parked_until, self._buckets_admit_at(ticket, now))

    def _buckets_admit_at(self, ticket: Ticket, now: float) -> float:
        at = now
        for name, bucket in self.buckets.items():
            bucket.refill(now)
            at = max(at, bucket.admits_at(self._needs(ticket)[name], now))
        return at

    def _needs(self, ticket: Ticket) -> dict[str, float]:
        most, usual = ticket.output_tokens_max, self._usual_output
        output = most if usual is None else min(most, usual)
        return {
            "requests": 1,
            "input_tokens": ticket.input_tokens,
            "output_tokens": output,
            "tokens": ticket.input_tokens + output,
        }

    def _reserve(self, ticket: Ticket, now: float) -> None:
        ticket.sent_at = now
        self._pace.went(now)
        ticket.probe = self.breaker.state is BreakerState.HALF_OPEN
        ticket.needed = self._needs(ticket)
        ticket.reserved = {name: ticket.needed[name] for name in self.buckets}
        for name, amount in ticket.reserved.items():
            self.buckets[name].level -= amount
        for name, amount in ticket.needed.items():
            self._spent[name] += amount
        ticket.spent = dict(self._spent)
        ticket.beside = len(self.in_flight)
        self.in_flight.add(ticket)

    def _end(self, ticket: Ticket, now: float, used: dict[str, float]) -> None:
        self.in_flight.discard(ticket)
        for name, amount in ticket.needed.items():
            self._spent[name] += used[name] - amount
            ticket.spent[name] += used[name] - amount
        for name, amount in ticket.reserved.items():
            bucket = self.buckets[name]
            bucket.refill(now)
            bucket.level = min(bucket.per_min, bucket.level + amount - used.get(name, amount))

    def _heard(self, ticket: Ticket, limits: RateLimits | None, now: float) -> None:
        """Take a provider's headers for the truth, less what it had not seen when it wrote them.

        They tell how it was when `ticket` came in: what was spent since is still to be taken off, by calls that are
        over too, and what has been refilled since is still to be added.
        """
        if limits is None or ticket.sent_at is None:
            return
        for name in BUCKETS:
            limit, left = getattr(limits, f"{name}_limit"), getattr(limits, f"{name}_left")
            if not limit or left is None:
                continue
            if name == "requests" and self._found is not None:
                del self.buckets[name]
                self._found = None
            bucket = self.buckets.setdefault(name, Bucket(limit, now))
            per_min = min(bucket.per_min, float(limit)) if name in self._told else float(limit)
            bucket.refill(now)
            refilled = (now - ticket.sent_at) * per_min / MINUTE_S
            bucket.heard(per_min, left + refilled - (self._spent[name] - ticket.spent[name]))
