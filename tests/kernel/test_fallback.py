"""What becomes of a model call that failed: it is tried again in its place, or the next model of the chain goes on."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aos_mcp.abi.errors import Invalid, ModelError, ModelFault
from aos_mcp.abi.limits import (
    COMPLETE_PATIENCE_S,
    FALLBACK_AFTER_TRIES,
    FALLBACK_WAIT_S,
    MODEL_RETRIES_MAX,
    MODEL_RETRY_CAP_S,
)
from aos_mcp.abi.settings import ProviderSettings, Settings
from aos_mcp.kernel.retry import ELSEWHERE, IMPATIENT, PATIENT, GiveUp, Next, Wait, chain_of, counted, judge
from aos_mcp.testing.kernels import kernel_on
from aos_mcp.testing.model import ScriptedModel, ScriptedModels, calls, says
from tests.kernel.stage import DEADLINE_S

FIRST, SECOND = "one/model", "two/model"
CHAIN = f"{FIRST}, {SECOND}"


def fault(kind: ModelFault, retry_after_s: float | None = 0.0) -> ModelError:
    return ModelError(kind, f"it said {kind}.", "wait", retry_after_s=retry_after_s)


@given(
    kind=st.sampled_from(sorted(ModelFault)),
    before=st.integers(0, 40),
    asked=st.none() | st.floats(0, 600),
    chance=st.floats(0, 0.999),
    has_next=st.booleans(),
)
def test_a_verdict_waits_only_for_what_waiting_cures(
    kind: ModelFault, before: int, asked: float | None, chance: float, has_next: bool
) -> None:
    faults = counted(kind, before)
    verdict = judge(kind, faults, asked, chance=chance, has_next=has_next)
    if kind in PATIENT:
        assert not isinstance(verdict, GiveUp), "nothing dies of what waiting cures"
        assert before <= faults <= max(before, MODEL_RETRIES_MAX), "and it uses up nobody's tries"
    elif kind in ELSEWHERE:
        assert isinstance(verdict, Next if has_next else GiveUp)
    elif kind not in IMPATIENT:
        assert isinstance(verdict, GiveUp)
    if isinstance(verdict, Next):
        assert has_next
    if isinstance(verdict, Wait):
        assert 0 < verdict.seconds <= max(asked or 0.0, MODEL_RETRY_CAP_S)
        assert verdict.seconds >= (asked or 0.0)
        assert verdict.park is (kind in PATIENT)
        assert not (has_next and (faults >= FALLBACK_AFTER_TRIES or verdict.seconds > FALLBACK_WAIT_S))


def test_a_chain_is_written_with_commas() -> None:
    assert chain_of("a/b") == ("a/b",)
    assert chain_of("a/b , c/d:7b,e/f") == ("a/b", "c/d:7b", "e/f")


@pytest.mark.parametrize("kind", [ModelFault.AUTH, ModelFault.SPEND_LIMIT])
async def test_an_agent_goes_on_with_the_next_model_of_its_chain(tmp_path: Path, kind: ModelFault) -> None:
    one = ScriptedModel(FIRST, (calls(("list_agents", {})), fault(kind)))
    two = ScriptedModel(SECOND, (says("never asked for the first turn"), says("done by the second")))
    async with kernel_on(tmp_path, ScriptedModels(one, two)) as k:
        with anyio.fail_after(DEADLINE_S):
            done = await k.call("spawn_agent", task="go on", model=CHAIN, wait_s=15)
        assert (done.exit_code, done.result) == ("done", "done by the second")
        assert two.prompts[0].turns[0] == one.prompts[0].turns[0], "with the whole context"
        steps = (await k.call("read_journal", pid=done.pid)).steps
        moved = [step for step in steps if step.call == "fallback"]
        assert len(moved) == 1
        body = await k.machine.store.read(lambda tx: tx.payload_get(moved[0].intent))
        assert body is not None
        told = json.loads(body)
        assert (told["from"], told["to"], told["fault"]) == (FIRST, SECOND, kind)
        assert (await k.call("read_process", pid=done.pid)).model == SECOND
        log = [row for row in (await k.call("read_audit", pid=done.pid, verify=True)).records if row.call == "fallback"]
        assert [row.subject for row in log] == [SECOND]


async def test_a_provider_that_asks_for_a_long_wait_is_left_for_the_next(tmp_path: Path) -> None:
    one = ScriptedModel(FIRST, (says("late"),), failures=[fault(ModelFault.RATE, FALLBACK_WAIT_S + 1)])
    two = ScriptedModel(SECOND, (says("at once"),))
    async with kernel_on(tmp_path, ScriptedModels(one, two)) as k:
        with anyio.fail_after(DEADLINE_S):
            done = await k.call("spawn_agent", task="go on", model=CHAIN, wait_s=15)
            alone = await k.call("complete", prompt="hi", model=CHAIN)
        assert done.result == "at once"
        assert alone.text == "at once", "a parked lane is not waited for where there is another"
        assert len(one.prompts) == 1


async def test_a_fault_that_no_other_provider_cures_ends_the_agent(tmp_path: Path) -> None:
    one = ScriptedModel(FIRST, (fault(ModelFault.REFUSED),))
    two = ScriptedModel(SECOND, (says("would have"),))
    async with kernel_on(tmp_path, ScriptedModels(one, two)) as k:
        with anyio.fail_after(DEADLINE_S):
            done = await k.call("spawn_agent", task="go on", model=CHAIN, wait_s=15)
        assert done.exit_code == "failed"
        assert two.prompts == []


async def test_one_call_is_tried_again_and_then_made_on_the_next_model(tmp_path: Path) -> None:
    down: list[Exception] = [fault(ModelFault.TRANSPORT) for _ in range(FALLBACK_AFTER_TRIES)]
    one, two = ScriptedModel(FIRST, (says("up again"),), failures=down), ScriptedModel(SECOND, (says("here"),))
    async with kernel_on(tmp_path, ScriptedModels(one, two)) as k:
        with anyio.fail_after(DEADLINE_S):
            answered = await k.call("complete", prompt="hi", model=CHAIN)
        assert (answered.text, answered.model) == ("here", SECOND)
        assert len(one.prompts) == FALLBACK_AFTER_TRIES
        with pytest.raises(Invalid):
            await k.call("complete", prompt="hi", model="one/model,")


async def test_a_crowd_at_a_narrow_provider_all_get_their_turn(tmp_path: Path) -> None:
    """Four times as many agents as calls at once, and a refusal now and then: none fails, none is lost."""
    refusals: list[Exception] = [fault(ModelFault.RATE, 0.01) for _ in range(5)]
    model = ScriptedModel(FIRST, (calls(("list_agents", {})), says("done")), failures=refusals)
    settings = Settings(providers={"one": ProviderSettings(base_url="http://localhost", concurrency=4)})
    async with kernel_on(tmp_path, ScriptedModels(model), settings=settings) as k:
        with anyio.fail_after(DEADLINE_S):
            pids = [(await k.call("spawn_agent", task=f"agent {n}")).pid for n in range(16)]
            waited = await k.call("wait_agent", pids=pids, timeout_s=15)
        assert [agent.result for agent in waited.agents] == ["done"] * 16
        lane = k.machine.admission.lane(FIRST)
        assert (lane.waiting, lane.in_flight) == (0, set())
        assert len(model.prompts) == 2 * 16 + 5, "each call once, and each refused one again"


async def test_a_parked_provider_holds_up_nobody_elses_agents(tmp_path: Path) -> None:
    """With room for one turn at a time: an agent whose lane is parked stays in the queue and takes no place."""
    one = ScriptedModel(FIRST, (says("late"),), failures=[fault(ModelFault.RATE, 3_600)])
    two = ScriptedModel(SECOND, (calls(("list_agents", {})), says("on time")))
    async with kernel_on(tmp_path, ScriptedModels(one, two), settings=Settings(concurrency=1)) as k:
        with anyio.fail_after(DEADLINE_S):
            first = (await k.call("spawn_agent", task="wait", model=FIRST)).pid
            while k.machine.admission.room(FIRST):
                await anyio.lowlevel.checkpoint()
            more = [(await k.call("spawn_agent", task="wait", model=FIRST, priority=0)).pid for _ in range(3)]
            done = await k.call("spawn_agent", task="go on", model=SECOND, priority=90, wait_s=15)
        assert done.result == "on time"
        states = {row.pid: row.state for row in (await k.call("list_agents")).agents}
        assert [states[pid] for pid in (first, *more)] == ["ready"] * 4, "no turn was begun in vain"
        assert len(one.prompts) == 1


@given(faults=st.integers(1, 40), chance=st.floats(0, 0.999), asked=st.floats(0, 0.04))
def test_a_provider_that_says_now_and_refuses_again_is_asked_less_and_less_often(
    faults: int, chance: float, asked: float
) -> None:
    waits = [judge(ModelFault.RATE, n, asked, chance=chance, has_next=False) for n in (faults, faults + 1)]
    first, second = (verdict.seconds for verdict in waits if isinstance(verdict, Wait))
    assert 0.1 <= first <= second <= 1.0


async def test_a_call_that_would_wait_beyond_its_callers_patience_is_told_at_once(tmp_path: Path) -> None:
    model = ScriptedModel(FIRST, (fault(ModelFault.RATE, COMPLETE_PATIENCE_S + 60),))
    async with kernel_on(tmp_path, ScriptedModels(model)) as k:
        with anyio.fail_after(DEADLINE_S):
            for _ in range(2):  # the one that was refused, and one that comes while its lane is parked
                with pytest.raises(ModelError) as told:
                    await k.call("complete", prompt="hi")
                assert told.value.retry_after_s is not None
                assert told.value.retry_after_s > COMPLETE_PATIENCE_S
    assert len(model.prompts) == 1
