"""Commands about questions that wait for a person: `approvals`, `approvals allow`, `approvals deny`."""

from __future__ import annotations

from typing import Annotated

import typer

from aos_mcp.cli import output, session
from aos_mcp.cli.client import Json
from aos_mcp.cli.output import AsJson

app = typer.Typer(help="Questions that agents put to you.")

ApprovalId = Annotated[str, typer.Argument(metavar="APPROVAL")]
Remember = Annotated[bool, typer.Option("--remember", help="Do not ask again about this tool and agent.")]
Note = Annotated[str | None, typer.Option("--note", help="A word to the agent, and for the record.")]


@app.callback(invoke_without_command=True)
def list_(context: typer.Context, as_json: AsJson = False) -> None:
    """List the questions that wait, or answer one."""
    if context.invoked_subcommand is not None:
        return
    with session.kernel(as_json) as client:
        output.show(client.read_json("aos://approvals"), as_json, _table)


@app.command("allow")
def allow(approval_id: ApprovalId, remember: Remember = False, note: Note = None, as_json: AsJson = False) -> None:
    """Allow what was asked for, once, unless --remember; have a call that was cut off and did not happen be made."""
    _answer(approval_id, "allow", remember, note, as_json)


@app.command("done")
def done(approval_id: ApprovalId, note: Note = None, as_json: AsJson = False) -> None:
    """Say that a call that was cut off did happen; the note is what it gave."""
    _answer(approval_id, "done", False, note, as_json)


@app.command("deny")
def deny(approval_id: ApprovalId, remember: Remember = False, note: Note = None, as_json: AsJson = False) -> None:
    """Deny what was asked for; leave a call that was cut off as it is."""
    _answer(approval_id, "deny", remember, note, as_json)


def _answer(approval_id: str, decision: str, remember: bool, note: str | None, as_json: bool) -> None:
    arguments = {"approval_id": approval_id, "decision": decision, "remember": remember, "note": note}
    with session.kernel(as_json) as client:
        answer = client.call("answer_approval", arguments)
        output.show(answer, as_json, lambda a: f"{a['approval_id']} {a['state']}")


def _table(answer: Json) -> str:
    if not answer["approvals"]:
        return "Nothing waits for you."
    rows = [
        (row["approval_id"], output.short(row.get("pid") or "host"), row["tool"], row["question"])
        for row in answer["approvals"]
    ]
    return output.table(("APPROVAL", "ASKED BY", "TOOL", "QUESTION"), rows)
