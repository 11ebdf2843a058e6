"""The command `top`: a live view of the kernel, from the same answers that every other client gets."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from aos_mcp.cli import output, session
from aos_mcp.cli.client import Client, Json
from aos_mcp.cli.kernel import status_text
from aos_mcp.cli.output import AsJson
from aos_mcp.cli.processes import agent_table

if TYPE_CHECKING:
    from rich.console import RenderableType


class Order(StrEnum):
    """What `top` sorts by."""

    STATE = "state"
    CPU = "cpu"
    """Of the model: what it was served."""
    WAIT = "wait"
    RUN = "run"
    COST = "cost"
    TOKENS = "tokens"
    TURNS = "turns"
    PRIORITY = "priority"


KEYS: Mapping[Order, Callable[[Json], float]] = {
    Order.CPU: lambda row: -row["times"]["attained"],
    Order.WAIT: lambda row: -row["times"]["waiting_s"],
    Order.RUN: lambda row: -row["times"]["running_s"],
    Order.COST: lambda row: -row["usage"]["usd"],
    Order.TOKENS: lambda row: -(row["usage"]["input_tokens"] + row["usage"]["output_tokens"]),
    Order.TURNS: lambda row: -row["usage"]["turns"],
    Order.PRIORITY: lambda row: row["priority"],
}
COLUMNS: Mapping[str, Literal["left", "right"]] = {
    "PID": "left",
    "NAME": "left",
    "STATE": "left",
    "MODEL": "left",
    "PRIO": "right",
    "CPU": "right",
    "WAIT S": "right",
    "RUN S": "right",
    "TURNS": "right",
    "TOKENS": "right",
    "COST": "right",
    "WAITING FOR": "left",
}


def top(
    once: Annotated[bool, typer.Option("--once", help="Show one picture and end; for scripts.")] = False,
    sort: Annotated[Order, typer.Option("--sort", help="The largest first; priority: the smallest.")] = Order.STATE,
    interval_s: Annotated[
        float, typer.Option("--interval", min=0.2, max=86_400, help="Seconds between pictures.")
    ] = 2.0,
    as_json: AsJson = False,
) -> None:
    """Watch the agents. With --json one line a picture."""
    with session.kernel(as_json) as client:
        if once:
            output.show(_picture(client, sort), as_json, _text)
        elif as_json:
            while True:
                output.line(_picture(client, sort))
                time.sleep(interval_s)
        else:
            _watch(client, sort, interval_s)


def _picture(client: Client, sort: Order) -> Json:
    return {"status": client.call("kernel_status", {}), "agents": ordered(session.live_agents(client), sort)}


def ordered(rows: Sequence[Json], sort: Order) -> list[Json]:
    """Return rows of `list_agents` as a person wants to see them; equal ones stay in their order."""
    return list(rows) if sort is Order.STATE else sorted(rows, key=KEYS[sort])


def _text(picture: Json) -> str:
    return f"{status_text(picture['status'])}\n\n{agent_table(picture)}"


def _watch(client: Client, sort: Order, interval_s: float) -> None:
    from rich.live import Live  # an eighth of a second that no other command needs

    with Live(_rendered(_picture(client, sort)), screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(interval_s)
            live.update(_rendered(_picture(client, sort)), refresh=True)


def _rendered(picture: Json) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(expand=True, box=None, header_style="bold reverse")
    for heading, justify in COLUMNS.items():
        table.add_column(heading, no_wrap=True, justify=justify)
    for row in picture["agents"]:
        usage, times = row["usage"], row["times"]
        cells = (
            output.short(row["pid"]),
            row["name"],
            row["state"],
            row["model"] or "-",
            str(row["priority"]),
            output.count(times["attained"]),
            f"{times['waiting_s']:.1f}",
            f"{times['running_s']:.1f}",
            str(usage["turns"]),
            output.count(usage["input_tokens"] + usage["output_tokens"]),
            output.money(usage["usd"]),
            row.get("waiting_for") or "",
        )
        style = {"running": "green", "blocked": "yellow", "stopped": "dim"}.get(row["state"], "")
        table.add_row(*(Text(output.plain(cell)) for cell in cells), style=style)
    return Group(Text(status_text(picture["status"])), Text(), table)
