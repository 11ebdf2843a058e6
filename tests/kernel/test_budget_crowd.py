"""A crowd on one budget, at a provider that bills to the last token, refuses, breaks off and hangs: none overspent."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import anyio
import pytest
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

from aos_mcp.abi.budget import WORKSPACE_ACCOUNT, Account, Budget, Usage
from aos_mcp.abi.completion import Completion, ModelInfo, Prompt, Reply, ToolRequest, Turn
from aos_mcp.abi.errors import BudgetExhausted, ModelError, ModelFault
from aos_mcp.abi.settings import Settings
from aos_mcp.kernel import budget
from aos_mcp.kernel.margin import Counted, Margins, counted_in, first_margin
from aos_mcp.ports import Deliver, Store, Transaction
from aos_mcp.storage.sqlite import open_sqlite
from aos_mcp.testing.clock import FakeClock
from aos_mcp.testing.kernels import TestKernel, kernel_on
from aos_mcp.testing.model import PRICE, ScriptedModel, ScriptedModels, calls, says
from tests.kernel.stage import DEADLINE_S, NAME, until

T = TypeVar("T")

INFO = ModelInfo(
    name=NAME, dialect="openai", context_tokens=100_000, output_tokens_max=4_096, price=PRICE, key_present=True
)

AGENTS = 100
TOKENS, USD = 400_000, 3.0
OUTPUT_MAX = 2_000
WORD = "word "
QUIET_ROUNDS = 40


@dataclass(slots=True)
class Gambler:
    """Does whatever a provider may do to a call, by a seed, and keeps the bill it would send."""

    source: random.Random
    name: str = NAME
    billed_tokens: int = 0
    calls: int = 0
    never: anyio.Event = field(default_factory=anyio.Event)

    async def describe(self) -> ModelInfo:
        """See `ports.LanguageModel`."""
        return ModelInfo(
            name=self.name,
            dialect="gambling",
            context_tokens=100_000,
            output_tokens_max=OUTPUT_MAX,
            price=PRICE,
            key_present=True,
        )

    async def complete(self, prompt: Prompt, deliver: Deliver) -> Completion:
        """See `ports.LanguageModel`."""
        self.calls += 1
        await anyio.lowlevel.checkpoint()
        most = counted_in(prompt).at_most(first_margin(await self.describe()))
        read = most if self.source.random() < 0.5 else self.source.randrange(1, most)
        chance = self.source.random()
        if chance < 0.15:
            fault = self.source.choice((ModelFault.RATE, ModelFault.OVERLOAD, ModelFault.TRANSPORT))
            raise ModelError(fault, "no", "wait", retry_after_s=0.0)
        if chance < 0.3:
            wrote = self.source.randrange(1, prompt.max_output_tokens + 1)
            deliver(WORD * wrote)
            self.billed_tokens += read + wrote
            raise ModelError(ModelFault.CUT_STREAM, "cut", "again", partial_text=WORD * wrote, output_tokens=wrote)
        if chance < 0.35:
            self.billed_tokens += read
            await self.never.wait()
        wrote = prompt.max_output_tokens if chance < 0.7 else self.source.randrange(1, prompt.max_output_tokens + 1)
        self.billed_tokens += read + wrote
        used = Usage(input_tokens=read, output_tokens=wrote, microusd=budget.worst_case(PRICE, read, wrote))
        requests = (ToolRequest(request_id=f"r{prompt.turn}", name="list_agents", arguments="{}"),)
        goes_on = self.source.random() < 0.6
        reply = Reply(text="more" if goes_on else "done", requests=requests if goes_on else ())
        return Completion(model=self.name, reply=reply, usage=used)


class Gamblers(ScriptedModels):
    """A catalogue of one."""

    def __init__(self, gambler: Gambler) -> None:
        super().__init__()
        self._models = {gambler.name: gambler}  # type: ignore[dict-item]


class AuditedStore:
    """A real store in which the workspace's account is looked at in every transaction."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner
        self.looks = 0

    async def write(self, work: Callable[[Transaction], T], *, flush: bool = False, brief: bool = False) -> T:
        def audited(tx: Transaction) -> T:
            result = work(tx)
            account = tx.account_get(WORKSPACE_ACCOUNT)
            if account is not None:
                never_overdrawn(account)
                self.looks += 1
            return result

        return await self._inner.write(audited, flush=flush, brief=brief)

    async def read(self, work: Callable[[Transaction], T], *, brief: bool = False) -> T:
        return await self._inner.read(work, brief=brief)

    async def changed(self, timeout_s: float) -> None:
        await self._inner.changed(timeout_s)


