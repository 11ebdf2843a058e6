"""The command `exec`: run something in the sandbox."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from aos_mcp.abi.capability import IsolationLevel
from aos_mcp.abi.limits import EXEC_S_MAX
from aos_mcp.cli import output, session
from aos_mcp.cli.client import GRACE_S, Json
from aos_mcp.cli.failure import DONE, FAILED, TIMED_OUT
from aos_mcp.cli.output import AsJson


def exec_(
    argv: Annotated[list[str] | None, typer.Argument(metavar="-- COMMAND [ARGUMENT]...")] = None,
    shell: Annotated[str | None, typer.Option("--shell", "-c", metavar="TEXT", help="Text for sh -c instead.")] = None,
    stdin: Annotated[bool, typer.Option("--stdin", "-i", help="Hand over standard input.")] = False,
    timeout_s: Annotated[float, typer.Option("--timeout", min=0.001, max=EXEC_S_MAX, help="In seconds.")] = 60.0,
    level: Annotated[IsolationLevel | None, typer.Option("--level", help="What it may touch.")] = None,
    workspace: Annotated[str | None, typer.Option("--workspace", "-w", help="A directory kept between calls.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run a command in the sandbox. Exits 1 if the command failed (its own code is in --json), 7 if time ran out."""
    if bool(argv) == bool(shell):
        raise typer.BadParameter("give a command after --, or a text with --shell")
    arguments: Json = {"command": shell or argv, "timeout_s": timeout_s, "level": level, "workspace": workspace}
    with session.kernel(as_json) as client:
        given = session.standard_input() if stdin else None
        answer = client.call("sandbox_exec", {"stdin": given, **arguments}, timeout_s=timeout_s + GRACE_S)
        if as_json:
            output.document(answer)
        else:
            _copy(answer)
        raise typer.Exit(_exit_code(answer))


def _copy(answer: Json) -> None:
    """Write what the command wrote, byte for byte unless a terminal reads it."""
    for text, stream in ((answer["stdout"], sys.stdout), (answer["stderr"], sys.stderr)):
        stream.write(output.plain(text) if stream.isatty() else text)
        stream.flush()
    if answer["truncated"]:
        where = f": aos page in {answer['output_page']}" if answer.get("output_page") else ""
        output.note(f"(output was cut{where})")
    if answer["timed_out"]:
        output.note("(time ran out)")
    elif answer["exit_code"] != 0:
        output.note(f"(exit code {answer['exit_code']}, {answer['isolation']})")


def _exit_code(answer: Json) -> int:
    if answer["timed_out"]:
        return TIMED_OUT
    return DONE if answer["exit_code"] == 0 else FAILED
