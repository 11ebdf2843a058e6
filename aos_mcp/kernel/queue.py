"""The queue: what is ready and what was served, as far as this kernel knows, and the scheduler's choice from it.

The store is the truth. This is a copy that follows what is published, and is read anew whenever nothing was heard for a
while: an entry that is stale is refused at the claim, one that is missing is found at the next look. So two thousand
ready processes are not read for every turn that ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from aos_mcp.abi.handle import Pid
from aos_mcp.abi.limits import BRIEF_ROWS
from aos_mcp.abi.process import Candidate, sched_class
from aos_mcp.abi.scheduling import ALL_OWNERS, OWNER_PREFIX, Share
from aos_mcp.kernel import sizes
from aos_mcp.kernel.machine import Machine
from aos_mcp.kernel.scheduler import Choice, Shares, Wait, choose, inherited, lend
from aos_mcp.ports import Transaction

READY_SCAN_MAX = 2_000
RESCAN_S = 1.0
"""Everything is read this often, heard of or not."""


class Queue:
    """Looks and chooses. Used by the loop alone."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._ready: dict[Pid, Candidate] = {}
        self._shares = Shares()
        self._stored: dict[str, Share] = {}
        self._waits: dict[Pid, Wait] = {}
        """Of processes that have yet to start: they wait too."""
        self._lines: dict[Pid, tuple[Pid, ...]] = {}
        self._scanned_at = float("-inf")
        self._picks = 0

    async def look(self, count: int) -> list[Choice]:
        """Return the next `count` to run, best first. Nothing is changed on record."""
        machine = self._machine
        moved, machine.moved = machine.moved, set()
        served, machine.served = machine.served, set()
        whole = machine.rescan or machine.clock.monotonic() - self._scanned_at >= RESCAN_S
        machine.rescan = False
        if whole:
            self._scanned_at = machine.clock.monotonic()
        now = machine.clock.now()
        try:
            await machine.store.read(
                lambda tx: self._follow(tx, now, moved, served, whole=whole),
                brief=not whole and len(moved) <= BRIEF_ROWS,
            )
        except BaseException:
            machine.rescan = True  # what was heard is lost
            raise
        return self._choose(now, count)

    def _choose(self, now: float, count: int) -> list[Choice]:
        machine = self._machine
        ready = [c for c in self._ready.values() if c.pid not in machine.running and not machine.quiesced[c.pid]]
        waits = {**self._waits, **machine.waits}
        if waits:
            lent = lend(waits, self._lineage)
            ready = [inherited(c, lent, self._lineage(c.pid)) for c in ready]
        busy = {(c.owner, c.program) for c in ready}
        self._shares.admit(busy | {(owner, program) for owner, program, _ in machine.expected.values()})
        standing = replace(self._shares, owners=dict(self._shares.owners), programs=dict(self._shares.programs))
        for owner, program, units in machine.expected.values():
            standing.charge(owner, program, units)
        chosen = self._placed(ready, now, count, standing)
        machine.backlog = len(ready) - len(chosen)
        return chosen

    def _placed(self, ready: Sequence[Candidate], now: float, count: int, standing: Shares) -> list[Choice]:
        """Choose among those whose provider has a place for their call.

        Who would only wait in a lane stays in this queue, where the policy decides and no turn is begun in vain. One
        that has another model to go on with is begun where its lane is left alone: it will not wait there.
        """
        machine, chosen, taken = self._machine, list[Choice](), set[Pid]()
        heading = Counter(machine.heading.values())
        places: dict[str, int] = {}

        def has_place(one: Candidate) -> bool:
            provider = machine.admission.group_of(one.model)
            if provider not in places:
                places[provider] = machine.admission.room(one.model) - heading[provider]
            return places[provider] > 0 or (one.chained and machine.admission.is_blocked(one.model))

        while len(chosen) < count:
            pool = [one for one in ready if one.pid not in taken and has_place(one)]
            picks = self._picks + len(chosen)
            some = choose(pool, now, machine.policy, count - len(chosen), shares=standing, picks=picks)
            if not some:
                break
            for choice in some:
                if has_place(choice.candidate):
                    places[machine.admission.group_of(choice.candidate.model)] -= 1
                    taken.add(choice.candidate.pid)
                    chosen.append(choice)
        return chosen

    def claimed(self, choice: Choice) -> None:
        """Take note that a choice became a turn."""
        one = choice.candidate
        self._picks += 1
        self._ready.pop(one.pid, None)
        self._machine.levels[one.pid] = one.sched_class
        self._machine.heading[one.pid] = self._machine.admission.group_of(one.model)
        self._machine.expected[one.pid] = (one.owner, one.program, one.turn_units)

    def keep(self, tx: Transaction, choices: Sequence[Choice]) -> None:
        """Put on record where those begin that are about to be served, and the floors. Safe to run again."""
        owners = {choice.candidate.owner for choice in choices}
        shares = [
            Share(name=choice.candidate.program, served=self._shares.programs[choice.candidate.program])
            for choice in choices
        ]
        shares += [
            Share(
                name=OWNER_PREFIX + owner,
                served=self._shares.owners[owner],
                floor=self._shares.programs_floors[owner],
            )
            for owner in owners
        ]
        shares.append(Share(name=ALL_OWNERS, served=0.0, floor=self._shares.owners_floor))
        for share in {share.name: share for share in shares}.values():
            if self._stored.get(share.name) != share:
                tx.share_put(share)

    def _follow(
        self, tx: Transaction, now: float, moved: set[Pid], served: set[tuple[str, Pid]], *, whole: bool
    ) -> None:
        if whole:
            found = {c.pid: c for c in tx.process_ready(now, limit=READY_SCAN_MAX)}
            self._waits = self._yet_to_start(tx)
            fresh = [c for c in found.values() if c.pid in moved or not self._knows(c)]
            self._ready = {pid: self._ready.get(pid, c) for pid, c in found.items()}
            self._lines = {pid: line for pid, line in self._lines.items() if pid in found}
        else:
            fresh = tx.process_ready(now, among=sorted(moved), limit=READY_SCAN_MAX)
            for pid in moved:
                self._ready.pop(pid, None)
        work = tx.process_work([c.pid for c in fresh]) if fresh else {}
        for candidate in fresh:
            turn, left = sizes.expected(work[candidate.pid]) if candidate.pid in work else (0.0, 0.0)
            self._ready[candidate.pid] = replace(candidate, turn_units=turn, units_left=left)
        if self._waits or self._machine.waits:
            self._trace(tx)
        known = {(c.owner, c.program) for c in (self._ready.values() if whole else fresh)}
        known |= {(owner, program) for owner, program, _ in self._machine.expected.values()}
        self._read_shares(tx, known | served, whole=whole)

    def _knows(self, candidate: Candidate) -> bool:
        known = self._ready.get(candidate.pid)
        return known is not None and known.ready_at == candidate.ready_at

    def _read_shares(self, tx: Transaction, of: set[tuple[str, Pid]], *, whole: bool) -> None:
        owners, programs = {owner for owner, _ in of}, {program for _, program in of}
        names = [ALL_OWNERS, *(OWNER_PREFIX + owner for owner in owners), *programs]
        self._stored = {**({} if whole else self._stored), **tx.share_list(sorted(names))}
        shares, stored = self._shares, self._stored
        shares.owners_floor = max(shares.owners_floor, stored[ALL_OWNERS].floor if ALL_OWNERS in stored else 0.0)
        for owner in owners & {name.removeprefix(OWNER_PREFIX) for name in stored}:
            share = stored[OWNER_PREFIX + owner]
            shares.owners[owner] = share.served
            shares.programs_floors[owner] = max(shares.programs_floors.get(owner, 0.0), share.floor)
        if whole:
            shares.programs = {}
        shares.programs.update({program: stored[program].served for program in programs if program in stored})

    def _yet_to_start(self, tx: Transaction) -> dict[Pid, Wait]:
        waits: dict[Pid, Wait] = {}
        for pid, priority, target in tx.dependency_waiting():
            known = waits.get(pid, Wait(sched_class(priority), ()))
            waits[pid] = replace(known, targets=(*known.targets, target))
        return waits

    def _trace(self, tx: Transaction) -> None:
        for pid in (*self._ready, *self._waits, *self._machine.waits):
            if pid not in self._lines:
                line, link = [pid], tx.process_get(pid)
                while link is not None and link.parent is not None:
                    line.append(link.parent)
                    link = tx.process_get(link.parent)
                self._lines[pid] = tuple(line)

    def _lineage(self, pid: Pid) -> Sequence[Pid]:
        return self._lines.get(pid, (pid,))
