"""The process: an agent as the kernel sees it. State moves only by `kernel.table.transition`, along `MOVES`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from types import MappingProxyType

from aos_mcp.abi.capability import Rights
from aos_mcp.abi.handle import Digest, Pid


class ProcessState(StrEnum):
    """Where a process stands."""

    READY = "ready"
    RUNNING = "running"
    BLOCKED = "blocked"
    """Waits for a child, a message, an approval or a timer; holds no model slot."""
    STOPPED = "stopped"
    EXITED = "exited"
    """Ended. The row stays, so that its result can be collected."""


MOVES: Mapping[ProcessState, frozenset[ProcessState]] = MappingProxyType(
    {
        ProcessState.READY: frozenset({ProcessState.RUNNING, ProcessState.STOPPED, ProcessState.EXITED}),
        ProcessState.RUNNING: frozenset(
            {
                ProcessState.READY,
                ProcessState.BLOCKED,
                ProcessState.STOPPED,
                ProcessState.EXITED,
            }
        ),
        ProcessState.BLOCKED: frozenset(
            {
                ProcessState.READY,
                ProcessState.RUNNING,
                ProcessState.STOPPED,
                ProcessState.EXITED,
            }
        ),
        # Only a guest goes on BLOCKED: it is never scheduled.
        ProcessState.STOPPED: frozenset({ProcessState.READY, ProcessState.BLOCKED, ProcessState.EXITED}),
        ProcessState.EXITED: frozenset(),
    }
)
"""The legal moves. The SQL schema holds the same set of states in a CHECK."""


class Signal(StrEnum):
    """What may be sent to a process from outside."""

    STOP = "stop"
    CONT = "cont"
    TERM = "term"
    """Graceful: the agent gets one turn to finish up, then ends."""
    KILL = "kill"


class SchedClass(IntEnum):
    """What a process is to the scheduler; a lower one goes first."""

    INTERACTIVE = 0
    """Somebody waits for it."""
    NORMAL = 1
    BATCH = 2
    """Nobody waits for it."""


INTERACTIVE_BELOW = 30
BATCH_FROM = 70


def sched_class(priority: int) -> SchedClass:
    """Return the class of a priority (0 first … 100): interactive below 30, batch from 70, normal between."""
    if priority < INTERACTIVE_BELOW:
        return SchedClass.INTERACTIVE
    return SchedClass.NORMAL if priority < BATCH_FROM else SchedClass.BATCH


class ExitCode(StrEnum):
    """How a process ended."""

    DONE = "done"
    FAILED = "failed"
    TERMINATED = "terminated"
    KILLED = "killed"
    BUDGET = "budget_exhausted"
    HUNG = "hung"


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One row of the process table.

    `version` rises at every write and is what compare-and-set checks; `fence` rises at every claim by a kernel, and a
    journal write with an older fence is refused. Times are seconds since the epoch, by the store's clock.
    """

    pid: Pid
    parent: Pid | None
    program: Pid
    """The root of its tree: a tree counts as one program to the scheduler."""
    owner: str
    """The principal whose process this is."""
    name: str
    agent: str | None
    """Name of the agent definition it was spawned from."""
    state: ProcessState
    model: str
    """`provider/model`, resolved at spawn; empty when no model was configured then."""
    fallbacks: tuple[str, ...] = ()
    """The models of its chain that come after `model`, in order."""
    priority: int
    depth: int
    rights: Rights
    workspace: str
    step: int = 0
    """Number of the next journal step."""
    position: int = 0
    """Position of the next page in its context."""
    waiting_for: str | None = None
    pending: Signal | None = None
    """STOP or TERM that was asked for and is taken at the next turn boundary."""
    finishing: bool = False
    """TERM has been taken: the present turn is the last."""
    faults: int = 0
    """Model calls that failed in a row; a success sets it to 0."""
    wake_at: float | None = None
    """Not to be picked before this time (back-off after a fault)."""
    exit_code: ExitCode | None = None
    exit_reason: str | None = None
    result: Digest | None = None
    fence: int = 0
    version: int = 0
    lease_holder: str | None = None
    lease_until: float | None = None
    idempotency_key: str | None = None
    forked_from: str | None = None
    """The checkpoint it was restored from."""
    guest: bool = False
    """A program outside the kernel (see `abi.guest`): BLOCKED while it lives, never READY."""
    created_at: float
    updated_at: float
    ended_at: float | None = None
    since: float | None = None
    """When it came into its present state; None: when it was made."""
    ready_at: float | None = None
    """Since when it is in the queue, also while it tries a turn again; None: since it was made."""
    waiting_s: float = 0.0
    """In the queue, back-off not counted; this and the next two up to the last change of state."""
    running_s: float = 0.0
    blocked_s: float = 0.0
    preempted: int = 0
    """Calls that were cut for others, and went on later. This and the next are counted by `process_note` alone."""
    wasted_tokens: int = 0
    """Of calls that came to nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A ready process as a policy sees it. Units of service are fresh input tokens + 2 x output tokens."""

    pid: Pid
    program: Pid
    owner: str
    priority: int
    ready_at: float
    """Since when it is in the queue; a turn that is tried again keeps the stamp of its first try."""
    created_at: float
    model: str = ""
    """Whose provider must have a place for it; empty where that does not matter."""
    chained: bool = False
    """It has another model to go on with."""
    lent: SchedClass | None = None
    """A class better than its own, of one that waits for it."""
    turn_units: float = 0.0
    """What its next turn is expected to take."""
    units_left: float = 0.0
    """What it is expected to take until it ends: learned, and no more than its budget still allows."""

    @property
    def sched_class(self) -> SchedClass:
        """Its own class, or a better one that it was lent."""
        own = sched_class(self.priority)
        return own if self.lent is None else min(own, self.lent)
