"""A generation gives way to a call of a better class where that pays, and ends with the text it would have had."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from hypothesis import given
from hypothesis import strategies as st

from aos_mcp.abi.budget import Usage
from aos_mcp.abi.completion import Completion, ModelInfo, Prompt, Reply, ToolRequest
from aos_mcp.abi.limits import PREEMPTIONS_MAX
from aos_mcp.abi.settings import ProviderSettings, Settings
from aos_mcp.kernel.admission import Admission, Demand
from aos_mcp.kernel.preemption import LEFT_TOKENS_MIN, LITTLE_TOKENS, UnderWay, boundary_s, pays, victim
from aos_mcp.llm.draft import Draft
from aos_mcp.ports import Deliver, LanguageModel, Metered
from aos_mcp.testing.clock import FakeClock
from aos_mcp.testing.kernels import TestKernel, kernel_on
from aos_mcp.testing.model import PRICE
from tests.kernel.seats import seated
from tests.kernel.stage import DEADLINE_S, ended, until

NAME = "slow/typist"
LENGTH = 600
NOW = 1_000.0
BEFORE_ITS_FIRST_S, A_TOKEN_S = 0.5, 0.1


def essay(name: str) -> str:
    """What the typist writes about a name: four characters a token, each different."""
    return "".join(f"{name[0]}{n:03d}" for n in range(LENGTH))


@dataclass(slots=True)
class Typist:
    """Writes an essay about the last word of the task, one token at a time as the clock goes on; goes on from anywhere.

    The other calls are answered in one word.
    """

    clock: FakeClock
    continues: bool = True
    reasons: bool = False
    name: str = NAME
    prompts: list[Prompt] = field(default_factory=list)
    typing: int = 0
    at: dict[str, int] = field(default_factory=dict)
    """How far each essay is, in tokens."""

    async def describe(self) -> ModelInfo:
        """See `ports.LanguageModel`."""
        return ModelInfo(
            name=self.name,
            dialect="typed",
            context_tokens=100_000,
            output_tokens_max=4_096,
            price=PRICE,
            key_present=True,
            continues=self.continues,
        )

    async def complete(self, prompt: Prompt, deliver: Deliver) -> Completion:
        """See `ports.LanguageModel`."""
        self.prompts.append(prompt)
        asked = prompt.turns[0].text
        if not asked.startswith("write"):
            deliver("yes")
            return self._done("yes", prompt)
        about = asked.split()[-1]
        whole = essay(about)
        assert whole.startswith(prompt.continuing), "it is asked to go on from its own words"
        self.typing += 1
        try:
            if self.reasons:
                deliver("")
            await self.clock.sleep_until(self.clock.now() + BEFORE_ITS_FIRST_S)
            for at in range(len(prompt.continuing), len(whole), 4):
                await self.clock.sleep_until(self.clock.now() + A_TOKEN_S)
                deliver(whole[at : at + 4])
                self.at[about] = at // 4 + 1
        except BaseException:
            written = self.at.get(about, 0) - len(prompt.continuing) // 4
            if isinstance(deliver, Metered):
                deliver.used(Usage(input_tokens=10, output_tokens=written))
            raise
        finally:
            self.typing -= 1
        return self._done(whole[len(prompt.continuing) :], prompt)

    def _done(self, text: str, prompt: Prompt) -> Completion:
        usage = Usage(input_tokens=10, output_tokens=len(text) // 4 + 1)
        return Completion(model=self.name, reply=Reply(text=text), usage=usage)


@dataclass(slots=True)
class Typists:
    """A catalogue of one."""

    typist: Typist

    def resolve(self, name: str) -> LanguageModel:
        """See `ports.Models`."""
        return self.typist

    async def default(self) -> str:
        """See `ports.Models`."""
        return self.typist.name

    def providers(self) -> list[tuple[str, bool]]:
        """See `ports.Models`."""
        return [("slow", True)]

    def warm(self, name: str) -> None:
        """See `ports.Models`."""


ONE_AT_A_TIME = Settings(providers={"slow": ProviderSettings(base_url="http://localhost", concurrency=1)})


async def typed(clock: FakeClock, true: Callable[[], bool]) -> None:
    """Let time go by, a token's worth at a step, until something is true."""
    while not true():
        clock.advance(A_TOKEN_S)
        for _ in range(40):
            await anyio.lowlevel.checkpoint()


