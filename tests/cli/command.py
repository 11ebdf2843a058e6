"""The command as a process of its own, with a scratch home in which a real daemon runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import aos_mcp

CALL_S = 60  # The longest one command may take on a machine under load.

SETTINGS = """\
[sandbox]
drivers = ["bwrap"]

[[rules]]
effect = "deny"
tool = "sandbox_exec"
args = { command = "*forbidden*" }
reason = "a test says so"

[[rules]]
effect = "ask"
tool = "sandbox_exec"
args = { command = "*please*" }
"""

PRICE = {"input": 1, "cached": 1, "written": 1, "output": 1}
HEADER = {"aos_replay": 1, "model": "anthropic/claude-test", "price": PRICE}
ASK = {"name": "sandbox_exec", "arguments": {"command": "echo please"}}
GIVE_UP = {"name": "exit", "arguments": {"result": "It cannot be done.", "failed": True}}
RECORDINGS: dict[str, list[dict[str, Any]]] = {
    "hello": [{"reply": {"text": "Hello, world."}}],
    "hopeless": [{"reply": {"text": "No.", "requests": [GIVE_UP]}}],
    "asker": [{"reply": {"text": "May I?", "requests": [ASK]}}, {"reply": {"text": "I asked."}}],
    "slow": [{"reply": {"text": "never"}, "delay_s": 3_600}],
}

needs_bwrap = pytest.mark.skipif(
    shutil.which("bwrap") is None and not os.environ.get("CI"), reason="bubblewrap is not installed"
)


class Aos:
    """The command, with a home of its own and nothing of the caller's environment."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "AOS_HOME": str(home / "aos"),
            "PYTHONPATH": str(Path(aos_mcp.__file__).parents[1]),
        }
        replays = home / "aos" / "replays"
        replays.mkdir(parents=True, mode=0o700)
        for name, turns in RECORDINGS.items():
            lines = "\n".join(json.dumps(line) for line in [HEADER, *turns])
            (replays / f"{name}.jsonl").write_text(lines, "utf-8")
        (home / "aos").chmod(0o700)
        (home / "aos" / "aos.toml").write_text(SETTINGS, "utf-8")

    def argv(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "aos_mcp", *arguments]

    def __call__(self, *arguments: str, code: int = 0, stdin: str = "") -> str:
        """Run a command to its end, check its exit code, and return what it wrote to stdout."""
        ran = subprocess.run(
            self.argv(*arguments), env=self.env, input=stdin.encode(), capture_output=True, timeout=CALL_S,
            cwd=self.home, check=False,
        )  # fmt: skip
        assert ran.returncode == code, f"{arguments}: {ran.returncode}\n{ran.stdout!r}\n{ran.stderr.decode()}"
        return ran.stdout.decode("utf-8")

    def json(self, *arguments: str, code: int = 0, stdin: str = "") -> Any:
        """Run a command with --json and return the document."""
        return json.loads(self(*arguments, "--json", code=code, stdin=stdin))

    def lines(self, *arguments: str, code: int = 0) -> list[Any]:
        """Run a command with --json that writes one document a line."""
        return [json.loads(line) for line in self(*arguments, "--json", code=code).splitlines()]

    def run(self, recording: str, task: str = "Say hello.") -> str:
        """Start an agent that plays a recording and return its pid."""
        pid = self.json("run", task, "--model", f"replay/{recording}")["pid"]
        assert isinstance(pid, str)
        return pid
