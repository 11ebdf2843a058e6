"""The loop: wake or tick, pick, claim, run a turn. It holds no state that a crash could lose."""

from __future__ import annotations

import logging
import math
from functools import partial

import anyio
from anyio.abc import TaskGroup

from aos_mcp.abi.errors import AosError, BudgetExhausted
from aos_mcp.abi.event import EventKind
from aos_mcp.abi.handle import Pid
from aos_mcp.abi.limits import (
    BRIEF_ROWS,
    HANG_S,
    LEASE_RENEW_S,
    LEASE_S,
    PICKS_KEPT,
    QUANTA_INFLIGHT_MAX,
    SHUTDOWN_S,
)
from aos_mcp.abi.process import ExitCode, Process, ProcessState
from aos_mcp.abi.scheduling import Pick
from aos_mcp.kernel import budget, dependents, table
from aos_mcp.kernel.approvals import stale, withdraw
from aos_mcp.kernel.autosave import autosave
from aos_mcp.kernel.gate import Gate
from aos_mcp.kernel.machine import Machine
from aos_mcp.kernel.quantum import Quantum
from aos_mcp.kernel.queue import Queue
from aos_mcp.kernel.recovery import charge_lost, lost_reservations, take_over
from aos_mcp.kernel.scheduler import Choice
from aos_mcp.kernel.steady import steadily
from aos_mcp.ports import Transaction

logger = logging.getLogger(__name__)

TICK_S = 1.0
"""The queue is looked at this often even when nothing wakes the loop: for timers, and for what a hint lost."""
WATCH_S = 5.0


