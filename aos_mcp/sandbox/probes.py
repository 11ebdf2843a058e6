"""The self-tests a driver has to pass on this machine before anything runs in its boxes.

Each looks for something that must not be possible, and has a control that shows the test itself works: a probe that
could not run counts as failed.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio.to_thread

from aos_mcp.abi.capability import IsolationLevel
from aos_mcp.abi.errors import AosError, Unavailable
from aos_mcp.abi.sandbox import Command, CommandLimits, CommandOutcome, Probe, SandboxProof
from aos_mcp.ports import Clock
from aos_mcp.sandbox.box import Box, Driver, box_environment, box_uid
from aos_mcp.sandbox.session import Session

_MEMORY_BYTES = 128 * 2**20
_PIDS_MAX = 64
_COMMAND_S = 15.0
_TIMEOUT_S = 0.3
_SUPERVISOR_AND_SELF = 2
_REPAIR = "See docs/sandbox.md for what it needs; until it passes, another driver is used."

_FACTS = """
import ctypes, json, os, socket, sys
canary, port, name, pid = sys.argv[1:5]
def attempt(act):
    try:
        act()
    except OSError as error:
        return error.errno or -1
    return 0
def touch(path):
    with open(path, "w") as file:
        file.write("probe")
def connect(family, address):
    with socket.socket(family) as s:
        s.settimeout(2)
        s.connect(address)
libc = ctypes.CDLL(None, use_errno=True)
def call(function, *args):
    if function(*args) == -1:
        raise OSError(ctypes.get_errno(), "refused")
os.symlink(canary, "/tmp/canary")
json.dump({
    "status": {k: v.strip() for k, _, v in (line.partition(":") for line in open("/proc/self/status"))},
    "uid": os.getuid(),
    "pids": sorted(int(p) for p in os.listdir("/proc") if p.isdigit()),
    "self": os.getpid(),
    "env": sorted(os.environ),
    "supervisor": attempt(lambda: open("/proc/1/environ", "rb").read(1)),
    "own_environ": attempt(lambda: open("/proc/self/environ", "rb").read(1)),
    "canary": [attempt(lambda: open(p).read()) for p in (canary, "/proc/1/root" + canary, "/tmp/canary")],
    "interfaces": sorted(n for _, n in socket.if_nameindex()),
    "tcp": attempt(lambda: connect(socket.AF_INET, ("127.0.0.1", int(port)))),
    "abstract": attempt(lambda: connect(socket.AF_UNIX, "\\0" + name)),
    "public": attempt(lambda: connect(socket.AF_INET, ("192.0.2.1", 80))),
    "unshare": attempt(lambda: call(libc.unshare, 0x10000000)),
    "vsock": attempt(lambda: socket.socket(40).close()),
    "io_uring": attempt(lambda: call(libc.syscall, 425, 1, 0)),
    "pipe": attempt(lambda: call(libc.pipe, (ctypes.c_int * 2)())),
    "signal": attempt(lambda: os.kill(int(pid), 0)),
    "usr": attempt(lambda: touch("/usr/probe")),
    "tmp": attempt(lambda: touch("/tmp/probe")),
    "workspace": attempt(lambda: touch("/workspace/probe")),
}, sys.stdout)
"""

_FORKS = """
import os, sys, time
made = 0
try:
    for _ in range(int(sys.argv[1])):
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
        made += 1
except OSError:
    pass
print(made)
"""

_MEMORY = """
import os, select, sys
each, count = int(sys.argv[1]), int(sys.argv[2])
held, hold = os.pipe(), os.pipe()
for _ in range(count):
    if os.fork() == 0:
        os.close(hold[1])
        block = b"x" * each
        os.write(held[1], b"x")
        os.read(hold[0], 1)
        os._exit(0)
got = 0
while got < count and os.waitpid(-1, os.WNOHANG)[0] == 0:
    if select.select([held[0]], [], [], 0.02)[0]:
        got += len(os.read(held[0], 1))
