"""Commands about agent definitions: `agents list`, `agents check`. They need no kernel."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer

from aos_mcp.cli import output, session
from aos_mcp.cli.client import Json
from aos_mcp.cli.failure import USAGE
from aos_mcp.cli.output import AsJson

app = typer.Typer(no_args_is_help=True, help="Agent definitions: Markdown with a front matter.")


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the definitions that `aos run --agent NAME` takes."""
    output.show({"agents": _read()["agents"]}, as_json, _table)


@app.command("check")
def check(as_json: AsJson = False) -> None:
    """Read every definition. Exits 2 and names the files that cannot be used."""
    answer = _read()
    output.show(answer, as_json, _verdict)
    if answer["wrong"]:
        raise typer.Exit(USAGE)


def _read() -> Json:
    # YAML and pydantic: a fifth of a second that other commands need not pay.
    from aos_mcp.definitions import check_definitions, definition_folders

    found, wrong = check_definitions(definition_folders(session.home(), str(Path.cwd())))
    return {
        "agents": [asdict(definition) for _, definition in sorted(found.items())],
        "wrong": [{"path": path, "message": error.message, "hint": error.hint} for path, error in wrong.items()],
    }


def _table(answer: Json) -> str:
    if not answer["agents"]:
        return "There are no definitions. Put NAME.md in .aos/agents or in the agents folder of AOS_HOME."
    rows = [(row["name"], row["model"] or "-", row["description"], row["path"]) for row in answer["agents"]]
    return output.table(("NAME", "MODEL", "DESCRIPTION", "FILE"), rows)


def _verdict(answer: Json) -> str:
    lines = [f"{row['message']} {row['hint']}" for row in answer["wrong"]]
    return "\n".join([*lines, f"{len(answer['agents'])} can be used, {len(lines)} cannot."])
