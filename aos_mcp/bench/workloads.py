"""Agents for the scheduler to order: made from a seed, or read from public traces of agents and of inference.

Owns how a trace becomes jobs. Promises: the same seed or file gives the same jobs. Knows no policy and no provider.

The mixed workload is of two kinds: short interactive agents of one to four calls, and coding agents of two dozen. It is
open: agents arrive whether or not others are done, as they do where several hosts share a kernel.
"""

from __future__ import annotations

import csv
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from aos_mcp.abi.errors import Invalid
from aos_mcp.abi.handle import Pid
from aos_mcp.context.tokens import count
from aos_mcp.testing.simulation import Act, Job, Provider

SHORT, LONG = "short", "long"
TRACE_JOBS_MAX = 2_000
"""Of one file: enough for a quantile of a hundredth, in seconds."""
LOAD = 0.9
"""Arrivals of a trace are drawn together or apart until they ask for this part of what the provider can do."""
LONG_TOKENS = 400
"""A recorded job that writes more than this is called long."""
TAU_TOOL_S = 1.0
"""Mean of a recorded tool call, of which tau-bench has no times."""
_INTERACTIVE, _NORMAL = 10, 50


@dataclass(frozen=True, slots=True)
class Kind:
    """How a kind of agent is made. Medians and spreads are of lognormal distributions."""

    name: str
    priority: int
    context_tokens: int
    output_median: float
    output_spread: float
    tool_s: float


RESULT_MEDIAN, RESULT_SPREAD = 400.0, 1.0
SHORT_SHARE = 0.6
SHORT_CALLS_MAX = 4
LONG_CALLS_MEAN, LONG_CALLS_MAX = 24.0, 80
SHORT_KIND = Kind(SHORT, _INTERACTIVE, 1_500, 120.0, 0.7, 0.8)
LONG_KIND = Kind(LONG, _NORMAL, 9_000, 350.0, 1.0, 2.5)


def mixed(seed: int, *, agents: int = 400, per_s: float = 0.08) -> list[Job]:
    """Return so many agents of both kinds that arrive at random, `per_s` of them each second."""
    chance = random.Random(seed)
    at, jobs = 0.0, []
    for number in range(agents):
        at += chance.expovariate(per_s)
        if chance.random() < SHORT_SHARE:
            kind, calls = SHORT_KIND, chance.randint(1, SHORT_CALLS_MAX)
        else:
            kind, calls = LONG_KIND, min(LONG_CALLS_MAX, 1 + int(chance.expovariate(1 / LONG_CALLS_MEAN)))
        jobs.append(made(chance, number, kind, calls, at))
    return jobs


def made(chance: random.Random, number: int, kind: Kind, calls: int, at: float, *, owner: str = "owner") -> Job:
    """Return one agent of a kind that makes so many calls."""
    return Job(
        pid=Pid(f"p_{number:05}"),
        kind=kind.name,
        owner=owner,
        priority=kind.priority,
        created_at=at,
        context_tokens=kind.context_tokens,
        acts=tuple(
            Act(
                output_tokens=max(1, round(chance.lognormvariate(math.log(kind.output_median), kind.output_spread))),
                result_tokens=round(chance.lognormvariate(math.log(RESULT_MEDIAN), RESULT_SPREAD)),
                tool_s=chance.expovariate(1 / kind.tool_s),
            )
            for _ in range(calls)
        ),
    )


def beside_a_hog(seed: int, *, owners: int = 8, agents: int = 4, hog_agents: int = 100) -> list[Job]:
    """Return the agents of owners who all have work all the time; the first of them has far more of it, and came first.

    All are long ones of the same kind, so that what an owner is served depends on the scheduler alone.
    """
    chance = random.Random(seed)
    jobs: list[Job] = []
    for owner in range(owners):
        for _ in range(agents if owner else hog_agents):
            jobs.append(
                made(chance, len(jobs), LONG_KIND, 10 * LONG_CALLS_MAX, 0.001 * len(jobs), owner=f"owner{owner}")
            )
    return jobs


CROWD_KIND = Kind("crowd", _NORMAL, 1_500, 120.0, 0.7, 0.2)
CROWD_CALLS = 20


def crowd(seed: int, *, agents: int) -> list[Job]:
    """Return so many agents of one kind that all come at once and make `CROWD_CALLS` calls each."""
    chance = random.Random(seed)
    return [made(chance, number, CROWD_KIND, CROWD_CALLS, 0.001 * number) for number in range(agents)]


