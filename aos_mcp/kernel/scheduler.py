"""The scheduler: who runs next. Pure: a policy chooses from what is ready, given the time and what was served so far.

The default looks at four things, in this order. *Overdue*: one pick in `OVERDUE_SHARE` goes to whoever has waited
beyond the bound of its class, longest first; this alone bounds every wait, whatever comes in. *Class*: interactive
before normal before batch; a process that others wait for has the best class of those who wait. *Fair shares*: owners
take turns by virtual time (start-time fair queueing: the least served goes first), and so do the programs of an owner,
with `LEAD_UNITS` of leeway. *Short first*: within that leeway, whoever is expected to be done soonest.

Service is counted in units: fresh input tokens + 2 x output tokens. What is under way counts as what it is expected to
take, so that several picks at once are as fair as one by one. A tree of agents is one program.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from aos_mcp.abi.budget import Usage
from aos_mcp.abi.handle import Pid
from aos_mcp.abi.process import Candidate, SchedClass, sched_class

OUTPUT_WEIGHT = 2
"""Units of an output token; a fresh input token is one, a cached one is as good as free."""
OVERDUE_S: Mapping[SchedClass, float] = MappingProxyType(
    {SchedClass.INTERACTIVE: 60.0, SchedClass.NORMAL: 300.0, SchedClass.BATCH: 900.0}
)
"""After this long in the queue the order of arrival counts, and nothing else."""
OVERDUE_SHARE = 8
"""One pick in so many goes to the overdue. All of them, and an overload would make the default first come first served;
one in four, and an owner whose many agents are all overdue would be served twice what seven others are.

The bound: whoever is ready waits at most `OVERDUE_S` of its class, and then `OVERDUE_SHARE` picks for itself and for
each of those that were ready before it.
"""
LEAD_UNITS = 524_288
"""How far a program may get ahead of the least served of its owner for being short: a long agent's work, several times.

`aos bench schedule` shows the price of less: with half of it everybody is done 2 to 3 % later, and more gains nothing.
"""


def units(used: Usage) -> int:
    """Return the service that usage stands for."""
    return used.input_tokens + used.written_tokens + OUTPUT_WEIGHT * used.output_tokens


@dataclass(slots=True)
class Shares:
    """What owners and programs were served so far, as virtual time.

    A floor under each group (all owners; the programs of one owner) is the least virtual time of its busy members, and
    never falls. Whoever comes, or comes back, starts at the floor: idling earns no credit. Whoever was ahead stays so.
    """

    owners: dict[str, float] = field(default_factory=dict)
    programs: dict[Pid, float] = field(default_factory=dict)
    owners_floor: float = 0.0
    programs_floors: dict[str, float] = field(default_factory=dict)
    """By owner."""

    def admit(self, busy: Iterable[tuple[str, Pid]]) -> None:
        """Take note of who has work now (owner and program, ready or running): lift newcomers, raise the floors."""
        programs: dict[str, list[float]] = defaultdict(list)
        for owner, program in set(busy):
            floor = self.programs_floors.get(owner, 0.0)
            self.programs[program] = max(self.programs.get(program, 0.0), floor)
            programs[owner].append(self.programs[program])
        for owner, times in programs.items():
            self.owners[owner] = max(self.owners.get(owner, 0.0), self.owners_floor)
            self.programs_floors[owner] = min(times)
        if programs:
            self.owners_floor = min(self.owners[owner] for owner in programs)

    def charge(self, owner: str, program: Pid, served: float) -> None:
        """Count `served` units for a program and its owner."""
        self.programs[program] = self.programs.get(program, 0.0) + served
        self.owners[owner] = self.owners.get(owner, 0.0) + served


@dataclass(frozen=True, slots=True)
class Wait:
    """A process that waits for others, and lends them its class."""

    sched_class: SchedClass
    targets: tuple[Pid, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """Who was chosen, and why: a few words for the record."""

    candidate: Candidate
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a policy may look at beside the queue."""

    now: float
    shares: Shares
    picks: int
    """How many picks there were before."""


