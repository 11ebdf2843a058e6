"""The seam inside the sandbox floor: what a driver is asked to start, and what it gives back.

A driver starts a *box*: an isolated place whose first process is the supervisor (`agentd`), reached over two byte
streams. It knows nothing of commands; `session` speaks to the supervisor and knows nothing of drivers.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

AGENTD = Path(__file__).with_name("agentd.py")
"""The supervisor's source; it is given to every box as a read-only file."""

AGENTD_OPTIONS = ("-I", "-S", "-B", "-W", "ignore")
"""Options of the Python that runs it: nothing but the standard library, nothing written, nothing said unasked."""

INSIDE_AGENTD = "/run/aos-agentd.py"
INSIDE_EGRESS = "/run/aos-egress"
INSIDE_WORKSPACE = "/workspace"
EGRESS_SOCKET = "proxy.sock"
PROXY_PORT = 3128

_DROP_ID = 65532  # The id distributions and images use for "nonroot"; nobody logs in with it.


def box_uid() -> int:
    """Return the user id that commands have on this machine: never 0."""
    return os.geteuid() or _DROP_ID


def box_gid() -> int:
    """Return the group id that goes with `box_uid`."""
    return os.getegid() if os.geteuid() else _DROP_ID


def box_environment(*, network: bool) -> Mapping[str, str]:
    """Return the whole environment of a command. Nothing of the kernel's own environment is ever in it."""
    env = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": "/tmp",
        "TMPDIR": "/tmp",
        "LANG": "C.UTF-8",
    }
    if network:
        proxy = f"http://127.0.0.1:{PROXY_PORT}"
        env |= dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), proxy)
    return env


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """What to start. A session whose next command asks for an unequal box gets a new one.

    `name` is unique to this start and safe in a path. `egress` is the directory on this machine that holds the proxy's
    socket; None is no network at all. `allow` is what that proxy lets through.
    """

    session: str
    workspace: Path
    writable: bool
    memory_bytes: int
    pids_max: int
    allow: tuple[str, ...] = ()
    name: str = field(compare=False)
    egress: Path | None = field(compare=False, default=None)

    @property
    def tmp_bytes(self) -> int:
        """Size of /tmp: it is charged to the memory limit, so it has to leave room for the processes."""
        return self.memory_bytes // 4

    @property
    def shm_bytes(self) -> int:
        """Size of /dev/shm, charged likewise."""
        return self.memory_bytes // 16


class Channel(Protocol):
    """A live box: the supervisor's ends, and the switch that ends it."""

    async def send(self, data: bytes) -> None:
        """Write to the supervisor. Raises BrokenPipeError when the box is gone."""
        ...

    async def receive(self) -> bytes:
        """Return the next bytes from the supervisor; b"" when the box is gone."""
        ...

    def gone(self) -> bool:
        """Tell, without waiting, whether the box is known to have ended."""
        ...

    async def destroy(self) -> None:
        """Kill everything in the box and wait until it is dead. May be called twice."""
        ...

    def oom_kills(self) -> int | None:
        """Count the out-of-memory kills of the box so far; None when only the box itself can tell."""
        ...

    def diagnosis(self) -> str:
        """Return what the driver said when the box died, one line, for an operator."""
        ...


class Driver(Protocol):
    """One way to make boxes."""

    name: str
    memory_limit: str
    """`total` or `per_process`: what kind of memory limit its boxes get on this machine. Known after `check`."""

    limits_processes_by_user: bool
    """Whether the supervisor has to limit processes (RLIMIT_NPROC), because nothing outside the box does."""

    async def check(self) -> None:
        """See that the driver's parts are here, and clean up after dead kernels.

        Raises Unavailable: the sentence is the reason, the hint the repair.
        """
        ...

    async def start(self, box: Box) -> Channel:
        """Start a box. Raises Unavailable when it did not come up."""
        ...

    def greeting(self, box: Box) -> Mapping[str, object]:
        """Return what the supervisor has to be told first: see `agentd`."""
        ...


def greeting(box: Box, *, seccomp: bytes, die_with_parent: bool) -> Mapping[str, object]:
    """Return what a supervisor is told first; `seccomp` is a filter that it has to install itself."""
    return {
        "seccomp": base64.b64encode(seccomp).decode("ascii"),
        "egress": f"{INSIDE_EGRESS}/{EGRESS_SOCKET}" if box.egress else "",
        "port": PROXY_PORT,
        "uid": box_uid(),
        "gid": box_gid(),
        "die_with_parent": die_with_parent,
        "env": box_environment(network=box.egress is not None),
    }


def fold(text: str) -> str:
    """Return the last line of a tool's complaint, bounded, fit for one sentence."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[-1] if lines else "")[:300]
