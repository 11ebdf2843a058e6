"""Claude Code as its users start it, but on a scripted model, in a home of its own, and with nobody at the keyboard.

Owns the command, its environment and the reading of what it prints. Knows nothing of what a script wants from the
kernel.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import anyio

from aos_mcp.testing.providers import Behaviour, Call, ProviderServer
from tests.hosts.home import PROGRAMS, SERVER, SESSION_S, host_environment, kernel_environment, project
from tests.surface.conftest import COMMAND

QUIET = {"DISABLE_TELEMETRY": "1", "DISABLE_AUTOUPDATER": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}

FROM_HOST = '"name": "ToolSearch"'
"""Told by their tools, the requests of the host's conversation: not those of its side jobs, nor of other programs."""


@dataclass(frozen=True)
class Answered:
    """A tool call of the scripted model, and what the host told it in return."""

    name: str
    arguments: Mapping[str, Any]
    text: str
    is_error: bool

    @property
    def body(self) -> Any:
        """The result as JSON."""
        return json.loads(self.text)


@dataclass(frozen=True)
class Session:
    """One run of the host: its exit code and what it printed."""

    exit_code: int
    events: Sequence[Mapping[str, Any]]

    def event(self, kind: str) -> Mapping[str, Any]:
        """Return the first event of a kind."""
        return next(event for event in self.events if event["type"] == kind)

    @property
    def answered(self) -> list[Answered]:
        """Every tool call, in the order in which the model made them."""
        blocks = [
            block
            for event in self.events
            if event["type"] in {"assistant", "user"}
            for block in event["message"]["content"]
        ]
        results = {block["tool_use_id"]: block for block in blocks if block["type"] == "tool_result"}
        return [
            Answered(
                call["name"].removeprefix(f"mcp__{SERVER}__"),
                call["input"],
                _text(results[call["id"]]["content"]),
                bool(results[call["id"]].get("is_error")),
            )
            for call in blocks
            if call["type"] == "tool_use"
        ]

    def answer(self, name: str, number: int = 0) -> Answered:
        """Return the answer to the model's call of a tool, by default to the first one."""
        return [answered for answered in self.answered if answered.name == name][number]


def calls(tool: str, **arguments: object) -> Behaviour:
    """Return the turn in which the model calls one of the kernel's tools."""
    return own_call(f"mcp__{SERVER}__{tool}", **arguments)


def own_call(tool: str, **arguments: object) -> Behaviour:
    """Return the turn in which the model calls one of the host's own tools."""
    return Behaviour(when=FROM_HOST, calls=(Call(name=tool, arguments=json.dumps(arguments)),))


def looks_up(*tools: str) -> Behaviour:
    """Return the turn in which the model asks the host for tools by name: until then it sees only their names."""
    return own_call("ToolSearch", query="select:" + ",".join(f"mcp__{SERVER}__{tool}" for tool in tools))


def says(text: str) -> Behaviour:
    """Return the turn that ends the session."""
    return Behaviour(when=FROM_HOST, text=text)


async def claude_code(home: Path, model: ProviderServer, *script: Behaviour) -> Session:
    """Let Claude Code work through a script in `home`, with aos-mcp as its one MCP server; return what it printed."""
    model.script(*script)
    servers = home / "servers.json"
    servers.write_text(json.dumps({"mcpServers": {SERVER: _server(home)}}), "utf-8")
    command = [
        *(str(PROGRAMS / "claude"), "-p", "Go on as the script says."),
        *("--mcp-config", str(servers), "--strict-mcp-config", "--allowedTools", f"mcp__{SERVER}"),
        *("--output-format", "stream-json", "--verbose"),
    ]
    with anyio.fail_after(SESSION_S):
        done = await anyio.run_process(
            command, env=_environment(home, model), cwd=project(home), stderr=None, check=False
        )
    return read_session(done)


def read_session(done: CompletedProcess[bytes]) -> Session:
    """Return what a run printed."""
    return Session(done.returncode, [json.loads(line) for line in done.stdout.splitlines()])


def _server(home: Path) -> dict[str, object]:
    return {"type": "stdio", "command": COMMAND[0], "args": COMMAND[1:], "env": kernel_environment(home)}


def _environment(home: Path, model: ProviderServer) -> dict[str, str]:
    return {
        **host_environment(home),
        "ANTHROPIC_BASE_URL": model.url,
        "ANTHROPIC_API_KEY": "not-a-key",
        **QUIET,
    }


def _text(content: object) -> str:
    if isinstance(content, list):
        return "".join(str(part["text"]) for part in content if part["type"] == "text")
    return str(content)
