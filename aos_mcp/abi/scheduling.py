"""What the scheduler keeps on record: shares, sizes, picks, and who starts after whom."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from aos_mcp.abi.handle import Pid


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What an owner or a program was served, as virtual time in units; see `kernel.scheduler.Shares`."""

    name: str
    """A program's pid, `owner/` and an owner's name, or `ALL_OWNERS`."""
    served: float
    floor: float = 0.0
    """Where its members begin, when they come or come back."""


ALL_OWNERS = "owners"
OWNER_PREFIX = "owner/"


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeHint:
    """How large the agents of one definition on one model turned out to be. Means that forget slowly."""

    agent: str
    """The definition's name; empty for agents without one."""
    model: str
    turns: float
    """Of a whole life."""
    turn_units: float
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is known of a process's size: what it took so far, what it may still take, what its like took."""

    turns: int
    input_tokens: int
    output_tokens: int
    turns_left: int | None
    """Of its own budget; None is no limit."""
    tokens_left: int | None
    usual_turns: float | None
    usual_turn_units: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """One decision of the scheduler: whose turn began, since when it had waited, and why it was chosen."""

    pid: Pid
    since: float
    at: float
    why: str


class Missed(StrEnum):
    """What becomes of runs whose time came while no kernel was there."""

    SKIP = "skip"
    ONCE = "once"
    """One run makes up for all of them."""
    ALL = "all"
    """Each is made up for, one after the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A spawn that repeats, under an account of its own that all its runs are charged to."""

    schedule_id: str
    """Also the name of its account."""
    owner: str
    name: str
    form: str
    """`cron …`, `every …` or `at …`; see `kernel.timetable`."""
    zone: str
    """The time zone of the form, by its name in the tz database."""
    spawn: str
    """The arguments of `spawn_agent`, as JSON."""
    missed: Missed
    paused: bool = False
    next_at: float | None
    """None: its last run has been."""
    last_at: float | None = None
    last_pid: Pid | None = None
    last_outcome: str = ""
    """Of the last time it was due: started, skipped or refused, and why."""
    runs: int = 0
    created_at: float