async def essay_of(k: TestKernel, clock: FakeClock, pid: str) -> Any:
    done: list[Any] = []

    async def wait() -> None:
        done.append(await ended(k, pid))

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await typed(clock, lambda: bool(done))
    return done[0]


async def asked_in_between(k: TestKernel, clock: FakeClock, typist: Typist, **more: object) -> int:
    """Make a short call while the essay is being written; return how far the essay had come when it was answered."""
    answers: list[int] = []

    async def ask() -> None:
        await k.call("complete", **({"prompt": "a question", "priority": 0} | more))
        answers.append(typist.at.get("apes", 0))

    lane = k.machine.admission.lane(NAME)
    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        await until(lambda: bool(answers) or lane.waiting > 0)
        for _ in range(50):  # whoever gives way does so at once, and not a token later
            await anyio.lowlevel.checkpoint()
        if lane.waiting:
            await typed(clock, lambda: bool(answers))
    return answers[0]


async def test_a_long_batch_call_gives_way_and_ends_with_the_same_text(tmp_path: Path) -> None:
    clock = FakeClock()
    typist = Typist(clock)
    async with kernel_on(tmp_path, Typists(typist), settings=ONE_AT_A_TIME, clock=clock) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="write about apes", priority=90)).pid
            await typed(clock, lambda: typist.at.get("apes", 0) >= 100)
            written = typist.at["apes"]
            assert await asked_in_between(k, clock, typist) == written, "it did not wait for another token"
            await typed(clock, lambda: typist.at["apes"] >= 300)
            await asked_in_between(k, clock, typist)
            done = await essay_of(k, clock, pid)
        assert done.result == essay("apes"), "to the letter what it would have written undisturbed"
        assert done.usage.turns == 1, "one turn, in as many pieces as it took"
        process = await k.call("read_process", pid=pid)
        assert process.times.preempted == 2
        pieces = [p for p in typist.prompts if p.turns[0].text.startswith("write")]
        assert [bool(p.continuing) for p in pieces] == [False, True, True]
        left = [p.max_output_tokens + len(p.continuing) // 4 for p in pieces]
        assert left == [pieces[0].max_output_tokens] * 3, "together they may write what one may, to the token"
        assert pieces[1].turns == pieces[0].turns, "the same prefix, so that the provider's cache is met"
        account = await k.machine.store.read(lambda tx: tx.account_get(pid))
        assert account is not None
        assert (account.reserved_microusd, account.reserved_tokens) == (0, 0)
        assert account.used.output_tokens >= LENGTH, "every piece was paid for"


async def test_short_calls_teach_nothing_about_those_that_ask_for_much(tmp_path: Path) -> None:
    clock = FakeClock()
    typist = Typist(clock)
    async with kernel_on(tmp_path, Typists(typist), settings=ONE_AT_A_TIME, clock=clock) as k:
        with anyio.fail_after(DEADLINE_S):
            for _ in range(9):
                await k.call("complete", prompt="a question", max_tokens=5)
            done: list[Any] = []

            async def essay_wanted() -> None:
                done.append(await k.call("complete", prompt="write about apes", priority=90, max_tokens=2 * LENGTH))

            async with anyio.create_task_group() as group:
                group.start_soon(essay_wanted)
                await typed(clock, lambda: typist.at.get("apes", 0) >= 100)
                written = typist.at["apes"]
                assert await asked_in_between(k, clock, typist, max_tokens=5) == written
                await typed(clock, lambda: bool(done))
        assert done[0].text == essay("apes")


async def test_nobody_gives_way_to_its_own_class(tmp_path: Path) -> None:
    clock = FakeClock()
    typist = Typist(clock)
    async with kernel_on(tmp_path, Typists(typist), settings=ONE_AT_A_TIME, clock=clock) as k:
        with anyio.fail_after(DEADLINE_S):
            await k.call("spawn_agent", task="write about apes", priority=90)
            await typed(clock, lambda: typist.at.get("apes", 0) >= 100)
            assert await asked_in_between(k, clock, typist, priority=95) == LENGTH


async def test_a_provider_that_does_not_go_on_is_left_alone_once_enough_was_written(tmp_path: Path) -> None:
    clock = FakeClock()
    typist = Typist(clock, continues=False)
    async with kernel_on(tmp_path, Typists(typist), settings=ONE_AT_A_TIME, clock=clock) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="write about apes", priority=90)).pid
            await typed(clock, lambda: typist.at.get("apes", 0) >= 5)
            assert await asked_in_between(k, clock, typist) < LITTLE_TOKENS, "little was lost"
            await typed(clock, lambda: typist.at["apes"] >= 100)
            assert await asked_in_between(k, clock, typist) == LENGTH
            done = await essay_of(k, clock, pid)
        assert done.result == essay("apes")
        assert all(not p.continuing for p in typist.prompts)


