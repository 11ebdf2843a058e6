"""`aos bench schedule`: what the order of calls is worth, on the kernel's own scheduler and a simulated provider.

Owns the experiment: which agents, which policies, what is compared. Every figure is a ratio to another policy that ran
on the same agents, with the same seeds, in the same run. The clairvoyant bound shows what is left to gain.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median

from aos_mcp.abi.handle import Pid
from aos_mcp.abi.process import Candidate
from aos_mcp.abi.settings import Settings
from aos_mcp.bench import engine, workloads
from aos_mcp.bench.figures import Figure
from aos_mcp.bench.workloads import LONG, SHORT
from aos_mcp.kernel.lane import LaneLimits
from aos_mcp.kernel.scheduler import Shares, choose
from aos_mcp.testing.simulation import CLAIRVOYANT, Guess, Hints, Job, Provider, Run, Simulation, jain

SEEDS = (0, 1, 2, 3, 4)
RATES = (0.08, 0.10)
"""Agents that arrive each second: a provider that is just busy enough, and one that is asked for too much."""
GUESS_SPREAD = 0.7
"""Sizes are known within a factor of two."""
WIDE_SPREAD = 1.2
"""Within a factor of three and a half."""
CALL_FIFO = "calls, first come first served"
"""What a queue in front of a provider does that knows no agents."""
HOG_S = 2_000.0
CROWD, PLACES = 4, 8
"""Agents for each place of a provider, and its places."""
_PACED = Provider(slots=64, requests_per_min=120)
"""It has room, but answers only so many calls a minute."""
READY = 2_000
PICKS = 20

Contestant = tuple[str, Callable[[int], Guess | None], int | None]


def _unknown(_: int) -> Guess | None:
    return None


OURS = ("default", "default, preemptive")

CONTESTANTS: Mapping[str, Contestant] = {
    CALL_FIFO: ("rr", _unknown, None),
    "agents, oldest first": ("fifo", _unknown, None),
    "priority": ("priority", _unknown, None),
    "default, sizes unknown": ("default", _unknown, None),
    "default": ("default", lambda seed: Hints(GUESS_SPREAD, seed), None),
    "default, preemptive": ("default", lambda seed: Hints(GUESS_SPREAD, seed), Settings().slice_tokens),
    "default, sizes known within 3.3 x": ("default", lambda seed: Hints(WIDE_SPREAD, seed), None),
    "clairvoyant": (CLAIRVOYANT, _unknown, None),
}


def run(traces: Path | None, engine_url: str = "") -> list[Figure]:
    """Simulate and time; `traces` is a public trace that is played too, `engine_url` a real engine to play on."""
    figures = []
    for rate in RATES:
        played = play({seed: workloads.mixed(seed, per_s=rate) for seed in SEEDS}, Provider())
        figures += _figures(played, f"400 agents, {rate:g}/s", targets=True)
    figures += _hog() + _limited() + _cost()
    if traces is not None:
        jobs = workloads.load(traces, Provider())
        figures += _figures(play({0: jobs}, Provider()), f"{traces.stem}, {len(jobs)} jobs", targets=False)
    if engine_url:
        figures += engine.run(engine_url)
    return figures


def play(jobs: Mapping[int, Sequence[Job]], provider: Provider) -> Mapping[str, Sequence[Run]]:
    """Run each contestant on the jobs of each seed."""
    return {
        name: [
            Simulation(own, provider, policy, seed=seed, guess=guess(seed), slice_tokens=slice_tokens).run()
            for seed, own in jobs.items()
        ]
        for name, (policy, guess, slice_tokens) in CONTESTANTS.items()
    }


def _figures(played: Mapping[str, Sequence[Run]], what: str, *, targets: bool) -> list[Figure]:
    wanted = {None: "<= 0.80 x", SHORT: "<= 0.35 x", LONG: "<= 1.15 x"} if targets else {}
    kinds: list[str | None] = [None, *(kind for kind in (SHORT, LONG) if played[CALL_FIFO][0].of_kind(kind))]
    figures = []
    for kind in kinds:
        baseline = fmean([run.mean_s(kind) for run in played[CALL_FIFO]])
        for name, runs in played.items():
            if name == CALL_FIFO:
                continue
            figures.append(
                Figure(
                    name=f"{what}: {kind or 'mean'} completion, {name}",
                    value=fmean([run.mean_s(kind) for run in runs]),
                    unit="s",
                    target=wanted.get(kind, "-") if name in OURS else "-",
                    baseline=CALL_FIFO,
                    baseline_value=baseline,
                )
            )
    figures.append(
        Figure(
            name=f"{what}: p99 slowdown, default",
            value=fmean([run.slowdown(0.99) for run in played["default"]]),
            unit="x",
            target="-",
            baseline=CALL_FIFO,
            baseline_value=fmean([run.slowdown(0.99) for run in played[CALL_FIFO]]),
        )
    )
    return figures


def _hog() -> list[Figure]:
    """Measure how equally owners are served who all have work all the time, one of them with most of it."""

    def index(policy: str) -> float:
        found = []
        for seed in SEEDS:
            jobs = workloads.beside_a_hog(seed)
            served = Simulation(jobs, Provider(), policy, seed=seed, guess=Hints(GUESS_SPREAD, seed)).run(HOG_S)
            found.append(jain(list(served.served().values())))
        return fmean(found)

    return [
        Figure(
            name="Jain's index of 8 owners, one with 100 agents, the others with 4",
            value=index("default"),
            unit="",
            target=">= 0.95",
            baseline=CALL_FIFO,
            baseline_value=index("rr"),
        )
    ]


def _limited() -> list[Figure]:
    """Measure four times more agents than a provider has room for, as the kernel is told of it, or has to find out."""
    cases: tuple[tuple[str, Provider, LaneLimits | None], ...] = (
        ("places, known", Provider(slots=PLACES), None),
        ("places, not known", Provider(slots=PLACES), LaneLimits()),
        ("requests a minute, known", _PACED, LaneLimits(requests_per_min=_PACED.requests_per_min)),
        ("requests a minute, in its headers", replace(_PACED, tells=True), LaneLimits()),
        ("requests a minute, not known", _PACED, LaneLimits()),
        ("1% of calls refused, 0.5% broken off", Provider(overload_share=0.01, cut_share=0.005), None),
    )
    figures = []
    for what, provider, known in cases:
        runs = [
            (jobs, Simulation(jobs, provider, "default", seed=seed, known=known).run())
            for seed in SEEDS
            for jobs in [workloads.crowd(seed, agents=CROWD * PLACES)]
        ]
        done = sum(len(run.of_kind()) for _, run in runs) / sum(len(jobs) for jobs, _ in runs)
        wasted = sum(run.wasted for _, run in runs) / sum(run.sent for _, run in runs)
        figures += [
            Figure(name=f"{CROWD} x limit, {what}: agents done", value=100 * done, unit="%", target="100"),
            Figure(name=f"{CROWD} x limit, {what}: calls wasted", value=100 * wasted, unit="%", target="< 2"),
            Figure(
                name=f"{CROWD} x limit, {what}: makespan",
                value=fmean([run.ends_at for _, run in runs]),
                unit="s",
                target="<= 1.10 x",
                baseline="the limit's optimum",
                baseline_value=fmean([workloads.soonest_s(jobs, provider) for jobs, _ in runs]),
            ),
        ]
    return figures


def _cost() -> list[Figure]:
    """Measure the processor time of one pick with a long queue."""
    chance = random.Random(0)
    ready = [
        Candidate(
            pid=Pid(f"p_{number:05}"),
            program=Pid(f"p_{number // 3:05}"),
            owner=f"owner{number % 5}",
            priority=chance.choice((10, 50, 90)),
            ready_at=chance.random() * 100,
            created_at=float(number),
            turn_units=1_000.0,
            units_left=chance.expovariate(1 / 20_000),
        )
        for number in range(READY)
    ]

    def spent_ms(policy: str) -> float:
        times = []
        for _ in range(PICKS):
            started = time.process_time()
            choose(ready, 100.0, policy, 1, shares=Shares())
            times.append(1_000 * (time.process_time() - started))
        return median(times)

    return [
        Figure(
            name=f"processor time of a pick among {READY}",
            value=spent_ms("default"),
            unit="ms",
            target="-",
            baseline="fifo",
            baseline_value=spent_ms("fifo"),
        )
    ]
