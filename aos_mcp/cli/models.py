"""The command `models list`: the providers, and which of them have a key. Needs no kernel and no provider's SDK."""

from __future__ import annotations

import os

import typer

from aos_mcp.abi.errors import AosError
from aos_mcp.cli import output, session
from aos_mcp.cli.client import Json
from aos_mcp.cli.failure import CliError
from aos_mcp.cli.output import AsJson

app = typer.Typer(no_args_is_help=True, help="Models and their providers.")


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the providers, the variables that give each a key, and the model each has by default."""
    with output.reporting(as_json):
        output.show({"providers": rows()}, as_json, _table)


def rows() -> list[Json]:
    """Return one row a provider; `key` is `set`, `missing` or `none needed`."""
    # pydantic: an eighth of a second that other commands do not need.
    from aos_mcp.abi.settings import load_settings
    from aos_mcp.llm.keys import key_present
    from aos_mcp.llm.providers import load_rows

    try:
        settings = load_settings(os.environ, session.home())
        known = load_rows(settings.providers, os.environ)
    except AosError as error:
        raise CliError(error.code, error.message, error.hint) from None
    return [
        {
            "provider": row.name,
            "key": "none needed" if row.keyless else "set" if key_present(row, os.environ) else "missing",
            "variables": list(row.key_variables),
            "default_model": f"{row.name}/{row.default_model}" if row.default_model else None,
            "base_url": row.base_url,
        }
        for row in known.values()
    ]


def _table(answer: Json) -> str:
    rows = [
        (row["provider"], row["key"], row["default_model"] or "-", ", ".join(row["variables"]) or "-")
        for row in answer["providers"]
    ]
    return output.table(("PROVIDER", "KEY", "DEFAULT MODEL", "VARIABLES"), rows)
