# ruff: noqa: D102 - what each verb must hold is said once, at the same name in `ports.queue`.
"""The verbs about the queue, over the statements of `queue.sql`: a part of what `storage.store` is made of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from aos_mcp.abi.errors import NotFound
from aos_mcp.abi.handle import Pid
from aos_mcp.abi.process import Candidate, Process
from aos_mcp.abi.scheduling import Missed, Pick, Schedule, Share, SizeHint, Work
from aos_mcp.storage import rows
from aos_mcp.storage.connection import Connection, Row


class QueueTransaction:
    """The part of a transaction that is about who runs when."""

    _at: Connection

    def process_ready(self, now: float, *, among: Sequence[Pid] | None = None, limit: int) -> list[Candidate]:
        values: rows.Values = {"now": now, "limit": limit}
        if among is None:
            found = self._at.all("process_ready", values)
        else:
            found = self._at.all("process_ready_among", {**values, "pids": json.dumps(list(among))})
        return [_candidate_from(row) for row in found]

    def process_work(self, pids: Sequence[Pid]) -> Mapping[Pid, Work]:
        found = self._at.all("process_work", {"pids": json.dumps(list(pids))})
        return {row["account"]: _work_from(row) for row in found}

    def process_note(self, pid: Pid, *, wasted_tokens: int = 0, preempted: int = 0) -> None:
        values: rows.Values = {"pid": pid, "wasted_tokens": wasted_tokens, "preempted": preempted}
        self._at.execute("process_note", values)

    def share_list(self, names: Sequence[str]) -> Mapping[str, Share]:
        found = self._at.all("share_list", {"names": json.dumps(list(names))})
        return {row["name"]: Share(name=row["name"], served=row["served"], floor=row["floor"]) for row in found}

    def share_put(self, share: Share) -> None:
        self._at.execute("share_put", {"name": share.name, "served": share.served, "floor": share.floor})

    def share_charge(self, pid: Pid, served: float) -> None:
        self._at.execute("share_charge", {"pid": pid, "served": served})

    def hint_get(self, agent: str, model: str) -> SizeHint | None:
        row = self._at.one("hint_get", {"agent": agent, "model": model})
        if row is None:
            return None
        return SizeHint(
            agent=row["agent"],
            model=row["model"],
            turns=row["turns"],
            turn_units=row["turn_units"],
            runs=row["runs"],
        )

    def hint_put(self, hint: SizeHint) -> None:
        values: rows.Values = {
            "agent": hint.agent,
            "model": hint.model,
            "turns": hint.turns,
            "turn_units": hint.turn_units,
            "runs": hint.runs,
        }
        self._at.execute("hint_put", values)

    def pick_insert(self, pick: Pick) -> None:
        self._at.execute("pick_insert", {"pid": pick.pid, "since": pick.since, "at": pick.at, "why": pick.why})

    def pick_list(self, pids: Sequence[Pid], *, limit: int) -> list[Pick]:
        wanted = json.dumps(list(pids)) if pids else None
        found = self._at.all("pick_list", {"pids": wanted, "limit": limit})
        return [Pick(pid=row["pid"], since=row["since"], at=row["at"], why=row["why"]) for row in reversed(found)]

    def pick_prune(self, keep: int) -> int:
        return self._at.execute("pick_prune", {"keep": keep})

    def dependency_insert(self, pid: Pid, target: Pid) -> None:
        self._at.execute("dependency_insert", {"pid": pid, "target": target})

    def dependency_targets(self, pid: Pid) -> list[Process]:
        return [rows.process_from(row) for row in self._at.all("dependency_targets", {"pid": pid})]

    def dependency_of(self, target: Pid) -> list[Pid]:
        return [row["pid"] for row in self._at.all("dependency_of", {"target": target})]

    def dependency_take(self, pid: Pid) -> None:
        self._at.execute("dependency_take", {"pid": pid})

    def dependency_waiting(self) -> list[tuple[Pid, int, Pid]]:
        return [(row["pid"], row["priority"], row["target"]) for row in self._at.all("dependency_waiting", {})]

    def schedule_insert(self, schedule: Schedule) -> None:
        self._at.execute("schedule_insert", _schedule_values(schedule))

    def schedule_put(self, schedule: Schedule) -> None:
        if not self._at.execute("schedule_put", _schedule_values(schedule)):
            raise NotFound(f"There is no schedule {schedule.name}.", "List them with: aos schedule list.")

    def schedule_find(self, owner: str, handle: str) -> Schedule | None:
        row = self._at.one("schedule_find", {"owner": owner, "handle": handle})
        return _schedule_from(row) if row else None

    def schedule_list(self, owner: str | None = None) -> list[Schedule]:
        return [_schedule_from(row) for row in self._at.all("schedule_list", {"owner": owner})]

    def schedule_drop(self, schedule_id: str) -> None:
        self._at.execute("schedule_drop", {"schedule_id": schedule_id})


def _candidate_from(row: Row) -> Candidate:
    return Candidate(
        pid=row["pid"],
        program=row["program"],
        owner=row["owner"],
        priority=row["priority"],
        ready_at=row["ready_at"],
        created_at=row["created_at"],
        model=row["model"],
        chained=bool(row["chained"]),
    )


def _work_from(row: Row) -> Work:
    return Work(
        turns=row["turns"],
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        turns_left=row["turns_left"],
        tokens_left=row["tokens_left"],
        usual_turns=row["usual_turns"],
        usual_turn_units=row["usual_turn_units"],
    )


def _schedule_values(schedule: Schedule) -> rows.Values:
    return {
        "schedule_id": schedule.schedule_id,
        "owner": schedule.owner,
        "name": schedule.name,
        "form": schedule.form,
        "zone": schedule.zone,
        "spawn": schedule.spawn,
        "missed": schedule.missed.value,
        "paused": schedule.paused,
        "next_at": schedule.next_at,
        "last_at": schedule.last_at,
        "last_pid": schedule.last_pid,
        "last_outcome": schedule.last_outcome,
        "runs": schedule.runs,
        "created_at": schedule.created_at,
    }


def _schedule_from(row: Row) -> Schedule:
    return Schedule(
        schedule_id=row["schedule_id"],
        owner=row["owner"],
        name=row["name"],
        form=row["form"],
        zone=row["zone"],
        spawn=row["spawn"],
        missed=Missed(row["missed"]),
        paused=bool(row["paused"]),
        next_at=row["next_at"],
        last_at=row["last_at"],
        last_pid=row["last_pid"],
        last_outcome=row["last_outcome"],
        runs=row["runs"],
        created_at=row["created_at"],
    )
