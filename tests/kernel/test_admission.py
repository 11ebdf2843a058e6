"""Waiting for a place in a lane: nobody is lost, nobody goes twice, and whoever is cancelled leaves nothing behind."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

from aos_mcp.abi.budget import Usage
from aos_mcp.abi.completion import Completion, Reply
from aos_mcp.abi.errors import ModelError, ModelFault
from aos_mcp.abi.settings import ProviderSettings, Settings
from aos_mcp.kernel.admission import Admission, Demand
from aos_mcp.kernel.lane import BREAKER_FAILURES, BREAKER_S, BreakerState
from aos_mcp.testing.clock import FakeClock
from aos_mcp.testing.devices import RecordingSandbox
from aos_mcp.testing.kernels import kernel_on
from aos_mcp.testing.model import ScriptedModel, ScriptedModels, calls, says
from tests.kernel.seats import seated
from tests.kernel.stage import DEADLINE_S, ended, until

MODEL = "one/model"
PLACES = 3
ANSWER = Completion(model=MODEL, reply=Reply(text="x"), usage=Usage(input_tokens=1, output_tokens=1))
TURNS_OF_THE_LOOP = 30
"""Enough for everybody who may go to have gone."""


def demand(number: float = 0.0) -> Demand:
    return Demand(order=(1.0, number), input_tokens=1, output_tokens=1)


def fault(kind: ModelFault) -> ModelError:
    return ModelError(kind, "it failed.", "wait")


async def settle() -> None:
    for _ in range(TURNS_OF_THE_LOOP):
        await anyio.lowlevel.checkpoint()


@asynccontextmanager
async def admitting(clock: FakeClock, places: int = PLACES) -> AsyncIterator[Admission]:
    own = ProviderSettings(base_url="http://localhost", concurrency=places)
    admission = Admission({"one": own}, clock, slice_tokens=64)
    async with anyio.create_task_group() as group:
        group.start_soon(admission.run)
        try:
            yield admission
        finally:
            group.cancel_scope.cancel()


@example_settings(max_examples=25)
@given(seed=st.integers(0, 2**32))
async def test_of_any_crowd_each_call_ends_once_and_never_more_than_the_window_are_on_the_wire(seed: int) -> None:
    source, clock = random.Random(seed), FakeClock()
    ended: Counter[int] = Counter()
    on_the_wire: set[int] = set()
    scopes: dict[int, anyio.CancelScope] = {}

    async with admitting(clock) as admission:

        async def call(number: int) -> None:
            tries = source.randrange(3)
            with anyio.CancelScope() as scopes[number]:
                try:
                    for _ in range(tries + 1):
                        async with seated(admission, MODEL, demand(number)) as seat:
                            on_the_wire.add(number)
                            assert len(on_the_wire) <= min(PLACES, int(admission.lane(MODEL).window))
                            try:
                                await clock.sleep_until(clock.now() + source.random())
                            finally:
                                on_the_wire.discard(number)
                            if tries:
                                tries -= 1
                                kind = source.choice((ModelFault.RATE, ModelFault.OVERLOAD, ModelFault.TRANSPORT))
                                seat.error, seat.retry_at = fault(kind), clock.now() + source.choice((0.0, 2.0))
                            else:
                                seat.completion = ANSWER
                finally:
                    ended[number] += 1

        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(call, number)
            while sum(ended.values()) < 20:
                await settle()
                lane = admission.lane(MODEL)
                now = clock.now()
                if lane.waiting and not lane.blocked_s(now) and lane.breaker.state is BreakerState.CLOSED:
                    at = lane.next_at(now)
                    assert at is None or at > now, "nobody waits who could go"
                    if "requests" not in lane.buckets:
                        assert len(lane.in_flight) == int(lane.window), "no place is idle while somebody waits for one"
                if source.random() < 0.1:
                    scopes[source.randrange(20)].cancel()
                clock.advance(0.1)
        lane = admission.lane(MODEL)
        assert set(ended.values()) == {1}
        assert (lane.in_flight, lane.waiting, on_the_wire) == (set(), 0, set())


async def test_a_parked_lane_wakes_at_its_hour_and_not_before() -> None:
    clock = FakeClock()
    went: list[float] = []

    async with admitting(clock) as admission:

        async def call() -> None:
            async with seated(admission, MODEL, demand()) as seat:
                went.append(clock.now())
                seat.completion = ANSWER

        start = clock.now()
        admission.park(MODEL, start + 7)
        async with anyio.create_task_group() as group:
            group.start_soon(call)
            group.start_soon(call)
            await settle()
            clock.advance(6.9)
            await settle()
            assert went == []
            clock.advance(0.1)
        assert went == [clock.now()] * 2


async def test_a_lane_left_alone_is_tried_by_one_call_and_the_others_follow_its_answer() -> None:
    clock = FakeClock()
    under_way: list[anyio.Event] = []

    async with admitting(clock, places=BREAKER_FAILURES) as admission:
        for _ in range(BREAKER_FAILURES):
            async with seated(admission, MODEL, demand()) as seat:
                seat.error = fault(ModelFault.TRANSPORT)

        async def call() -> None:
            async with seated(admission, MODEL, demand()) as seat:
                under_way.append(anyio.Event())
                await under_way[-1].wait()
                seat.completion = ANSWER

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(call)
            await settle()
            assert under_way == []
            clock.advance(BREAKER_S)
            await settle()
            assert len(under_way) == 1, "one probe"
            under_way[0].set()
            await settle()
            assert len(under_way) == 3
            for event in under_way:
                event.set()


async def test_an_agent_inside_a_slow_command_takes_no_place_of_a_turn_or_a_model(tmp_path: Path) -> None:
    sandbox = RecordingSandbox(gate=anyio.Event())
    slow = ScriptedModel(MODEL, (calls(("sandbox_exec", {"command": "x"})), says("slow")))
    quick = ScriptedModel("one/quick", (says("quick"),))
    narrow = Settings(concurrency=1, providers={"one": ProviderSettings(base_url="http://localhost", concurrency=1)})
    async with kernel_on(tmp_path, ScriptedModels(slow, quick), settings=narrow, sandbox=sandbox) as k:
        with anyio.fail_after(DEADLINE_S):
            waiting = await k.call("spawn_agent", task="x")
            await until(lambda: bool(sandbox.commands))
            assert k.machine.admission.lane(MODEL).in_flight == set()
            other = await k.call("spawn_agent", task="y", model="one/quick", wait_s=DEADLINE_S)
            assert other.result == "quick"
            assert sandbox.gate is not None
            sandbox.gate.set()
            assert (await ended(k, waiting.pid)).result == "slow"


async def test_models_that_are_limited_each_by_itself_have_lanes_of_their_own() -> None:
    clock = FakeClock()
    own = ProviderSettings(base_url="http://localhost", concurrency=1, limits_of="model")
    admission = Admission({"one": own}, clock, slice_tokens=64)
    admission.park(MODEL, clock.now() + 60)
    assert admission.is_blocked(MODEL)
    async with seated(admission, "one/other", demand()) as seat:
        seat.completion = ANSWER
    assert sorted(admission.lanes()) == [MODEL, "one/other"]


async def test_a_provider_with_a_queue_of_its_own_is_told_each_calls_class(tmp_path: Path) -> None:
    model = ScriptedModel(MODEL, (says("x"),))
    async with kernel_on(tmp_path, ScriptedModels(model)) as k:
        with anyio.fail_after(DEADLINE_S):
            answered = await k.call("spawn_agent", task="x", priority=90, wait_s=DEADLINE_S)
            await k.call("complete", prompt="y", priority=0)
            waited = await k.call("wait_agent", pids=[answered.pid])
            text = (await k.call("read_metrics")).text
    assert [prompt.native_priority for prompt in model.prompts] == [100, 0]
    assert waited.agents[0].model == MODEL, "who answered is told"
    assert 'aos_lane_window{lane="one"}' in text
    assert 'aos_lane_breaker{lane="one"} 0.0' in text
