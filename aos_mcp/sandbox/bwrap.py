"""Driver `bwrap`: boxes made by bubblewrap, with namespaces, no capabilities, a seccomp filter and control groups.

A kernel that runs as an ordinary user gets a user namespace; a root kernel lets the supervisor drop to an
unprivileged id instead, so that user id 0 of this machine is never inside a box. bubblewrap itself is started with an
empty environment, because `--clearenv` leaves the kernel's secrets in /proc/1/environ. Nothing is ever mounted below a
path that a command can write to (CVE-2026-87766).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field

import anyio
import anyio.abc

from aos_mcp.abi.errors import Unavailable
from aos_mcp.sandbox.box import (
    AGENTD,
    AGENTD_OPTIONS,
    INSIDE_AGENTD,
    INSIDE_EGRESS,
    INSIDE_WORKSPACE,
    Box,
    Channel,
    box_gid,
    box_uid,
    fold,
    greeting,
)
from aos_mcp.sandbox.cgroup import Cgroups, Group
from aos_mcp.sandbox.seccomp import deny_filter
from aos_mcp.sandbox.userland import Userland, host_userland

_NAMESPACES = ("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try")
_DIE_S = 5.0
_READ_BYTES = 65_536
_REPAIR = (
    "Install bubblewrap 0.8 or later. On Ubuntu 24.04 allow it user namespaces with an AppArmor profile for"
    " /usr/bin/bwrap (see docs/sandbox.md), elsewhere with sysctl kernel.unprivileged_userns_clone=1."
)


class Bwrap:
    """Makes boxes with bubblewrap."""

    name = "bwrap"

    def __init__(self) -> None:
        """Know nothing yet; `check` looks."""
        self.memory_limit = "per_process"
        self.limits_processes_by_user = True
        self._program: str | None = None
        self._cgroups: Cgroups | None = None
        self._userland: Userland | None = None

    async def check(self) -> None:
        """Find bubblewrap, a Python, libseccomp and a place for control groups."""
        self._program = shutil.which("bwrap")
        if self._program is None:
            raise Unavailable("bubblewrap is not installed.", "Install the package `bubblewrap`.")
        self._userland = host_userland()
        deny_filter()
        self._cgroups = Cgroups.find()
        self.memory_limit = "total" if self._cgroups else "per_process"
        self.limits_processes_by_user = self._cgroups is None

    def greeting(self, box: Box) -> Mapping[str, object]:
        """Tell the supervisor its place; bubblewrap has installed the filter before it started."""
        return greeting(box, seccomp=b"", die_with_parent=True)

    async def start(self, box: Box) -> Channel:
        """Start bubblewrap and put the supervisor under its limits before it has run anything."""
        if self._program is None or self._userland is None:
            raise Unavailable("The driver bwrap has not been checked.", "Run `aos doctor`.")
        group = self._group(box)
        try:
            with ExitStack() as files:
                command = _Command(files)
                argv = [self._program, *self._arguments(command, self._userland, box)]
                report = command.pipe()
                argv += ["--info-fd", str(report[1]), "--", self._userland.python, *AGENTD_OPTIONS, INSIDE_AGENTD]
                process = await anyio.open_process(argv, env={}, pass_fds=command.fds, start_new_session=True)
                command.close_write_end()
                channel = BwrapChannel(process, group)
                await _admit(channel, report[0])
                return channel
        except OSError as error:
            if group:
                await group.remove()
            raise Unavailable(f"bubblewrap could not be started: {error}.", _REPAIR) from None

    def _group(self, box: Box) -> Group | None:
        if self._cgroups is None:
            return None
        try:
            # One process more than a command may have: the supervisor, and its own threads for the proxy.
            return self._cgroups.make(box.name, memory_bytes=box.memory_bytes, pids_max=box.pids_max + 1)
        except OSError as error:
            raise Unavailable(
                f"The sandbox's control group could not be made: {error}.", "See that /sys/fs/cgroup is writable."
            ) from None

    def _arguments(self, command: _Command, userland: Userland, box: Box) -> Sequence[str]:
        argv = [*_NAMESPACES, "--as-pid-1", "--die-with-parent", "--new-session", "--hostname", "sandbox"]
        argv += ["--cap-drop", "ALL"]
        if os.geteuid() == 0:
            argv += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--cap-add", "CAP_SETPCAP"]
        else:
            argv += ["--unshare-user", "--uid", str(box_uid()), "--gid", str(box_gid()), "--disable-userns"]
        for path in userland.binds:
            argv += ["--ro-bind", path, path]
        for path, target in userland.links:
            argv += ["--symlink", target, path]
        for path, body in userland.stubs:
            argv += ["--perms", "0444", "--ro-bind-data", command.data(body), path]
        argv += ["--perms", "0444", "--ro-bind-data", command.data(AGENTD.read_bytes()), INSIDE_AGENTD]
        argv += ["--proc", "/proc", "--dev", "/dev"]
        argv += ["--perms", "1777", "--size", str(box.shm_bytes), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"]
        argv += ["--perms", "1777", "--size", str(box.tmp_bytes), "--tmpfs", "/tmp"]
        if box.egress is not None:
            argv += ["--ro-bind", str(box.egress), INSIDE_EGRESS]
        argv += ["--bind" if box.writable else "--ro-bind", str(box.workspace), INSIDE_WORKSPACE]
        # The supervisor starts in / because it is not yet the workspace's owner; each command starts in the workspace.
        argv += ["--remount-ro", "/", "--chdir", "/"]
        argv += ["--seccomp", command.data(deny_filter())]
        return argv


@dataclass
class _Command:
    """The descriptors that bubblewrap is given, closed on this side when the start is over."""

    files: ExitStack
    fds: list[int] = field(default_factory=list)
    _write_ends: list[int] = field(default_factory=list)

    def data(self, body: bytes) -> str:
        """Hand over bytes as a descriptor; return its number."""
        fd = os.memfd_create("aos")
        self.files.callback(os.close, fd)
        os.write(fd, body)
        os.lseek(fd, 0, os.SEEK_SET)
        self.fds.append(fd)
        return str(fd)

    def pipe(self) -> tuple[int, int]:
        """Make a pipe that bubblewrap writes to. Close its write end here once it has started."""
        read_end, write_end = os.pipe()
        self.files.callback(os.close, read_end)
        self._write_ends.append(write_end)
        self.files.callback(self.close_write_end)
        self.fds.append(write_end)
        return read_end, write_end

    def close_write_end(self) -> None:
        """Close what only bubblewrap writes to, so that its end is seen."""
        while self._write_ends:
            os.close(self._write_ends.pop())


async def _admit(channel: BwrapChannel, report: int) -> None:
    """Wait until the box exists, then put its first process under the limits."""
    text = b""
    os.set_blocking(report, False)
    complete = False
    try:
        with anyio.move_on_after(_DIE_S):
            while not complete:
                await anyio.wait_readable(report)
                data = os.read(report, 4096)
                if not data:
                    break
                text += data
                complete = b"}" in text
        if complete:
            try:
                channel.adopt(json.loads(text)["child-pid"])
            except ProcessLookupError:
                complete = False
    finally:
        if not complete:
            with anyio.CancelScope(shield=True):
                await channel.destroy()
    if not complete:
        raise Unavailable(f"bubblewrap refused: {channel.diagnosis()}.", _REPAIR)


class BwrapChannel:
    """A box that is a bubblewrap process: its death takes the whole process namespace along."""

    def __init__(self, process: anyio.abc.Process, group: Group | None) -> None:
        """Take over a started process."""
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._stderr = process.stderr
        self._group = group
        self._holds = [os.pidfd_open(process.pid)]
        self._said = ""
        self._closed = False

    def adopt(self, pid: int) -> None:
        """Take hold of the box's first process and put it under the limits. Raises OSError."""
        self._holds.insert(0, os.pidfd_open(pid))
        if self._group:
            self._group.admit(pid)

    async def send(self, data: bytes) -> None:
        """Write to the supervisor."""
        try:
            await self._stdin.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, ConnectionError):
            raise BrokenPipeError from None

    async def receive(self) -> bytes:
        """Return the supervisor's next bytes."""
        try:
            return await self._stdout.receive(_READ_BYTES)
        except (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError):
            return b""

    def gone(self) -> bool:
        """Tell whether bubblewrap has ended."""
        return self._closed or self._process.returncode is not None

    async def destroy(self) -> None:
        """Kill the box's first process: the kernel takes its whole process namespace along before it is gone."""
        if self._closed:
            return
        self._closed = True
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._process.aclose)
            # Signals go by descriptor: a number may belong to somebody else by now, and asyncio does not expect its
            # child to be reaped by the look that Process.kill takes first.
            for hold in self._holds:
                stack.callback(os.close, hold)
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(hold, signal.SIGKILL)
                with anyio.move_on_after(_DIE_S):
                    await anyio.wait_readable(hold)
            with anyio.move_on_after(_DIE_S):
                await self._process.wait()
                self._said = await self._last_words()
            if self._group:
                await self._group.remove()

    def oom_kills(self) -> int | None:
        """Count them from the control group."""
        return self._group.oom_kills() if self._group else None

    def diagnosis(self) -> str:
        """Return bubblewrap's or the supervisor's last complaint."""
        return self._said

    async def _last_words(self) -> str:
        text = b""
        while len(text) < _READ_BYTES:
            try:
                text += await self._stderr.receive()
            except (anyio.EndOfStream, anyio.ClosedResourceError):
                break
        return fold(text.decode("utf-8", "replace"))
