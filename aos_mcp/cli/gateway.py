"""Commands about programs outside the kernel: `gateway`, `gateway key`, `gateway keys`, `gateway revoke`."""

from __future__ import annotations

from typing import Annotated

import typer

from aos_mcp.abi.errors import ErrorCode
from aos_mcp.cli import output, session
from aos_mcp.cli.client import Json
from aos_mcp.cli.failure import CliError
from aos_mcp.cli.output import AsJson
from aos_mcp.cli.processes import BudgetUsd

app = typer.Typer(help="Model calls of other programs: through the kernel's queue, budgets and audit log.")

OFF = "off; turn it on with `aos serve --gateway 127.0.0.1:8790`, or enabled = true under [gateway] in aos.toml"


@app.callback(invoke_without_command=True)
def show(context: typer.Context, as_json: AsJson = False) -> None:
    """Say where the gateway listens."""
    if context.invoked_subcommand is not None:
        return
    with session.kernel(as_json, start=False):
        output.show({"url": _url()}, as_json, lambda answer: answer["url"] or OFF)


@app.command("key")
def key(
    pid: Annotated[
        str | None, typer.Argument(metavar="[PID]", help="One more key of a guest, or one under an agent.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="What the program is called in `aos ps`.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="provider/model that a foreign model name stands for.")
    ] = None,
    budget_usd: BudgetUsd = None,
    budget_tokens: Annotated[int | None, typer.Option("--budget-tokens", help="How many tokens it may use.")] = None,
    priority: Annotated[int | None, typer.Option("--priority", help="0 first, 100 last; 50 by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Issue a key. It is shown once, and kept nowhere."""
    if pid is None and name is None:
        with output.reporting(as_json):
            raise CliError(ErrorCode.INVALID, "A key is of a program.", "Give --name NAME, or the PID of one there is.")
    budget = {"usd": budget_usd, "tokens": budget_tokens}
    given = {"pid": pid, "name": name, "model": model, "priority": priority}
    arguments: Json = {field: value for field, value in given.items() if value is not None}
    if any(value is not None for value in budget.values()):
        arguments["budget"] = {field: value for field, value in budget.items() if value is not None}
    with session.kernel(as_json) as client:
        answer = {**client.call("issue_key", arguments), "url": _url()}
        output.show(answer, as_json, _issued)


@app.command("keys")
def keys(
    pid: Annotated[str | None, typer.Argument(metavar="[PID]", help="Of this guest only.")] = None,
    as_json: AsJson = False,
) -> None:
    """List keys, newest first."""
    with session.kernel(as_json) as client:
        output.show(client.call("list_keys", {} if pid is None else {"pid": pid}), as_json, _table)


@app.command("revoke")
def revoke(key_id: Annotated[str, typer.Argument(metavar="KEY_ID")], as_json: AsJson = False) -> None:
    """Revoke a key at once; a program's process ends with its last one."""
    with session.kernel(as_json) as client:
        answer = client.call("revoke_key", {"key_id": key_id})
        output.show(answer, as_json, lambda a: f"{a['key_id']} revoked; {a['pid']} {a['state']}")


def _url() -> str:
    from aos_mcp.daemon import read_status  # the kernel and everything under it, which knows the file's form

    status = read_status(session.home())
    return status.gateway if status is not None else ""


def _issued(answer: Json) -> str:
    url = answer["url"]
    lines = [output.fields({"pid": answer["pid"], "key id": answer["key_id"], "model": answer["model"]})]
    lines += ["", f"export OPENAI_API_KEY={answer['key']} ANTHROPIC_AUTH_TOKEN={answer['key']}"]
    lines.append(f"export OPENAI_BASE_URL={url}/v1 ANTHROPIC_BASE_URL={url}" if url else f"The gateway is {OFF}.")
    return "\n".join(lines)


def _table(answer: Json) -> str:
    if not answer["keys"]:
        return "There are no keys. Issue one with: aos gateway key --name NAME"
    rows = [
        (row["key_id"], row["pid"], row["name"], row["model"], "revoked" if row.get("revoked_at") else row["state"])
        for row in answer["keys"]
    ]
    return output.table(("KEY", "PID", "NAME", "MODEL", "STATE"), rows)
