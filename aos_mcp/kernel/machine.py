"""The machine the kernel runs on: its devices, its clock, and what is true only while this kernel lives.

Nothing here survives a crash, and nothing needs to: the store is the truth.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakValueDictionary

import anyio

from aos_mcp.abi.audit import AuditEntry, AuditHead
from aos_mcp.abi.definition import AgentDefinition
from aos_mcp.abi.event import Event, EventKind
from aos_mcp.abi.handle import Pid
from aos_mcp.abi.process import Process, ProcessState, SchedClass
from aos_mcp.abi.sandbox import SandboxProof
from aos_mcp.abi.settings import Settings
from aos_mcp.kernel.admission import Admission
from aos_mcp.kernel.bus import Bus
from aos_mcp.kernel.contexts import Contexts
from aos_mcp.kernel.margin import Margins
from aos_mcp.kernel.scheduler import Wait
from aos_mcp.metrics.registry import Metrics
from aos_mcp.ports import Clock, Embedder, Entropy, Models, Mounts, Sandbox, Store, StoreFile, Workspaces

TURN = "turn"
"""Detail of the change that a settled model call makes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """What the sealer signs with, and where heads are kept beside the store."""

    key: bytes
    """Ed25519, 32 raw bytes."""
    origin: str
    """Names this log in signed heads."""
    heads: Path
    """Append-only file of signed heads, outside the store."""


