"""What the kernel asks of the store about the queue; part of `ports.Transaction`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from aos_mcp.abi.handle import Pid
from aos_mcp.abi.process import Candidate, Process
from aos_mcp.abi.scheduling import Pick, Schedule, Share, SizeHint, Work


class QueueTransaction(Protocol):
    """The verbs of a transaction that are about who runs when."""

    def process_ready(self, now: float, *, among: Sequence[Pid] | None = None, limit: int) -> list[Candidate]:
        """Return what the scheduler needs of READY rows whose `wake_at` is None or past, the longest ready first.

        `among` narrows to these.
        """
        ...

    def process_work(self, pids: Sequence[Pid]) -> Mapping[Pid, Work]:
        """Return what is known of the size of those that have an account."""
        ...

    def process_note(self, pid: Pid, *, wasted_tokens: int = 0, preempted: int = 0) -> None:
        """Count tokens that came to nothing, and preemptions, without a new version; nothing for an unknown pid."""
        ...

    def share_list(self, names: Sequence[str]) -> Mapping[str, Share]:
        """Return those that exist."""
        ...

    def share_put(self, share: Share) -> None:
        """Add a share, or raise one: what is served and where a floor is never falls."""
        ...

    def share_charge(self, pid: Pid, served: float) -> None:
        """Add to what a process's program and owner were served, where they have a share."""
        ...

    def hint_get(self, agent: str, model: str) -> SizeHint | None:
        """Return what is known of the size of such agents."""
        ...

    def hint_put(self, hint: SizeHint) -> None:
        """Add or replace a hint."""
        ...

    def pick_insert(self, pick: Pick) -> None:
        """Put a decision on record."""
        ...

    def pick_list(self, pids: Sequence[Pid], *, limit: int) -> list[Pick]:
        """Return the newest decisions about these processes (none: about all), oldest first."""
        ...

    def pick_prune(self, keep: int) -> int:
        """Drop all but the newest `keep` decisions; return how many."""
        ...

    def dependency_insert(self, pid: Pid, target: Pid) -> None:
        """Note that `pid` starts after `target` has ended."""
        ...

    def dependency_targets(self, pid: Pid) -> list[Process]:
        """Return those that `pid` starts after, in the order in which they were noted."""
        ...

    def dependency_of(self, target: Pid) -> list[Pid]:
        """Return those that start after `target`."""
        ...

    def dependency_take(self, pid: Pid) -> None:
        """Forget what `pid` starts after: it has its results."""
        ...

    def dependency_waiting(self) -> list[tuple[Pid, int, Pid]]:
        """Return pid, priority and target of every BLOCKED process that has yet to start."""
        ...

    def schedule_insert(self, schedule: Schedule) -> None:
        """Add a schedule. Raises Conflict for a known id or a known (owner, name)."""
        ...

    def schedule_put(self, schedule: Schedule) -> None:
        """Replace the row; owner, name and birth stay."""
        ...

    def schedule_find(self, owner: str, handle: str) -> Schedule | None:
        """Return the owner's schedule with this id or name."""
        ...

    def schedule_list(self, owner: str | None = None) -> list[Schedule]:
        """Return an owner's schedules, or all, oldest first."""
        ...

    def schedule_drop(self, schedule_id: str) -> None:
        """Forget a schedule; its account stays."""
        ...
