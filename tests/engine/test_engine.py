"""What is promised of engines, on a real one: streams, slots, cancellation, caches, schemas, tools, and going on."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from aos_mcp.abi.completion import Completion, Prompt, ToolSpec, Turn
from aos_mcp.abi.errors import Unavailable
from aos_mcp.abi.settings import ProviderSettings, Settings
from aos_mcp.bench import engine
from aos_mcp.hardware import SystemClock
from aos_mcp.llm.catalogue import Catalogue
from aos_mcp.ports import LanguageModel
from aos_mcp.testing.kernels import TestKernel, kernel_on

pytestmark = [pytest.mark.soak, pytest.mark.engine, pytest.mark.anyio]

NAME = "llamacpp/random"
GREEDY = {"temperature": 0.0, "seed": 1, "cache_prompt": True}
ESSAY = "write at length about engines, and do not stop"
LENGTH = 400


def settings(url: str, **row: object) -> Settings:
    quirks = {"extra_body": {**GREEDY, **row.pop("extra_body", {})}}  # type: ignore[dict-item]
    provider = ProviderSettings(base_url=f"{url}/v1", quirks=quirks, **row)  # type: ignore[arg-type]
    return Settings(model=NAME, providers={"llamacpp": provider})


@asynccontextmanager
async def model_at(url: str, **row: object) -> AsyncIterator[LanguageModel]:
    async with Catalogue(settings(url, **row), {}, SystemClock()) as models:
        yield models.resolve(NAME)


@asynccontextmanager
async def kernel_at(url: str, home: Path, **row: object) -> AsyncIterator[TestKernel]:
    configured = settings(url, **row)
    async with Catalogue(configured, {}, SystemClock()) as models, kernel_on(home, models, settings=configured) as k:
        yield k


def asked(text: str, *, tokens: int = 40, **more: Any) -> Prompt:
    return Prompt(system="", turns=(Turn(role="user", text=text),), max_output_tokens=tokens, **more)


async def answered(model: LanguageModel, prompt: Prompt) -> tuple[Completion, list[str]]:
    """Complete, and return the pieces as well."""
    pieces: list[str] = []
    with anyio.fail_after(60):
        return await model.complete(prompt, pieces.append), pieces


def slots(url: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{url}/slots", timeout=10) as answer:
        return list(json.load(answer))


def slots_at_work(url: str) -> int:
    return sum(bool(slot["is_processing"]) for slot in slots(url))


def tokens_written(url: str) -> int:
    """Return how many tokens of the answers under way the engine has written."""
    return sum(slot["next_token"][0]["n_decoded"] for slot in slots(url) if slot["is_processing"])


async def test_an_answer_comes_in_pieces_and_is_counted(tiny: str) -> None:
    async with model_at(tiny) as model:
        completion, pieces = await answered(model, asked("hello"))
    assert len(pieces) > 10
    assert "".join(pieces) == completion.reply.text
    assert completion.usage.output_tokens == 40
    assert completion.reply.stop == "length"
    assert completion.usage.input_tokens + completion.usage.cached_tokens > 10


async def test_calls_run_side_by_side_in_the_engines_slots(tiny: str) -> None:
    at_once = 0
    async with model_at(tiny) as model, anyio.create_task_group() as group:
        done: list[Completion] = []

        async def one(number: int) -> None:
            done.append((await answered(model, asked(f"call number {number}", tokens=1_000)))[0])

        for number in range(4):
            group.start_soon(one, number)
        with anyio.fail_after(60):
            while len(done) < 4:
                at_once = max(at_once, await anyio.to_thread.run_sync(slots_at_work, tiny))
    assert at_once == 4


async def test_a_cancelled_call_frees_its_place_for_the_next_at_once(slow: str) -> None:
    """The only slot is free long before what was asked for would be written."""
    tokens = 7_000
    async with model_at(slow) as model:
        began = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(model.complete, asked(ESSAY, tokens=tokens), lambda _: began.set())
            with anyio.fail_after(60):
                await began.wait()
            group.cancel_scope.cancel()
        with anyio.fail_after(60):
            while await anyio.to_thread.run_sync(slots_at_work, slow):
                await anyio.lowlevel.checkpoint()
        (slot,) = await anyio.to_thread.run_sync(slots, slow)
        completion, _ = await answered(model, asked("and now this"))
    assert slot["n_prompt_tokens"] < tokens / 10, "what the slot holds: the prompt and all that was written"
    assert completion.usage.output_tokens == 40


async def test_a_prompt_that_comes_again_is_read_from_the_cache_and_the_account_says_so(
    tiny: str, tmp_path: Path
) -> None:
    prompt = "the same long beginning, " * 20
    async with kernel_at(tiny, tmp_path) as k:
        await k.call("complete", prompt=prompt, max_tokens=8)
        again = await k.call("complete", prompt=prompt, max_tokens=8)
        longer = await k.call("complete", prompt=prompt + "and a little more", max_tokens=8)
    assert again.usage.cached_tokens > 400
    assert again.usage.input_tokens < 50
    assert longer.usage.cached_tokens > 400


async def test_an_answer_is_bound_to_its_schema(tiny: str, tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "old": {"type": "boolean"}},
        "required": ["name", "old"],
        "additionalProperties": False,
    }
    async with kernel_at(tiny, tmp_path) as k:
        for number in range(5):
            answer = await k.call("complete", prompt=f"who is number {number}?", schema=schema, max_tokens=200)
            assert set(answer.object) == {"name", "old"}
            assert isinstance(answer.object["old"], bool)


async def test_tool_calls_of_noise_are_valid_all_the_same(tiny: str) -> None:
    parameters = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    tool = ToolSpec(name="count", description="Count.", input_schema=json.dumps(parameters))
    bias = {"tool_choice": "required", "logit_bias": {"5": 50, "4": 50}, "temperature": 1.0}
    async with model_at(tiny, extra_body=bias) as model:
        for number in range(10):
            completion, _ = await answered(model, asked(f"count to {number}", tokens=300, tools=(tool,)))
            (request, *_) = completion.reply.requests
            assert request.name == "count"
            assert isinstance(json.loads(request.arguments)["n"], int)


@pytest.mark.parametrize("cut", [1, 7, 33, 64, 119])
async def test_an_answer_that_is_gone_on_with_is_the_one_that_was_not_broken_off(tiny: str, cut: int) -> None:
    async with model_at(tiny) as model:
        whole, _ = await answered(model, asked(ESSAY, tokens=120))
        text = whole.reply.text
        rest, _ = await answered(model, asked(ESSAY, tokens=120 - cut, continuing=text[:cut]))
    assert text[:cut] + rest.reply.text == text
    assert rest.usage.cached_tokens > 0


def test_short_calls_hardly_wait_for_long_ones_on_a_real_engine(pair: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark that measures it, in small."""
    monkeypatch.setattr(engine, "ROUNDS", 1)
    monkeypatch.setattr(engine, "SHORT", 4)
    short, _, long, _ = (figures := engine.run(pair))
    assert [figure.name.split(": ")[1] for figure in figures[:2]] == [
        "short calls, by class, at boundaries",
        "short calls, by class, preemptive",
    ]
    assert all(figure.value > 0 and figure.ratio is not None for figure in (short, long))
    with pytest.raises(Unavailable, match="No engine answers"):
        engine.run("http://127.0.0.1:9")


