"""Agents that share one provider, simulated: the kernel's own decisions on a clock that jumps from event to event.

Owns the model of a provider that streams (places, pace, prompt cache, limits a minute, refusals, broken streams) and of
agents that call it, use tools and call again. Who is next is asked of `kernel.scheduler`, how many go at once of
`kernel.lane`, what is done about a failure of `kernel.retry`: they are what is being tried, and nothing here decides in
their place. Promises: the same jobs, provider, policy and seed give the same run. Knows no store and no network.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from aos_mcp.abi.budget import Usage
from aos_mcp.abi.completion import RateLimits
from aos_mcp.abi.errors import ModelFault
from aos_mcp.abi.handle import Pid
from aos_mcp.abi.process import Candidate, sched_class
from aos_mcp.kernel.lane import Bucket, Lane, LaneLimits, Ticket
from aos_mcp.kernel.preemption import Lengths, UnderWay, victim
from aos_mcp.kernel.retry import GiveUp, Wait, counted, judge
from aos_mcp.kernel.scheduler import OUTPUT_WEIGHT, Shares, choose, units

CLAIRVOYANT = "srpt"
"""Shortest remaining work first, by one who knows the future: what no policy can be, as a bound."""
LOOK_AGAIN_S = 0.5
"""While somebody waits, it is asked this often whether a generation should give its place away."""
OUTPUT_TOKENS_ASKED = 8_192
"""What each call may write at most, as an agent's turn asks for."""


@dataclass(frozen=True, slots=True)
class Act:
    """One model call, and what the agent does with the answer before its next one."""

    output_tokens: int
    result_tokens: int
    """What its tools add to the context."""
    tool_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One agent, from its spawn to its last answer."""

    pid: Pid
    kind: str
    """Of what definition it is: what is learned is learned by this."""
    priority: int
    created_at: float
    context_tokens: int
    """At its first call."""
    acts: tuple[Act, ...]
    owner: str = "owner"


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """How fast a provider is, and how it fails."""

    slots: int = 8
    first_token_s: float = 0.35
    fresh_per_s: float = 8_000.0
    cached_per_s: float = 80_000.0
    output_per_s: float = 60.0
    cache_share: float = 0.95
    """Of the last call's context that is still cached at the next."""
    context_tokens: int = 180_000
    overload_share: float = 0.0
    """Calls that are refused at once, whatever there is room for."""
    cut_share: float = 0.0
    """Streams that break off somewhere."""
    refusal_s: float = 0.05
    """How long it takes to be refused."""
    retry_after_s: float | None = 1.0
    """What it says to whom it refuses for its places; None says nothing."""
    requests_per_min: int | None = None
    tokens_per_min: int | None = None
    tells: bool = False
    """Each answer says what is left of its limits."""
    continues: bool = True
    """It goes on from what a call that was cut had written."""

    def call_s(self, fresh_tokens: float, cached_tokens: float, output_tokens: float) -> float:
        """Return how long a call takes when nothing is in its way."""
        reading = fresh_tokens / self.fresh_per_s + cached_tokens / self.cached_per_s
        return self.first_token_s + reading + output_tokens / self.output_per_s


@dataclass(slots=True)
class Agent:
    """A job under way."""

    job: Job
    context: float = 0.0
    """Tokens of its next prompt."""
    known: float = 0.0
    """Of those, what the provider has seen before."""
    done: int = 0
    """Acts that are over."""
    written: int = 0
    """Of its next act, what was written and kept before its call was cut."""
    cuts: int = 0
    """How often that was."""
    sent: int = 0
    """Numbers its calls."""
    ready_at: float = 0.0
    served: float = 0.0
    """Units it was charged."""
    expected: float = 0.0
    """Units that the call under way is taken for."""
    waits: list[float] = field(default_factory=list)
    """From ready to running, of each call that was answered."""
    alone_s: float = 0.0
    """What it would have taken so far with a provider to itself."""
    finished_at: float | None = None
    faults: int = 0
    """Tries of its next call that came to nothing."""
    gave_up: bool = False
    left_units: float = field(init=False)
    """Of all its calls that are not over, context that grows aside."""

    def __post_init__(self) -> None:
        """Sum up what is before it."""
        self.left_units = sum(map(_units_of, self.job.acts))

    @property
    def act(self) -> Act:
        """What it does next."""
        return self.job.acts[self.done]

    @property
    def turnaround_s(self) -> float:
        """From its spawn to its last answer. The job has finished."""
        assert self.finished_at is not None
        return self.finished_at - self.job.created_at

    def fresh(self, provider: Provider) -> float:
        """Return the tokens of its next prompt that no cache has."""
        return self.context - self.known * provider.cache_share

    def call_s(self, provider: Provider) -> float:
        """Return how long its next call takes on the wire."""
        fresh = self.fresh(provider)
        return provider.call_s(fresh, self.context - fresh, self.act.output_tokens - self.written)

    def left_s(self, provider: Provider) -> float:
        """Return about how long all its calls that are not over take on the wire."""
        acts = self.job.acts[self.done :]
        return sum(provider.call_s(act.result_tokens, self.context, act.output_tokens) for act in acts)


