"""Commands about agents that start by themselves: `schedule add|list|pause|resume|run|remove`; and `sched`."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from aos_mcp.abi.limits import USD_MAX
from aos_mcp.abi.scheduling import Missed
from aos_mcp.cli import output, session
from aos_mcp.cli.client import Json
from aos_mcp.cli.output import AsJson

app = typer.Typer(help="Agents that start by themselves, at times you set.", no_args_is_help=True)

Which = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name or id.")]


@app.command("add")
def add(
    name: Which,
    task: Annotated[str, typer.Argument(help="What is to be done; - reads it from standard input.")],
    cron: Annotated[str | None, typer.Option("--cron", metavar="FIELDS", help="As in cron: '0 9 * * 1-5'.")] = None,
    every: Annotated[str | None, typer.Option("--every", metavar="TIME", help="As 30s, 15m, 2h or 1d.")] = None,
    at: Annotated[str | None, typer.Option("--at", metavar="MOMENT", help="Once, as 2026-12-01T09:00.")] = None,
    zone: Annotated[str, typer.Option("--zone", help="Time zone of --cron and --at, as Europe/Berlin.")] = "UTC",
    missed: Annotated[
        Missed, typer.Option("--missed", help="Runs that nobody was there for: skip, make up for once, or all.")
    ] = Missed.ONCE,
    model: Annotated[str | None, typer.Option("--model", "-m", metavar="PROVIDER/MODEL", help="Which model.")] = None,
    agent: Annotated[str | None, typer.Option("--agent", help="An agent definition.")] = None,
    priority: Annotated[int | None, typer.Option("--priority", min=0, max=100, help="0 runs first.")] = None,
    budget_usd: Annotated[float | None, typer.Option("--budget-usd", min=0, max=USD_MAX, help="Of one run.")] = None,
    budget_tokens: Annotated[int | None, typer.Option("--budget-tokens", min=0, help="Of one run.")] = None,
    total_usd: Annotated[
        float | None, typer.Option("--total-usd", min=0, max=USD_MAX, help="Of all runs together.")
    ] = None,
    total_tokens: Annotated[int | None, typer.Option("--total-tokens", min=0, help="Of all runs together.")] = None,
    as_json: AsJson = False,
) -> None:
    """Have an agent start at set times. The kernel stays up for it; a run never begins while the former one runs."""
    forms = [f"{word} {said}" for word, said in (("cron", cron), ("every", every), ("at", at)) if said is not None]
    if len(forms) != 1:
        raise typer.BadParameter("give one of --cron, --every and --at")
    budget = {key: value for key, value in (("usd", budget_usd), ("tokens", budget_tokens)) if value is not None}
    given = {"model": model, "agent": agent, "priority": priority, "budget": budget or None}
    spawn = {key: value for key, value in given.items() if value is not None}
    arguments: Json = {
        "name": name,
        "form": forms[0],
        "zone": zone,
        "missed": missed.value,
        "total_usd": total_usd,
        "total_tokens": total_tokens,
    }
    with session.kernel(as_json) as client:
        spawn["task"] = session.standard_input() if task == "-" else task
        output.show(client.call("add_schedule", {**arguments, "spawn": spawn}), as_json, _line)


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the schedules: when each ran last, how that went, and when it runs next."""
    with session.kernel(as_json) as client:
        output.show(client.call("list_schedules", {}), as_json, _table)


@app.command("pause")
def pause(name: Which, as_json: AsJson = False) -> None:
    """Have a schedule rest until it is resumed."""
    _act("pause_schedule", {"schedule": name, "paused": True}, as_json)


@app.command("resume")
def resume(name: Which, as_json: AsJson = False) -> None:
    """Have a paused schedule go on; what came due meanwhile is passed over."""
    _act("pause_schedule", {"schedule": name, "paused": False}, as_json)


@app.command("run")
def run(name: Which, as_json: AsJson = False) -> None:
    """Start a run now, out of turn."""
    _act("run_schedule", {"schedule": name}, as_json)


@app.command("remove")
def remove(name: Which, as_json: AsJson = False) -> None:
    """Take a schedule off the timetable. A run that has begun goes on."""
    with session.kernel(as_json) as client:
        answer = client.call("remove_schedule", {"schedule": name})
        output.show(answer, as_json, lambda row: f"{row['name']} is removed after {row['runs']} runs")


def sched(
    policy: Annotated[
        str | None,
        typer.Argument(metavar="[POLICY]", help="default, fifo, rr or priority; `configured`: as aos.toml says."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say which policy the scheduler goes by, or switch it while agents run."""
    with session.kernel(as_json) as client:
        if policy is None:
            status = client.call("kernel_status", {})
            output.show({"policy": status["policy"]}, as_json, lambda answer: str(answer["policy"]))
            return
        arguments = {} if policy == "configured" else {"policy": policy}
        answer = client.call("set_policy", arguments)
        output.show(answer, as_json, lambda a: f"{a['policy']} (aos.toml: {a['configured']})")


def _act(call: str, arguments: Json, as_json: bool) -> None:
    with session.kernel(as_json) as client:
        output.show(client.call(call, arguments), as_json, _line)


def _line(row: Json) -> str:
    return f"{row['name']}: {row['form']} ({row['zone']}), next {_when(row)}"


def _table(answer: Json) -> str:
    if not answer["schedules"]:
        return "There are no schedules. See: aos schedule add --help"
    headings = ("NAME", "WHEN", "ZONE", "NEXT", "RUNS", "COST", "LAST", "OUTCOME")
    rows = [
        (
            row["name"],
            row["form"],
            row["zone"],
            _when(row),
            str(row["runs"]),
            output.money(row["usage"]["usd"]),
            output.short(row.get("last_pid") or "-"),
            row["last_outcome"] or "-",
        )
        for row in answer["schedules"]
    ]
    return output.table(headings, rows)


def _when(row: Json) -> str:
    if row["paused"]:
        return "paused"
    if row.get("next_at") is None:
        return "never again"
    try:
        return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(row["next_at"]))
    except (ValueError, OverflowError, OSError):  # an older kernel took any step; one row is no reason to show none
        return "beyond any calendar"
