"""The command `top`: a live view of the kernel, from the same answers that every other client gets."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from aos_mcp.cli import output, session
from aos_mcp.cli.client import Client, Json
from aos_mcp.cli.kernel import status_text
from aos_mcp.cli.output import AsJson
from aos_mcp.cli.processes import agent_table

if TYPE_CHECKING:
    from rich.console import RenderableType


def top(
    once: Annotated[bool, typer.Option("--once", help="Show one picture and end; for scripts.")] = False,
    interval_s: Annotated[float, typer.Option("--interval", min=0.2, help="Seconds between pictures.")] = 2.0,
    as_json: AsJson = False,
) -> None:
    """Watch the agents. With --json one line a picture."""
    with session.kernel(as_json) as client:
        if once:
            output.show(_picture(client), as_json, _text)
        elif as_json:
            while True:
                output.line(_picture(client))
                time.sleep(interval_s)
        else:
            _watch(client, interval_s)


def _picture(client: Client) -> Json:
    return {"status": client.call("kernel_status", {}), "agents": session.live_agents(client)}


def _text(picture: Json) -> str:
    return f"{status_text(picture['status'])}\n\n{agent_table(picture)}"


def _watch(client: Client, interval_s: float) -> None:
    from rich.live import Live  # an eighth of a second that no other command needs

    with Live(_rendered(_picture(client)), screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(interval_s)
            live.update(_rendered(_picture(client)), refresh=True)


def _rendered(picture: Json) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(expand=True, box=None, header_style="bold reverse")
    for heading in ("PID", "NAME", "STATE", "MODEL", "TURNS", "TOKENS", "COST", "WAITING FOR"):
        table.add_column(heading, no_wrap=True, justify="right" if heading in {"TURNS", "TOKENS", "COST"} else "left")
    for row in picture["agents"]:
        usage = row["usage"]
        cells = (
            output.short(row["pid"]),
            row["name"],
            row["state"],
            row["model"] or "-",
            str(usage["turns"]),
            output.count(usage["input_tokens"] + usage["output_tokens"]),
            output.money(usage["usd"]),
            row.get("waiting_for") or "",
        )
        style = {"running": "green", "blocked": "yellow", "stopped": "dim"}.get(row["state"], "")
        table.add_row(*(Text(output.plain(cell)) for cell in cells), style=style)
    return Group(Text(status_text(picture["status"])), Text(), table)
