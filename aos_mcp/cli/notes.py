"""Commands about long-term notes: list, undo, consolidate. They are written by `page out --namespace`."""

from __future__ import annotations

from typing import Annotated

import typer

from aos_mcp.cli import output, session
from aos_mcp.cli.client import Json
from aos_mcp.cli.output import AsJson

app = typer.Typer(no_args_is_help=True, help="Long-term notes: who wrote what, and taking it back.")


@app.command("list")
def list_(
    namespace: Annotated[str | None, typer.Option("--namespace", "-n")] = None,
    former: Annotated[bool, typer.Option("--all", "-a", help="Also those that no longer hold.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=200)] = 50,
    as_json: AsJson = False,
) -> None:
    """List notes, newest first."""
    with session.kernel(as_json) as client:
        answer = client.call("list_notes", {"namespace": namespace, "former": former, "limit": limit})
        output.show(answer, as_json, _table)


@app.command("undo")
def undo(
    writer: Annotated[str, typer.Argument(metavar="WRITER", help="A pid, host or kernel: see `aos notes list`.")],
    as_json: AsJson = False,
) -> None:
    """Take back all that one writer did: its notes are withdrawn, and what they superseded holds again."""
    with session.kernel(as_json) as client:
        answer = client.call("undo_notes", {"writer": writer})
        output.show(answer, as_json, lambda a: f"{a['undone']} changes undone")


@app.command("consolidate")
def consolidate(as_json: AsJson = False) -> None:
    """Spawn the agent that puts the shared notes in order, under the budget of [memory]. Prints its pid."""
    with session.kernel(as_json) as client:
        answer = client.call("consolidate_notes", {})
        output.show(answer, as_json, lambda a: str(a["pid"]))


def _table(answer: Json) -> str:
    rows = [
        (note["page_id"], note["namespace"], note["writer"], _standing(note), note["title"]) for note in answer["notes"]
    ]
    return output.table(("PAGE", "NAMESPACE", "WRITER", "STANDS", "TITLE"), rows) if rows else "There are no notes."


def _standing(note: Json) -> str:
    if note.get("superseded_by"):
        return f"until {note['superseded_by']}"
    return "withdrawn" if note.get("valid_until") else "yes"
