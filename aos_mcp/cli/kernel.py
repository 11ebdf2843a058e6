"""Commands about the kernel itself: serve, status, stop, mounts."""

from __future__ import annotations

import os
import select
import signal
from typing import Annotated

import typer

from aos_mcp.abi import limits
from aos_mcp.abi.errors import AosError, ErrorCode
from aos_mcp.cli import output, session
from aos_mcp.cli.client import Json, connect
from aos_mcp.cli.failure import CliError
from aos_mcp.cli.output import AsJson

STOP_GRACE_S = 20.0  # Beyond the daemon's own deadline for shutting down.


def serve(
    http: Annotated[
        str | None, typer.Option("--http", metavar="HOST:PORT", help="Also answer HTTP: /mcp, /sse, dashboard.")
    ] = None,
    gateway: Annotated[
        str | None,
        typer.Option("--gateway", metavar="HOST:PORT", help="Also serve model calls of other programs: loopback only."),
    ] = None,
) -> None:
    """Run the kernel in the foreground, until a signal ends it."""
    address = _address(http, "--http") if http is not None else None
    door = _address(gateway, "--gateway") if gateway is not None else None
    # The kernel and everything under it: a second that only this command is willing to pay.
    from aos_mcp import daemon
    from aos_mcp.abi.settings import load_settings

    with output.reporting(as_json=False):
        try:
            settings = load_settings(os.environ, session.home())
            code = daemon.serve_forever(settings, os.environ, session.home(), address, door)
        except AosError as error:
            raise CliError(error.code, error.message, error.hint) from None
    raise typer.Exit(code)


def _address(text: str, option: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isdecimal() and int(port) < 2**16):
        raise typer.BadParameter("it is HOST:PORT, for example 127.0.0.1:8765", param_hint=option)
    return host.removeprefix("[").removesuffix("]"), int(port)


def status(as_json: AsJson = False) -> None:
    """Show what the kernel has and does. Starts nothing; exits 6 when no kernel runs."""
    with session.kernel(as_json, start=False) as client:
        output.show(client.call("kernel_status", {}), as_json, status_text)


def status_text(answer: Json) -> str:
    """Lay out `kernel_status` for a person."""
    budget = answer["budget"]
    ready = [row["name"] for row in answer["providers"] if row["ready"]]
    proof = answer["sandbox"]
    limit = budget.get("usd_limit")
    return output.fields(
        {
            "version": f"{answer['version']} on {answer['node']}, up {answer['uptime_s']:.0f} s",
            "agents": ", ".join(f"{n} {state}" for state, n in answer["agents"].items() if n) or "none",
            "policy": answer["policy"],
            "model": answer.get("default_model") or "none: `aos models list` says what would give one",
            "providers": ", ".join(ready) or "none",
            "mounts": ", ".join(f"{row['server']} {row['state']}" for row in answer["mounts"]) or "none",
            "sandbox": proof.get("driver") or f"none: {proof['reason']}",
            "spent": output.money(budget["usd"]) + (f" of {output.money(limit)}" if limit is not None else ""),
            "approvals": f"{len(answer['approvals'])} wait for you" if answer["approvals"] else "none",
            "audit": f"{answer['audit_head']['seq']} records" if answer.get("audit_head") else "no records yet",
        }
    )


def stop(as_json: AsJson = False) -> None:
    """Stop the kernel; agents go on where they were when it starts again."""
    with output.reporting(as_json):
        try:
            client = connect(session.home(), start=False)
        except CliError:
            output.show({"stopped": False, "was_running": False}, as_json, lambda _: "No kernel runs.")
            return
        with client:
            _end(client.peer_pid())
        output.show({"stopped": True, "was_running": True}, as_json, lambda _: "Stopped.")


def _end(pid: int) -> None:
    """Ask a process to end and wait until it has. It is held by a descriptor, so that no other can take its number."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(process, signal.SIGTERM)
        ended, _, _ = select.select([process], [], [], limits.SHUTDOWN_S + STOP_GRACE_S)
    except ProcessLookupError:
        return
    finally:
        os.close(process)
    if not ended:
        raise CliError(
            ErrorCode.TIMED_OUT, f"Process {pid} does not end.", f"Look at its log; kill -9 {pid} loses nothing."
        )


def mounts(as_json: AsJson = False) -> None:
    """List the downstream MCP servers."""
    with session.kernel(as_json) as client:
        output.show(client.read_json("aos://mounts"), as_json, _mount_table)


def _mount_table(answer: Json) -> str:
    if not answer["mounts"]:
        return "No servers are mounted. Add [mounts.NAME] to aos.toml."
    rows = [
        (
            row["server"],
            row["transport"],
            row["state"],
            str(row["tools"]),
            str(row["restarts"]),
            f"changed, wait for approval: {', '.join(row['quarantined'])}" if row["quarantined"] else row["error"],
        )
        for row in answer["mounts"]
    ]
    return output.table(("SERVER", "TRANSPORT", "STATE", "TOOLS", "RESTARTS", ""), rows)
