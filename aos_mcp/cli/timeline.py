"""The command `timeline`: who ran when and why, as text or as a picture."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from aos_mcp.abi.errors import ErrorCode
from aos_mcp.cli import output, session, spans
from aos_mcp.cli.client import Client, Json
from aos_mcp.cli.failure import CliError
from aos_mcp.cli.output import AsJson
from aos_mcp.cli.spans import BLOCKED, MODEL, RUNNING, TOOL, WAITING, Life
from aos_mcp.cli.timeline_picture import picture

BAR_CHARS = 60
MARKS = {WAITING: ".", RUNNING: "-", MODEL: "#", TOOL: "t", BLOCKED: "w"}
LEGEND = "  ".join(f"{mark} {kind}" for kind, mark in MARKS.items())


def timeline(
    pids: Annotated[list[str] | None, typer.Argument(metavar="[PID...]", help="Only these agents.")] = None,
    svg: Annotated[Path | None, typer.Option("--svg", metavar="FILE", help="Draw a picture into this file.")] = None,
    turns: Annotated[int, typer.Option("--turns", min=1, help="The newest so many turns.")] = 500,
    as_json: AsJson = False,
) -> None:
    """Show who ran when and why: a bar for each agent; for agents that are named, each turn with its reason."""
    with session.kernel(as_json) as client:
        answer = client.call("read_timeline", {"pids": _whole(client, pids or []), "limit": turns})
        if svg is not None:
            _draw(svg, answer)
            output.note(f"drawn: {svg}")
        if svg is None or as_json:
            output.show(answer, as_json, lambda told: _text(told, each_turn=bool(pids)))


def _whole(client: Client, pids: list[str]) -> list[str]:
    return [client.read_json(f"aos://proc/{pid}")["pid"] for pid in pids]


def _draw(path: Path, answer: Json) -> None:
    try:
        path.write_text(picture(spans.lives(answer)), "utf-8")
    except OSError as error:
        raise CliError(
            ErrorCode.INVALID, f"{path} cannot be written: {error.strerror}.", "Name another file."
        ) from None


def _text(answer: Json, *, each_turn: bool) -> str:
    found = spans.lives(answer)
    if not any(life.spans for life in found):
        return "No agent had a turn yet."
    start, end = spans.bounds(found)
    head = f"from {_clock(start)} for {end - start:.1f} s; {LEGEND}"
    rows = [
        (
            output.short(life.pid),
            life.name[:24],
            life.state,
            f"|{_bar(life, start, end)}|",
            *(f"{life.total_s(kind):.1f}" for kind in (WAITING, MODEL, TOOL, BLOCKED)),
        )
        for life in found
    ]
    headings = ("PID", "NAME", "STATE", "", "WAITED S", "MODEL S", "TOOLS S", "BLOCKED S")
    parts = [head, output.table(headings, rows)]
    if each_turn:
        parts += [_turns(life) for life in found]
    return "\n\n".join(parts)


def _bar(life: Life, start: float, end: float) -> str:
    """Return a line of marks. Where several things fall into one place, the last drawn is what is seen."""
    marks = [" "] * BAR_CHARS
    scale = BAR_CHARS / (end - start)
    for kind in MARKS:
        for span in life.spans:
            if span.kind == kind and span.lasted_s > 0:
                first = min(BAR_CHARS - 1, int((span.start - start) * scale))
                last = min(BAR_CHARS - 1, int((span.end - start) * scale))
                marks[first : last + 1] = MARKS[kind] * (last + 1 - first)
    return "".join(marks)


def _turns(life: Life) -> str:
    rows, waited = [], 0.0
    for span in life.spans:
        if span.kind == WAITING:
            waited = span.lasted_s
        elif span.kind == RUNNING:
            inside = [s for s in life.spans if s.kind not in {WAITING, RUNNING} and span.start <= s.start < span.end]
            did = ", ".join(f"{step.why} {step.lasted_s:.2f} s" for step in inside if step.why)
            rows.append((_clock(span.start), f"{waited:.2f}", f"{span.lasted_s:.2f}", span.why, did))
    table = output.table(("AT", "WAITED S", "RAN S", "WHY", "DID"), rows)
    return f"{output.short(life.pid)} {life.name}\n{table}"


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at)) + f".{int(at % 1 * 1_000):03d}"
