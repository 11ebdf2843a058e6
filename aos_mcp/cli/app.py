"""The command line: which commands there are, and what the root takes.

Owns the tree of commands and nothing else. Start-up time decides what is imported where: this module and all that it
imports keep to the standard library and typer, so that `aos ps` answers at once; what is heavier (pydantic, rich, the
kernel) is imported inside the commands that need it, with a word on what it costs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from aos_mcp import __version__
from aos_mcp.abi.errors import AosError
from aos_mcp.cli import (
    agents,
    approvals,
    audit,
    bench,
    config,
    context,
    demo,
    doctor,
    execute,
    gateway,
    install,
    kernel,
    models,
    notes,
    output,
    pages,
    processes,
    replay,
    schedule,
    session,
    store,
    timeline,
    top,
    transcript,
    why,
)
from aos_mcp.cli.failure import CliError

app = typer.Typer(
    name="aos",
    help="An operating system for AI agents: one kernel for all of your MCP hosts.",
    epilog="Exit codes: 0 done, 1 failed, 2 usage, 3 denied, 4 budget, 5 not found, 6 unavailable, 7 timed out.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

AFTER_DASHES = {"allow_interspersed_args": False}

app.command("run")(processes.run)
app.command("ps")(processes.ps)
app.add_typer(schedule.app, name="schedule")
app.command("sched")(schedule.sched)
app.command("top")(top.top)
app.command("timeline")(timeline.timeline)
app.command("logs")(transcript.logs)
app.command("context")(context.context)
app.command("wait")(processes.wait)
app.command("signal")(processes.signal)
app.command("send")(processes.send)
app.command("reconcile")(processes.reconcile)
app.add_typer(pages.app, name="page")
app.add_typer(notes.app, name="notes")
app.command("checkpoint")(processes.checkpoint)
app.command("restore")(processes.restore)
app.command("exec", context_settings=AFTER_DASHES)(execute.exec_)
app.add_typer(approvals.app, name="approvals")
app.add_typer(audit.app, name="audit")
app.add_typer(store.app, name="store")
app.command("mounts")(kernel.mounts)
app.add_typer(agents.app, name="agents")
app.add_typer(models.app, name="models")
app.add_typer(gateway.app, name="gateway")
app.command("replay")(replay.replay)
app.command("why")(why.why)
app.command("bench")(bench.bench)
app.command("serve")(kernel.serve)
app.command("status")(kernel.status)
app.command("stop")(kernel.stop)
app.command("install")(install.install)
app.command("doctor")(doctor.doctor)
app.command("demo")(demo.demo)
app.add_typer(config.app, name="config")


@app.command("tools")
def tools(as_json: output.AsJson = False) -> None:
    """Print the reference of all calls, as Markdown or as JSON."""
    from aos_mcp.cli import reference  # the syscall table and pydantic: a quarter of a second

    reference.tools(as_json)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"aos-mcp {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    standalone: Annotated[
        bool, typer.Option("--standalone", help="Serve MCP on standard input and output, with the kernel inside.")
    ] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which.")] = False,
) -> None:
    """Run the command that was named."""
    if context.invoked_subcommand is not None:
        if standalone:
            raise typer.BadParameter("it takes no command", param_hint="--standalone")
        return
    if not standalone:
        print(context.get_help())
        raise typer.Exit
    raise typer.Exit(_standalone())


def _standalone() -> int:
    # The kernel and everything under it: a second that only this mode is willing to pay.
    from aos_mcp import daemon
    from aos_mcp.abi.settings import load_settings

    with output.reporting(as_json=False):
        try:
            return daemon.run_standalone(load_settings(os.environ, session.home()), os.environ, session.home())
        except AosError as error:
            raise CliError(error.code, error.message, error.hint) from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (by default this process's) and return its exit code."""
    output.open_streams()
    try:
        code = _run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()  # here it can be told of; at the interpreter's end it cannot
        return code
    except OSError as error:
        if error.errno not in output.UNWRITABLE:
            raise
        return output.give_up(error)


def _run(arguments: list[str]) -> int:
    try:
        app(args=arguments, prog_name="aos")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0
