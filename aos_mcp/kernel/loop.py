"""The loop: wake or tick, pick, claim, run a turn. It holds no state that a crash could lose."""

from __future__ import annotations

import logging
import math

import anyio
from anyio.abc import TaskGroup

from aos_mcp.abi.budget import Usage
from aos_mcp.abi.event import EventKind
from aos_mcp.abi.handle import Pid
from aos_mcp.abi.limits import HANG_S, LEASE_RENEW_S, LEASE_S, QUANTA_INFLIGHT_MAX, SHUTDOWN_S
from aos_mcp.abi.process import ExitCode, Process, ProcessState
from aos_mcp.kernel import table
from aos_mcp.kernel.gate import Gate
from aos_mcp.kernel.machine import Machine
from aos_mcp.kernel.quantum import Quantum
from aos_mcp.kernel.scheduler import Candidate, pick
from aos_mcp.ports import Transaction

logger = logging.getLogger(__name__)

TICK_S = 1.0
"""The queue is looked at this often even when nothing wakes the loop: for timers, and for what a hint lost."""
READY_SCAN_MAX = 2_000
WATCH_S = 5.0


class Loop:
    """Runs turns until cancelled."""

    def __init__(self, machine: Machine, gate: Gate) -> None:
        self._machine = machine
        self._gate = gate

    async def run(self) -> None:
        """Schedule turns, renew leases and watch for hangs. On cancellation, turns under way are cut."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._renew)
            group.start_soon(self._watch)
            group.start_soon(self._reap)
            while True:
                await self._round(group)

    async def _round(self, group: TaskGroup) -> None:
        machine = self._machine
        woken = machine.ready = anyio.Event()  # before the look, so that nothing that comes after it is missed
        if not await self._start_turns(group):
            now = machine.clock.now()
            if machine.alarm <= now:
                machine.alarm = math.inf
                return  # what slept until now was not ready yet when we looked
            with anyio.move_on_after(min(TICK_S, max(0.0, machine.alarm - now))):
                await woken.wait()

    async def _start_turns(self, group: TaskGroup) -> int:
        machine = self._machine
        room = min(machine.settings.concurrency, QUANTA_INFLIGHT_MAX) - (len(machine.running) - len(machine.blocked))
        if room <= 0 or machine.stopping:
            return 0
        now = machine.clock.now()
        ready = await machine.store.read(lambda tx: self._candidates(tx, now))
        chosen: list[Pid] = []
        while ready and len(chosen) < room:
            candidate = pick(ready, now, machine.settings.scheduler)
            assert candidate is not None
            ready.remove(candidate)
            chosen.append(candidate.pid)
        if not chosen:
            return 0
        claimed = await machine.store.write(lambda tx: self._claim(tx, chosen))
        for process, waited_s in claimed:
            machine.metrics.wait_seconds.observe(waited_s)
            scope = anyio.CancelScope()
            machine.running[process.pid] = scope
            machine.alive[process.pid] = machine.clock.monotonic()
            machine.process_changed(process)
            group.start_soon(self._turn, process, scope)
        return len(claimed)

    def _candidates(self, tx: Transaction, now: float) -> list[Candidate]:
        rows = [
            row
            for row in tx.process_ready(now, limit=READY_SCAN_MAX)
            if row.pid not in self._machine.running and not self._machine.quiesced[row.pid]
        ]
        accounts = tx.accounts_get(sorted({row.program for row in rows}))
        return [
            Candidate(
                pid=row.pid,
                program=row.program,
                owner=row.owner,
                priority=row.priority,
                ready_at=row.updated_at,
                created_at=row.created_at,
                attained=_attained(accounts[row.program].used) if row.program in accounts else 0,
            )
            for row in rows
        ]

    def _claim(self, tx: Transaction, pids: list[Pid]) -> list[tuple[Process, float]]:
        now, claimed = self._machine.clock.now(), []
        for pid in pids:
            row = tx.process_get(pid)
            if row is None or row.state is not ProcessState.READY:
                continue
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
            claimed.append((process, max(0.0, now - row.updated_at)))
        return claimed

    async def _turn(self, process: Process, scope: anyio.CancelScope) -> None:
        machine = self._machine
        try:
            with scope:
                await Quantum(machine, self._gate, process).run()
        finally:
            machine.running.pop(process.pid, None)
            machine.alive.pop(process.pid, None)
            machine.blocked.pop(process.pid, None)
            machine.wake()

    async def _renew(self) -> None:
        machine = self._machine
        while True:
            await machine.clock.sleep_until(machine.clock.now() + LEASE_RENEW_S)
            await machine.store.write(lambda tx: tx.process_renew(machine.node, machine.clock.now() + LEASE_S))

    async def _watch(self) -> None:
        """End turns that show no sign of life."""
        machine = self._machine
        while True:
            await machine.clock.sleep_until(machine.clock.now() + WATCH_S)
            now = machine.clock.monotonic()
            hung = [pid for pid, seen in machine.alive.items() if pid not in machine.blocked and now - seen > HANG_S]
            for pid in hung:
                await self._end_hung(pid)

    async def _reap(self) -> None:
        """End the sandbox of every process that ends."""
        machine = self._machine
        with machine.bus.listen() as events:
            async for event in events:
                if event.kind is EventKind.PROCESS and event.detail == ProcessState.EXITED:
                    with anyio.move_on_after(SHUTDOWN_S):
                        await machine.sandbox.close(event.subject)

    async def _end_hung(self, pid: Pid) -> None:
        machine = self._machine
        logger.warning("%s shows no sign of life; its turn is ended", pid)

        def work(tx: Transaction) -> Process | None:
            process = tx.process_get(pid)
            if process is None or process.state is not ProcessState.RUNNING:
                return None
            reason = f"No sign of life for {HANG_S:g} s."
            return table.end(tx, process, now=machine.clock.now(), code=ExitCode.HUNG, reason=reason)

        process = await machine.store.write(work)
        scope = machine.running.get(pid)
        if scope is not None:
            scope.cancel()
        if process is not None:
            machine.process_changed(process)


def _attained(used: Usage) -> int:
    return used.input_tokens + used.written_tokens + 2 * used.output_tokens
