"""Preemption: whether a generation that is under way gives its place to a call of a better class. The decision is pure.

A victim's stream is closed and what it wrote is kept; later its provider is asked to go on from there. That pays only
where the provider does go on, its cache still holds the prompt, enough is left to write, and whoever waits would wait
for longer than it costs. A call that has hardly begun may simply begin anew. None is preempted more than three times,
so that every call comes to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from aos_mcp.abi.limits import PREEMPTIONS_MAX

LITTLE_TOKENS = 32
"""What was written so far is little: to write it again costs less than a second."""
LEFT_TOKENS_MIN = 128
LEFT_PART_MIN = 0.25
"""Near its end a call is left alone."""
WAIT_OVER_COST = 2.0
"""The wait that is saved must be so many times what going on costs."""
WARM_S = 300.0
"""The shortest time that a provider's cache keeps a prompt, among those that cache at all."""
LENGTH_MEMORY = 0.3
"""The weight of the newest answer in what is expected of the next."""


@dataclass(slots=True, kw_only=True, eq=False)
class UnderWay:
    """One generation on the wire, as far as preemption is concerned. Times are seconds of one clock."""

    sched_class: int
    sent_at: float
    likely_tokens: float
    """What it is expected to write in all, from what its like has written before."""
    continues: bool
    """The provider goes on from a beginning."""
    may_pay: bool
    """Its budget has room for sending the prompt again."""
    times: int = 0
    """How often this call gave its place away before."""
    plain: bool = True
    """Nothing but text was written so far, and nothing else was asked for."""
    written_tokens: float = 0.0
    first_token_at: float | None = None
    closing: bool = False
    """It gives its place away already."""
    cut: Callable[[], None] = field(repr=False)
    """Closes its stream."""

    def left_tokens(self) -> float:
        """Return what it is expected to write still: of one that writes on beyond that, a quarter more."""
        return max(self.likely_tokens, self.written_tokens * 1.25) - self.written_tokens


def pace_s(one: UnderWay, now: float) -> float | None:
    """Return the seconds a token takes it; None where it has shown no pace yet."""
    if one.first_token_at is None or one.written_tokens < 1:
        return None
    return (now - one.first_token_at) / one.written_tokens


def boundary_s(under_way: Collection[UnderWay], now: float) -> float:
    """Return after how long the first place is expected to become free by itself; 0 where no pace is known.

    What has written nothing yet is taken to be as fast as the fastest of the others.
    """
    staying = [one for one in under_way if not one.closing]
    paces = {one: pace for one in staying if (pace := pace_s(one, now)) is not None}
    fastest = min(paces.values(), default=0.0)
    return min((one.left_tokens() * paces.get(one, fastest) for one in staying), default=0.0)


def pays(one: UnderWay, waiting_class: int, wait_s: float, now: float, slice_tokens: int) -> bool:
    """Tell whether `one` should give its place to a call of `waiting_class`.

    `wait_s` is how long that call would wait for the first place to become free by itself.
    """
    if waiting_class >= one.sched_class or one.times >= PREEMPTIONS_MAX or not one.plain or one.closing:
        return False
    if one.first_token_at is None or not one.may_pay:
        return False
    if one.left_tokens() < max(LEFT_TOKENS_MIN, LEFT_PART_MIN * one.likely_tokens):
        return False
    first_s = one.first_token_at - one.sent_at
    if one.written_tokens < LITTLE_TOKENS:
        return wait_s > WAIT_OVER_COST * (first_s + (now - one.first_token_at))
    if not one.continues or one.written_tokens < slice_tokens or now - one.sent_at > WARM_S:
        return False
    return wait_s > WAIT_OVER_COST * first_s


def victim(under_way: Collection[UnderWay], waiting_class: int, now: float, slice_tokens: int) -> UnderWay | None:
    """Return which generation gives its place away, or None: of the worst class the one with most left to write."""
    wait_s = boundary_s(under_way, now)
    fit = [one for one in under_way if pays(one, waiting_class, wait_s, now, slice_tokens)]
    return max(fit, key=lambda one: (one.sched_class, one.left_tokens()), default=None)


class Lengths:
    """How much agents of one kind write on one model in a turn, as a moving mean; learned anew after a restart."""

    def __init__(self) -> None:
        self._means: dict[tuple[str, str], float] = {}

    def expected(self, kind: str, model: str, most: int) -> float:
        """Return what the next turn is expected to write, in tokens; `most` while nothing is known."""
        return min(most, self._means.get((kind, model), most))

    def learn(self, kind: str, model: str, tokens: int) -> None:
        """Take note of a finished turn."""
        mean = self._means.get((kind, model))
        self._means[kind, model] = tokens if mean is None else mean + LENGTH_MEMORY * (tokens - mean)