class Loop:
    """Runs turns until cancelled."""

    def __init__(self, machine: Machine, gate: Gate) -> None:
        self._machine = machine
        self._gate = gate
        self._queue = Queue(machine)

    async def run(self) -> None:
        """Schedule turns, renew leases and watch for hangs. On cancellation, turns under way are cut."""
        async with anyio.create_task_group() as group:
            group.start_soon(steadily, self._machine, "lease", self._renew)
            group.start_soon(steadily, self._machine, "watchdog", self._watch)
            group.start_soon(self._reap)
            await steadily(self._machine, "loop", partial(self._round, group))

    async def _round(self, group: TaskGroup) -> None:
        machine = self._machine
        woken = machine.ready = anyio.Event()  # before the look, so that nothing that comes after it is missed
        if not await self._start_turns(group):
            now = machine.clock.now()
            if machine.alarm <= now:
                machine.alarm = math.inf
                machine.rescan = True
                return  # what slept until now was not ready yet when we looked
            with anyio.move_on_after(min(TICK_S, max(0.0, machine.alarm - now))):
                await woken.wait()
                return
            machine.rescan = True  # a timer, or a hint that was lost

    async def _start_turns(self, group: TaskGroup) -> int:
        machine = self._machine
        # A turn that waits takes no place: for a person, a child, a tool, a command, or its turn in a provider's lane.
        waiting = {*machine.blocked, *machine.outside}
        room = min(machine.settings.concurrency, QUANTA_INFLIGHT_MAX) - (len(machine.running) - len(waiting))
        if room <= 0 or machine.stopping:
            return 0
        chosen = await self._queue.look(room)
        if machine.stopping or not chosen:
            return 0  # it began to stop while we looked
        claimed = await machine.store.write(lambda tx: self._claim(tx, chosen), brief=len(chosen) <= BRIEF_ROWS)
        for choice in chosen:
            machine.moved.add(choice.candidate.pid)  # whether it was claimed or had changed: read it again
        for process, choice, waited_s in claimed:
            self._queue.claimed(choice)
            level = choice.candidate.sched_class.name.lower()
            machine.metrics.wait_seconds.labels(level, machine.policy).observe(waited_s)
            scope = anyio.CancelScope()
            machine.running[process.pid] = scope
            machine.alive[process.pid] = machine.clock.monotonic()
            machine.process_changed(process)
            group.start_soon(self._turn, process, scope, level)
        return len(claimed)

    def _claim(self, tx: Transaction, choices: list[Choice]) -> list[tuple[Process, Choice, float]]:
        now, claimed = self._machine.clock.now(), []
        for choice in choices:
            row = tx.process_get(choice.candidate.pid)
            if row is None or row.state is not ProcessState.READY or self._machine.quiesced[row.pid]:
                continue
            if row.fence == 0:
                row = dependents.deliver(tx, self._machine, row, now)
            process = table.transition(
                tx,
                row,
                ProcessState.RUNNING,
                now=now,
                fence=row.fence + 1,
                lease_holder=self._machine.node,
                lease_until=now + LEASE_S,
                wake_at=None,
            )
            waited_s = process.waiting_s - row.waiting_s
            tx.pick_insert(Pick(pid=row.pid, since=now - waited_s, at=now, why=choice.why))
            claimed.append((process, choice, waited_s))
        self._queue.keep(tx, [choice for _, choice, _ in claimed])
        return claimed

    async def _turn(self, process: Process, scope: anyio.CancelScope, level: str) -> None:
        machine = self._machine
        started = machine.clock.monotonic()
        try:
            with scope:
                await Quantum(machine, self._gate, process).run()
                await autosave(machine, process.pid)
        finally:
            machine.running.pop(process.pid, None)
            machine.heading.pop(process.pid, None)
            machine.alive.pop(process.pid, None)
            machine.blocked.pop(process.pid, None)
            machine.waits.pop(process.pid, None)
            machine.expected.pop(process.pid, None)
            machine.levels.pop(process.pid, None)
            machine.metrics.run_seconds.labels(level, machine.policy).observe(machine.clock.monotonic() - started)
            machine.wake(process.pid)

    async def _renew(self) -> None:
        machine = self._machine
        await machine.clock.sleep_until(machine.clock.now() + LEASE_RENEW_S)
        await machine.store.write(lambda tx: tx.process_renew(machine.node, machine.clock.now() + LEASE_S))

    async def _watch(self) -> None:
        """Keep the table true to life.

        Ends turns that show no sign of life or whose time is over, frees processes whose turn ended without a word, and
        withdraws questions that nobody waits for.
        """
        machine = self._machine
        await machine.clock.sleep_until(machine.clock.now() + WATCH_S)
        now = machine.clock.monotonic()
        excused = {*machine.blocked, *machine.outside}
        for pid in [pid for pid, seen in machine.alive.items() if pid not in excused and now - seen > HANG_S]:
            logger.warning("%s shows no sign of life; its turn is ended", pid)
            await self._end(pid, ExitCode.HUNG, f"No sign of life for {HANG_S:g} s.")
        for pid, reason in await machine.store.read(self._overdue):
            await self._end(pid, ExitCode.BUDGET, reason)
        if await machine.store.read(lambda tx: stale(tx, machine.clock.now())):
            await machine.store.write(lambda tx: withdraw(tx, machine.clock.now()))
        if await machine.store.read(partial(lost_reservations, machine=machine)):
            await machine.store.write(partial(charge_lost, machine=machine))
        await machine.store.write(lambda tx: tx.pick_prune(PICKS_KEPT))
        leased = await machine.store.read(lambda tx: tx.process_leased())
        for process in leased:
            if process.lease_holder == machine.node and self._is_stranded(process):
                await machine.store.write(partial(take_over, machine=machine, pid=process.pid))
                machine.wake()

    def _overdue(self, tx: Transaction) -> list[tuple[Pid, str]]:
        """Return what is under way or waits though its time is over; what is READY ends when its turn comes."""
        found = []
        for process in tx.process_leased():
            try:
                budget.check_wall(tx.account_chain(process.pid), self._machine.clock.now())
            except BudgetExhausted as error:
                found.append((process.pid, str(error)))
        return found

    def _is_stranded(self, process: Process) -> bool:
        """Tell whether a process is RUNNING on record only: its turn met a store that could not be written to."""
        idle_s = self._machine.clock.now() - process.updated_at
        return process.pid not in self._machine.running and idle_s > WATCH_S

    async def _reap(self) -> None:
        """End the sandbox of every process that ends."""
        machine = self._machine
        with machine.bus.listen() as events:
            async for event in events:
                if event.kind is EventKind.PROCESS and event.detail == ProcessState.EXITED:
                    machine.unsaved.pop(Pid(event.subject), None)
                    await self._close_sandbox(event.subject)
                    await self._cut_losers(Pid(event.subject))

    async def _cut_losers(self, pid: Pid) -> None:
        """Cut the turns of those whose race this process has won. That they have ended is on record already."""

        def lost(tx: Transaction) -> list[Process]:
            winner = tx.process_get(pid)
            return table.losers(tx, pid) if winner is not None and winner.exit_code is ExitCode.DONE else []

        for process in await self._machine.store.read(lost):
            self._machine.cut(process.pid)
            self._machine.process_changed(process)

    async def _close_sandbox(self, session: str) -> None:
        try:
            with anyio.move_on_after(SHUTDOWN_S):
                await self._machine.sandbox.close(session)
        except AosError as error:  # the sandbox ends idle sessions by itself
            logger.warning("the sandbox of %s could not be closed: %s", session, error)

    async def _end(self, pid: Pid, code: ExitCode, reason: str) -> None:
        machine = self._machine

        def work(tx: Transaction) -> Process | None:
            process = tx.process_get(pid)
            if process is None or process.state not in {ProcessState.RUNNING, ProcessState.BLOCKED}:
                return None
            return table.end(tx, process, now=machine.clock.now(), code=code, reason=reason)

        process = await machine.store.write(work, brief=True)
        machine.cut(pid)
        if process is not None:
            machine.process_changed(process)
