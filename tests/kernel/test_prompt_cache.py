"""What an agent reads from its provider's cache: the whole kernel and a real driver before a server that caches."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import pytest

from aos_mcp.abi.settings import Settings
from aos_mcp.hardware import SystemClock
from aos_mcp.llm.catalogue import Catalogue
from aos_mcp.testing.devices import RecordingMounts, a_tool
from aos_mcp.testing.kernels import TestKernel, kernel_on
from aos_mcp.testing.prompt_cache import CacheRules, Entries, WireCache, marks_in
from aos_mcp.testing.providers import Behaviour, Call, ProviderServer, provider_server
from tests.kernel.stage import DEADLINE_S
from tests.kernel.test_paging import report

TURNS = 60
WINDOW = 32_000
TASK = "Read all reports. Hold each against these rules:\n" + "".join(
    f"Rule {number}: a figure of department {number % 40} is given in thousands, with {number % 7} digits.\n"
    for number in range(200)
)
BY_MARKS = CacheRules(entries=Entries.MARKS, tokens_min=1_024, ttl_s=300.0)
EXACT = CacheRules(entries=Entries.EXACT, tokens_min=1_024, ttl_s=1_800.0)
UNITS = CacheRules(entries=Entries.UNITS, tokens_min=0, ttl_s=3_600.0)
MODELS = {
    "anthropic": "anthropic/claude-sonnet-5-5",
    "openai": "openai/gpt-6.1-sol",
    "deepseek": "deepseek/deepseek-chat",
}


@asynccontextmanager
async def serving(rules: CacheRules, reads: Sequence[int]) -> AsyncIterator[ProviderServer]:
    """A provider whose model reads so many reports in each turn."""
    numbers = iter(range(sum(reads)))
    asked = [tuple(Call(name="lib__read", arguments=json.dumps({"n": next(numbers)})) for _ in range(n)) for n in reads]
    script = [
        *(Behaviour(text=f"step {turn}", calls=calls) for turn, calls in enumerate(asked)),
        Behaviour(text="done"),
    ]
    async with provider_server(script=script, cache=WireCache(rules)) as server:
        yield server


@dataclass(frozen=True)
class Run:
    """What came of an agent's run."""

    cached: float
    """The part of its prompts that the server read from its cache;"""
    shown: float
    """and what the page table says of it."""
    bodies: Sequence[Mapping[str, Any]]


async def run(
    provider: str, rules: CacheRules, *, calls: int = 1, report_chars: int = 1_500, marks: int | None = None
) -> Run:
    """Run an agent that makes so many calls in each of its turns, with as many cache marks as the row says or given."""
    quirks = {} if marks is None else {"cache_breakpoints": marks}
    mounts = RecordingMounts(
        {a_tool("lib__read", read_only=True): lambda arguments: report(arguments["n"])[:report_chars]}
    )
    async with serving(rules, (calls,) * TURNS) as server:
        url = server.url if provider == "anthropic" else f"{server.url}/v1"
        settings = Settings.model_validate(
            {
                "providers": {provider: {"base_url": url, "key": "env:A_KEY", "quirks": quirks}},
                "context": {"window_tokens": WINDOW},
                "prices": {MODELS[provider]: {"input": 1.0, "cached": 0.1, "written": 1.25, "output": 5.0}},
            }
        )
        async with Catalogue(settings, {"A_KEY": "a-secret"}, SystemClock()) as models:
            with TemporaryDirectory() as home:
                async with kernel_on(Path(home), models, settings=settings, mounts=mounts) as k:
                    shown = await _finished(k, MODELS[provider])
        bodies = [request.body for request in server.requests]
        assert len(bodies) == TURNS + 1
        assert any("[paged out]" in json.dumps(body["messages"]) for body in bodies), "pages left on the way"
        assert server.cache is not None
        return Run(server.cache.cached_tokens / server.cache.prompt_tokens, shown, bodies)


async def _finished(k: TestKernel, model: str) -> float:
    limits = {"usd": 20, "tokens": 20_000_000, "turns": 200, "tool_calls": 2_000}
    with anyio.fail_after(2 * DEADLINE_S):
        pid = (await k.call("spawn_agent", task=TASK, model=model, tools=["lib__*"], budget=limits)).pid
        while not (await k.call("wait_agent", pids=[pid], timeout_s=20)).agents[0].exit_code:
            pass
        return float((await k.call("read_context", pid=pid)).hit_rate)


async def test_an_agent_of_sixty_turns_reads_nine_tenths_of_its_prompts_from_the_cache() -> None:
    marked = await run("anthropic", BY_MARKS)
    assert marked.cached >= 0.9
    assert marked.shown == pytest.approx(marked.cached, abs=0.001), "as billed, so is it shown"
    assert max(marks_in(body) for body in marked.bodies) == 4
    assert (await run("anthropic", BY_MARKS, marks=0)).cached == 0


async def test_turns_of_many_calls_are_read_from_the_cache_with_sticky_marks_and_not_without() -> None:
    """Twelve calls and their results are more blocks than a mark at the end looks back."""
    assert (await run("anthropic", BY_MARKS, calls=12, report_chars=300)).cached >= 0.8
    assert (await run("anthropic", BY_MARKS, calls=12, report_chars=300, marks=2)).cached <= 0.2


async def test_explicit_marks_are_sent_beside_the_one_the_provider_makes_itself_and_save_the_task_at_a_cut() -> None:
    marked = await run("openai", EXACT)
    assert marked.cached >= 0.93
    assert marked.cached > (await run("openai", EXACT, marks=0)).cached + 0.01
    assert max(marks_in(body) for body in marked.bodies) == 3
    assert len({body["prompt_cache_key"] for body in marked.bodies}) == 1


async def test_a_provider_that_caches_by_itself_gets_no_marks_and_finds_the_prefix_all_the_same() -> None:
    plain = await run("deepseek", UNITS)
    assert plain.cached >= 0.9
    assert not any(marks_in(body) for body in plain.bodies)