print(got)
"""

_DETACH = "setsid sh -c 'trap \"\" TERM; while :; do sleep 1; done' & (setsid sleep 60 &) ; sleep 60"


@dataclass
class _Report:
    probes: list[Probe] = field(default_factory=list)

    def add(self, name: str, passed: bool, detail: str) -> None:
        self.probes.append(Probe(name=name, passed=passed, detail=detail))


@dataclass(frozen=True, slots=True)
class _Bait:
    """Things of this machine that a box must not reach, each shown to be reachable from here."""

    canary: Path
    port: int
    abstract: str


async def prove_driver(driver: Driver, folder: Path, clock: Clock, name: Callable[[], str]) -> SandboxProof:
    """Run all probes on one driver. `folder` is an empty directory of the kernel's; `name` makes box names."""
    report = _Report()
    memory_limit = "none"
    try:
        await driver.check()
        workspace = await anyio.to_thread.run_sync(_workspace, folder)
        with _bait(folder) as bait:
            async with _opened(driver, _box(workspace, name(), writable=True), clock) as session:
                await _probe_facts(report, session, bait, workspace)
                await _probe_processes(report, session)
                memory_limit = await _probe_memory(report, session)
            async with _opened(driver, _box(workspace, name(), writable=False), clock) as session:
                await _probe_read_only(report, session)
    except AosError as error:
        return _failed(driver, report, error.message, error.hint)
    except OSError as error:
        return _failed(driver, report, f"the probes could not be prepared: {error}", _REPAIR)
    bad = [probe for probe in report.probes if not probe.passed]
    if bad:
        return _failed(driver, report, f"the probe `{bad[0].name}` failed: {bad[0].detail}", _REPAIR)
    return SandboxProof(driver=driver.name, passed=True, probes=tuple(report.probes), memory_limit=memory_limit)


def _failed(driver: Driver, report: _Report, reason: str, repair: str) -> SandboxProof:
    probes = tuple(report.probes)
    return SandboxProof(
        driver=driver.name, passed=False, probes=probes, memory_limit="none", reason=reason, repair=repair
    )


def _workspace(folder: Path) -> Path:
    workspace = folder / "workspace"
    workspace.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(workspace, box_uid(), -1)
    return workspace


@contextmanager
def _bait(folder: Path) -> Iterator[_Bait]:
    """Lay out the bait and show that it can be taken from out here."""
    canary = folder / "canary"
    canary.write_text(secrets.token_hex(16), "utf-8")
    canary.chmod(0o644)
    abstract = f"aos-probe-{secrets.token_hex(8)}"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind("\0" + abstract)
        unix.listen()
        port = tcp.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect("\0" + abstract)
        yield _Bait(canary, port, abstract)


def _box(workspace: Path, name: str, *, writable: bool) -> Box:
    return Box(
        session="proof",
        workspace=workspace,
        writable=writable,
        memory_bytes=_MEMORY_BYTES,
        pids_max=_PIDS_MAX,
        name=name,
    )


@asynccontextmanager
async def _opened(driver: Driver, box: Box, clock: Clock) -> AsyncIterator[Session]:
    session = await Session.open(driver, box, clock)
    try:
        yield session
    finally:
        await session.destroy()


async def _run(session: Session, argv: Sequence[str], *, timeout_s: float = _COMMAND_S) -> CommandOutcome:
    limits = CommandLimits(timeout_s=timeout_s, memory_bytes=_MEMORY_BYTES, pids_max=_PIDS_MAX, output_bytes_max=65_536)
    level = IsolationLevel.STANDARD if session.box.writable else IsolationLevel.READ_ONLY
    return await session.run(
        Command(session="proof", workspace="proof", argv=tuple(argv), stdin=b"", level=level, limits=limits)
    )


async def _python(session: Session, script: str, *arguments: object) -> CommandOutcome:
    return await _run(session, ("python3", "-I", "-S", "-B", "-c", script, *map(str, arguments)))


