"""Commands about the configuration: `config check`, `config show`. They need no kernel."""

from __future__ import annotations

import json
import os
from pathlib import Path

import typer

from aos_mcp.abi.errors import AosError
from aos_mcp.cli import output, session
from aos_mcp.cli.client import Json
from aos_mcp.cli.failure import CliError
from aos_mcp.cli.output import AsJson

app = typer.Typer(no_args_is_help=True, help="What is configured.")


@app.command("check")
def check(as_json: AsJson = False) -> None:
    """Read the configuration as the kernel would. Exits 2 and says what is wrong."""
    with output.reporting(as_json):
        settings = load()
        answer = {"ok": True, "path": str(path()), "exists": path().exists(), "mounts": sorted(settings["mounts"])}
        output.show(answer, as_json, _verdict)


@app.command("show")
def show(as_json: AsJson = False) -> None:
    """Show every setting, defaults included. Secrets are references and are not looked up."""
    with output.reporting(as_json):
        output.show(load(), as_json, lambda settings: "\n".join(_lines("", settings)))


def path() -> Path:
    """Return the file that is read."""
    named = os.environ.get("AOS_CONFIG")
    return Path(named) if named else session.home() / "aos.toml"


def load() -> Json:
    """Return all settings as JSON. Raises CliError with what is wrong."""
    from aos_mcp.abi.settings import load_settings  # pydantic: an eighth of a second that other commands do not need

    try:
        return load_settings(os.environ, session.home()).model_dump(mode="json", by_alias=True)
    except AosError as error:
        raise CliError(error.code, error.message, error.hint) from None


def _verdict(answer: Json) -> str:
    return f"{answer['path']} is in order." if answer["exists"] else f"{answer['path']} does not exist: all defaults."


def _lines(prefix: str, value: Json) -> list[str]:
    lines: list[str] = []
    for key, item in value.items():
        name = f"{prefix}{key}"
        lines += _lines(f"{name}.", item) if isinstance(item, dict) and item else [f"{name} = {json.dumps(item)}"]
    return lines
