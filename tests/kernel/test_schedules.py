"""Schedules in a running kernel, by a clock that the test holds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from aos_mcp.abi.capability import Caller, CallerKind
from aos_mcp.abi.errors import Conflict, Invalid, NotFound
from aos_mcp.abi.process import ProcessState
from aos_mcp.testing.clock import FakeClock
from aos_mcp.testing.kernels import OWNER, TestKernel, kernel_on
from aos_mcp.testing.model import ScriptedModel, ScriptedModels, calls, says
from tests.kernel.stage import DEADLINE_S, NAME, ended, models

pytestmark = pytest.mark.anyio
OPERATOR = Caller(kind=CallerKind.OPERATOR, principal=OWNER, host="cli")
SPAWN = {"task": "look at the news"}


@asynccontextmanager
async def held(home: Path, clock: FakeClock, catalogue: ScriptedModels | None = None) -> AsyncIterator[TestKernel]:
    async with kernel_on(home, catalogue or models(says("done")), clock=clock) as k:
        with anyio.fail_after(DEADLINE_S):
            yield k


async def add(k: TestKernel, **changes: object) -> Any:
    return await k.call("add_schedule", OPERATOR, **{"name": "news", "form": "every 1h", "spawn": SPAWN, **changes})


async def one(k: TestKernel) -> Any:
    (row,) = (await k.call("list_schedules", OPERATOR)).schedules
    return row


async def after_runs(k: TestKernel, count: int) -> Any:
    """Return the schedule once it has run so often."""
    with k.kernel.listen() as events:
        while (row := await one(k)).runs < count:
            await events.receive()
    return row


async def settled(k: TestKernel, outcome: str) -> Any:
    """Return the schedule once its last outcome begins like this."""
    while not (row := await one(k)).last_outcome.startswith(outcome):
        await anyio.lowlevel.checkpoint()
    return row


async def test_a_run_is_an_ordinary_agent_under_the_schedules_account(tmp_path: Path) -> None:
    clock = FakeClock()
    async with held(tmp_path, clock) as k:
        added = await add(k, total_tokens=100_000, spawn={**SPAWN, "budget": {"tokens": 50_000}})
        assert added.next_at == clock.now() + 3_600
        assert k.kernel.busy() or await one(k), "a kernel with something to come stays up"
        clock.advance(3_601)
        row = await after_runs(k, 1)
        agent = await ended(k, row.last_pid)
        assert agent.result == "done", agent.reason
        assert agent.name == SPAWN["task"]
        again = await one(k)
        staged = await k.machine.store.read(lambda tx: tx.audit_staged(limit=999))
        sealed = await k.machine.store.read(lambda tx: tx.audit_tail(limit=999))
    assert (again.last_outcome, again.last_at, again.next_at) == ("done", clock.now(), added.next_at + 3_600)
    assert again.usage.input_tokens == agent.usage.input_tokens
    told = [entry for _, entry in staged] + [record.entry for record in sealed]
    assert [entry.outcome for entry in told if entry.call == "run_schedule"] == ["ok"]


async def test_missed_runs_are_made_up_for_once_by_the_next_kernel(tmp_path: Path) -> None:
    clock = FakeClock()
    async with held(tmp_path, clock) as k:
        first = (await add(k)).next_at
    clock.advance(10 * 3_600 + 5)
    async with held(tmp_path, clock) as k:
        row = await after_runs(k, 1)
        await ended(k, row.last_pid)
        await settled(k, "done")
        row = await one(k)
    assert row.runs == 1
    assert row.next_at == first + 10 * 3_600


async def test_all_missed_runs_are_made_up_for_one_after_the_other(tmp_path: Path) -> None:
    clock = FakeClock()
    async with held(tmp_path, clock) as k:
        await add(k, missed="all")
    clock.advance(3 * 3_600 + 5)
    async with held(tmp_path, clock) as k:
        row = await after_runs(k, 3)
        await ended(k, row.last_pid)
        agents = (await k.call("list_agents")).agents
    assert len(agents) == 3
    assert row.next_at > clock.now()


async def test_a_run_does_not_begin_while_the_former_one_lasts(tmp_path: Path) -> None:
    clock, gate = FakeClock(), anyio.Event()
    slow = ScriptedModels(ScriptedModel(NAME, (says("done"),), gate=gate))
    async with held(tmp_path, clock, slow) as k:
        await add(k, form="every 1m")
        clock.advance(61)
        row = await after_runs(k, 1)
        clock.advance(60)
        row = await settled(k, "skipped")
        assert row.runs == 1
        with pytest.raises(Conflict):
            await k.call("run_schedule", OPERATOR, schedule="news")
        gate.set()
        await ended(k, row.last_pid)
        assert (await k.call("run_schedule", OPERATOR, schedule="news")).runs == 2


async def test_the_total_bounds_all_runs_together(tmp_path: Path) -> None:
    clock = FakeClock()
    async with held(tmp_path, clock) as k:
        await add(k, total_usd=0.000_001)
        clock.advance(3_601)
        row = await after_runs(k, 1)
        assert (await ended(k, row.last_pid)).exit_code == "budget_exhausted"
        assert (await one(k)).usage.usd == 0.0


async def test_a_run_that_cannot_begin_says_why_and_the_next_is_tried(tmp_path: Path) -> None:
    clock = FakeClock()
    async with held(tmp_path, clock) as k:
        added = await add(k, total_tokens=100_000, spawn={**SPAWN, "budget": {"tokens": 100_000}})
        clock.advance(3_601)
        await ended(k, (await after_runs(k, 1)).last_pid)
        clock.advance(3_600)
        row = await settled(k, "refused: ")
        assert "tokens" in row.last_outcome
        assert (row.runs, row.next_at) == (1, added.next_at + 2 * 3_600)


async def test_the_outcome_says_how_the_last_run_ended(tmp_path: Path) -> None:
    clock, gate = FakeClock(), anyio.Event()
    slow = ScriptedModels(ScriptedModel(NAME, (calls(("exit", {"result": "no", "failed": True})),), gate=gate))
    async with held(tmp_path, clock, slow) as k:
        await add(k)
        pid = (await k.call("run_schedule", OPERATOR, schedule="news")).last_pid
        assert (await one(k)).last_outcome == "started"
        gate.set()
        await ended(k, pid)
        assert (await one(k)).last_outcome == "failed"


@pytest.mark.parametrize(
    ("run", "total"),
    [({"tokens": 5_001}, {"total_tokens": 5_000}), ({"usd": 0.2}, {"total_usd": 0.1})],
)
async def test_a_run_that_could_never_be_paid_for_is_refused_at_once(
    tmp_path: Path, run: dict[str, float], total: dict[str, float]
) -> None:
    async with held(tmp_path, FakeClock()) as k:
        with pytest.raises(Invalid, match="One run asks for"):
            await add(k, spawn={**SPAWN, "budget": run}, **total)
        (unit,) = run
        await add(k, spawn={**SPAWN, "budget": {unit: total[f"total_{unit}"]}}, **total)


async def test_a_schedule_whose_runs_would_all_be_one_agent_is_refused(tmp_path: Path) -> None:
    async with held(tmp_path, FakeClock()) as k:
        with pytest.raises(Invalid, match="every run would be the same agent"):
            await add(k, spawn={**SPAWN, "idempotency_key": "once"})


async def test_a_schedule_rests_goes_on_and_is_removed(tmp_path: Path) -> None:
    clock = FakeClock()
    async with held(tmp_path, clock) as k:
        added = await add(k)
        assert (await k.call("pause_schedule", OPERATOR, schedule="news")).paused
        clock.advance(5 * 3_600)
        resumed = await k.call("pause_schedule", OPERATOR, schedule=added.schedule_id, paused=False)
        assert (resumed.paused, resumed.runs) == (False, 0)
        assert resumed.next_at > clock.now()
        clock.advance(3_600)
        row = await after_runs(k, 1)
        await ended(k, row.last_pid)
        await k.call("remove_schedule", OPERATOR, schedule="news")
        assert (await k.call("list_schedules", OPERATOR)).schedules == []
        with pytest.raises(NotFound):
            await k.call("run_schedule", OPERATOR, schedule="news")


async def test_a_schedule_of_one_moment_runs_once(tmp_path: Path) -> None:
    clock = FakeClock()
    async with held(tmp_path, clock) as k:
        await add(k, form="at 2023-11-15T09:00", zone="UTC")
        clock.advance(86_400)
        row = await after_runs(k, 1)
        assert row.next_at is None
        await ended(k, row.last_pid)
        assert not k.kernel.busy() or (await one(k)).next_at is None


async def test_what_makes_no_sense_is_refused_and_only_the_operator_may(tmp_path: Path) -> None:
    clock = FakeClock()
    async with held(tmp_path, clock) as k:
        for changes in ({"form": "now and then"}, {"zone": "Mars/Olympus"}, {"spawn": {"task": ""}}):
            with pytest.raises(Invalid):
                await add(k, **changes)
        with pytest.raises(NotFound):
            await add(k, spawn={**SPAWN, "agent": "nobody"})
        await add(k)
        with pytest.raises(Conflict):
            await add(k)
        foreign = Caller(kind=CallerKind.OPERATOR, principal="local:somebody else", host="cli")
        assert (await k.call("list_schedules", foreign)).schedules == []
        with pytest.raises(NotFound):
            await k.call("pause_schedule", foreign, schedule="news")
        with pytest.raises(NotFound):
            await k.call("add_schedule", name="x", form="every 1h", spawn=SPAWN)


async def test_a_run_survives_the_kernel_that_started_it(tmp_path: Path) -> None:
    """Spawn and record are one transaction: after a restart there is one run, not none and not two."""
    clock, gate = FakeClock(), anyio.Event()
    slow = ScriptedModels(ScriptedModel(NAME, (says("done"),), gate=gate))
    async with held(tmp_path, clock, slow) as k:
        await add(k)
        clock.advance(3_601)
        pid = (await after_runs(k, 1)).last_pid
    gate.set()
    async with held(tmp_path, clock, slow) as k:
        assert (await ended(k, pid)).state is ProcessState.EXITED
        assert len((await k.call("list_agents")).agents) == 1