async def _probe_facts(report: _Report, session: Session, bait: _Bait, workspace: Path) -> None:
    outcome = await _python(session, _FACTS, bait.canary, bait.port, bait.abstract, os.getpid())
    try:
        facts = json.loads(outcome.stdout)
    except ValueError:
        said = (outcome.stderr or outcome.stdout).decode("utf-8", "replace").strip()[-300:]
        raise Unavailable(f"The probes did not run: exit {outcome.exit_code}, {said!r}.", _REPAIR) from None
    status = facts["status"]
    caps = {name: status.get(name, "absent") for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    report.add("no_capabilities", all(set(value) == {"0"} for value in caps.values()), str(caps))
    report.add("unprivileged_user", facts["uid"] != 0, f"user id {facts['uid']}")
    report.add("no_new_privileges", status.get("NoNewPrivs") == "1", f"NoNewPrivs {status.get('NoNewPrivs')}")
    # An engine's own filter lets these two pass: that they are refused shows that ours is on.
    refused = facts["vsock"] == facts["io_uring"] == errno.EPERM and facts["pipe"] == 0
    shown = f"Seccomp {status.get('Seccomp')}, AF_VSOCK errno {facts['vsock']}, io_uring errno {facts['io_uring']}"
    report.add("seccomp_filter", status.get("Seccomp") == "2" and refused, shown)
    report.add("no_nested_namespaces", facts["unshare"] != 0, f"unshare: errno {facts['unshare']}")
    closed = all(facts[door] != 0 for door in ("tcp", "abstract", "public"))
    report.add("no_network", closed and facts["interfaces"] == ["lo"], f"interfaces {facts['interfaces']}")
    report.add("no_host_files", all(facts["canary"]), f"errno by path, /proc and link: {facts['canary']}")
    only_ours = facts["self"] in facts["pids"] and len(facts["pids"]) <= _SUPERVISOR_AND_SELF
    report.add("no_host_processes", only_ours and facts["signal"] != 0, f"process ids {facts['pids']}")
    expected = sorted(box_environment(network=False))
    clean = facts["env"] == expected and facts["supervisor"] != 0 and facts["own_environ"] == 0
    report.add("clean_environment", clean, f"variables {facts['env']}, supervisor errno {facts['supervisor']}")
    report.add("system_read_only", facts["usr"] != 0 and facts["tmp"] == 0, f"/usr errno {facts['usr']}")
    arrived = await anyio.to_thread.run_sync(_arrived, workspace / "probe")
    report.add("workspace_writable", facts["workspace"] == 0 and arrived, f"errno {facts['workspace']}")


def _arrived(path: Path) -> bool:
    try:
        return path.read_text("utf-8") == "probe" and path.stat().st_uid == box_uid()
    except OSError:
        return False


async def _probe_processes(report: _Report, session: Session) -> None:
    outcome = await _python(session, _FORKS, _PIDS_MAX * 2)
    text = outcome.stdout.strip()
    made = int(text) if text.isdigit() else 0
    report.add(
        "process_limit", 4 <= made <= _PIDS_MAX, f"{made} processes of {_PIDS_MAX} allowed, {_PIDS_MAX * 2} tried"
    )
    outcome = await _run(session, ("sh", "-c", _DETACH), timeout_s=_TIMEOUT_S)
    listed = await _run(session, ("sh", "-c", "echo /proc/[0-9]*"))
    left = listed.stdout.decode("ascii", "replace").split()
    alone = "/proc/1" in left and len(left) <= _SUPERVISOR_AND_SELF
    report.add("timeout_kills_all", outcome.timed_out and alone, f"timed out: {outcome.timed_out}, left: {left}")


async def _probe_memory(report: _Report, session: Session) -> str:
    """Find what the memory limit really holds, with an allocation that fits as the control."""
    small = await _python(session, _MEMORY, 8 * 2**20, 1)
    big = await _python(session, _MEMORY, _MEMORY_BYTES * 2, 1)
    several = await _python(session, _MEMORY, _MEMORY_BYTES // 2, 4)
    holds = small.stdout.strip() == b"1" and big.stdout.strip() != b"1"
    proven = "none" if not holds else "per_process" if several.stdout.strip() == b"4" else "total"
    report.add("memory_limit", proven == session.driver.memory_limit, f"proven: {proven}")
    return proven


async def _probe_read_only(report: _Report, session: Session) -> None:
    outcome = await _run(session, ("sh", "-c", "cat /workspace/probe && echo x > /workspace/other && echo written"))
    held = outcome.stdout == b"probe" and outcome.exit_code != 0
    report.add("workspace_read_only", held, f"exit {outcome.exit_code}")
