"""`aos context`: an agent's page table as text and as a picture.

Owns the text form. What was billed stands in `aos ps`; the share shown here is an estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from aos_mcp.abi import limits
from aos_mcp.abi.errors import ErrorCode
from aos_mcp.abi.page import PageKind
from aos_mcp.cli import output, session
from aos_mcp.cli.client import Client, Json
from aos_mcp.cli.context_history import NEVER_INSIDE, Turn, history
from aos_mcp.cli.context_picture import picture
from aos_mcp.cli.failure import CliError
from aos_mcp.cli.output import AsJson


def context(
    pid: Annotated[str, typer.Argument(metavar="PID", help="An agent's pid, or its beginning.")],
    svg: Annotated[Path | None, typer.Option("--svg", help="Also write a picture of it to this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what is in an agent's window, what left it, and what that saved."""
    with session.kernel(as_json) as client:
        process = client.read_json(f"aos://proc/{pid}")
        table = client.read_json(f"aos://proc/{process['pid']}/context")
        turns = history(table["pages"], _journal(client, process["pid"]))
        if svg is not None:
            _write(svg, picture(str(process["name"]), table, turns))
        told = {**table, "turns": [asdict(turn) for turn in turns]}
        output.show(told, as_json, lambda _: _text(process, table, turns))


def _journal(client: Client, pid: str) -> list[Json]:
    steps: list[Json] = []
    while True:
        after = steps[-1]["number"] if steps else -1
        found = client.read_json(f"aos://proc/{pid}/journal/{after}")["steps"]
        steps += found
        if len(found) < limits.LIST_MAX:
            return steps


def _write(path: Path, drawn: str) -> None:
    try:
        path.write_text(drawn, "utf-8")
    except OSError as error:
        raise CliError(
            ErrorCode.INVALID, f"{path} cannot be written: {error.strerror}.", "Name a file in a folder of yours."
        ) from None


def _text(process: Json, table: Json, turns: Sequence[Turn]) -> str:
    rows = [
        (
            page["page_id"],
            page["kind"],
            output.count(page["tokens"]),
            _state(page),
            str(page["uses"]),
            str(page["faults"]),
            page["title"][:60],
        )
        for page in table["pages"]
    ]
    facts: dict[str, object] = {
        "agent": f"{process['name']} ({process['pid']})",
        "in the window": f"{table['resident_tokens']:,} of {table['window_tokens']:,} tokens",
        "counted by": table["counted_by"],
        "left": f"{sum(page['tokens'] for page in table['pages'] if _has_left(page)):,} tokens",
        "summaries": _summaries(table["pages"]),
        "faults": f"{table['faults']}, {table['refaults']} of them again",
        "never asked for": f"{table['garbage']} of the pages that left",
        "compactions": sum(turn.compacted for turn in turns),
    }
    if table["thrash"]:
        mark = f"a compaction comes down to {table['low_water']:.0%} of the window only"
        facts["thrashing"] = f"{table['thrash']:.0%}: pages are asked for as soon as they left; {mark}"
    if table["hit_rate"] is not None:
        facts["read from the cache"] = f"{table['hit_rate']:.0%} of all prompt tokens, as billed"
    if turns and turns[-1].cost_append_only:
        share = turns[-1].cost / turns[-1].cost_append_only
        facts["prompts so far"] = f"{share:.0%} of what they would cost if nothing had left (an estimate)"
    headings = ("PAGE", "KIND", "TOKENS", "STATE", "USES", "FAULTS", "TITLE")
    return f"{output.fields(facts)}\n\n{output.table(headings, rows)}"


def _has_left(page: Json) -> bool:
    return not page["resident"] and page["left_why"] != NEVER_INSIDE


def _summaries(pages: Sequence[Json]) -> str:
    written = [page for page in pages if page["kind"] == PageKind.SUMMARY]
    shown = [page for page in written if page["resident"]]
    made_from = sum(len(page["summarizes"]) for page in shown)
    tokens = sum(page["tokens"] for page in shown)
    return f"{len(written)}, {len(shown)} of them in the window: {tokens:,} tokens for {made_from} pages"


def _state(page: Json) -> str:
    if page["resident"]:
        return "pinned" if page["pinned"] else "resident"
    return "outside" if page["left_why"] == NEVER_INSIDE else "left"
