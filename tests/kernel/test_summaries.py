"""Summaries of what left: beside the pages, never in their place, and never in the agent's way."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest

from aos_mcp.abi.capability import Caller, CallerKind
from aos_mcp.abi.completion import ModelPrice, Prompt
from aos_mcp.abi.errors import AosError, Invalid, ModelError, ModelFault
from aos_mcp.abi.handle import PageId
from aos_mcp.abi.page import PageKind
from aos_mcp.abi.settings import Settings, parse_settings
from aos_mcp.context.summary import STANDING_MAX, fair_shares, folded
from aos_mcp.testing.devices import RecordingMounts
from aos_mcp.testing.kernels import OWNER, TestKernel, kernel_on
from aos_mcp.testing.model import Answer, ScriptedModel, ScriptedModels, calls, says
from aos_mcp.testing.store_samples import a_page
from tests.kernel.stage import DEADLINE_S, NAME, ended
from tests.kernel.test_paging import WINDOW, is_prefix, read_whole, reader, report

SCRIBE = "other/scribe"
ON = Settings.model_validate({"context": {"summary_model": SCRIBE}})
OPERATOR = Caller(kind=CallerKind.OPERATOR, principal=OWNER)
TURNS = 16  # Pages leave once.
MANY = 72
SECRET = "sk-proj-" + "Abc123" * 6


def sums_up(prompt: Prompt) -> Any:
    return says(f"Digest {prompt.turn}: every report names its entries; pg_k3v9x2mqab is the first.")


def scribe(*script: Answer, **changes: Any) -> ScriptedModel:
    return ScriptedModel(SCRIBE, script or (sums_up,) * MANY, **changes)


@asynccontextmanager
async def reading(
    home: Path, writer: ScriptedModel, turns: int = TURNS, settings: Settings = ON, **budget: Any
) -> AsyncIterator[tuple[TestKernel, Any, ScriptedModel]]:
    """A kernel on which one agent has read many reports, and what became of it."""
    agent, mounts = reader(turns)
    async with kernel_on(home, ScriptedModels(agent, writer), mounts=mounts, settings=settings) as k:
        with anyio.fail_after(DEADLINE_S):
            spawned = await k.call("spawn_agent", task="read all reports", budget=budget or None)
            yield k, await ended(k, spawned.pid), agent


async def table_of(k: TestKernel, pid: str) -> Sequence[Any]:
    return list((await k.call("read_context", pid=pid)).pages)


async def steps_of(k: TestKernel, pid: str, name: str = "summary") -> list[Any]:
    return [step for step in (await k.call("read_journal", pid=pid, limit=200)).steps if step.call == name]


async def reason(k: TestKernel, step: Any) -> str:
    body = await k.machine.store.read(lambda tx: tx.payload_get(step.result))
    assert body is not None
    return str(json.loads(body)["code"])


async def test_without_a_model_for_them_there_are_no_summaries(tmp_path: Path) -> None:
    writer = scribe()
    async with reading(tmp_path, writer, settings=Settings()) as (k, done, _):
        table = await table_of(k, done.pid)
        assert not await steps_of(k, done.pid)
    assert any(page.left_why == "compaction" for page in table)
    assert not any(page.kind == "summary" for page in table)
    assert not writer.prompts


async def test_a_summary_stands_before_the_handles_of_what_it_was_made_from(tmp_path: Path) -> None:
    async with reading(tmp_path, scribe()) as (k, done, agent):
        table = await table_of(k, done.pid)
    (summary,) = [page for page in table if page.kind == "summary"]
    gone = [page.page_id for page in table if page.left_why == "compaction"]
    assert summary.resident
    assert sorted(summary.summarizes) == sorted(gone)
    last = agent.prompts[-1]
    place = next(turn.text for turn in last.turns if "Digest 0:" in turn.text)
    assert place.index("Digest 0:") < place.index("[paged out]")
    assert place.startswith("[summary of ") or "\n[summary of " in place
    assert f"written by {SCRIBE}" in place


async def test_the_model_that_sums_up_sees_the_task_and_what_leaves_and_no_more_than_its_window(tmp_path: Path) -> None:
    narrow, wide = scribe(context_tokens=4_000), scribe()
    for home, writer in (("narrow", narrow), ("wide", wide)):
        (tmp_path / home).mkdir()
        async with reading(tmp_path / home, writer) as (k, done, _):
            assert await steps_of(k, done.pid)
    for writer, whole in ((narrow, False), (wide, True)):
        text = writer.prompts[0].turns[0].text
        assert "read all reports" in text
        assert (report(0).strip() in text) is whole
        assert "entry-0-1 " in text
    assert len(narrow.prompts[0].turns[0].text) < len(wide.prompts[0].turns[0].text) // 2


async def test_every_page_that_left_is_read_back_byte_for_byte_also_former_summaries(tmp_path: Path) -> None:
    async with reading(tmp_path, scribe(), MANY) as (k, done, _):
        table = await table_of(k, done.pid)
        results = [await read_whole(k, page.page_id) for page in table if page.kind == "result"]
        summaries = [page for page in table if page.kind == "summary"]
        former = [await read_whole(k, page.page_id) for page in summaries if not page.resident]
    assert sorted(results) == sorted(report(n) for n in range(MANY))
    assert len(summaries) >= 3
    assert all("Digest " in text for text in former)


async def test_the_prefix_holds_between_compactions_and_summaries_in_front_of_a_hole_stay(tmp_path: Path) -> None:
    async with reading(tmp_path, scribe(), MANY) as (k, done, agent):
        table = await table_of(k, done.pid)
    compactions = {page.left_at for page in table if page.left_why == "compaction"}
    rewritten = [n for n, (one, other) in enumerate(pairwise(agent.prompts), 1) if not is_prefix(one, other)]
    assert len(rewritten) == len(compactions) >= 3
    summaries = [page for page in table if page.kind == "summary"]
    assert {page.created_at for page in summaries} == compactions
    assert all(page.resident for page in summaries)
    assert sum(page.tokens for page in summaries) < 2_000


async def test_a_summary_behind_the_first_hole_goes_into_the_next_one(tmp_path: Path) -> None:
    """The first report is spoken of for a while, so that it leaves after those behind it."""
    agent, mounts = reader(MANY)
    busy = [
        calls(("lib__read", {"n": n}), text=f"step {n}: entry-0-7" if n == 30 else f"step {n}", key=f"r{n}-")
        for n in range(MANY)
    ]
    agent.script = (*busy, says("done"))
    lru = Settings.model_validate({"context": {"summary_model": SCRIBE, "policy": "lru"}})
    async with kernel_on(tmp_path, ScriptedModels(agent, scribe()), mounts=mounts, settings=lru) as k:
        with anyio.fail_after(DEADLINE_S):
            done = await ended(k, (await k.call("spawn_agent", task="read all reports")).pid)
            table = await table_of(k, done.pid)
    first, second = sorted((page for page in table if page.kind == "summary"), key=lambda page: page.created_at)[:2]
    assert (first.resident, first.left_at) == (False, second.created_at)
    assert first.page_id in second.summarizes


def test_where_too_many_summaries_stand_the_next_one_takes_in_all() -> None:
    standing = [a_page(f"pg_s{n}", kind=PageKind.SUMMARY, position=n) for n in range(STANDING_MAX)]
    rows = [*standing, a_page("pg_gone", position=STANDING_MAX), a_page("pg_last", position=STANDING_MAX + 1)]
    assert folded(rows[1:], [PageId("pg_gone")]) == []
    assert folded(rows, [PageId("pg_gone")]) == [page.page_id for page in standing]


async def test_what_a_summary_costs_is_on_the_budget_of_its_agent_and_takes_none_of_its_turns(tmp_path: Path) -> None:
    writer = scribe()
    async with reading(tmp_path, writer) as (k, done, agent):
        steps = await steps_of(k, done.pid)
        records = (await k.call("read_audit", verify=True, pid=done.pid, limit=500)).records
        account = await k.machine.store.read(lambda tx: tx.account_get(done.pid))
    assert (len(writer.prompts), [step.state for step in steps]) == (1, ["done"])
    assert done.usage.turns == len(agent.prompts)
    assert round(done.usage.usd * 1e6) == 200 * (len(agent.prompts) + 1)
    assert account is not None
    assert (account.reserved_microusd, account.reserved_tokens) == (0, 0)
    assert sum(record.call == "summary" and record.outcome == "ok" for record in records) == 1


@pytest.mark.parametrize(
    "error",
    [
        ModelError(ModelFault.RATE, "429", "later", retry_after_s=900.0),
        ModelError(ModelFault.OVERLOAD, "500", "later"),
        ModelError(ModelFault.CUT_STREAM, "cut", "later", output_tokens=20, partial_text="half a"),
    ],
)
async def test_a_call_for_a_summary_that_fails_neither_ends_nor_holds_up_the_agent(
    tmp_path: Path, error: AosError
) -> None:
    async with reading(tmp_path, scribe(error)) as (k, done, agent):
        table = await table_of(k, done.pid)
        (step,) = await steps_of(k, done.pid)
        why = await reason(k, step)
    assert (done.exit_code, done.result) == ("done", "done")
    assert step.state == "failed"
    assert why
    assert not any(page.kind == "summary" for page in table)
    assert any("[paged out]" in turn.text for turn in agent.prompts[-1].turns)


async def test_after_a_429_the_next_summary_is_not_waited_for(tmp_path: Path) -> None:
    error = ModelError(ModelFault.RATE, "429", "later", retry_after_s=900.0)
    async with reading(tmp_path, scribe(*(error,) * MANY), MANY) as (k, done, _):
        reasons = [await reason(k, step) for step in await steps_of(k, done.pid)]
    assert done.exit_code == "done"
    assert len(reasons) >= 2
    assert set(reasons[1:]) == {"unavailable"}


@pytest.mark.parametrize("name", ["scripted/nobody", SCRIBE])
async def test_a_summary_that_the_budget_or_the_catalogue_has_no_room_for_is_not_asked_for(
    tmp_path: Path, name: str
) -> None:
    dear = scribe(price=ModelPrice(input=50.0, cached=5.0, written=60.0, output=100.0, source="test"))
    settings = Settings.model_validate({"context": {"summary_model": name}})
    async with reading(tmp_path, dear, settings=settings, usd=1) as (k, done, _):
        (step,) = await steps_of(k, done.pid)
        why = await reason(k, step)
    assert (done.exit_code, dear.prompts) == ("done", [])
    assert (step.state, why) == ("failed", "budget_exhausted" if name == SCRIBE else "not_found")


async def test_a_model_that_says_nothing_is_paid_and_leaves_no_page(tmp_path: Path) -> None:
    async with reading(tmp_path, scribe(says(" "))) as (k, done, agent):
        table = await table_of(k, done.pid)
        (step,) = await steps_of(k, done.pid)
    assert (done.exit_code, step.state) == ("done", "done")
    assert not any(page.kind == "summary" for page in table)
    assert round(done.usage.usd * 1e6) == 200 * (len(agent.prompts) + 1)


async def test_a_summary_has_the_labels_of_its_pages_and_secrets_are_not_sent_for_one(tmp_path: Path) -> None:
    writer = scribe()
    agent, mounts = reader(TURNS)
    leaky = RecordingMounts({tool: lambda a: f"{SECRET}\n{report(a['n'])}" for tool in mounts.tools()})
    async with kernel_on(tmp_path, ScriptedModels(agent, writer), mounts=leaky, settings=ON) as k:
        with anyio.fail_after(DEADLINE_S):
            done = await ended(k, (await k.call("spawn_agent", task="read all reports")).pid)
            table = await table_of(k, done.pid)
    (summary,) = [page for page in table if page.kind == "summary"]
    assert summary.labels == ["mount:lib"]
    assert any(SECRET in turn.text for turn in agent.prompts[-1].turns)
    assert SECRET not in writer.prompts[0].turns[0].text


async def test_a_run_with_summaries_is_made_again_from_its_journal_to_the_byte(tmp_path: Path) -> None:
    async with reading(tmp_path, scribe(), MANY) as (k, done, _):
        replayed = await k.call("replay_journal", OPERATOR, pid=done.pid)
        steps = (await k.call("read_journal", pid=done.pid, limit=200)).steps
    assert len(steps) == len(replayed.steps)
    assert {row.verdict for row in replayed.steps if row.call in {"model", "summary"}} == {"same"}
    assert sum(row.call == "summary" for row in replayed.steps) >= 3
    assert replayed.first_difference is None


async def test_a_fork_sees_the_summary_of_its_past_and_one_before_it_does_not(tmp_path: Path) -> None:
    writer = scribe()
    async with reading(tmp_path, writer) as (k, done, agent):
        (step,) = await steps_of(k, done.pid)
        models = await steps_of(k, done.pid, "model")
        for at, seen in ((models[-1].number, True), (models[2].number, False)):
            begun = len(agent.prompts)
            fork = await ended(k, (await k.call("restore", checkpoint_id=f"{done.pid}@{at}")).pid)
            assert fork.exit_code == "done"
            first = agent.prompts[begun]
            assert any("Digest 0:" in turn.text for turn in first.turns) is seen
            rows = await table_of(k, fork.pid)
            inherited = [page for page in rows if page.kind == "summary" and page.source.endswith(f"@{step.number}")]
            assert all(page.summarizes for page in inherited)


async def test_a_step_that_wrote_a_summary_says_what_it_was_made_from(tmp_path: Path) -> None:
    async with reading(tmp_path, scribe()) as (k, done, _):
        (step,) = await steps_of(k, done.pid)
        why = await k.call("explain_step", pid=done.pid, step=step.number)
        (summary,) = [page for page in await table_of(k, done.pid) if page.kind == "summary"]
    assert sorted(page.page_id for page in why.seen) == sorted(summary.summarizes)
    assert (why.model, why.tool) == (SCRIBE, "summary")
    assert why.decision.startswith("Digest 0:")


async def test_whoever_follows_an_agent_does_not_hear_its_summaries(tmp_path: Path) -> None:
    agent, mounts = reader(TURNS)
    heard: Counter[tuple[str, str]] = Counter()
    async with kernel_on(tmp_path, ScriptedModels(agent, scribe()), mounts=mounts, settings=ON) as k:
        with anyio.fail_after(DEADLINE_S), k.kernel.listen() as events:
            async with anyio.create_task_group() as group:

                async def follow() -> None:
                    async for event in events:
                        heard[event.kind, event.detail] += 1

                group.start_soon(follow)
                done = await ended(k, (await k.call("spawn_agent", task="read all reports")).pid)
                assert await steps_of(k, done.pid)
                group.cancel_scope.cancel()
    assert heard["output", "step 3"] == 1
    assert not any("Digest" in text for _, text in heard)


async def test_a_summary_is_not_asked_for_where_too_little_leaves(tmp_path: Path) -> None:
    writer = scribe()
    script = [calls(("lib__read", {"n": n}), key=f"r{n}-") for n in range(MANY)]
    (tool,) = reader(1)[1].tools()
    mounts = RecordingMounts({tool: lambda arguments: "word " * 600})
    agent = ScriptedModel(NAME, (*script, says("done")), context_tokens=WINDOW)
    settings = Settings.model_validate(
        {"context": {"summary_model": SCRIBE, "policy": "fifo", "high_water": 0.5, "low_water": 0.48}}
    )
    async with kernel_on(tmp_path, ScriptedModels(agent, writer), mounts=mounts, settings=settings) as k:
        with anyio.fail_after(DEADLINE_S):
            done = await ended(k, (await k.call("spawn_agent", task="read all reports")).pid)
            table = await table_of(k, done.pid)
            assert not await steps_of(k, done.pid)
    assert done.exit_code == "done"
    assert any(page.left_why == "compaction" for page in table)
    assert not writer.prompts


def test_what_names_no_model_is_refused_with_its_key() -> None:
    with pytest.raises(Invalid, match="summary_model"):
        parse_settings('[context]\nsummary_model = "no provider"\n', "aos.toml")


def test_small_texts_stay_whole_and_the_others_are_cut_to_one_length() -> None:
    assert fair_shares([10, 500, 20, 900], 430) == [10, 200, 20, 200]
    assert fair_shares([10, 20], 1_000) == [10, 20]
    assert sum(fair_shares([7] * 100, 50)) <= 50
