"""The command `install`: put this kernel into a host's configuration, or take it out again."""

from __future__ import annotations

import difflib
import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from aos_mcp.abi.errors import ErrorCode
from aos_mcp.cli import hosts, output
from aos_mcp.cli.failure import CliError
from aos_mcp.cli.output import AsJson

BACKUP_SUFFIX = ".aos-backup"


def install(
    host: Annotated[str, typer.Argument(metavar="HOST", help=", ".join(hosts.HOSTS))],
    undo: Annotated[bool, typer.Option("--undo", help="Take it out again.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the change, write nothing.")] = False,
    project: Annotated[bool, typer.Option("--project", help="In this folder's file, not the user's.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write aos-mcp into a host's configuration. The file as it was is kept beside it."""
    if host not in hosts.HOSTS:
        raise typer.BadParameter(f"one of {', '.join(hosts.HOSTS)}", param_hint="HOST")
    with output.reporting(as_json):
        row = hosts.HOSTS[host]
        path = _path(row, project=project)
        before = _read(path)
        after = _undone(row, path, before) if undo else _edited(row, path, before)
        changed = before != after
        if changed and not dry_run:
            _write(row, path, before, after, undo=undo)
        answer = {
            "host": row.name,
            "path": str(path),
            "changed": changed,
            "written": changed and not dry_run,
            "command": command(),
            "diff": _diff(path, before, after),
        }
        output.show(answer, as_json, lambda a: _summary(row, a["path"], a["diff"], undo=undo, dry_run=dry_run))


def command() -> list[str]:
    """Return what a host has to run: the executable beside this Python, else Python with our module."""
    beside = Path(sys.executable).parent / "aos-mcp"
    return [str(beside)] if os.access(beside, os.X_OK) else [sys.executable, "-m", "aos_mcp"]


def _environment() -> dict[str, str]:
    """Return what a host has to add to the environment: our home, where it is not the usual one."""
    named = os.environ.get("AOS_HOME")
    return {"AOS_HOME": str(Path(named).expanduser().absolute())} if named else {}


def _path(row: hosts.Host, *, project: bool) -> Path:
    if not project:
        return hosts.location(row, home=Path.home(), environ=os.environ, platform=sys.platform)
    if row.project is None:
        raise CliError(ErrorCode.INVALID, f"{row.title} has no configuration of its own for a folder.")
    return Path.cwd() / row.project


def _edited(row: hosts.Host, path: Path, before: str | None) -> str:
    try:
        return hosts.installed(row, before, command(), _environment())
    except ValueError as error:
        raise _unreadable(path, error) from None


def _undone(row: hosts.Host, path: Path, before: str | None) -> str | None:
    if before is None:
        return None
    try:
        return hosts.undone(row, before, _read(_backup(path)), command(), _environment())
    except ValueError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: ValueError) -> CliError:
    return CliError(ErrorCode.INVALID, f"{path} cannot be edited: {error}.", "Mend it, or add the entry by hand.")


def _backup(path: Path) -> Path:
    return path.with_name(path.name + BACKUP_SUFFIX)


def _read(path: Path) -> str | None:
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(ErrorCode.UNAVAILABLE, f"{path} cannot be read: {error}.", "Check the file.") from None


def _write(row: hosts.Host, path: Path, before: str | None, after: str | None, *, undo: bool) -> None:
    target = path.resolve()  # through links, so that a file kept elsewhere stays a link
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        mode = target.stat().st_mode & 0o777 if before is not None else 0o600
        if before is not None and not undo and not hosts.holds_entry(row, before):
            _replace(_backup(path), before, mode)
        if after is None:
            target.unlink()
        else:
            _replace(target, after, mode)
        if undo:
            _backup(path).unlink(missing_ok=True)
    except OSError as error:
        raise CliError(ErrorCode.UNAVAILABLE, f"{path} cannot be written: {error}.", "Check permissions.") from None


def _replace(path: Path, text: str, mode: int) -> None:
    """Write a file so that a reader sees the old one or the new one, whole."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as scratch:
        try:
            scratch.write(text.encode("utf-8"))
            scratch.flush()
            os.fsync(scratch.fileno())
            os.chmod(scratch.name, mode)
            os.replace(scratch.name, path)
        except OSError:
            os.unlink(scratch.name)
            raise


def _diff(path: Path, before: str | None, after: str | None) -> str:
    lines = difflib.unified_diff(
        (before or "").splitlines(), (after or "").splitlines(), str(path), str(path), lineterm="", n=2
    )
    return "\n".join(lines)


def _summary(row: hosts.Host, path: str, diff: str, *, undo: bool, dry_run: bool) -> str:
    if not diff:
        return f"{path} needs no change."
    if dry_run:
        return diff
    if undo:
        return f"Taken out of {row.title}: {path}. Restart it."
    return f"Written to {path}. Restart {row.title}; undo with `aos install {row.name} --undo`."