def soonest_s(jobs: Sequence[Job], provider: Provider) -> float:
    """Return when jobs that come at once can be over at the earliest: places, requests a minute, and each one alone."""
    places_s = sum(alone_s(job, provider) for job in jobs) / provider.slots
    longest_s = max(alone_s(job, provider) + sum(act.tool_s for act in job.acts[:-1]) for job in jobs)
    per_min = provider.requests_per_min
    calls = sum(len(job.acts) for job in jobs)
    paced_s = 0.0 if per_min is None else 60 * (calls - per_min) / per_min  # a minute's worth goes at once
    return max(places_s, longest_s, paced_s)


def load(path: Path, provider: Provider) -> list[Job]:
    """Return the jobs of a public trace, its arrivals scaled so that `provider` is busy for `LOAD` of the time.

    Known forms: the Azure LLM inference traces (`.csv`: TIMESTAMP, ContextTokens, GeneratedTokens), Mooncake's traces
    (`.jsonl`: timestamp, input_length, output_length), tau-bench's historical trajectories (`.json`).

    Raises:
        Invalid: the file cannot be read, or is none of these.
    """
    readers = {".csv": _azure, ".jsonl": _mooncake, ".json": _tau}
    try:
        jobs = list(islice(readers[path.suffix](path), TRACE_JOBS_MAX))
        return _scaled(jobs, provider)
    except (OSError, KeyError, TypeError, ValueError, IndexError) as error:
        raise Invalid(
            f"{path} is no trace of calls: {type(error).__name__}: {error}.",
            "Give an Azure LLM inference trace (CSV), a Mooncake trace (JSON lines), or tau-bench trajectories (JSON).",
        ) from None


def _azure(path: Path) -> Iterator[Job]:
    with path.open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file)):
            at = datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp()
            yield _single(number, at, int(row["ContextTokens"]), int(row["GeneratedTokens"]))


def _mooncake(path: Path) -> Iterator[Job]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file):
            row = json.loads(line)
            yield _single(number, row["timestamp"] / 1_000, row["input_length"], row["output_length"])


def _single(number: int, at: float, context_tokens: int, output_tokens: int) -> Job:
    return Job(
        pid=Pid(f"p_{number:05}"),
        kind=LONG if output_tokens > LONG_TOKENS else SHORT,
        priority=_NORMAL,
        created_at=at,
        context_tokens=context_tokens,
        acts=(Act(max(1, output_tokens), 0, 0.0),),
    )


def _tau(path: Path) -> Iterator[Job]:
    chance = random.Random(0)
    for number, run in enumerate(json.loads(path.read_text("utf-8"))):
        acts: list[Act] = []
        context = output = result = 0
        for message in run["traj"]:
            tokens = count(_said(message))
            if message["role"] == "assistant":
                if output:
                    acts.append(Act(output, result, chance.expovariate(1 / TAU_TOOL_S)))
                output, result = max(1, tokens), 0
            elif output:
                result += tokens
            else:
                context += tokens
        if not output:
            continue
        acts.append(Act(output, result, 0.0))
        written = sum(act.output_tokens for act in acts)
        yield Job(
            pid=Pid(f"p_{number:05}"),
            kind=LONG if written > LONG_TOKENS else SHORT,
            priority=_NORMAL,
            created_at=float(number) + chance.random(),
            context_tokens=context,
            acts=tuple(acts),
        )


def _said(message: Mapping[str, Any]) -> str:
    called = message.get("tool_calls")
    return (message.get("content") or "") + (json.dumps(called) if called else "")


def _scaled(jobs: Sequence[Job], provider: Provider) -> list[Job]:
    """Return the jobs with their first arrival at 0 and the others as far behind it as makes the provider busy."""
    work_s = sum(alone_s(job, provider) for job in jobs)
    first = min(job.created_at for job in jobs)
    span = max(job.created_at for job in jobs) - first
    factor = work_s / (LOAD * provider.slots * span)
    return [
        Job(
            pid=job.pid,
            kind=job.kind,
            priority=job.priority,
            created_at=(job.created_at - first) * factor,
            context_tokens=job.context_tokens,
            acts=job.acts,
        )
        for job in jobs
    ]


def alone_s(job: Job, provider: Provider) -> float:
    """Return how long the calls of a job hold a place of the provider."""
    total, context, known = 0.0, float(job.context_tokens), 0.0
    for act in job.acts:
        cached = known * provider.cache_share
        total += provider.call_s(context - cached, cached, act.output_tokens)
        known = min(float(provider.context_tokens), context + act.output_tokens)
        context = min(float(provider.context_tokens), known + act.result_tokens)
    return total
