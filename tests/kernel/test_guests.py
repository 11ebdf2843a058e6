"""Guests: programs outside the kernel, each a process with keys, a budget, signals and an audit trail."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import anyio
import pytest

from aos_mcp.abi.budget import Usage
from aos_mcp.abi.capability import Caller, CallerKind
from aos_mcp.abi.errors import (
    ApprovalRequired,
    BudgetExhausted,
    Cancelled,
    Conflict,
    Denied,
    Invalid,
    LimitExceeded,
    ModelError,
    ModelFault,
    NotFound,
)
from aos_mcp.abi.handle import Pid
from aos_mcp.abi.journal import EffectClass
from aos_mcp.abi.limits import GUEST_CALLS_MAX
from aos_mcp.abi.settings import GatewaySettings, Rule, Settings
from aos_mcp.kernel import budget, journal
from aos_mcp.kernel.calls.guest import choose
from aos_mcp.kernel.guests import KeyRefused, digest_of
from aos_mcp.kernel.sealer import seal_all
from aos_mcp.testing.clock import FakeClock
from aos_mcp.testing.kernels import OWNER, TestKernel, kernel_on
from aos_mcp.testing.model import ScriptedModel, ScriptedModels, says
from tests.kernel.stage import DEADLINE_S, until

OPERATOR = Caller(kind=CallerKind.OPERATOR, principal=OWNER, host="test")
HELLO = {"model": "gpt-anything", "prompt": {"turns": [{"role": "user", "text": "Hello"}]}}


def scripted(*texts: str, **options: Any) -> ScriptedModel:
    return ScriptedModel("scripted/one", [says(text) for text in texts or ("Hello yourself",)], **options)


async def issue(kernel: TestKernel, **arguments: object) -> Any:
    return await kernel.call("issue_key", OPERATOR, **arguments)


async def test_a_key_makes_model_calls_on_its_own_account_and_on_the_record(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, ScriptedModels(scripted())) as kernel:
        key = await issue(kernel, name="crew", budget={"usd": 0.5})
        assert key.key.startswith("sk-aos-") and len(key.key) == len("sk-aos-") + 26
        pieces: list[str] = []
        answer: Any = await kernel.kernel.guest_call(key.key, "generate", HELLO, deliver=pieces.append)
        assert answer.text == "".join(pieces) == "Hello yourself"
        assert answer.model == "scripted/one", "a foreign name stands for the key's own model"
        shown = await kernel.call("read_process", pid=key.pid)
        assert (shown.name, shown.state, shown.waiting_for) == ("crew", "blocked", "its own program")
        assert shown.usage.usd == answer.usage.usd == 0.0002
        assert shown.usage.turns == 1
        steps = await kernel.call("read_journal", pid=key.pid)
        assert [(step.call, step.state) for step in steps.steps] == [("generate", "done")]
        listed = await kernel.call("list_agents")
        assert key.pid in [row.pid for row in listed.agents]
        await seal_all(kernel.machine, keep=True)
        records = (await kernel.call("read_audit", OPERATOR, pid=key.pid)).records
        assert [(record.call, record.outcome) for record in records[:3]] == [
            ("issue_key", "ok"),
            ("model", "ok"),
            ("generate", "ok"),
        ]
        assert records[1].actor == key.pid


async def test_the_secret_is_nowhere_but_in_the_answer(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, ScriptedModels(scripted())) as kernel:
        key = await issue(kernel, name="crew")
        await kernel.kernel.guest_call(key.key, "generate", HELLO)
        stored = await kernel.machine.store.read(lambda tx: tx.guest_key_by_digest(digest_of(key.key)))
        assert stored is not None and stored.key_id == key.key_id
        assert key.key not in str((await kernel.call("list_keys", OPERATOR)).model_dump())
    files = [path for folder, _, names in os.walk(tmp_path) for path in (Path(folder, name) for name in names)]
    assert files and all(key.key.encode() not in path.read_bytes() for path in files)


async def test_the_journal_holds_what_was_sent_by_digest_and_what_came_back_whole(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, ScriptedModels(scripted())) as kernel:
        key = await issue(kernel, name="crew")
        await kernel.kernel.guest_call(key.key, "generate", HELLO)

        def payloads(tx: Any) -> tuple[bytes, bytes]:
            step = tx.step_list(Pid(key.pid), limit=9)[0]
            return tx.payload_get(step.intent), tx.payload_get(step.result)

        intent, result = await kernel.machine.store.read(payloads)
        assert b'"sha256"' in intent and b"Hello" not in intent
        assert b"Hello yourself" in result


async def test_a_budget_refuses_the_call_that_would_overdraw_it_and_the_guest_lives_on(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, ScriptedModels(scripted())) as kernel:
        poor = await issue(kernel, name="poor", budget={"usd": 0.000001})
        with pytest.raises(BudgetExhausted):
            await kernel.kernel.guest_call(poor.key, "generate", HELLO)
        single = await issue(kernel, name="single", budget={"turns": 1})
        await kernel.kernel.guest_call(single.key, "generate", HELLO)
        with pytest.raises(BudgetExhausted):
            await kernel.kernel.guest_call(single.key, "generate", HELLO)
        assert (await kernel.call("read_process", pid=single.pid)).state == "blocked"


async def test_many_calls_at_once_never_overdraw_one_budget(tmp_path: Path) -> None:
    used = Usage(input_tokens=20, output_tokens=256, microusd=2_580)
    model = scripted(usage=used)
    refused = 0
    async with kernel_on(tmp_path, ScriptedModels(model)) as kernel:
        key = await issue(kernel, name="crew", budget={"usd": 0.02})

        async def one() -> None:
            nonlocal refused
            try:
                await kernel.kernel.guest_call(key.key, "generate", {**HELLO, "max_tokens": 256})
            except BudgetExhausted:
                refused += 1

        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(one)
        spent = (await kernel.call("read_process", pid=key.pid)).usage
        assert spent.usd <= 0.02
        assert spent.turns == 20 - refused == len(model.prompts)
        assert refused > 0


async def test_kill_cuts_the_call_under_way_settles_it_and_the_key_opens_nothing(tmp_path: Path) -> None:
    model = scripted(gate=anyio.Event())
    async with kernel_on(tmp_path, ScriptedModels(model)) as kernel:
        key = await issue(kernel, name="crew")
        ended: list[BaseException] = []

        async def call() -> None:
            try:
                await kernel.kernel.guest_call(key.key, "generate", HELLO)
            except Cancelled as error:
                ended.append(error)

        async with anyio.create_task_group() as group:
            group.start_soon(call)
            while not model.prompts:
                await anyio.lowlevel.checkpoint()
            await kernel.call("signal_agent", pid=key.pid, signal="kill")
        assert len(ended) == 1
        assert kernel.machine.guests == {}
        account = await kernel.machine.store.read(lambda tx: tx.account_get(key.pid))
        assert account is not None and account.reserved_microusd == 0
        assert await kernel.machine.store.read(lambda tx: tx.reservation_list()) == []
        with pytest.raises(KeyRefused):
            await kernel.kernel.guest_call(key.key, "generate", HELLO)


@pytest.mark.parametrize("signal", ["term", "kill"])
async def test_an_ended_guest_says_how_it_ended(tmp_path: Path, signal: str) -> None:
    async with kernel_on(tmp_path, ScriptedModels(scripted())) as kernel:
        key = await issue(kernel, name="crew")
        sent = await kernel.call("signal_agent", pid=key.pid, signal=signal)
        assert sent.state == "exited"
        shown = await kernel.call("read_process", pid=key.pid)
        assert shown.exit_code == {"term": "terminated", "kill": "killed"}[signal]


async def test_a_stopped_guest_is_refused_until_it_goes_on(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, ScriptedModels(scripted())) as kernel:
        key = await issue(kernel, name="crew")
        assert (await kernel.call("signal_agent", pid=key.pid, signal="stop")).state == "stopped"
        with pytest.raises(Conflict, match="stopped"):
            await kernel.kernel.guest_call(key.key, "generate", HELLO)
        assert (await kernel.call("signal_agent", pid=key.pid, signal="cont")).state == "blocked"
        await kernel.kernel.guest_call(key.key, "generate", HELLO)


async def test_revoking_the_last_key_ends_the_guest(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, ScriptedModels(scripted())) as kernel:
        first = await issue(kernel, name="crew")
        second = await issue(kernel, pid=first.pid)
        assert (second.pid, second.name, second.model) == (first.pid, "crew", "scripted/one")
        kept = await kernel.call("revoke_key", OPERATOR, key_id=first.key_id)
        assert kept.state == "blocked"
        with pytest.raises(KeyRefused):
            await kernel.kernel.guest_call(first.key, "generate", HELLO)
        await kernel.kernel.guest_call(second.key, "generate", HELLO)
        assert (await kernel.call("revoke_key", OPERATOR, key_id=second.key_id)).state == "exited"
        rows = (await kernel.call("list_keys", OPERATOR, pid=first.pid)).keys
        assert [(row.key_id, row.revoked_at is None) for row in rows] == [
            (second.key_id, False),
            (first.key_id, False),
        ]
        with pytest.raises(NotFound):
            await kernel.call("revoke_key", OPERATOR, key_id="gk_missing")
        with pytest.raises(Conflict, match="ended"):
            await issue(kernel, pid=first.pid)


async def test_a_key_under_an_agent_spends_the_agents_budget(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, ScriptedModels(scripted(gate=anyio.Event()))) as kernel:
        parent = await kernel.call("spawn_agent", task="Wait.", budget={"usd": 0.4}, priority=10)
        key = await issue(kernel, pid=parent.pid, name="inside")
        shown = await kernel.call("read_process", pid=key.pid)
        assert (shown.parent, shown.program, shown.priority) == (parent.pid, parent.pid, 10)
        assert shown.budget["usd"] <= 0.4
        with pytest.raises(BudgetExhausted):
            await issue(kernel, pid=parent.pid, budget={"usd": 0.5})
        await kernel.call("signal_agent", pid=parent.pid, signal="kill")
        with pytest.raises(KeyRefused):
            await kernel.kernel.guest_call(key.key, "generate", HELLO)


@pytest.mark.parametrize("inherited", [False, True])
async def test_a_key_of_a_chain_goes_on_with_the_next_model(tmp_path: Path, inherited: bool) -> None:
    one = ScriptedModel("one/model", (), failures=[ModelError(ModelFault.AUTH, "It knows no such key.", "Set one.")])
    two = ScriptedModel("two/model", (says("by the second"),))
    chain = "one/model, two/model"
    async with kernel_on(tmp_path, ScriptedModels(one, two)) as kernel:
        if inherited:
            one.gate = anyio.Event()
            parent = await kernel.call("spawn_agent", task="Wait.", model=chain)
            with anyio.fail_after(DEADLINE_S):
                await until(lambda: bool(one.prompts))
            one.gate = None  # the agent's call waits for ever, the guest's does not
            key = await issue(kernel, pid=parent.pid, name="inside")
        else:
            key = await issue(kernel, name="crew", model=chain)
        answer: Any = await kernel.kernel.guest_call(key.key, "generate", HELLO)
    assert (answer.text, answer.model) == ("by the second", "two/model")


async def test_a_further_key_changes_nothing_of_its_guest(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, ScriptedModels(scripted())) as kernel:
        key = await issue(kernel, name="crew")
        with pytest.raises(Invalid, match="already"):
            await issue(kernel, pid=key.pid, budget={"usd": 0.1})
        for _ in range(15):
            await issue(kernel, pid=key.pid)
        with pytest.raises(LimitExceeded):
            await issue(kernel, pid=key.pid)


async def test_a_guest_is_never_scheduled_and_survives_a_restart(tmp_path: Path) -> None:
    model = scripted()
    async with kernel_on(tmp_path, ScriptedModels(model)) as kernel:
        key = await issue(kernel, name="crew")
        await kernel.kernel.guest_call(key.key, "generate", HELLO)
    async with kernel_on(tmp_path, ScriptedModels(model)) as kernel:
        assert (await kernel.call("read_process", pid=key.pid)).state == "blocked"
        await kernel.kernel.guest_call(key.key, "generate", HELLO)
        await kernel.call("signal_agent", pid=key.pid, signal="stop")
        await kernel.call("signal_agent", pid=key.pid, signal="cont")
        agent = await kernel.call("spawn_agent", task="Say hello.", wait_s=20)
        assert agent.state == "exited"
    assert len(model.prompts) == 3, "two calls of its own and one of the agent: nothing ran for the guest"


async def test_a_call_that_a_crash_cut_is_failed_and_charged(tmp_path: Path) -> None:
    model = scripted(gate=anyio.Event())
    async with kernel_on(tmp_path, ScriptedModels(model)) as kernel:
        key = await issue(kernel, name="crew")
        guest = await kernel.machine.store.read(lambda tx: tx.process_get(Pid(key.pid)))
        assert guest is not None

        def leave_open(tx: Any) -> None:
            journal.begin(tx, guest, call="generate", effect=EffectClass.LLM, intent=b"{}", now=1.0)
            budget.reserve(tx, key.pid, "rs_crash", cost_microusd=70, tokens=7, at=1.0)

        await kernel.machine.store.write(leave_open)
    async with kernel_on(tmp_path, ScriptedModels(model)) as kernel:
        steps = await kernel.call("read_journal", pid=key.pid)
        assert [(step.call, step.state) for step in steps.steps] == [("generate", "failed")]
        assert (await kernel.call("read_process", pid=key.pid)).usage.usd == 0.00007


async def test_a_guest_may_make_its_own_calls_and_no_others(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, ScriptedModels(scripted())) as kernel:
        key = await issue(kernel, name="crew")
        for call in ("spawn_agent", "sandbox_exec", "issue_key", "read_audit", "exit"):
            with pytest.raises(NotFound):
                await kernel.kernel.guest_call(key.key, call, {})
        for call in ("generate", "count_tokens", "list_models"):
            with pytest.raises(NotFound):
                await kernel.call(call, OPERATOR)
        with pytest.raises(NotFound):
            await kernel.call("issue_key")
        with pytest.raises(Conflict, match="reads no messages"):
            await kernel.call("send_message", to=key.pid, text="Hello?")
        with pytest.raises(Conflict, match="itself"):
            await kernel.call("checkpoint", pid=key.pid)


async def test_a_rule_speaks_about_guests_too(tmp_path: Path) -> None:
    rules = [Rule(effect="deny", tool="generate", agent="bad"), Rule(effect="ask", tool="generate", agent="odd")]
    async with kernel_on(tmp_path, ScriptedModels(scripted()), settings=Settings(rules=rules)) as kernel:
        bad, odd = await issue(kernel, name="bad"), await issue(kernel, name="odd")
        with pytest.raises(Denied, match="rule 1"):
            await kernel.kernel.guest_call(bad.key, "generate", HELLO)
        with pytest.raises(ApprovalRequired) as asked:
            await kernel.kernel.guest_call(odd.key, "generate", HELLO)
        await kernel.call("answer_approval", approval_id=asked.value.approval_id, decision="allow")
        answer: Any = await kernel.kernel.guest_call(odd.key, "generate", HELLO)
        assert answer.text == "Hello yourself"


async def test_a_guest_lists_and_counts(tmp_path: Path) -> None:
    settings = Settings(gateway=GatewaySettings(aliases={"gpt-mini": "scripted/one", "gpt-*": "scripted/two"}))
    models = ScriptedModels(scripted(), ScriptedModel("scripted/two", ()))
    async with kernel_on(tmp_path, models, settings=settings) as kernel:
        key = await issue(kernel, name="crew")
        listed: Any = await kernel.kernel.guest_call(key.key, "list_models", {})
        assert listed.default == "scripted/one"
        assert listed.models == ["scripted/one", "gpt-mini", "scripted/two"]
        short: Any = await kernel.kernel.guest_call(key.key, "count_tokens", HELLO)
        longer = {"model": "x", "prompt": {"turns": [{"role": "user", "text": "Hello " * 100}]}}
        long: Any = await kernel.kernel.guest_call(key.key, "count_tokens", longer)
        assert 0 < short.tokens < 100 <= long.tokens


def test_a_name_is_an_alias_first_then_the_kernels_own_then_the_guests_model() -> None:
    aliases = {"gpt-mini": "a/small", "gpt-*": "a/large", "b/old": "b/new"}
    providers = {"a", "b", "replay"}
    for asked, meant in {
        "gpt-mini": "a/small",
        "gpt-9": "a/large",
        "b/old": "b/new",
        "b/other": "b/other",
        "claude-x": None,
        "replay/hello": "replay/hello",
    }.items():
        assert choose(asked, aliases, providers) == meant
    with pytest.raises(NotFound):
        choose("meta/llama", aliases, providers)


async def test_the_number_of_calls_at_once_is_bounded(tmp_path: Path) -> None:
    model = scripted(gate=anyio.Event())
    async with kernel_on(tmp_path, ScriptedModels(model)) as kernel:
        key = await issue(kernel, name="crew")
        async with anyio.create_task_group() as group:
            for _ in range(GUEST_CALLS_MAX):
                group.start_soon(kernel.kernel.guest_call, key.key, "generate", {**HELLO, "max_tokens": 10})
            while len(kernel.machine.guests.get(Pid(key.pid), ())) < GUEST_CALLS_MAX:
                await anyio.lowlevel.checkpoint()
            with pytest.raises(LimitExceeded):
                await kernel.kernel.guest_call(key.key, "generate", HELLO)
            assert model.gate is not None
            model.gate.set()


async def test_a_fault_is_waited_out_until_part_of_the_answer_was_shown(tmp_path: Path) -> None:
    passing = ModelError(ModelFault.OVERLOAD, "Busy.", "Wait.", retry_after_s=0.0)
    model = scripted(failures=[passing, passing])
    async with kernel_on(tmp_path, ScriptedModels(model)) as kernel:
        key = await issue(kernel, name="crew")
        answer: Any = await kernel.kernel.guest_call(key.key, "generate", HELLO)
        assert answer.text == "Hello yourself"
        assert len(model.prompts) == 3


async def test_time_that_is_over_ends_a_guest(tmp_path: Path) -> None:
    clock = FakeClock()
    async with kernel_on(tmp_path, ScriptedModels(scripted()), clock=clock) as kernel:
        key = await issue(kernel, name="crew", budget={"wall_s": 30.0})
        clock.advance(60.0)
        with anyio.fail_after(20):
            while (await kernel.call("read_process", pid=key.pid)).state != "exited":
                clock.advance(5.0)
                await anyio.lowlevel.checkpoint()
        assert (await kernel.call("read_process", pid=key.pid)).exit_code == "budget_exhausted"
