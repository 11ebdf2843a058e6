"""Commands about the store: `store stats`, `store compact`, `store backup`, `store restore`, `store erase`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from aos_mcp.abi.errors import AosError
from aos_mcp.cli import output, session
from aos_mcp.cli.client import Json
from aos_mcp.cli.failure import CliError
from aos_mcp.cli.output import AsJson

LONG_S = 3_600.0  # Copying or rewriting some ten gigabytes.
MIB = 2**20

app = typer.Typer(no_args_is_help=True, help="The store: its size, copies of it, and what is taken out of it.")


@app.command("stats")
def stats(as_json: AsJson = False) -> None:
    """Show what the store holds."""
    with session.kernel(as_json) as client:
        output.show(client.call("read_store", {}), as_json, _stats)


@app.command("compact")
def compact(as_json: AsJson = False) -> None:
    """Drop payloads that nothing names any more, and give unused space back. Agents wait meanwhile."""
    with session.kernel(as_json) as client:
        answer = client.call("compact_store", {}, timeout_s=LONG_S)
        output.show(
            answer,
            as_json,
            lambda a: (
                f"{a['dropped']} payloads dropped; {_mib(a['before_bytes'])} before, {_mib(a['after_bytes'])} now"
            ),
        )


@app.command("backup")
def backup(
    file: Annotated[Path, typer.Argument(help="A file that is not there yet.")],
    as_json: AsJson = False,
) -> None:
    """Copy the store to a file, while agents run."""
    with session.kernel(as_json) as client:
        answer = client.call("backup_store", {"path": str(file.absolute())}, timeout_s=LONG_S)
        output.show(answer, as_json, lambda a: f"{a['path']}: {_mib(a['size_bytes'])}")


@app.command("restore")
def restore(
    file: Annotated[Path, typer.Argument(help="What `aos store backup` made.")],
    as_json: AsJson = False,
) -> None:
    """Put a backup in the store's place. Refuses while a kernel runs; what is replaced is kept beside it."""
    with output.reporting(as_json):
        kept = _restored(file)
    answer: Json = {"restored": str(file), "kept": str(kept) if kept is not None else None}
    output.show(
        answer, as_json, lambda a: f"{a['restored']} is the store now; the one before it is {a['kept'] or 'none'}"
    )


def _restored(file: Path) -> Path | None:
    # The driver and the daemon's lock: half a second that only this command is willing to pay.
    import anyio

    from aos_mcp.daemon import claimed, prepare_home
    from aos_mcp.storage import backup

    async def alone() -> Path | None:
        prepare_home(session.home())
        async with claimed(session.home()):
            home, now = session.home(), time.strftime("%Y%m%d-%H%M%S")
            return backup.restore(file, home / "kernel.db", now, beside=[home / "audit.heads"])

    try:
        return anyio.run(alone)
    except AosError as error:
        raise CliError(error.code, error.message, error.hint) from None


@app.command("erase")
def erase(
    target: Annotated[str, typer.Argument(metavar="PID|PAGE", help="An agent that has ended, or one page of it.")],
    as_json: AsJson = False,
) -> None:
    """Take an agent's words out for good: prompts, calls, results, mail, checkpoints. The audit log stays valid."""
    with session.kernel(as_json) as client:
        output.show(client.call("erase_payloads", {"target": target}, timeout_s=LONG_S), as_json, _erased)


def _erased(answer: Json) -> str:
    shared = f"; {answer['shared']} stay, for others use them too" if answer["shared"] else ""
    return f"{answer['erased']} payloads erased{shared}"


def _stats(answer: Json) -> str:
    rows = ", ".join(f"{answer[name]} {name}" for name in ("processes", "steps", "pages", "payloads", "records"))
    return "\n".join(
        [
            f"{_mib(answer['file_bytes'])}, of which {_mib(answer['free_bytes'])} unused",
            f"{rows}; {_mib(answer['payload_bytes'])} of payloads, {answer['erased']} erased",
        ]
    )


def _mib(size: int) -> str:
    return f"{size / MIB:.1f} MiB"
