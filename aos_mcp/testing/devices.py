"""Stand-ins for the sandbox and for downstream servers, where a test is about what the kernel does with them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import anyio

from aos_mcp.abi.errors import NotFound
from aos_mcp.abi.mount import MountedTool, MountState, MountStatus, ToolOutcome
from aos_mcp.abi.sandbox import Command, CommandOutcome, SandboxProof
from aos_mcp.ports import Progress

Behaviour = Callable[[Mapping[str, object]], str]
"""What a stand-in tool answers to its arguments; it may raise an AosError."""


@dataclass(slots=True)
class RecordingSandbox:
    """Runs nothing: notes each command, and answers with what the test set."""

    commands: list[Command] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    stdout: bytes = b"done\n"
    exit_code: int = 0
    passes: bool = True
    failure: Exception | None = None
    gate: anyio.Event | None = None

    async def prove(self) -> Sequence[SandboxProof]:
        """See `ports.Sandbox`."""
        return [self._proof()]

    def proven(self) -> SandboxProof | None:
        """See `ports.Sandbox`."""
        return self._proof() if self.passes else None

    async def execute(self, command: Command) -> CommandOutcome:
        """See `ports.Sandbox`."""
        self.commands.append(command)
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return CommandOutcome(
            exit_code=self.exit_code,
            stdout=self.stdout,
            stderr=b"",
            stdout_dropped=0,
            stderr_dropped=0,
            timed_out=False,
            out_of_memory=False,
            isolation="recording",
            wall_s=0.0,
        )

    async def close(self, session: str) -> None:
        """See `ports.Sandbox`."""
        self.closed.append(session)

    async def shutdown(self) -> None:
        """See `ports.Sandbox`."""

    def _proof(self) -> SandboxProof:
        reason = "" if self.passes else "the test says so"
        return SandboxProof(driver="recording", passed=self.passes, probes=(), memory_limit="none", reason=reason)


def a_tool(name: str, *, read_only: bool = False, idempotent: bool = False, description: str = "") -> MountedTool:
    """Return the definition of a stand-in tool that takes any object."""
    server, _, tool = name.partition("__")
    return MountedTool(
        name=name,
        server=server,
        tool=tool,
        title=tool,
        description=description or f"the tool {tool}",
        input_schema='{"type": "object"}',
        output_schema=None,
        read_only=read_only,
        destructive=not read_only,
        idempotent=idempotent,
        open_world=False,
        digest=f"{name} {description}",
        definition=json.dumps({"name": tool, "description": description}),
    )


class RecordingMounts:
    """Downstream servers made of functions."""

    def __init__(self, tools: Mapping[MountedTool, Behaviour] | None = None) -> None:
        """Take the tools and what each answers."""
        self.behaviours = {tool.name: (tool, behaviour) for tool, behaviour in (tools or {}).items()}
        self.calls: list[tuple[str, Mapping[str, object]]] = []
        self.metas: list[Mapping[str, object]] = []
        self._notify: list[Callable[[str], None]] = []

    def replace(self, tool: MountedTool) -> None:
        """Change a tool's definition, as a downstream may do at any time."""
        self.behaviours[tool.name] = (tool, self.behaviours[tool.name][1])
        for notify in self._notify:
            notify(tool.server)

    def status(self) -> Sequence[MountStatus]:
        """See `ports.Mounts`."""
        servers = sorted({tool.server for tool, _ in self.behaviours.values()})
        return [
            MountStatus(server=server, transport="function", state=MountState.UP, tools=1, restarts=0, error="")
            for server in servers
        ]

    def tools(self) -> Sequence[MountedTool]:
        """See `ports.Mounts`."""
        return [tool for tool, _ in sorted(self.behaviours.values(), key=lambda pair: pair[0].name)]

    def tool(self, name: str) -> MountedTool | None:
        """See `ports.Mounts`."""
        return self.behaviours[name][0] if name in self.behaviours else None

    async def settled(self, timeout_s: float) -> None:
        """See `ports.Mounts`."""

    async def call(
        self,
        name: str,
        arguments: Mapping[str, object],
        *,
        timeout_s: float,
        progress: Progress | None = None,
        meta: Mapping[str, object] | None = None,
    ) -> ToolOutcome:
        """See `ports.Mounts`."""
        if name not in self.behaviours:
            raise NotFound(f"There is no tool {name}.", "Set one in the test.")
        self.calls.append((name, arguments))
        self.metas.append(meta or {})
        await anyio.lowlevel.checkpoint()
        text = self.behaviours[name][1](arguments)
        result = json.dumps({"content": [{"type": "text", "text": text}]})
        return ToolOutcome(result=result, is_error=False, text=text)

    def on_change(self, notify: Callable[[str], None]) -> None:
        """See `ports.Mounts`."""
        self._notify.append(notify)
