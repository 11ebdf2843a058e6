"""Memory and process limits over a whole box, by control groups of version 1 or 2.

Only root, or a user to whom a version 2 subtree was delegated, can make them; `Cgroups.find` says whether that is so
here. Groups are named after the kernel process that made them, so that those of a dead kernel can be recognised.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from pathlib import Path

import anyio

_V1 = Path("/sys/fs/cgroup")
_BUSY_TRIES = 50  # A group can be removed a moment after its last process has died.


def process_birth(pid: int) -> str | None:
    """Return when a process started, in clock ticks since boot; None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]


def kernel_mark() -> str:
    """Return what tells this kernel process from every other since boot."""
    return f"{os.getpid()}-{process_birth(os.getpid())}"


def mark_is_alive(mark: str) -> bool:
    """Tell whether the process that made this mark still runs."""
    pid, _, birth = mark.partition("-")
    return pid.isdigit() and process_birth(int(pid)) == birth


@dataclass(frozen=True, slots=True)
class Group:
    """The limits of one box."""

    directories: tuple[Path, ...]

    def admit(self, pid: int) -> None:
        """Put a process, and so all it will start, under the limits. Raises OSError."""
        for directory in self.directories:
            (directory / "cgroup.procs").write_text(str(pid), "ascii")

    def oom_kills(self) -> int:
        """Count the processes that were killed for memory."""
        for name in ("memory.events", "memory.oom_control"):
            for directory in self.directories:
                with contextlib.suppress(OSError):
                    lines = (directory / name).read_text("ascii").splitlines()
                    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
        return 0

    async def remove(self) -> None:
        """Remove the groups of a box whose processes are dead."""
        for directory in self.directories:
            for _ in range(_BUSY_TRIES):
                try:
                    directory.rmdir()
                except FileNotFoundError:
                    break
                except OSError as error:
                    if error.errno != errno.EBUSY:
                        break
                    await anyio.sleep(0.01)
                else:
                    break


class Cgroups:
    """The place under which this kernel makes its groups."""

    def __init__(self, memory: Path, pids: Path) -> None:
        """Take the parents; the same path twice for version 2."""
        self._memory = memory
        self._pids = pids

    @classmethod
    def find(cls) -> Cgroups | None:
        """Return where groups can be made, having tried it; None where they cannot."""
        for parents in (_parents_v1(), _parents_v2()):
            if parents is None:
                continue
            found = cls(*parents)
            found._sweep()
            try:
                trial = found.make("trial", memory_bytes=64 * 2**20, pids_max=16)
            except OSError:
                continue
            for directory in trial.directories:
                directory.rmdir()
            return found
        return None

    def make(self, name: str, *, memory_bytes: int, pids_max: int) -> Group:
        """Make the limits of one box. Raises OSError when the kernel refuses."""
        mark = f"aos-{kernel_mark()}-{name}"
        memory, pids = self._memory / mark, self._pids / mark
        group = Group(directories=(memory,) if memory == pids else (memory, pids))
        try:
            for directory in group.directories:
                directory.mkdir(exist_ok=True)
            if (memory / "memory.max").exists():
                _write(memory / "memory.max", memory_bytes)
                _write(memory / "memory.swap.max", 0, optional=True)
                _write(memory / "memory.oom.group", 0, optional=True)
            else:
                _write(memory / "memory.limit_in_bytes", memory_bytes)
                _write(memory / "memory.memsw.limit_in_bytes", memory_bytes, optional=True)
            _write(pids / "pids.max", pids_max)
        except OSError:
            for directory in group.directories:
                with contextlib.suppress(OSError):
                    directory.rmdir()
            raise
        return group

    def _sweep(self) -> None:
        """Remove what dead kernels left; a group with living processes cannot be removed, and is not."""
        for parent in {self._memory, self._pids}:
            for path in parent.glob("aos-*-*-*"):
                if not mark_is_alive(path.name.removeprefix("aos-").rpartition("-")[0]):
                    with contextlib.suppress(OSError):
                        path.rmdir()


def _own_groups() -> dict[str, str]:
    """Return this process's cgroup path by controller; "" is version 2."""
    lines = Path("/proc/self/cgroup").read_text("utf-8").splitlines()
    fields = [line.split(":", 2) for line in lines]
    return {controller: path for _, controllers, path in fields for controller in controllers.split(",")}


def _parents_v1() -> tuple[Path, Path] | None:
    groups = _own_groups()
    found = []
    for controller in ("memory", "pids"):
        path = _V1 / controller / groups.get(controller, "").lstrip("/")
        if controller not in groups or not os.access(path, os.W_OK):
            return None
        found.append(path)
    return found[0], found[1]


def _parents_v2() -> tuple[Path, Path] | None:
    """Return the nearest group above (or at) our own whose children can have both controllers."""
    own = _own_groups().get("")
    if own is None:
        return None
    top = Path("/sys/fs/cgroup")
    path = top / own.lstrip("/")
    while path.is_relative_to(top):
        with contextlib.suppress(OSError):
            # Moving a process needs the right to do so in the nearest common ancestor, which is this very group.
            movable = os.access(path / "cgroup.procs", os.W_OK)
            active = (path / "cgroup.subtree_control").read_text("ascii").split()
            if {"memory", "pids"} <= set(active) and movable and os.access(path, os.W_OK):
                return path, path
        path = path.parent
    return None


def _write(path: Path, value: int, *, optional: bool = False) -> None:
    try:
        path.write_text(str(value), "ascii")
    except OSError:
        if not optional:
            raise
