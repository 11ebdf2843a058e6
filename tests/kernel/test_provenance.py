"""What stood behind a step, and whether a run comes out the same when it is made again from its journal."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from aos_mcp.abi.capability import Caller, CallerKind
from aos_mcp.abi.errors import NotFound
from aos_mcp.abi.page import PageKind
from aos_mcp.abi.settings import Rule, Settings
from aos_mcp.kernel import pages
from aos_mcp.ports import Transaction
from aos_mcp.testing.devices import RecordingMounts, RecordingSandbox, a_tool
from aos_mcp.testing.kernels import OWNER, TestKernel, kernel_on
from aos_mcp.testing.model import ScriptedModel, ScriptedModels, calls, says
from tests.kernel.stage import DEADLINE_S, NAME, ended, models, the_question
from tests.kernel.test_paging import report

OPERATOR = Caller(kind=CallerKind.OPERATOR, principal=OWNER)
ALLOWED = Settings(rules=[Rule(effect="allow", tool="shop__*", reason="a test says so")])
SHOP = {a_tool("shop__order"): lambda _: "ordered", a_tool("shop__look", read_only=True): lambda _: "x " * 9_000}
WORK = (
    calls(
        ("page_out", {"content": "a finding", "title": "finding"}),
        ("shop__order", {"n": 1}),
        ("no_such_tool", {}),
        text="I order one.",
        key="a",
    ),
    calls(("shop__look", {}), ("sandbox_exec", {"command": "make"}), key="b"),
    calls(("send_message", {"to": "host", "text": "nearly"}), key="c"),
    calls(("exit", {"result": "all done"}), key="d"),
)


async def replayed(k: TestKernel, pid: str) -> tuple[list[tuple[str, str]], int | None]:
    answer = await k.call("replay_journal", OPERATOR, pid=pid)
    return [(row.call, row.verdict) for row in answer.steps], answer.first_difference


async def test_a_run_made_again_from_its_journal_comes_out_the_same_at_every_step(tmp_path: Path) -> None:
    model = ScriptedModel(NAME, WORK)
    async with kernel_on(tmp_path, ScriptedModels(model), mounts=RecordingMounts(SHOP), settings=ALLOWED) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="order", tools=["*", "shop__*"])).pid
            await k.call("send_message", to=pid, text="be quick")
            await ended(k, pid)
            rows, first = await replayed(k, pid)
            fork = (await k.call("restore", checkpoint_id=f"{pid}@{len(rows) - 2}")).pid
            await ended(k, fork)
            again, second = await replayed(k, fork)
    assert {verdict for _, verdict in rows} == {"same"}
    assert first is None
    assert sum(call == "model" for call, _ in rows) == 4
    assert ([call for call, _ in again], second) == (["model", "exit"], None), "a fork's own steps, and no other's"
    assert len(model.prompts) == 5, "nothing was asked for it"


async def test_the_first_step_that_comes_out_otherwise_is_named(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, models(*WORK), mounts=RecordingMounts(SHOP), settings=ALLOWED) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="order", tools=["*", "shop__*"])).pid
            await ended(k, pid)

            def forge(tx: Transaction) -> None:
                told = next(
                    p for p in tx.page_table(pid) if p.kind is PageKind.RESULT and "ordered" in pages.readable(tx, p)
                )
                tx.page_put(replace(told, digest=tx.payload_put(b"two were ordered")))

            await k.machine.store.write(forge)
            answer = await k.call("replay_journal", OPERATOR, pid=pid)
    wrong = [row for row in answer.steps if row.verdict == "differs"]
    assert (wrong[0].call, wrong[0].step) == ("call_tool", answer.first_difference)
    assert "something else" in wrong[0].why
    assert [row.call for row in wrong[1:2]] == ["model"], "and the prompt that held it"


async def test_hosts_and_agents_know_nothing_of_the_operators_replay(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, models(says("x"))) as k:
        pid = (await k.call("spawn_agent", task="x", wait_s=10)).pid
        with pytest.raises(NotFound):
            await k.call("replay_journal", pid=pid)


async def test_a_step_is_explained_by_what_the_model_saw_and_what_allowed_it(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, models(*WORK), mounts=RecordingMounts(SHOP), settings=ALLOWED) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="order", tools=["*", "shop__*"], budget={"usd": 0.5})).pid
            await ended(k, pid)
            steps = (await k.call("read_journal", pid=pid)).steps
            order = next(step.number for step in steps if step.call == "call_tool")
            why = await k.call("explain_step", pid=pid, step=order)
            last = await k.call("explain_step", pid=pid, step=steps[-1].number)
            with pytest.raises(NotFound):
                await k.call("explain_step", pid=pid, step=99)
    assert (why.tool, why.arguments, why.state, why.effect) == ("shop__order", {"n": 1}, "done", "unsafe")
    assert (why.model, why.decision, why.asked_in) == (NAME, "I order one.", 0)
    assert why.prompt is not None
    assert [page.digest for page in why.seen] == [hashlib.sha256(b"order").hexdigest()], "what it saw then, not since"
    assert len(last.seen) > len(why.seen)
    assert why.allowed_by.startswith("rule 1 (allow tool=shop__*")
    assert "a test says so" in why.allowed_by
    assert why.approval is None
    assert [row.account for row in why.budget] == [pid, "workspace"]
    assert why.budget[0].usd_limit == 0.5


async def test_a_step_that_a_person_allowed_names_the_question_and_who_answered(tmp_path: Path) -> None:
    ask = Settings(rules=[Rule(effect="ask", tool="sandbox_exec", reason="commands are asked about")])
    script = (calls(("sandbox_exec", {"command": "x"})), says("done"))
    async with kernel_on(tmp_path, models(*script), settings=ask, sandbox=RecordingSandbox()) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="x")).pid
            question = await the_question(k)
            await k.call("answer_approval", approval_id=question.approval_id, decision="allow", note="go on")
            await ended(k, pid)
            steps = (await k.call("read_journal", pid=pid)).steps
            number = next(step.number for step in steps if step.call == "sandbox_exec")
            why = await k.call("explain_step", pid=pid, step=number)
    assert (why.approval, why.answered_by, why.note) == (question.approval_id, "host:test", "go on")
    assert "commands are asked about" in why.allowed_by


async def test_pages_leave_a_forks_window_and_not_that_of_the_run_it_comes_from(tmp_path: Path) -> None:
    read = a_tool("lib__read", read_only=True)
    reports = RecordingMounts({read: lambda arguments: report(arguments["n"])})
    script = [calls(("lib__read", {"n": n}), text=f"step {n}", key=f"r{n}-") for n in range(40)]
    roomy = ScriptedModel(NAME, (*script[:10], says("enough"), *script[11:], says("done")), context_tokens=1_000_000)
    small = ScriptedModel("scripted/small", (*script, says("done")), context_tokens=30_000)
    async with kernel_on(tmp_path, ScriptedModels(roomy, small), mounts=reports) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="read all reports", tools=["lib__*"])).pid
            await ended(k, pid)
            last = [step.number for step in (await k.call("read_journal", pid=pid)).steps if step.call == "model"][-1]
            made = await k.call("restore", checkpoint_id=f"{pid}@{last}", model="scripted/small")
            await ended(k, made.pid)
            mine, theirs = [(await k.call("read_context", pid=each)).pages for each in (pid, made.pid)]
            runs = [await replayed(k, each) for each in (pid, made.pid)]
    shared = {page.page_id for page in mine} & {page.page_id for page in theirs}
    left = {page.page_id for page in theirs if not page.resident}
    assert left & shared, "some of what left is of the shared past"
    assert all(page.resident for page in mine)
    assert [first for _, first in runs] == [None, None], "both can still be made again, to the byte"
    assert {verdict for rows, _ in runs for _, verdict in rows} == {"same"}