def _units_of(act: Act) -> float:
    return act.result_tokens + OUTPUT_WEIGHT * act.output_tokens


class Guess(Protocol):
    """What a scheduler takes the size of things for."""

    def of(self, agent: Agent) -> tuple[float, float]:
        """Return the units of an agent's next call, and of all its calls that are not over."""
        ...

    def learn(self, agent: Agent) -> None:
        """Take note of an agent that has finished."""
        ...


class Ignorance:
    """Takes everything for the same size."""

    def of(self, agent: Agent) -> tuple[float, float]:
        """See `Guess`."""
        return 1_000.0, 1_000.0

    def learn(self, agent: Agent) -> None:
        """See `Guess`."""


class Hints:
    """Knows sizes, each wrong by a factor of its own: what an agent's spawner would say of it."""

    def __init__(self, spread: float, seed: int = 0) -> None:
        """`spread` is the standard deviation of the logarithm of guessed over true size."""
        self._spread, self._chance = spread, random.Random(seed)
        self._errors: dict[Pid, float] = {}

    def of(self, agent: Agent) -> tuple[float, float]:
        """See `Guess`."""
        pid = agent.job.pid
        if pid not in self._errors:
            self._errors[pid] = math.exp(self._chance.gauss(0.0, self._spread))
        left = agent.left_units * self._errors[pid]
        return left / (len(agent.job.acts) - agent.done), left

    def learn(self, agent: Agent) -> None:
        """See `Guess`."""


@dataclass(slots=True)
class Run:
    """What came of a simulation."""

    agents: list[Agent]
    ends_at: float = 0.0
    calls: int = 0
    """Calls that were answered."""
    sent: int = 0
    """Calls that went on the wire."""
    wasted: int = 0
    """Calls that were refused or broke off, and were made again."""
    idle_s: float = 0.0
    """Time in which a place was free, the provider open, and somebody ready: none, if the scheduler conserves work."""
    preempted: int = 0
    """Calls that gave their place away; what they had written was kept, or was next to nothing."""
    in_flight_max: int = 0

    def of_kind(self, kind: str | None = None) -> list[Agent]:
        """Return the agents that finished, of one kind or all."""
        return [a for a in self.agents if a.finished_at is not None and kind in {None, a.job.kind}]

    def mean_s(self, kind: str | None = None) -> float:
        """Return the mean time from spawn to last answer."""
        chosen = self.of_kind(kind)
        return sum(agent.turnaround_s for agent in chosen) / len(chosen)

    def slowdown(self, share: float) -> float:
        """Return the quantile of turnaround over the time it takes alone."""
        found = sorted(agent.turnaround_s / agent.alone_s for agent in self.of_kind())
        return found[min(len(found) - 1, int(share * len(found)))]

    def served(self) -> Mapping[str, float]:
        """Return the units that each owner was served."""
        total: dict[str, float] = {}
        for agent in self.agents:
            total[agent.job.owner] = total.get(agent.job.owner, 0.0) + agent.served
        return total


def jain(values: Sequence[float]) -> float:
    """Return Jain's index of fairness: 1 when all are equal, 1/n when one has everything."""
    return sum(values) ** 2 / (len(values) * sum(value * value for value in values))


