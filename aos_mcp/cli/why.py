"""The command `why`: what stood behind one step of an agent."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any

import typer

from aos_mcp.abi.journal import MODEL_CALL, SUMMARY
from aos_mcp.cli import output, session
from aos_mcp.cli.client import Json
from aos_mcp.cli.output import AsJson

DIGEST_CHARS = 12
ARGUMENT_CHARS = 400


def why(
    pid: Annotated[str, typer.Argument(metavar="PID", help="An agent's pid, or its beginning.")],
    step: Annotated[int, typer.Argument(metavar="STEP", min=0, help="A step of its journal.")],
    as_json: AsJson = False,
) -> None:
    """Say why an agent did something: the pages its model saw, what allowed it, the budget it drew on."""
    with session.kernel(as_json) as client:
        output.show(client.read_json(f"aos://proc/{pid}/why/{step}"), as_json, _told)


def _told(answer: Json) -> str:
    arguments = json.dumps(answer["arguments"], ensure_ascii=False)
    lines = [
        f"step {answer['step']}: {answer['tool']} {arguments[:ARGUMENT_CHARS]}: {answer['state']} ({answer['effect']})"
    ]
    if answer.get("asked_in") is not None:
        prompt = str(answer.get("prompt") or "not recorded")[:DIGEST_CHARS]
        lines.append(f"asked for by {answer.get('model')} in step {answer['asked_in']}, prompt {prompt}")
    if answer.get("decision"):
        lines.append(f"it said: {answer['decision']}")
    if answer["call"] not in {MODEL_CALL, SUMMARY}:  # a model call needs no leave, only a budget
        lines.append(f"allowed by: {answer.get('allowed_by') or 'not recorded'}")
    if answer.get("approval"):
        note = f": {answer['note']}" if answer.get("note") else ""
        lines.append(f"approval {answer['approval']}, answered by {answer.get('answered_by')}{note}")
    accounts = [
        (
            output.short(row["account"]),
            _of(output.money(row["usd"]), row["usd_limit"], output.money),
            _of(output.count(row["tokens"]), row["tokens_limit"], output.count),
            _of(str(row["tool_calls"]), row["tool_calls_limit"], str),
        )
        for row in answer["budget"]
    ]
    lines.append(output.table(("DREW ON", "COST", "TOKENS", "TOOL CALLS"), accounts))
    seen = [
        (row["digest"][:DIGEST_CHARS], row["kind"], output.count(row["tokens"]), row["title"]) for row in answer["seen"]
    ]
    lines.append(output.table(("IT SAW", "KIND", "TOKENS", "TITLE"), seen))
    return "\n".join(lines)


def _of(used: str, limit: float | None, shown: Callable[[Any], str]) -> str:
    return used if limit is None else f"{used} of {shown(limit)}"