async def test_what_thinks_or_calls_tools_is_not_broken_off(tmp_path: Path) -> None:
    clock = FakeClock()
    typist = Typist(clock, reasons=True)
    async with kernel_on(tmp_path, Typists(typist), settings=ONE_AT_A_TIME, clock=clock) as k:
        with anyio.fail_after(DEADLINE_S):
            await k.call("spawn_agent", task="write about apes", priority=90)
            await typed(clock, lambda: typist.at.get("apes", 0) >= 100)
            assert await asked_in_between(k, clock, typist) == LENGTH


async def test_a_call_that_was_preempted_often_runs_to_its_end(tmp_path: Path) -> None:
    clock = FakeClock()
    typist = Typist(clock)
    settings = ONE_AT_A_TIME.model_copy(update={"slice_tokens": 1})
    async with kernel_on(tmp_path, Typists(typist), settings=settings, clock=clock) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="write about apes", priority=90)).pid
            for number in range(1, PREEMPTIONS_MAX + 2):
                await typed(clock, lambda number=number: typist.at.get("apes", 0) >= 60 * number)  # type: ignore[misc]
                await asked_in_between(k, clock, typist)
            done = await essay_of(k, clock, pid)
        assert done.result == essay("apes")
        pieces = [p for p in typist.prompts if p.turns[0].text.startswith("write")]
        assert len(pieces) == PREEMPTIONS_MAX + 1


async def test_a_kernel_that_stops_after_a_preemption_loses_nothing_that_was_written(tmp_path: Path) -> None:
    clock = FakeClock()
    typist = Typist(clock)
    async with kernel_on(tmp_path, Typists(typist), settings=ONE_AT_A_TIME, clock=clock) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="write about apes", priority=90)).pid
            await typed(clock, lambda: typist.at.get("apes", 0) >= 200)
            await asked_in_between(k, clock, typist)
    again = Typist(clock)
    async with kernel_on(tmp_path, Typists(again), settings=ONE_AT_A_TIME, clock=clock) as k:
        with anyio.fail_after(DEADLINE_S):
            done = await essay_of(k, clock, pid)
    assert done.result == essay("apes")
    assert len(again.prompts) == 1
    assert len(again.prompts[0].continuing) >= 200 * 4
    assert again.prompts[0].max_output_tokens == typist.prompts[0].max_output_tokens - again.prompts[
        0
    ].continuing.count("a")


FACTS = st.fixed_dictionaries(
    {
        "sched_class": st.integers(0, 2),
        "likely_tokens": st.floats(1, 5_000),
        "continues": st.booleans(),
        "may_pay": st.booleans(),
        "times": st.integers(0, 4),
        "plain": st.booleans(),
        "closing": st.booleans(),
        "written_tokens": st.floats(0, 5_000),
        "first_token_at": st.none() | st.floats(100, 400),
    }
)


@given(st.lists(FACTS, max_size=5), st.integers(0, 2), st.floats(400, 1_000), st.integers(1, 512))
def test_a_victim_is_only_taken_where_it_pays(
    facts: list[dict[str, Any]], waiting_class: int, now: float, slice_tokens: int
) -> None:
    calls = [UnderWay(sent_at=99.0, cut=lambda: None, **each) for each in facts]
    chosen = victim(calls, waiting_class, now, slice_tokens)
    wait_s = boundary_s(calls, now)
    fit = [one for one in calls if pays(one, waiting_class, wait_s, now, slice_tokens)]
    assert (chosen is None) == (not fit)
    if chosen is None:
        return
    assert chosen.sched_class > waiting_class
    assert chosen.plain
    assert not chosen.closing
    assert chosen.may_pay
    assert chosen.times < PREEMPTIONS_MAX
    assert chosen.left_tokens() >= LEFT_TOKENS_MIN
    assert chosen.continues or chosen.written_tokens < LITTLE_TOKENS
    assert all(one.sched_class <= chosen.sched_class for one in fit), "the worst class first"