class Simulation:
    """One run. Made for one use."""

    def __init__(
        self,
        jobs: Sequence[Job],
        provider: Provider,
        policy: str,
        *,
        seed: int = 0,
        known: LaneLimits | None = None,
        guess: Guess | None = None,
        slice_tokens: int | None = None,
    ) -> None:
        """Prepare a run.

        Args:
            jobs: the agents, in any order.
            provider: what they share.
            policy: of `kernel.scheduler.POLICIES`, or `CLAIRVOYANT`.
            seed: of the provider's failures.
            known: what the kernel is told of the provider's limits; its places unless given.
            guess: what the scheduler takes an agent's size for; nothing is known of it unless given.
            slice_tokens: what a call writes before it may be preempted; none is unless given.
        """
        self._slice_tokens = slice_tokens
        self._under_way: dict[Pid, tuple[UnderWay, float]] = {}
        """Generations on the wire, and when their first token comes."""
        self._lengths = Lengths()
        self._provider, self._policy = provider, policy
        self._chance = random.Random(seed)
        self._lane = Lane(known or LaneLimits(concurrency=provider.slots), 0.0)
        self._meter = _Meter(provider)
        self._guess = guess if guess is not None else Ignorance()
        agents = [Agent(job) for job in jobs]
        self._run = Run(agents)
        self._now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._ready: dict[Pid, Agent] = {}
        self._offered: dict[Ticket, Agent] = {}
        """Chosen, and in the lane's queue."""
        self._running: dict[Pid, Agent] = {}
        self._shares = Shares()
        self._picks = 0
        for agent in agents:
            self._at(agent.job.created_at, partial(self._spawned, agent))

    def run(self, until: float = math.inf) -> Run:
        """Run until every job is over, or the clock shows `until`."""
        while self._events and self._events[0][0] <= until:
            self._pass_time(self._events[0][0])
            while self._events and self._events[0][0] <= self._now:
                heapq.heappop(self._events)[2]()
            self._choose()
            self._send()
            self._preempt()
        return self._run

    def _pass_time(self, to: float) -> None:
        idle = self._lane.next_at(self._now) if self._offered else None
        if idle is not None:
            self._run.idle_s += max(0.0, to - max(idle, self._now))
        if self._ready and self._lane.room(self._now):
            self._run.idle_s += to - self._now
        self._run.ends_at = self._now = to

    def _at(self, when: float, happen: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (when, self._number, happen))

    def _spawned(self, agent: Agent) -> None:
        agent.context = float(agent.job.context_tokens)
        self._back(agent)

    def _back(self, agent: Agent) -> None:
        """Put an agent in the queue for its next call."""
        agent.ready_at, agent.faults = self._now, 0
        self._ready[agent.job.pid] = agent

    def _choose(self) -> None:
        """Have the scheduler say who is next, for as many as the lane has room for."""
        room = self._lane.room(self._now)
        if room <= 0 or not self._ready:
            return
        for agent in self._chosen(room):
            del self._ready[agent.job.pid]
            self._picks += 1
            agent.expected = self._guess.of(agent)[0]
            self._shares.charge(agent.job.owner, agent.job.pid, agent.expected)  # the next pick is to know of it
            order = (float(sched_class(agent.job.priority)), agent.ready_at)
            ticket = Ticket(order, round(agent.context), OUTPUT_TOKENS_ASKED)
            self._offered[ticket] = agent
            self._lane.offer(ticket)

    def _chosen(self, room: int) -> list[Agent]:
        if self._policy == CLAIRVOYANT:
            return heapq.nsmallest(room, self._ready.values(), key=lambda a: (a.left_s(self._provider), a.job.pid))
        parts = (self._ready, self._running)
        self._shares.admit((agent.job.owner, agent.job.pid) for part in parts for agent in part.values())
        ready = [self._candidate(agent) for agent in self._ready.values()]
        chosen = choose(ready, self._now, self._policy, room, shares=self._shares, picks=self._picks)
        return [self._ready[choice.candidate.pid] for choice in chosen]

    def _candidate(self, agent: Agent) -> Candidate:
        turn_units, units_left = self._guess.of(agent)
        return Candidate(
            pid=agent.job.pid,
            program=agent.job.pid,
            owner=agent.job.owner,
            priority=agent.job.priority,
            ready_at=agent.ready_at,
            created_at=agent.job.created_at,
            turn_units=turn_units,
            units_left=units_left,
        )

    def _send(self) -> None:
        """Put on the wire what the lane lets go, and have it asked again when its time comes."""
        for ticket in self._lane.admit(self._now):
            self._call(self._offered.pop(ticket), ticket)
        at = self._lane.next_at(self._now)
        if at is None and self._ready and (blocked_s := self._lane.blocked_s(self._now)) > 0:
            at = self._now + blocked_s
        if at is not None and at > self._now:
            self._at(at, lambda: None)

    def _call(self, agent: Agent, ticket: Ticket) -> None:
        """Put a call on the wire: it is answered, refused, or breaks off."""
        fate, provider = self._chance.random(), self._provider
        self._run.sent += 1
        overloaded = fate < provider.overload_share
        wait_s = self._meter.refuses(self._now, agent, len(self._running))
        self._running[agent.job.pid] = agent
        self._run.in_flight_max = max(self._run.in_flight_max, len(self._running))
        if overloaded or wait_s is not None:
            fault = ModelFault.OVERLOAD if overloaded else ModelFault.RATE
            asked = None if overloaded else wait_s
            self._at(self._now + provider.refusal_s, partial(self._failed, agent, ticket, fault, asked))
            return
        took_s = agent.call_s(provider)
        if fate < provider.overload_share + provider.cut_share:
            after_s = took_s * self._chance.random()
            self._at(self._now + after_s, partial(self._failed, agent, ticket, ModelFault.CUT_STREAM, None))
            return
        if not agent.cuts:
            agent.waits.append(self._now - agent.ready_at)
        if self._slice_tokens is not None:
            self._watch(agent, ticket)
        limits = self._meter.told(self._now) if provider.tells else None  # headers go before the stream
        self._at(self._now + took_s, partial(self._answered, agent, ticket, limits, agent.sent))

    def _preempt(self) -> None:
        """Cut a generation where somebody of a better class waits and it pays; look again while somebody waits."""
        if self._slice_tokens is None or not self._ready or self._lane.room(self._now):
            return
        for one, first_token_at in self._under_way.values():
            if self._now >= first_token_at:
                one.first_token_at = first_token_at
                one.written_tokens = (self._now - first_token_at) * self._provider.output_per_s
        under_way = [one for one, _ in self._under_way.values()]
        best = min(sched_class(agent.job.priority) for agent in self._ready.values())
        chosen = victim(under_way, best, self._now, self._slice_tokens)
        if chosen is not None:
            chosen.cut()
        elif any(one.sched_class > best for one in under_way):
            self._at(self._now + LOOK_AGAIN_S, lambda: None)

    def _watch(self, agent: Agent, ticket: Ticket) -> None:
        """Put a generation on the list of those that may be preempted."""
        provider, act = self._provider, agent.act
        likely = self._lengths.expected(agent.job.kind, "", OUTPUT_TOKENS_ASKED) - agent.written
        one = UnderWay(
            sched_class=sched_class(agent.job.priority),
            sent_at=self._now,
            likely_tokens=max(1.0, likely),
            continues=provider.continues,
            may_pay=True,
            times=agent.cuts,
            cut=partial(self._cut, agent, ticket),
        )
        writing_s = (act.output_tokens - agent.written) / provider.output_per_s
        self._under_way[agent.job.pid] = one, self._now + agent.call_s(provider) - writing_s

    def _cut(self, agent: Agent, ticket: Ticket) -> None:
        """Take a generation off the wire; what it wrote is kept where the provider goes on from it."""
        one, _ = self._under_way[agent.job.pid]
        provider, wrote = self._provider, int(one.written_tokens)
        fresh = round(agent.fresh(provider))
        self._over(agent, units(Usage(input_tokens=fresh, output_tokens=wrote)))
        self._lane.abandoned(ticket, self._now)
        self._run.preempted += 1
        agent.cuts += 1
        agent.sent += 1  # the answer that was on its way is not waited for
        if provider.continues:
            agent.written += wrote
            agent.known = agent.context = agent.context + wrote
        self._ready[agent.job.pid] = agent
        self._at(self._now, lambda: None)  # its place is free

    def _over(self, agent: Agent, used: float) -> None:
        """Take a call off the wire, and put right what was charged for it."""
        del self._running[agent.job.pid]
        self._under_way.pop(agent.job.pid, None)
        agent.served += used
        self._shares.charge(agent.job.owner, agent.job.pid, used - agent.expected)

    def _failed(self, agent: Agent, ticket: Ticket, fault: ModelFault, asked_s: float | None) -> None:
        """End a call that came to nothing. It is made again, with the stamp of its first try."""
        broken = fault is ModelFault.CUT_STREAM
        self._over(agent, units(Usage(input_tokens=round(agent.fresh(self._provider)))) if broken else 0.0)
        self._run.wasted += 1
        agent.faults = counted(fault, agent.faults)
        verdict = judge(fault, agent.faults, asked_s, chance=self._chance.random(), has_next=False)
        if isinstance(verdict, GiveUp):
            self._lane.failed(ticket, self._now, fault, retry_at=None, limits=None)
            agent.gave_up = True
            return
        assert isinstance(verdict, Wait)
        retry_at = self._now + verdict.seconds
        parks = verdict.park
        self._lane.failed(ticket, self._now, fault, retry_at=retry_at if parks else None, limits=None)
        self._at(self._now if parks else retry_at, partial(self._ready.__setitem__, agent.job.pid, agent))

    def _answered(self, agent: Agent, ticket: Ticket, limits: RateLimits | None, number: int) -> None:
        if number != agent.sent:
            return  # it was cut
        act, provider = agent.act, self._provider
        fresh, written = round(agent.fresh(provider)), act.output_tokens - agent.written
        self._over(agent, units(Usage(input_tokens=fresh, output_tokens=written)))
        self._lengths.learn(agent.job.kind, "", act.output_tokens)
        self._lane.succeeded(ticket, self._now, (round(agent.context), written), limits)
        self._run.calls += 1
        agent.alone_s += agent.call_s(provider) + agent.written / provider.output_per_s
        agent.known = agent.context = min(float(provider.context_tokens), agent.context + written)
        agent.context = min(float(provider.context_tokens), agent.context + act.result_tokens)
        agent.left_units -= _units_of(act)
        agent.done, agent.written, agent.cuts, agent.sent = agent.done + 1, 0, 0, agent.sent + 1
        if agent.done == len(agent.job.acts):
            agent.finished_at = self._now
            self._guess.learn(agent)
            return
        agent.alone_s += act.tool_s
        self._at(self._now + act.tool_s, partial(self._back, agent))


