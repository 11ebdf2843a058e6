"""Who did what when, as spans: the scheduler's picks and the journal's steps put together. Pure.

A turn lasts from its pick until its process was in the queue again, which the next pick says. What it did in between is
in the journal; the rest of a turn is the kernel's own work. Where that rest is long, the process was held back: nothing
on record says since when, and the end of its last step is the nearest to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from aos_mcp.cli.client import Json

WAITING, RUNNING, MODEL, TOOL, BLOCKED = "waiting", "running", "model", "tool", "blocked"
KINDS = (WAITING, RUNNING, MODEL, TOOL, BLOCKED)
WAITS = frozenset({"wait_agent"})
"""Calls in which a process waits for others rather than for a device."""

STILL_S = 1.0
"""Longer than the kernel takes from a turn's last step until the process is in the queue again."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time in one state, in seconds since the epoch; `why` is the pick's reason, or the step's call."""

    kind: str
    start: float
    end: float
    why: str = ""

    @property
    def lasted_s(self) -> float:
        """How long."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Life:
    """One agent's spans, by their start; a step comes after the turn that it lies in."""

    pid: str
    name: str
    state: str
    spans: tuple[Span, ...]

    def total_s(self, kind: str) -> float:
        """Return how long it was in a state; a turn less what is shown of it."""
        own = sum(span.lasted_s for span in self.spans if span.kind == kind)
        if kind == RUNNING:
            own -= sum(span.lasted_s for span in self.spans if span.kind in {MODEL, TOOL, BLOCKED} and span.why)
        return max(0.0, own)


def lives(answer: Json) -> list[Life]:
    """Return what `read_timeline` tells, an agent each, the oldest first."""
    return [
        _life(agent, [pick for pick in answer["picks"] if pick["pid"] == agent["pid"]], answer["now"])
        for agent in answer["agents"]
    ]


def _life(agent: Json, picks: Sequence[Json], now: float) -> Life:
    spans: list[Span] = []
    if picks and picks[0]["since"] > agent["created_at"]:
        spans.append(Span(BLOCKED, agent["created_at"], picks[0]["since"]))
    ends = [following["since"] for _, following in pairwise(picks)] + [_end_of_last(agent, now)]
    for pick, end in zip(picks, ends, strict=False):
        spans.append(Span(WAITING, pick["since"], pick["at"], pick["why"]))
        spans.append(Span(RUNNING, pick["at"], max(pick["at"], _worked_until(agent, pick["at"], end)), pick["why"]))
    if agent["state"] == "ready" or (agent["state"] == "blocked" and not _waits(agent)):
        spans.append(Span(WAITING if agent["state"] == "ready" else BLOCKED, agent["since"], now))
    first = picks[0]["at"] if picks else agent["created_at"]
    for step in agent["steps"]:
        if step["started_at"] >= first:
            kind = MODEL if step["call"] == "model" else BLOCKED if step["call"] in WAITS else TOOL
            end = step["ended_at"] if step.get("ended_at") is not None else now
            spans.append(Span(kind, step["started_at"], max(step["started_at"], end), step["call"]))
    spans.sort(key=lambda span: (span.start, KINDS.index(span.kind)))
    return Life(agent["pid"], agent["name"], agent.get("exit_code") or agent["state"], tuple(spans))


def _end_of_last(agent: Json, now: float) -> float:
    if agent.get("ended_at") is not None:
        return float(agent["ended_at"])
    still = agent["state"] in {"ready", "stopped"} or (agent["state"] == "blocked" and not _open(agent))
    return float(agent["since"]) if still else now


def _worked_until(agent: Json, start: float, end: float) -> float:
    """Return when a turn's work was over: at its end, or with its last step where the process then stood still."""
    ends = [step.get("ended_at") for step in agent["steps"] if start <= step["started_at"] < end]
    over = [float(at) for at in ends if at is not None]
    if len(over) < len(ends) or not ends or (agent["state"] == "running" and end > agent["since"]):
        return end
    return max(over) if max(over) < end - STILL_S else end


def _open(agent: Json) -> Json | None:
    """Return the step that an agent is at."""
    return next((step for step in reversed(agent["steps"]) if step.get("ended_at") is None), None)


def _waits(agent: Json) -> bool:
    """Tell whether the step that an agent is at says itself that it waits."""
    step = _open(agent)
    return step is not None and step["call"] in WAITS


def bounds(found: Sequence[Life]) -> tuple[float, float]:
    """Return the first and the last moment of all, at least a millisecond apart."""
    starts = [span.start for life in found for span in life.spans]
    ends = [span.end for life in found for span in life.spans]
    start = min(starts, default=0.0)
    return start, max(max(ends, default=0.0), start + 0.001)
