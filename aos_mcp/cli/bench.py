"""`aos bench`: figures measured here and now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from aos_mcp.abi.errors import AosError, ErrorCode
from aos_mcp.cli import output
from aos_mcp.cli.failure import CliError


def bench(
    name: Annotated[
        str, typer.Argument(help="start, syscall, journal, checkpoint, llm, schedule, paging, search, or all")
    ] = "all",
    traces: Annotated[
        Path | None, typer.Option("--traces", help="Also play this file or folder; docs/bench.md says which.")
    ] = None,
    locomo: Annotated[
        Path | None, typer.Option("--locomo", help="Of search: LoCoMo's locomo10.json, which is not part of this.")
    ] = None,
    cacm: Annotated[Path | None, typer.Option("--cacm", help="Of search: a folder with the CACM collection.")] = None,
    pages: Annotated[
        int, typer.Option("--pages", min=0, help="Of search: how many pages to time it on; 0 is none.")
    ] = 20_000,
    with_vectors: Annotated[
        bool, typer.Option("--vectors/--no-vectors", help="Of search: give those pages vectors too.")
    ] = True,
    model_path: Annotated[
        str,
        typer.Option("--model-path", help="Of search, and of paging with --traces: a folder with all-MiniLM-L6-v2."),
    ] = "",
    peer_python: Annotated[
        str, typer.Option("--peer-python", help="Of llm and journal: an interpreter that has their peers installed.")
    ] = "",
    aios: Annotated[
        list[Path] | None,
        typer.Option("--aios", help="Of llm: a checkout of AIOS to measure beside; may come twice."),
    ] = None,
    engine: Annotated[
        str, typer.Option("--engine", help="Of schedule: also play on this llama.cpp server, http://HOST:PORT.")
    ] = "",
    json_: output.AsJson = False,
) -> None:
    """Measure and print figures, each beside a peer measured in the same run where there is one."""
    # What is measured loads the whole kernel and the SDK; no other command should pay for that.
    from aos_mcp.bench import checkpoint, journal, llm, paging, schedule, search, start, syscall
    from aos_mcp.bench.figures import Figure, machine

    known: Mapping[str, Callable[[], list[Figure]]] = {
        "start": start.run,
        "syscall": syscall.run,
        "journal": lambda: journal.run(peer_python),
        "checkpoint": checkpoint.run,
        "llm": lambda: llm.run(peer_python, aios or ()),
        "schedule": lambda: schedule.run(traces if name == "schedule" else None, engine),
        "paging": lambda: paging.run(traces if name == "paging" else None, model_path, output.note),
        "search": lambda: search.run(locomo, cacm, pages, model_path, output.note, with_vectors=with_vectors),
    }
    with output.reporting(json_):
        if name != "all" and name not in known:
            raise CliError(ErrorCode.INVALID, f"There is no benchmark {name!r}.", f"Known: {', '.join(known)}, all.")
        try:
            figures = [figure for key, run in known.items() if name in {key, "all"} for figure in run()]
        except AosError as error:
            raise CliError(error.code, error.message, error.hint) from None
    if json_:
        output.document({"machine": machine(), "figures": [figure.as_json() for figure in figures]})
        return
    print("  ".join(f"{key}={value}" for key, value in machine().items()))
    for figure in figures:
        beside = ""
        if figure.baseline is not None and figure.ratio is not None:
            beside = f"  {figure.ratio:.2f} x {figure.baseline} ({figure.baseline_value:.3f} {figure.unit})"
        print(f"{figure.name:<48} {figure.value:>10.3f} {figure.unit:<6} target {figure.target}{beside}")
