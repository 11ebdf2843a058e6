"""Where the demo plays: a scratch folder with a home for the kernel, a repository, and two downstream servers.

Owns the folder and removes it. A downstream server that is not installed is left out and said so; the recordings are
then cut to the calls that are left, because a recorded agent would go on as if they had worked.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from aos_mcp.cli.demo_repository import make_repository
from aos_mcp.llm.replay import SHIPPED

RECORDINGS = ("demo-reviewer", "demo-tester")
FILESYSTEM_SERVER = Path("@modelcontextprotocol/server-filesystem/dist/index.js")
STOP_S = 60.0
NOT_INHERITED = ("AOS_CONFIG", "AOS_DATABASE_URL", "AOS_MODEL", "AOS_HTTP_TOKEN")
"""The user's own kernel is none of the demo's business."""
NEEDS: Mapping[str, Sequence[str]] = {"git": ("git__*",), "files": ("files__*", "git__git_add", "git__git_commit")}
"""The recorded calls that make no sense without a server: what `files` did not write, git cannot commit."""


@dataclass(frozen=True, slots=True)
class Stage:
    """The scratch folder. `git` is the program that keeps the history, None where the machine has none."""

    root: Path
    home: Path
    repository: Path
    git: str | None
    servers: tuple[str, ...]
    missing: tuple[str, ...]

    def environ(self, home: Path | None = None) -> dict[str, str]:
        """Return the environment of whatever speaks to the kernel of `home`, by default the stage's own."""
        inherited = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
        return {**inherited, "AOS_HOME": str(home or self.home)}

    def workspace(self, name: str) -> Path:
        """Return the folder that is /workspace in an agent's sandbox."""
        return self.home / "workspaces" / name


@asynccontextmanager
async def staged(node_modules: Path, *, keep: bool) -> AsyncIterator[Stage]:
    """Set the stage; afterwards stop the kernel and, unless `keep`, remove everything."""
    stage = await anyio.to_thread.run_sync(_set_up, node_modules)
    try:
        yield stage
    finally:
        with anyio.CancelScope(shield=True):
            await stop_kernel(stage, stage.home)
            if not keep:
                await anyio.to_thread.run_sync(lambda: shutil.rmtree(stage.root, ignore_errors=True))


async def stop_kernel(stage: Stage, home: Path) -> None:
    """End the daemon of a home, if there is one."""
    with anyio.move_on_after(STOP_S):
        await anyio.run_process([sys.executable, "-m", "aos_mcp", "stop"], env=stage.environ(home), check=False)


def _set_up(node_modules: Path) -> Stage:
    root = Path(tempfile.mkdtemp(prefix="aos-demo-")).resolve()
    home, repository = root / "home", root / "repository"
    home.mkdir(mode=0o700)
    git = shutil.which("git")
    make_repository(repository, git)
    mounts, missing = _mounts(repository, git, node_modules)
    (home / "aos.toml").write_text(_config(mounts), "utf-8")
    replays = home / "replays"
    replays.mkdir()
    dropped = [pattern for server, patterns in NEEDS.items() if server not in mounts for pattern in patterns]
    for name in RECORDINGS:
        recorded = (SHIPPED / f"{name}.jsonl").read_text("utf-8")
        (replays / f"{name}.jsonl").write_text(without(recorded, dropped), "utf-8")
    return Stage(root, home, repository, git, tuple(mounts), tuple(missing))


def _mounts(
    repository: Path, git: str | None, node_modules: Path
) -> tuple[Mapping[str, tuple[str, list[str]]], Sequence[str]]:
    """Return the command and the arguments of each server there is, and a sentence for each there is not."""
    mounts: dict[str, tuple[str, list[str]]] = {}
    missing: list[str] = []
    if git is None:
        missing.append("No git server: this machine has no git.")
    elif importlib.util.find_spec("mcp_server_git") is None:
        missing.append("No git server: install it with `pip install mcp-server-git`.")
    else:
        mounts["git"] = (sys.executable, ["-m", "mcp_server_git", "--repository", str(repository)])
    node, script = shutil.which("node"), (node_modules / FILESYSTEM_SERVER).resolve()
    if node is None:
        missing.append("No files server: it needs Node.js, which this machine does not have.")
    elif not script.is_file():
        missing.append("No files server: `make demo` installs it, or --node-modules says where it is.")
    else:
        mounts["files"] = (node, [str(script), str(repository)])
    return mounts, missing


def _config(mounts: Mapping[str, tuple[str, list[str]]]) -> str:
    """Return the aos.toml of the scratch home. A JSON string or list of strings is TOML too."""
    lines = ["[workspace_budget]", "usd = 2.0", ""]
    for name, (command, arguments) in mounts.items():
        lines += [f"[mounts.{name}]", f"command = {json.dumps(command)}", f"args = {json.dumps(arguments)}", ""]
    for tool in ("files__write_file", "git__git_add", "git__git_commit"):
        lines += ["[[rules]]", 'effect = "allow"', f'tool = "{tool}"', 'agent = "reviewer"', ""]
    return "\n".join(lines)


def without(recording: str, patterns: Sequence[str]) -> str:
    """Return a recording without the calls whose names fit a pattern, and without the turns that made no other."""
    header, *turns = recording.splitlines()
    kept: list[str] = []
    for line in turns:
        turn: dict[str, Any] = json.loads(line)
        requests = turn["reply"]["requests"]
        left = [call for call in requests if not any(fnmatchcase(call["name"], pattern) for pattern in patterns)]
        if left:
            turn["reply"]["requests"] = left
            kept.append(json.dumps(turn, ensure_ascii=False))
    return "\n".join([header, *kept]) + "\n"
