"""Claude Code with its model behind the gateway: its calls are paid from a key's budget and stand on the audit log."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from aos_mcp.testing.providers import Behaviour, Call
from tests.gateway.conftest import Gate, gateway
from tests.hosts.claude_code import QUIET, read_session
from tests.hosts.home import PROGRAMS, SESSION_S, host_environment, kernel_home, needs, project

pytestmark = [pytest.mark.hosts, needs("claude"), pytest.mark.timeout(300)]

WITH_TOOLS = '"name": "Bash"'
SCRIPT = (
    Behaviour(
        when=WITH_TOOLS,
        calls=(Call(name="Bash", arguments='{"command": "echo plover", "description": "Say it."}'),),
        input_tokens=20_000,
        cached_tokens=15_000,
        output_tokens=30,
    ),
    Behaviour(when=WITH_TOOLS, text="It said plover.", input_tokens=20_100, cached_tokens=20_000, output_tokens=10),
)


@asynccontextmanager
async def claude_code(gate: Gate, home: Path, key: str) -> AsyncIterator[Any]:
    """Run it with nothing but the gateway's address and a key."""
    command = [str(PROGRAMS / "claude"), "-p", "Say what echo says.", "--allowedTools", "Bash"]
    command += ["--output-format", "stream-json", "--verbose"]
    env = {**host_environment(home), **QUIET, "ANTHROPIC_BASE_URL": gate.url, "ANTHROPIC_AUTH_TOKEN": key}
    with anyio.fail_after(SESSION_S):
        done = await anyio.run_process(command, env=env, cwd=project(home), stderr=None, check=False)
    yield read_session(done)


@pytest.mark.parametrize("model", ["thence/large", "there/small"])
async def test_it_works_on_any_providers_model_and_the_key_pays(home: Path, model: str) -> None:
    async with gateway(kernel_home(home) / model.replace("/", "-")) as gate:
        gate.provider.script(*SCRIPT)
        key = await gate.issue(model=model, budget={"usd": 5.0})
        gate.kernel.machine.settings.gateway.aliases.clear()  # a foreign name stands for the key's own model
        async with claude_code(gate, home, key.key) as session:
            assert session.exit_code == 0
            assert session.event("result")["result"] == "It said plover."
            assert [(each.name, each.text) for each in session.answered] == [("Bash", "plover")]
        shown = await gate.kernel.call("read_process", pid=key.pid)
        records = (await gate.kernel.call("read_audit", pid=key.pid, limit=100, verify=True)).records
        sent = json.dumps([[dict(each.headers), dict(each.body)] for each in gate.provider.requests])
    assert (shown.usage.turns, shown.usage.cached_tokens, shown.usage.output_tokens) == (2, 35_000, 40)
    assert shown.usage.usd > 0
    assert [row.subject for row in records if row.call == "model" and row.outcome == "ok"] == [model] * 2
    assert key.key not in sent, "the provider never sees the key"


async def test_a_spent_budget_ends_it_with_a_word_and_without_a_call(home: Path) -> None:
    async with gateway(kernel_home(home) / "poor") as gate:
        key = await gate.issue(model="thence/large", budget={"usd": 0.000_001})
        async with claude_code(gate, home, key.key) as session:
            assert session.exit_code != 0
            result = session.event("result")
            assert result["is_error"] is True
            assert "budget" in json.dumps(result).lower()
        assert gate.provider.stats.requests == 0