def under_way(**facts: Any) -> UnderWay:
    """A batch call that has written 100 of 600 tokens in ten seconds, and may give way."""
    usual: dict[str, Any] = {
        "sched_class": 2,
        "sent_at": NOW - 11,
        "first_token_at": NOW - 10,
        "written_tokens": 100.0,
        "likely_tokens": 600.0,
        "continues": True,
        "may_pay": True,
        "cut": lambda: None,
    }
    return UnderWay(**(usual | facts))


def test_a_call_that_has_written_nothing_yet_is_as_far_from_its_end_as_the_pace_of_others_says() -> None:
    fresh = under_way(first_token_at=None, written_tokens=0.0)
    assert boundary_s([under_way(), fresh], NOW) == 50.0, "500 tokens at a tenth of a second"
    assert boundary_s([fresh], NOW) == 0.0, "of a pace that nobody has shown nothing is known"
    assert boundary_s([under_way(), under_way(written_tokens=590.0, likely_tokens=600.0, closing=True)], NOW) == 50.0
    old = under_way()
    assert victim([old, fresh], 0, NOW, 64) is old


async def test_as_many_give_way_as_wait_and_no_more() -> None:
    clock = FakeClock(NOW)
    own = ProviderSettings(base_url="http://localhost", concurrency=3)
    admission = Admission({"slow": own}, clock, slice_tokens=64)
    cut: list[int] = []
    batch = Demand(order=(2.0, NOW), input_tokens=1, output_tokens=1)
    urgent = Demand(order=(0.0, NOW), input_tokens=1, output_tokens=1)

    async def wait() -> None:
        async with seated(admission, NAME, urgent):
            raise AssertionError("no place becomes free in this test")

    async with AsyncExitStack() as calls_under_way, anyio.create_task_group() as group:
        for number in range(3):
            await calls_under_way.enter_async_context(seated(admission, NAME, batch))
            one = under_way(cut=lambda number=number: cut.append(number))
            calls_under_way.enter_context(admission.under_way(NAME, one))
        admission.consider(NAME)
        assert cut == [], "nobody waits"
        for waiting in (1, 2):
            group.start_soon(wait)
            await until(lambda waiting=waiting: admission.lane(NAME).waiting == waiting)  # type: ignore[misc]
            admission.consider(NAME)  # as at the end of another's slice
            assert len(cut) == len(set(cut)) == waiting
        group.cancel_scope.cancel()
    assert admission.lane(NAME).in_flight == set()


async def test_an_answer_is_not_gone_on_with_once_it_was_asked_something_else(tmp_path: Path) -> None:
    clock = FakeClock()
    typist = Typist(clock)
    async with kernel_on(tmp_path, Typists(typist), settings=ONE_AT_A_TIME, clock=clock) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="write about apes", priority=90)).pid
            await typed(clock, lambda: typist.at.get("apes", 0) >= 200)
            await asked_in_between(k, clock, typist)
    again = Typist(clock)
    async with kernel_on(tmp_path, Typists(again), settings=ONE_AT_A_TIME, clock=clock) as k:
        k.machine.stopping = True
        with anyio.fail_after(DEADLINE_S):
            await k.call("send_message", to=pid, text="and about the sea")
            k.machine.stopping = False
            k.machine.wake()
            await essay_of(k, clock, pid)
    assert [prompt.continuing for prompt in again.prompts] == [""]


def test_reasoning_and_tool_calls_are_told_apart_from_text() -> None:
    said: list[str] = []

    draft = Draft(Prompt(system="", turns=()), said.append)
    draft.say("one")
    assert said == ["one"]
    draft.think("hm")
    draft.think("hm")
    draft.argue(draft.request("r", "f"), "{}")
    assert said == ["one", "", ""]
    assert draft.reply().requests == (ToolRequest(request_id="r", name="f", arguments="{}"),)