class _Meter:
    """A provider's own count of its limits: buckets that refill evenly, of which it says when there is enough."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        limits = {"requests": provider.requests_per_min, "tokens": provider.tokens_per_min}
        self._buckets = {name: Bucket(limit, 0.0) for name, limit in limits.items() if limit is not None}

    def refuses(self, now: float, agent: Agent, in_flight: int) -> float | None:
        """Take a call's request and tokens; or return after how many seconds to come back, and take nothing."""
        if in_flight >= self._provider.slots:
            return self._provider.retry_after_s if self._provider.retry_after_s is not None else 0.0
        needed = {"requests": 1.0, "tokens": agent.context + agent.act.output_tokens}
        for name, bucket in self._buckets.items():
            bucket.refill(now)
            at = bucket.admits_at(needed[name], now)
            if at > now:
                return at - now
        for name, bucket in self._buckets.items():
            bucket.level -= needed[name]
        return None

    def told(self, now: float) -> RateLimits:
        """Return what the headers of an answer say."""
        requests, tokens = self._buckets.get("requests"), self._buckets.get("tokens")
        for bucket in self._buckets.values():
            bucket.refill(now)
        return RateLimits(
            requests_limit=self._provider.requests_per_min,
            requests_left=None if requests is None else max(0, int(requests.level)),
            tokens_limit=self._provider.tokens_per_min,
            tokens_left=None if tokens is None else max(0, int(tokens.level)),
        )