async def test_a_batch_agent_gives_way_and_writes_the_same_text(slow: str, tmp_path: Path) -> None:
    """Preempted and resumed on a real engine with one slot, as somebody more urgent comes."""
    row: dict[str, Any] = {"concurrency": 1, "output_tokens_max": LENGTH}
    async with kernel_at(slow, tmp_path / "alone", **row) as k:
        with anyio.fail_after(100):
            alone = await k.call("complete", prompt=ESSAY, max_tokens=LENGTH, priority=90)
    async with kernel_at(slow, tmp_path / "disturbed", **row) as k:
        texts: list[str] = []
        order: list[str] = []

        async def essay() -> None:
            answer = await k.call("complete", prompt=ESSAY, max_tokens=LENGTH, priority=90)
            texts.append(answer.text)
            order.append("long")

        with anyio.fail_after(100):
            async with anyio.create_task_group() as group:
                group.start_soon(essay)
                while await anyio.to_thread.run_sync(tokens_written, slow) < LENGTH / 4:
                    await anyio.lowlevel.checkpoint()
                await k.call("complete", prompt="a short question", max_tokens=5, priority=0)
                order.append("short")
        preempted = k.machine.metrics.text()
    assert order == ["short", "long"], "the short call did not wait for the long one's end"
    assert 'aos_preemptions_total{model="llamacpp/random",text="kept"} 1.0' in preempted
    assert texts == [alone.text], "to the letter what it wrote when nobody disturbed it"
