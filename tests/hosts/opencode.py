"""opencode, run without a person on a scripted model. It still shakes hands (2025-11-25) and has no forms.

When it ends, it ends every process that descends from its servers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio

from aos_mcp.testing.providers import Behaviour, Call, ProviderServer
from tests.hosts.home import PROGRAMS, SERVER, SESSION_S, host_environment, kernel_environment, project
from tests.surface.conftest import COMMAND

FROM_HOST = f'"name": "{SERVER}_kernel_status"'
"""Told by their tools, the requests of the host's conversation: the one that makes a title has none."""


@dataclass(frozen=True)
class Session:
    """One run of the host: its exit code, the state and the text of each tool call, and the model's last words."""

    exit_code: int
    answered: Sequence[tuple[str, str]]
    last_words: str


def calls(tool: str, **arguments: object) -> Behaviour:
    """Return the turn in which the model calls one of the kernel's tools."""
    return Behaviour(when=FROM_HOST, calls=(Call(name=f"{SERVER}_{tool}", arguments=json.dumps(arguments)),))


def says(text: str) -> Behaviour:
    """Return the turn that ends the session."""
    return Behaviour(when=FROM_HOST, text=text)


async def opencode(home: Path, model: ProviderServer, *script: Behaviour) -> Session:
    """Let opencode work through a script in `home`, with aos-mcp as its one MCP server; return what it printed."""
    model.script(*script)
    (project(home) / "opencode.json").write_text(json.dumps(_settings(home, model)), "utf-8")
    environment = {**host_environment(home), "OPENCODE_DISABLE_MODELS_FETCH": "1", "OPENCODE_DISABLE_AUTOUPDATE": "1"}
    command = [str(PROGRAMS / "opencode"), "run", "--format", "json", "Go on as the script says."]
    with anyio.fail_after(SESSION_S):
        done = await anyio.run_process(command, env=environment, cwd=project(home), stderr=None, check=False)
    parts = [json.loads(line)["part"] for line in done.stdout.splitlines()]
    states = [part["state"] for part in parts if part["type"] == "tool"]
    texts = [part["text"] for part in parts if part["type"] == "text"]
    answered = [(state["status"], state.get("output") or state.get("error")) for state in states]
    return Session(done.returncode, answered, "".join(texts))


def _settings(home: Path, model: ProviderServer) -> dict[str, object]:
    provider = {
        "npm": "@ai-sdk/anthropic",
        "options": {"baseURL": f"{model.url}/v1", "apiKey": "not-a-key"},
        "models": {"one": {"tool_call": True, "limit": {"context": 200_000, "output": 8_000}}},
    }
    return {
        "mcp": {SERVER: {"type": "local", "command": COMMAND, "environment": kernel_environment(home)}},
        "provider": {"scripted": provider},
        "model": "scripted/one",
        "small_model": "scripted/one",
        "share": "disabled",
    }
