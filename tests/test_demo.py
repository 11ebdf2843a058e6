"""The demo: what it shows is checked by itself; here, that it shows it, and says so when something does not hold."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from aos_mcp.cli.demo_play import PLANNED, lines_of
from aos_mcp.cli.demo_repository import HISTORY, RIGHT, WRONG
from aos_mcp.cli.demo_stage import RECORDINGS, without
from aos_mcp.llm.replay import SHIPPED, read_recording

ROOT = Path(__file__).parents[1]
NODE_MODULES = ROOT / ".cache/node/node_modules"
DEMO_S = 115.0

needs_sandbox = pytest.mark.skipif(
    not os.environ.get("CI") and shutil.which("bwrap") is None, reason="bubblewrap is not installed"
)


async def demo(*arguments: str, environ: Mapping[str, str] | None = None) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "aos_mcp", "demo", "--json", *arguments]
    with anyio.fail_after(DEMO_S):
        done = await anyio.run_process(command, cwd=ROOT, env=environ or os.environ, check=False)
    assert done.stdout, done.stderr.decode()
    summary: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, summary


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's name, which the system bounds to about a hundred characters."""
    with tempfile.TemporaryDirectory(prefix="aos-") as folder:
        yield Path(folder)


@pytest.mark.bwrap
@pytest.mark.crash
@needs_sandbox
async def test_the_demo_holds_every_claim_and_leaves_nothing_behind(short_folder: Path) -> None:
    scratch = short_folder
    environ = {**os.environ, "TMPDIR": str(scratch)}
    code, summary = await demo("--node-modules", str(NODE_MODULES), environ=environ)
    assert (code, summary["ok"]) == (0, True), summary.get("broken")
    assert summary["replay"] and summary["model"] == "replay"
    assert summary["ledger"] == {"tester": dict.fromkeys(PLANNED, 1), "reviewer": {"verify": 1}}
    assert summary["crash"]["killed"] != summary["crash"]["came_back_as"]
    assert summary["audit"]["tampered"] == summary["audit"]["named"]
    assert [row["name"] for row in summary["agents"]] == ["reviewer", "tester", "tester again"]
    assert {row["exit_code"] for row in summary["agents"]} == {"done"}
    assert len(summary["claims"]) >= 20
    assert not list(scratch.iterdir())


@pytest.mark.bwrap
@needs_sandbox
async def test_a_claim_that_does_not_hold_ends_the_demo_with_its_name_and_code_1(tmp_path: Path) -> None:
    # No program of the machine is found, so no sandbox can be proven: nothing runs outside of one instead.
    (tmp_path / "bin").mkdir()
    environ = {**os.environ, "PATH": str(tmp_path / "bin"), "DOCKER_HOST": "unix:///nonexistent"}
    code, summary = await demo(environ=environ)
    assert (code, summary["ok"]) == (1, False)
    assert summary["broken"]["claim"] == "the kernel answers sandbox_exec"
    assert "bubblewrap is not installed" in summary["broken"]["why"]


def test_the_recorded_agents_speak_of_the_files_that_the_repository_has() -> None:
    assert HISTORY[0].files["stats.py"] == RIGHT
    written: dict[str, set[str]] = {}
    for name in RECORDINGS:
        for turn in read_recording(SHIPPED / f"{name}.jsonl").turns:
            for request in turn.reply.requests:
                files = request.arguments.get("files")
                for file in files if isinstance(files, list) and request.name == "sandbox_exec" else []:
                    assert isinstance(file, dict)
                    written.setdefault(str(file["path"]), set()).add(str(file["content"]))
    assert written["stats.py"] == {RIGHT, WRONG}


def recorded_calls(recording: str) -> Sequence[str]:
    _, *turns = recording.splitlines()
    return [request["name"] for line in turns for request in json.loads(line)["reply"]["requests"]]


def test_a_recording_loses_the_calls_of_a_server_that_is_missing_and_the_turns_that_made_no_other() -> None:
    recording = (SHIPPED / "demo-reviewer.jsonl").read_text("utf-8")
    cut = without(recording, ["files__*", "git__git_commit"])
    assert cut.splitlines()[0] == recording.splitlines()[0]
    kept = [name for name in recorded_calls(recording) if not name.startswith("files__") and name != "git__git_commit"]
    assert recorded_calls(cut) == kept
    assert len(cut.splitlines()) == len(recording.splitlines()) - 2


def test_a_ledger_that_is_not_there_is_an_empty_one(tmp_path: Path) -> None:
    assert lines_of(tmp_path / "none") == []
