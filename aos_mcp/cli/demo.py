"""The command `demo`: the kernel shown on this machine, with every claim checked.

Owns what is written: the live account, the table at the end, and the summary for `--json`. What happens is in
`demo_play`; it is imported when the command runs, because the protocol's library takes a second to import.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from aos_mcp.cli import output
from aos_mcp.cli.client import Json
from aos_mcp.cli.failure import FAILED
from aos_mcp.cli.output import AsJson

if TYPE_CHECKING:
    from rich.console import Console

    from aos_mcp.cli.demo_host import Account
    from aos_mcp.cli.demo_stage import Stage

NODE_MODULES = Path(".cache/node/node_modules")
"""Where `make` puts the files server."""
WIDTH = 140
"""Of what is written to a file or a pipe."""

E = TypeVar("E", bound=BaseException)


def demo(
    model: Annotated[
        str | None, typer.Option("--model", metavar="PROVIDER/MODEL", help="A model in place of the recordings.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the scratch folder, and say where it is.")] = False,
    node_modules: Annotated[
        Path, typer.Option("--node-modules", metavar="DIR", help="Where the files server is installed.")
    ] = NODE_MODULES,
    as_json: AsJson = False,
) -> None:
    """Show two agents through a crash of the kernel, and check every promise on the way."""
    import anyio  # a tenth of a second that other commands do not need

    summary = anyio.run(partial(_perform, model, node_modules, keep=keep, as_json=as_json))
    if as_json:
        output.document(summary)
    if not summary["ok"]:
        raise typer.Exit(FAILED)


async def _perform(model: str | None, node_modules: Path, *, keep: bool, as_json: bool) -> Json:
    # rich, the protocol's library and the drivers under them: a second that no other command is willing to pay.
    from mcp.shared.exceptions import MCPError
    from rich.console import Console

    from aos_mcp.cli.demo_host import Account, Broken, connected
    from aos_mcp.cli.demo_play import Play
    from aos_mcp.cli.demo_stage import staged

    console = Console(stderr=as_json, highlight=False, quiet=as_json and not sys.stderr.isatty())
    if not console.is_terminal:
        console.width = WIDTH
    account = Account(console)
    broken: list[Broken] = []
    play: Play | None = None
    async with staged(node_modules, keep=keep) as stage:
        _introduce(console, stage, model, keep=keep)
        try:
            async with connected(stage) as host:
                play = Play(stage, host, account, model)
                await play.run()
        except* Broken as group:
            broken += leaves(group)
        except* (MCPError, OSError) as group:
            broken += [Broken("a host speaks to the kernel", repr(error)) for error in leaves(group)]
    facts = play.facts if play is not None else {}
    summary: Json = {
        "ok": not broken,
        "model": model or "replay",
        "replay": model is None,
        "seconds": round(account.seconds(), 1),
        "claims": account.held,
        **facts,
    }
    if broken:
        summary["broken"] = {"claim": broken[0].claim, "why": broken[0].why}
    _conclude(console, account, summary)
    return summary


def leaves(group: BaseExceptionGroup[E]) -> list[E]:
    """Return the exceptions of a group and of the groups in it."""
    found: list[E] = []
    for error in group.exceptions:
        found += leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def _introduce(console: Console, stage: Stage, model: str | None, *, keep: bool) -> None:
    if model is None:
        console.print("A replay: the agents' words come from two shipped recordings, and no model is called.")
        console.print("Everything else is real: kernel, servers, sandbox, crash, log. With a key: aos demo --model …")
    else:
        console.print(f"The agents run on {model}. It is paid for from your account, at most $2.")
    if keep:
        console.print(f"The stage is {stage.root}; it is kept.")


def _conclude(console: Console, account: Account, summary: Json) -> None:
    if "broken" in summary:
        where = f"after {len(account.held)} claims that held"
        console.print(
            f"\nNOT HELD, {where}: {output.plain(summary['broken']['claim'])}", style="bold red", markup=False
        )
        console.print(output.plain(summary["broken"]["why"]), markup=False)
        if console.quiet:
            return
        console.print("`aos doctor` says what is wrong with this machine.")
        return
    from rich.table import Table  # as above

    title = "A replay: tokens and dollars are the recordings'" if summary["replay"] else f"On {summary['model']}"
    table = Table(title=title, title_justify="left")
    for heading in ("agent", "ended", "model", "priority"):
        table.add_column(heading)
    for heading in ("turns", "calls", "tokens in", "cached", "out", "cost", "budget"):
        table.add_column(heading, justify="right")
    for row in summary["agents"]:
        used, limit = row["usage"], summary["budgets"][row["pid"]]
        table.add_row(
            row["name"], str(row["exit_code"]), row["model"], str(row["priority"]),
            str(used["turns"]), str(used["tool_calls"]),
            f"{used['input_tokens'] + used['written_tokens']:,}", f"{used['cached_tokens']:,}",
            f"{used['output_tokens']:,}", f"${used['usd']:.4f}", "-" if limit is None else f"${limit:.2f}",
        )  # fmt: skip
    console.print()
    console.print(table)
    console.print("A parent's row includes its children.")
    console.print(
        f"{len(account.held)} claims held in {summary['seconds']:.1f} s on {os.cpu_count()} cores, "
        f"sandbox {summary['sandbox']}."
    )
