"""The protocol's own conformance suite, and the Inspector's schema checks, against the kernel's server.

Both need Node 24 and are installed into `.cache/node` of the checkout:
`npm install --prefix .cache/node node@24 @modelcontextprotocol/conformance@0.2.0-alpha.12
@modelcontextprotocol/inspector@2.12.0`.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.surface.conftest import COMMAND, ROOT

MODULES = ROOT / ".cache" / "node" / "node_modules"
NODE = MODULES / "node" / "bin" / "node"
SUITE = MODULES / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
INSPECTOR = MODULES / ".bin" / "mcp-inspector"
START_S, SUITE_S = 60, 300

pytestmark = [
    pytest.mark.node,
    pytest.mark.conformance,
    pytest.mark.timeout(2 * SUITE_S),
    pytest.mark.skipif(
        not (SUITE.exists() and NODE.exists()) and "CI" not in os.environ,
        reason=f"the conformance suite is not installed in {MODULES.parent.relative_to(ROOT)}",
    ),
]


@contextmanager
def conformance_server() -> Iterator[str]:
    """Run the kernel's server with the suite's fixtures; give its URL."""
    with subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "conformance_server.py"), "0"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stdout is not None
            ready, _, _ = select.select([server.stdout], [], [], START_S)
            assert ready, "the server did not start"
            yield server.stdout.readline().strip()
        finally:
            server.kill()


@pytest.mark.parametrize("suite", ["active", "all"])
@pytest.mark.parametrize("version", ["2025-11-25", "2026-07-28"])
def test_no_conformance_scenario_fails(tmp_path: Path, version: str, suite: str) -> None:
    with conformance_server() as url:
        options = ["--url", f"{url}/mcp", "--suite", suite, "--spec-version", version, "-o", str(tmp_path)]
        done = subprocess.run(
            [str(NODE), str(SUITE), "server", *options], capture_output=True, text=True, timeout=SUITE_S, check=False
        )
    checks = [check for file in tmp_path.glob("*/checks.json") for check in json.loads(file.read_text("utf-8"))]
    assert len(checks) > 30, done.stdout + done.stderr
    failed = [(check["id"], check.get("errorMessage")) for check in checks if check["status"] == "FAILURE"]
    assert failed == []
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_the_inspector_finds_nothing_in_any_schema(environment: dict[str, str], era: str) -> None:
    given = {**environment, "PATH": f"{NODE.parent}:{environment['PATH']}"}
    options = ["--cli", "--protocol-era", era, "--strict", "--method", "tools/list", "--format", "json"]
    variables = [part for name in ("AOS_HOME", "PYTHONPATH") for part in ("-e", f"{name}={environment[name]}")]
    done = subprocess.run(
        [str(INSPECTOR), *options, *variables, *COMMAND],
        env=given,
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr, done.stderr
    assert "warning" not in done.stderr, done.stderr