def never_overdrawn(account: Account) -> None:
    limit, used = account.limit, account.used
    assert account.reserved_tokens >= 0
    assert account.reserved_microusd >= 0
    if limit.tokens is not None:
        assert used.tokens + account.reserved_tokens <= limit.tokens, account
    if limit.microusd is not None:
        assert used.microusd + account.reserved_microusd <= limit.microusd, account


async def end_of_all(k: TestKernel, gambler: Gambler, clock: FakeClock) -> None:
    """Let time go by until the crowd has ended. Who is under way when nothing happens any more hangs, and is killed."""
    seen, quiet = 0, 0
    while set((await k.call("kernel_status")).agents) != {"exited"}:
        quiet = 0 if gambler.calls > seen else quiet + 1
        seen = gambler.calls
        if quiet > QUIET_ROUNDS:
            for pid in list(k.machine.running):
                await k.call("signal_agent", pid=pid, signal="kill")
        clock.advance(0.25)


@pytest.mark.parametrize("seed", [3, 14])
async def test_a_hundred_agents_on_one_budget_never_overspend_by_a_token(tmp_path: Path, seed: int) -> None:
    source = random.Random(seed)
    gambler = Gambler(source)
    settings = Settings.model_validate(
        {"workspace_budget": {"usd": USD, "tokens": TOKENS}, "providers": {"scripted": {"concurrency": 32}}}
    )
    clock = FakeClock()
    async with open_sqlite(tmp_path / "kernel.db", clock) as inner:
        store = AuditedStore(inner)
        async with kernel_on(tmp_path, Gamblers(gambler), settings=settings, store=store, clock=clock) as k:
            with anyio.fail_after(60):
                k.machine.stopping = True  # they start together
                pids = [(await k.call("spawn_agent", task=f"agent {n}")).pid for n in range(AGENTS)]
                k.machine.stopping = False
                k.machine.wake()
                for pid in source.sample(pids, AGENTS // 10):
                    await k.call("signal_agent", pid=pid, signal="kill")
                await end_of_all(k, gambler, clock)
                await until(lambda: not k.machine.running)
            workspace = await k.machine.store.read(lambda tx: tx.account_get(WORKSPACE_ACCOUNT))
            accounts = await k.machine.store.read(lambda tx: list(tx.accounts_get(pids).values()))
            open_ones = await k.machine.store.read(lambda tx: tx.reservation_list())
        assert workspace is not None
        assert open_ones == []
        assert (workspace.reserved_tokens, workspace.reserved_microusd) == (0, 0)
        assert gambler.billed_tokens <= workspace.used.tokens <= TOKENS, "all that was billed is charged, and no more"
        assert sum((each.used for each in accounts), Usage()) == workspace.used, "to the last token"
        assert store.looks > 5 * AGENTS
        assert workspace.used.tokens > TOKENS - 20_000, "it came down to the last ones"


STEPS = st.lists(
    st.tuples(
        st.sampled_from(("reserve", "settle", "cut", "crash", "tool")),
        st.sampled_from((WORKSPACE_ACCOUNT, "p_a", "p_b", "p_a1")),
        st.integers(0, 3_000),
        st.integers(1, 3_000),
        st.floats(0, 1),
    ),
    max_size=40,
)


@example_settings(max_examples=40)
@given(steps=STEPS, limits=st.lists(st.none() | st.integers(0, 20_000), min_size=4, max_size=4))
async def test_however_calls_end_a_tree_of_accounts_adds_up(
    steps: list[tuple[str, str, int, int, float]], limits: list[int | None]
) -> None:
    names = (WORKSPACE_ACCOUNT, "p_a", "p_b", "p_a1")
    parents = {"p_a": WORKSPACE_ACCOUNT, "p_b": WORKSPACE_ACCOUNT, "p_a1": "p_a"}

    def work(tx: Transaction) -> None:
        for name, limit in zip(names, limits, strict=True):
            own = Budget(tokens=limit, microusd=limit)
            tx.account_insert(Account(account=name, parent=parents.get(name), limit=own))
        held: list[str] = []
        for number, (what, account, read, wrote, share) in enumerate(steps):
            if what == "reserve":
                try:
                    output = budget.fit_output(tx.account_chain(account), PRICE, read, wrote)
                except BudgetExhausted:
                    continue
                cost = budget.worst_case(PRICE, read, output)
                budget.reserve(tx, account, f"rs_{number}", cost_microusd=cost, tokens=read + output, at=0.0)
                held.append(f"rs_{number}")
            elif what == "tool":
                budget.count_tool_call(tx, account)
            elif held and what == "crash":
                for each in tx.reservation_list():
                    budget.settle_in_full(tx, each)
                held.clear()
            elif held:
                taken = next(one for one in tx.reservation_list() if one.reservation_id == held[-1])
                part = 0.0 if what == "cut" else share
                used = Usage(input_tokens=int(taken.tokens * part), microusd=int(taken.microusd * part), turns=1)
                budget.settle(tx, held.pop(), used)
            adds_up(tx, names)

    with TemporaryDirectory() as home:
        async with open_sqlite(Path(home) / "kernel.db", FakeClock()) as store:
            await store.write(work)


def adds_up(tx: Transaction, names: tuple[str, ...]) -> None:
    accounts = tx.accounts_get(names)
    open_ones = tx.reservation_list()
    for name in names:
        never_overdrawn(accounts[name])
        under = [one for one in open_ones if name in {link.account for link in tx.account_chain(one.account)}]
        assert accounts[name].reserved_tokens == sum(one.tokens for one in under)
        assert accounts[name].reserved_microusd == sum(one.microusd for one in under)


async def test_a_provider_that_bills_more_than_we_count_is_believed_the_next_time_and_after_a_restart(
    tmp_path: Path,
) -> None:
    dear = Usage(input_tokens=50_000, output_tokens=10, microusd=10)
    model = ScriptedModel(NAME, (calls(("list_agents", {})), says("x")), usage=dear)
    async with kernel_on(tmp_path, ScriptedModels(model)) as k:
        with anyio.fail_after(DEADLINE_S):
            await k.call("spawn_agent", task="x", wait_s=DEADLINE_S)
        learned, info = k.machine.margins, await model.describe()
        words = counted_in(model.prompts[0])
        margin = await k.machine.store.read(lambda tx: learned.of(tx, info))
        assert words.at_most(margin) >= 50_000, "the same prompt is reserved with enough"
    left = 40_000
    narrow = Settings.model_validate({"workspace_budget": {"tokens": 2 * dear.tokens + left}})
    long = "a word and another " * 2_000
    assert counted_in(Prompt(system="", turns=(Turn(role="user", text=long),))).at_most(first_margin(info)) < left / 2
    async with kernel_on(tmp_path, ScriptedModels(model), settings=narrow) as k:
        with anyio.fail_after(DEADLINE_S), pytest.raises(BudgetExhausted):
            await k.call("complete", prompt=long, max_tokens=100)


@example_settings(max_examples=40)
@given(words=st.integers(1, 10**6), fixed=st.integers(0, 10**5), bills=st.lists(st.integers(0, 10**7), max_size=6))
async def test_a_margin_only_grows_and_covers_all_it_has_seen(words: int, fixed: int, bills: list[int]) -> None:
    counted = Counted(words=words, overhead=fixed)

    def work(tx: Transaction) -> None:
        margins, before = Margins(), first_margin(INFO)
        for billed in bills:
            margins.learn(tx, INFO, counted, Usage(cached_tokens=billed))
            now = margins.of(tx, INFO)
            assert now.factor >= before.factor
            assert now.extra >= before.extra
            assert counted.at_most(now) >= billed
            assert counted.at_most(now) <= max(counted.at_most(before), 1.2 * billed), "and by little more"
            before = now

    with TemporaryDirectory() as home:
        async with open_sqlite(Path(home) / "kernel.db", FakeClock()) as store:
            await store.write(work)
