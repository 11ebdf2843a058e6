"""How a command reaches the kernel: which home, and whether a daemon may be started for it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aos_mcp import shim
from aos_mcp.abi.errors import ErrorCode
from aos_mcp.cli import output
from aos_mcp.cli.client import Client, Json, connect
from aos_mcp.cli.failure import CliError

LIVE_STATES = ("running", "ready", "blocked", "stopped")
PAGE_ROWS = 200  # The most rows one list answers.


def home() -> Path:
    """Return the directory of this user's kernel."""
    return shim.home_directory(os.environ)


@contextmanager
def kernel(as_json: bool, *, start: bool = True) -> Iterator[Client]:
    """Give a connection to the kernel; failures of the block become output and an exit code."""
    with output.reporting(as_json), connect(home(), start=start) as client:
        yield client


def standard_input() -> str:
    """Return all of standard input, exactly. Raises CliError (`invalid`) when it is closed, or not UTF-8."""
    if sys.stdin is None:
        raise CliError(ErrorCode.INVALID, "Standard input is closed.", "Give it something to read, or leave - out.")
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError:
        raise CliError(
            ErrorCode.INVALID, "Standard input is not UTF-8 text.", "Encode it, for example as base64."
        ) from None


def live_agents(client: Client) -> list[Json]:
    """Return the rows of all agents that have not ended, running ones first.

    All states are asked for at once: between two calls an agent goes from one into another, and is in neither answer.
    """
    return sorted(agents(client, state=LIVE_STATES), key=lambda row: LIVE_STATES.index(row["state"]))


def agents(client: Client, *, limit: int | None = None, **filters: object) -> list[Json]:
    """Return rows of `list_agents`, over as many pages as it takes, at most `limit`."""
    rows: list[Json] = []
    cursor: str | None = None
    while limit is None or len(rows) < limit:
        wanted = PAGE_ROWS if limit is None else min(PAGE_ROWS, limit - len(rows))
        answer = client.call("list_agents", {**filters, "limit": wanted, "cursor": cursor})
        rows += answer["agents"]
        cursor = answer.get("next_cursor")
        if cursor is None:
            break
    return rows


def running_kernel() -> Client | None:
    """Return a connection to the kernel if one runs; never start one."""
    try:
        return connect(home(), start=False)
    except CliError:
        return None
