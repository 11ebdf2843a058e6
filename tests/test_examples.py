"""The worked examples: each runs as a reader would run it, and says by its exit code whether it holds."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

import anyio
import pytest

EXAMPLES = sorted(
    path for path in (Path(__file__).parents[1] / "examples").glob("*.py") if path.stem != "verify_audit"
)  # that one takes a log to look at: tests/cli/test_audit_commands.py gives it some
EXAMPLE_S = 100.0
REFUSAL = {"PYTHONWARNINGS": "", "AOS_MODEL": "", "AOS_CONFIG": ""}
"""What the machine says of itself must not reach an example."""


def test_there_are_examples() -> None:
    assert {path.stem for path in EXAMPLES} >= {
        "spawn_and_wait",
        "governed_tools",
        "budget",
        "python_host",
        "foreign_agent",
    }


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
async def test_an_example_holds(example: Path, tmp_path: Path) -> None:
    if example.stem == "governed_tools" and not os.environ.get("CI"):
        if shutil.which("git") is None or importlib.util.find_spec("mcp_server_git") is None:
            pytest.skip("git or mcp-server-git is not installed")
    if example.stem == "foreign_agent" and not os.environ.get("CI"):
        if importlib.util.find_spec("langgraph") is None or importlib.util.find_spec("langchain_openai") is None:
            pytest.skip("langgraph or langchain-openai is not installed")
    environ = {name: value for name, value in os.environ.items() if name not in REFUSAL}
    with anyio.fail_after(EXAMPLE_S):
        done = await anyio.run_process([sys.executable, str(example)], cwd=tmp_path, env=environ, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.strip(), "an example shows what it did"