Policy = Callable[[Sequence[Candidate], Standing, int], list[Choice]]
Key = tuple[float | str, ...]


def choose(
    ready: Sequence[Candidate],
    now: float,
    policy: str,
    count: int,
    *,
    shares: Shares | None = None,
    picks: int = 0,
) -> list[Choice]:
    """Return the first `count` in the order in which they run, with the reason. Nothing that is given is changed.

    The answer does not depend on the order of `ready`. Ties go to the smaller pid: a run can be replayed.
    """
    return POLICIES[policy](ready, Standing(now=now, shares=shares or Shares(), picks=picks), count)


def lend(waits: Mapping[Pid, Wait], lineage: Callable[[Pid], Sequence[Pid]]) -> dict[Pid, SchedClass]:
    """Return the best class that each process which is waited for is lent; it goes to its descendants too.

    `waits` are those that wait, `lineage` gives a process and all its ancestors. A waiter passes on what it is lent
    itself, so a chain of waiters is lent the best class in it. Waits in a circle end: each is looked at once.
    """
    lent: dict[Pid, SchedClass] = {}
    waiting = {pid: frozenset(lineage(pid)) for pid in waits}
    for level in SchedClass:  # best first: what was lent at one level, no later one betters
        givers = [pid for pid in waiting if waits[pid].sched_class <= level]
        while givers:
            giver = givers.pop()
            if waiting.pop(giver, None) is None:
                continue
            for target in waits[giver].targets:
                if target not in lent:
                    lent[target] = level
                    givers += [pid for pid, line in waiting.items() if target in line]
    return lent


def inherited(candidate: Candidate, lent: Mapping[Pid, SchedClass], lineage: Sequence[Pid]) -> Candidate:
    """Return the candidate with the best class lent to it or to an ancestor, where that betters its own."""
    best = min((lent[pid] for pid in lineage if pid in lent), default=None)
    better = best if best is not None and best < sched_class(candidate.priority) else None
    return candidate if candidate.lent == better else replace(candidate, lent=better)


def rank(
    ready: Sequence[Candidate],
    now: float,
    policy: str,
    count: int,
    *,
    shares: Shares | None = None,
    picks: int = 0,
) -> list[Candidate]:
    """Return what `choose` does, without the reasons."""
    return [choice.candidate for choice in choose(ready, now, policy, count, shares=shares, picks=picks)]


def pick(
    ready: Sequence[Candidate],
    now: float,
    policy: str = "default",
    *,
    shares: Shares | None = None,
    picks: int = 0,
) -> Candidate | None:
    """Return who runs next, or None when nothing is ready."""
    return next(iter(rank(ready, now, policy, 1, shares=shares, picks=picks)), None)


def overdue(candidate: Candidate, now: float) -> bool:
    """Tell whether a candidate has waited beyond the bound of its class."""
    return now - candidate.ready_at >= OVERDUE_S[candidate.sched_class]


class _Line:
    """The candidates of one owner in one class: short first among the programs that are not too far ahead."""

    def __init__(self, times: dict[Pid, float]) -> None:
        self._times = times
        """Virtual times of programs, one for all lines: a charge in one counts in the others."""
        self._short: list[tuple[float, float, Pid, Candidate]] = []
        self._low: list[tuple[float, Pid]] = []
        self._waiting: dict[Pid, int] = defaultdict(int)
        """How many candidates a program has here."""
        self._taken: set[Pid] = set()
        self.size = 0

    def add(self, candidate: Candidate) -> None:
        self._short.append((candidate.units_left, candidate.ready_at, candidate.pid, candidate))
        self._waiting[candidate.program] += 1
        self.size += 1

    def order(self) -> None:
        """Make ready for the first look; nothing is added after it."""
        heapq.heapify(self._short)
        self._low = [(self._times[program], program) for program in self._waiting]
        heapq.heapify(self._low)

    def take(self, candidate: Candidate) -> None:
        self._taken.add(candidate.pid)
        self._waiting[candidate.program] -= 1
        self.size -= 1

    def first(self) -> tuple[Candidate, str]:
        """Return who is next, which leaves it in its place, and why. There is somebody."""
        limit, passed = self._least() + LEAD_UNITS, []
        while True:
            entry = heapq.heappop(self._short)
            if entry[2] in self._taken:
                continue
            passed.append(entry)
            if self._times[entry[3].program] <= limit:
                break
        for entry in passed:
            heapq.heappush(self._short, entry)
        why = "alone" if self.size == 1 else "shortest" if len(passed) == 1 else "its program was served least"
        return passed[-1][3], why

    def _least(self) -> float:
        while True:
            time, program = self._low[0]
            if self._waiting[program] and time == self._times[program]:
                return time
            heapq.heappop(self._low)
            if self._waiting[program]:
                heapq.heappush(self._low, (self._times[program], program))