@dataclass(slots=True, kw_only=True)
class Machine:
    """Devices and the run-time state of one kernel."""

    settings: Settings
    version: str
    node: str
    store: Store
    models: Models
    sandbox: Sandbox
    workspaces: Workspaces
    mounts: Mounts
    clock: Clock
    entropy: Entropy
    seal: Seal
    definitions: Callable[[str], Mapping[str, AgentDefinition]]
    """Agent definitions by name, for a host that works in the given folder."""
    redact: Callable[[str], str]
    metrics: Metrics
    admission: Admission
    started_at: float
    store_file: StoreFile | None = None
    """The store's file, where there is one that is this kernel's to keep."""
    embedder: Embedder | None = None
    """Gives pages and queries their vectors; without one, search goes by words."""
    contexts: Contexts = field(default_factory=Contexts)
    """Page tables of the processes that ran last."""
    bus: Bus = field(default_factory=Bus)
    running: dict[Pid, anyio.CancelScope] = field(default_factory=dict)
    """Turns under way; a kill cancels the scope."""
    blocked: Counter[Pid] = field(default_factory=Counter)
    """Of those, the ones that wait and so take no place in the run."""
    outside: Counter[Pid] = field(default_factory=Counter)
    """Of those, the ones inside an act on the world, which has a deadline of its own: silence there is no hang."""
    heading: dict[Pid, str] = field(default_factory=dict)
    """Of those, the ones that have yet to come to their provider's lane, with the provider."""
    alive: dict[Pid, float] = field(default_factory=dict)
    """Monotonic time of each running process's last sign of life."""
    guests: dict[Pid, set[anyio.CancelScope]] = field(default_factory=dict)
    """Calls that programs outside the kernel have under way."""
    quiesced: Counter[Pid] = field(default_factory=Counter)
    """Processes not to be picked just now: a checkpoint wants them at a turn boundary."""
    unsaved: dict[Pid, int] = field(default_factory=dict)
    """Of processes that ran a command since their files were last saved by themselves: how many turns ago."""
    quarantined: set[str] = field(default_factory=set)
    """Downstream tools whose definition changed since it was pinned."""
    saving: Counter[Pid] = field(default_factory=Counter)
    """Processes whose files are being saved: what is stored of them is named by nothing until the checkpoint is."""
    observed: deque[AuditEntry] = field(default_factory=deque)
    """What devices report outside of any call; the sealer puts it on the audit log."""
    anchor: AuditHead | None = None
    """The newest signed head, for those who are answered: whoever keeps one can tell that the log was changed."""
    head_kept: int = 0
    """Number of the last record whose head was kept beside the store."""
    head_kept_at: float = 0.0
    """When that was looked at last, in monotonic seconds."""
    sandbox_failures: tuple[SandboxProof, ...] = ()
    """What the drivers that did not pass said about themselves."""
    sandbox_wanted: anyio.Event = field(default_factory=anyio.Event)
    """Set by the first command that needs a sandbox: the proof need not wait for a quiet moment then."""
    sandbox_tried: anyio.Event = field(default_factory=anyio.Event)
    """Set once the sandbox drivers were put to the proof."""
    margins: Margins = field(default_factory=Margins)
    """How much is reserved for a prompt beyond our own count of it, by model."""
    reserved: WeakValueDictionary[str, object] = field(default_factory=WeakValueDictionary)
    """The model calls that there are, by the reservation each answers for."""
    policy: str = "default"
    """The scheduler's; the configured one, or what it was switched to since."""
    waits: dict[Pid, Wait] = field(default_factory=dict)
    """Processes that wait for others, which are lent their class."""
    levels: dict[Pid, SchedClass] = field(default_factory=dict)
    """The class in which each turn under way was picked: its own, or one it was lent."""
    expected: dict[Pid, tuple[str, Pid, float]] = field(default_factory=dict)
    """Owner, program and expected units of each turn under way, until its call is settled."""
    served: set[tuple[str, Pid]] = field(default_factory=set)
    """Owners and programs that were charged since the loop last looked."""
    moved: set[Pid] = field(default_factory=set)
    """Processes that changed since the loop last looked."""
    rescan: bool = True
    """The next look is at the whole queue."""
    timetable: anyio.Event = field(default_factory=anyio.Event)
    """Set when a schedule may have changed, or a run ended."""
    upcoming: float = math.inf
    """When the next schedule is due (seconds since the epoch)."""
    ready: anyio.Event = field(default_factory=anyio.Event)
    """What the loop waits for; set when a process may have become ready."""
    backlog: int = 0
    """How many processes were ready and found no room, at the last look."""
    alarm: float = math.inf
    """When the next process that backs off becomes ready (seconds since the epoch), as far as this kernel knows."""
    stopping: bool = False

    def wake(self, pid: Pid | None = None) -> None:
        """Have the loop look at one process, or at the whole queue."""
        if pid is None:
            self.rescan = True
        else:
            self.moved.add(pid)
        self.ready.set()

    def ready_again(self) -> None:
        """Have the loop look at the queue it knows: there is a place for somebody, though nobody moved."""
        if self.backlog:
            self.ready.set()

    def cut(self, pid: Pid) -> None:
        """End what a process does just now: its turn, or a guest's calls."""
        scope = self.running.get(pid)
        for each in (*self.guests.get(pid, ()), *([scope] if scope is not None else ())):
            each.cancel()

    def process_changed(self, process: Process, detail: str = "") -> None:
        """Publish that a process moved, and have the loop look at the queue."""
        self.wake(process.pid)
        if detail == TURN:
            self.expected.pop(process.pid, None)
            self.served.add((process.owner, process.program))
        if process.state is ProcessState.EXITED:
            self.rescan = True  # others may start after it
            self.timetable.set()
        uris = ("aos://proc", f"aos://proc/{process.pid}")
        event = Event(
            kind=EventKind.PROCESS, subject=process.pid, owner=process.owner, detail=detail or process.state, uris=uris
        )
        self.bus.publish(event)

    @contextmanager
    def acting(self, pid: Pid | None) -> Iterator[None]:
        """Keep the watchdog from a process that is inside an act with a deadline of its own."""
        if pid is None:
            yield
            return
        try:
            with _counted(self.outside, pid):
                yield
        finally:
            self.sign_of_life(pid)

    def keeping(self, pid: Pid) -> AbstractContextManager[None]:
        """Keep payloads that are named by nothing yet from being collected."""
        return _counted(self.saving, pid)

    @contextmanager
    def quiescing(self, pid: Pid) -> Iterator[None]:
        """Keep a process from being picked."""
        try:
            with _counted(self.quiesced, pid):
                yield
        finally:
            self.wake()

    def sign_of_life(self, pid: Pid) -> None:
        """Note that a running process does something."""
        if pid in self.running:
            self.alive[pid] = self.clock.monotonic()


@contextmanager
def _counted(counter: Counter[Pid], pid: Pid) -> Iterator[None]:
    counter[pid] += 1
    try:
        yield
    finally:
        counter[pid] -= 1
        if not counter[pid]:
            del counter[pid]
