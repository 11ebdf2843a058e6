"""Preemption on a real engine: long and short calls through a whole kernel to a server of llama.cpp in two slots.

Owns the experiment of `aos bench schedule --engine URL`: which calls come when, in what order they may go, and how much
longer the long ones take for it. Any model will do; each contestant meets the same calls at the same moments.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import anyio

from aos_mcp.abi.errors import Unavailable
from aos_mcp.abi.settings import ProviderSettings, Settings
from aos_mcp.bench.figures import Figure
from aos_mcp.hardware import SystemClock
from aos_mcp.llm.catalogue import Catalogue
from aos_mcp.testing.kernels import TestKernel, kernel_on

SLOTS = 2
LONG, LONG_TOKENS = 6, 500
SHORT, SHORT_TOKENS = 14, 25
SHORT_PER_S = 1.0
ROUNDS = 3
SHARED = "You write at length and in good order, and you never stop before you were told to. " * 17
"""What the long calls have in common: 1.4 kB."""
BATCH, NORMAL, INTERACTIVE = 90, 50, 0
ANSWER_S_MAX = 10.0
NEVER = 10**9
"""A slice that no call writes: places change hands only where calls end."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """An order of calls: the priorities of long and short ones, and after how many tokens one may give way."""

    name: str
    long: int
    short: int
    slice_tokens: int


FIFO = Contestant("first come, first served", NORMAL, NORMAL, NEVER)
OURS = Contestant("by class, preemptive", BATCH, INTERACTIVE, Settings().slice_tokens)
CONTESTANTS = (FIFO, Contestant("by class, at boundaries", BATCH, INTERACTIVE, NEVER), OURS)


@dataclass(slots=True)
class Played:
    """How long the calls of one run took, from being made to being answered, in seconds."""

    long_s: list[float]
    short_s: list[float]


def run(url: str) -> list[Figure]:
    """Play each contestant on the server at `url`, with at least two slots; the figures are means over three rounds.

    Raises:
        Unavailable: no such server answers there.
    """
    model = _model_of(url)
    played: dict[Contestant, list[Played]] = {one: [] for one in CONTESTANTS}
    for seed in range(ROUNDS):
        for one in CONTESTANTS:
            played[one].append(anyio.run(_play, url, model, one, seed))
    figures = []
    for kind, target in (("short", "<= 0.10 x"), ("long", "<= 1.15 x")):
        baseline = _mean_s(played[FIFO], kind)
        figures += [
            Figure(
                name=f"real engine, {SLOTS} slots: {kind} calls, {one.name}",
                value=_mean_s(played[one], kind),
                unit="s",
                target=target if one is OURS else "-",
                baseline=FIFO.name,
                baseline_value=baseline,
            )
            for one in CONTESTANTS[1:]
        ]
    return figures


def _mean_s(runs: Sequence[Played], kind: str) -> float:
    return fmean(each for one in runs for each in (one.short_s if kind == "short" else one.long_s))


def _model_of(url: str) -> str:
    try:
        with urllib.request.urlopen(f"{url}/v1/models", timeout=ANSWER_S_MAX) as answer:
            return str(json.load(answer)["data"][0]["id"])
    except (urllib.error.URLError, OSError, ValueError, LookupError) as error:
        raise Unavailable(
            f"No engine answers at {url}: {error}.", "Start llama-server with -np 2 and give its http://HOST:PORT."
        ) from None


async def _play(url: str, model: str, one: Contestant, seed: int) -> Played:
    settings = Settings(
        slice_tokens=one.slice_tokens,
        providers={
            "llamacpp": ProviderSettings(
                base_url=f"{url}/v1",
                concurrency=SLOTS,
                output_tokens_max=LONG_TOKENS,
                quirks={"extra_body": {"ignore_eos": True, "temperature": 0.0, "seed": seed}},
            )
        },
    )
    played = Played([], [])
    with tempfile.TemporaryDirectory(prefix="aos-bench-") as folder:
        async with (
            Catalogue(settings, {}, SystemClock()) as models,
            kernel_on(Path(folder), models, settings=settings) as kernel,
        ):
            await _call(kernel, model, "Are you there?", SHORT_TOKENS, NORMAL)
            async with anyio.create_task_group() as group:
                for number in range(LONG):
                    group.start_soon(_long, kernel, model, one, seed, number, played)
                await _shorts(kernel, model, one, seed, played)
    return played


async def _long(kernel: TestKernel, model: str, one: Contestant, seed: int, number: int, played: Played) -> None:
    prompt = f"{SHARED}Chapter {number} of book {seed}, {one.name}."
    played.long_s.append(await _call(kernel, model, prompt, LONG_TOKENS, one.long))


async def _shorts(kernel: TestKernel, model: str, one: Contestant, seed: int, played: Played) -> None:
    """Make the short calls as they come, whether or not those before are answered."""
    chance = random.Random(seed)

    async def short(number: int) -> None:
        prompt = f"Question {number} of {seed}, {one.name}?"
        played.short_s.append(await _call(kernel, model, prompt, SHORT_TOKENS, one.short))

    async with anyio.create_task_group() as group:
        for number in range(SHORT):
            await anyio.sleep(chance.expovariate(SHORT_PER_S))
            group.start_soon(short, number)


async def _call(kernel: TestKernel, model: str, prompt: str, tokens: int, priority: int) -> float:
    started = time.perf_counter()
    await kernel.call("complete", prompt=prompt, model=f"llamacpp/{model}", max_tokens=tokens, priority=priority)
    return time.perf_counter() - started
