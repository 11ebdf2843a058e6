"""Commands in a sandbox, and the workspaces they act on."""

from __future__ import annotations

from dataclasses import dataclass

from aos_mcp.abi.capability import IsolationLevel
from aos_mcp.abi.handle import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLimits:
    """Bounds of one command: bytes, counts, seconds."""

    timeout_s: float
    memory_bytes: int
    pids_max: int
    output_bytes_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to run. `session` names the sandbox (one for a process); `workspace` the directory mounted at /workspace.

    `network` are `host` or `host:port` patterns that the egress proxy lets through; used only at level `network`.
    """

    session: str
    workspace: str
    argv: tuple[str, ...]
    stdin: bytes
    level: IsolationLevel
    limits: CommandLimits
    network: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandOutcome:
    """How it ended. `exit_code` is 128+n for a command ended by signal n; `isolation` names the driver that ran it."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    stdout_dropped: int
    """Bytes beyond the limit that were not kept."""
    stderr_dropped: int
    timed_out: bool
    out_of_memory: bool
    isolation: str
    wall_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One self-test of a sandbox driver."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxProof:
    """What a driver (`docker+runc`, `docker+runsc`, `bwrap`) showed about itself; `passed` only if all probes did.

    `memory_limit` is `total`, `per_process` or `none`: what was proven, not what was asked for. `repair` says how to
    mend a failure.
    """

    driver: str
    passed: bool
    probes: tuple[Probe, ...]
    memory_limit: str
    reason: str = ""
    repair: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceFile:
    """One entry of a workspace: a regular file by digest, or a symbolic link by its text. `mode` is permissions."""

    path: str
    size_bytes: int
    mode: int
    mtime_ns: int
    digest: Digest | None
    link: str | None = None