def _default(ready: Sequence[Candidate], at: Standing, count: int) -> list[Choice]:
    owners = {c.owner: at.shares.owners.get(c.owner, at.shares.owners_floor) for c in ready}
    programs = {c.program: _time_of(c, at.shares) for c in ready}
    lines: dict[SchedClass, dict[str, _Line]] = defaultdict(dict)
    for candidate in ready:
        lines[candidate.sched_class].setdefault(candidate.owner, _Line(programs)).add(candidate)
    for line in (line for of_class in lines.values() for line in of_class.values()):
        line.order()
    late = deque(sorted((c for c in ready if overdue(c, at.now)), key=lambda c: (c.ready_at, c.pid)))
    taken: set[Pid] = set()
    chosen: list[Choice] = []
    for number in range(at.picks, at.picks + min(count, len(ready))):
        while late and late[0].pid in taken:
            late.popleft()
        if late and number % OVERDUE_SHARE == 0:
            choice = Choice(late[0], f"{_class_of(late[0])}, overdue after {OVERDUE_S[late[0].sched_class]:g} s")
        else:
            choice = _fairest(lines, owners)
        candidate = choice.candidate
        lines[candidate.sched_class][candidate.owner].take(candidate)
        taken.add(candidate.pid)
        programs[candidate.program] += candidate.turn_units
        owners[candidate.owner] += candidate.turn_units
        chosen.append(choice)
    return chosen


def _time_of(candidate: Candidate, shares: Shares) -> float:
    known = shares.programs.get(candidate.program)
    return known if known is not None else shares.programs_floors.get(candidate.owner, 0.0)


def _fairest(lines: Mapping[SchedClass, Mapping[str, _Line]], owners: Mapping[str, float]) -> Choice:
    for level in sorted(lines):
        here = [owner for owner, line in lines[level].items() if line.size]
        if here:
            owner = min(here, key=lambda name: (owners[name], name))
            candidate, why = lines[level][owner].first()
            if len(here) > 1:
                why = f"{why}, its owner was served least"
            return Choice(candidate, f"{_class_of(candidate)}, {why}")
    raise AssertionError("there are at most as many picks as candidates")


def _class_of(candidate: Candidate) -> str:
    name = candidate.sched_class.name.lower()
    return name if candidate.lent is None else f"{name} (lent)"


def _ordered(key: Callable[[Candidate], Key], why: str) -> Policy:
    def policy(ready: Sequence[Candidate], at: Standing, count: int) -> list[Choice]:
        first = heapq.nsmallest(count, ready, key=lambda c: (*key(c), c.pid))
        return [Choice(candidate, why) for candidate in first]

    return policy


POLICIES: Mapping[str, Policy] = MappingProxyType(
    {
        "default": _default,
        "fifo": _ordered(lambda c: (c.created_at,), "oldest"),
        "rr": _ordered(lambda c: (c.ready_at,), "waited longest"),
        "priority": _ordered(lambda c: (c.priority, c.ready_at), "best priority"),
    }
)
