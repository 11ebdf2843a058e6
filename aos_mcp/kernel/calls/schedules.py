"""Schedules: add, list, pause, remove, and one run of one."""

from __future__ import annotations

from dataclasses import replace

from aos_mcp.abi import arguments as a
from aos_mcp.abi import results as r
from aos_mcp.abi.budget import WORKSPACE_ACCOUNT, Account, Budget
from aos_mcp.abi.errors import Conflict, Invalid, LimitExceeded, NotFound
from aos_mcp.abi.handle import Pid
from aos_mcp.abi.limits import SCHEDULES_MAX
from aos_mcp.abi.scheduling import Missed, Schedule
from aos_mcp.kernel import budget, schedules, timetable
from aos_mcp.kernel.call import Call
from aos_mcp.kernel.calls import views
from aos_mcp.kernel.calls.process import asked_budget, create, prepare
from aos_mcp.ports import Transaction

STARTED = "started"


async def add_schedule(call: Call, args: a.AddScheduleArgs) -> r.ScheduleRow:
    """Put a spawn on the timetable, under an account of its own. Its models and definition are looked for now too."""
    first = timetable.first_at(args.form, args.zone, call.now)
    if args.spawn.idempotency_key is not None:
        raise Invalid("With an idempotency_key every run would be the same agent.", "Leave it out.")
    definition, _ = await prepare(call, args.spawn)
    limit = Budget(microusd=budget.microusd(args.total_usd), tokens=args.total_tokens)
    _check_fits(asked_budget(args.spawn.budget, definition.budget if definition else None), limit)

    def work(tx: Transaction) -> r.ScheduleRow:
        owner = call.caller.principal
        if len(tx.schedule_list(owner)) >= SCHEDULES_MAX:
            raise LimitExceeded(f"There are {SCHEDULES_MAX} schedules.", "Remove some first.")
        if tx.schedule_find(owner, args.name) is not None:
            raise Conflict(f"There is a schedule {args.name!r} already.", "Remove it first, or take another name.")
        schedule = Schedule(
            schedule_id=call.machine.entropy.handle("sc_"),
            owner=owner,
            name=args.name,
            form=args.form,
            zone=args.zone,
            spawn=args.spawn.model_dump_json(exclude_unset=True),
            missed=Missed(args.missed),
            next_at=first,
            created_at=call.now,
        )
        tx.schedule_insert(schedule)
        tx.account_insert(
            Account(account=schedule.schedule_id, parent=WORKSPACE_ACCOUNT, limit=limit, opened_at=call.now)
        )
        return _changed(tx, call, schedule)

    return await call.commit(work)


async def list_schedules(call: Call, args: a.NoArgs) -> r.SchedulesResult:
    """List the caller's schedules, oldest first."""

    def work(tx: Transaction) -> r.SchedulesResult:
        return r.SchedulesResult(schedules=[_row(tx, row) for row in tx.schedule_list(call.caller.principal)])

    return await call.read(work)


async def pause_schedule(call: Call, args: a.PauseScheduleArgs) -> r.ScheduleRow:
    """Pause a schedule, or have it go on. What came due meanwhile is passed over: it was not wanted then."""

    def work(tx: Transaction) -> r.ScheduleRow:
        schedule = _find(tx, call, args.schedule)
        next_at = schedule.next_at
        if not args.paused and next_at is not None and next_at <= call.now:
            next_at = timetable.following(schedule.form, schedule.zone, call.now, anchor=next_at)
        changed = replace(schedule, paused=args.paused, next_at=next_at)
        tx.schedule_put(changed)
        return _changed(tx, call, changed)

    return await call.commit(work)


async def remove_schedule(call: Call, args: a.ScheduleArgs) -> r.ScheduleRow:
    """Take a schedule off the timetable. A run that has begun goes on, under what was left of its account."""

    def work(tx: Transaction) -> r.ScheduleRow:
        schedule = _find(tx, call, args.schedule)
        tx.schedule_drop(schedule.schedule_id)
        return _changed(tx, call, schedule)

    return await call.commit(work)


async def run_schedule(call: Call, args: a.RunScheduleArgs) -> r.ScheduleRow:
    """Start a run: the one that is due (`due_at`), or one out of turn. Spawn and record are one transaction.

    Raises:
        Conflict: a run out of turn was asked for, and the former one has not ended.
    """
    schedule = await call.read(lambda tx: _find(tx, call, args.schedule))
    spawn = a.SpawnArgs.model_validate_json(schedule.spawn)
    definition, chain = await prepare(call, spawn)

    def work(tx: Transaction) -> r.ScheduleRow:
        now, row = call.now, _find(tx, call, args.schedule)
        next_at = row.next_at
        if args.due_at is None and schedules.former_runs(tx, row):
            raise Conflict(f"The former run of {row.name} has not ended.", f"Wait for {row.last_pid}, or end it.")
        if args.due_at is not None:
            decision = schedules.decide(tx, row, now) if row.next_at == args.due_at else None
            if decision is None:
                return _changed(tx, call, row, wake=False)  # somebody was faster, or it waits for the former run
            next_at = decision.next_at
            if not decision.run:
                skipped = replace(row, next_at=next_at, last_outcome=decision.why)
                tx.schedule_put(skipped)
                return _changed(tx, call, skipped, wake=False)
        begun = create(tx, call, spawn, definition, chain, payer=row.schedule_id)
        ran = replace(
            row, next_at=next_at, last_at=now, last_pid=Pid(begun.pid), last_outcome=STARTED, runs=row.runs + 1
        )
        tx.schedule_put(ran)
        return _changed(tx, call, ran, wake=args.due_at is None)

    return await call.commit(work)


def _check_fits(run: Budget, total: Budget) -> None:
    """Check that there can be a run.

    Raises:
        Invalid: one alone asks for more than all of them together may use.
    """
    for name, asked, most, unit in (
        ("usd", run.microusd, total.microusd, budget.MICRO),
        ("tokens", run.tokens, total.tokens, 1),
    ):
        if asked is not None and most is not None and asked > most:
            raise Invalid(
                f"One run asks for {asked / unit:.12g} {name}, and all runs together may use {most / unit:.12g}.",
                "Give a run less, or raise the total.",
            )


def _find(tx: Transaction, call: Call, handle: str) -> Schedule:
    schedule = tx.schedule_find(call.caller.principal, handle)
    if schedule is None:
        raise NotFound(f"There is no schedule {handle!r}.", "List them with: aos schedule list.")
    return schedule


def _changed(tx: Transaction, call: Call, schedule: Schedule, *, wake: bool = True) -> r.ScheduleRow:
    call.subject = schedule.schedule_id
    if wake:
        call.after.append(lambda: call.machine.timetable.set())
    return _row(tx, schedule)


def _outcome(tx: Transaction, schedule: Schedule) -> str:
    """Say how the last time went: a run that began and has ended, by how it ended."""
    if schedule.last_outcome != STARTED or schedule.last_pid is None:
        return schedule.last_outcome
    process = tx.process_get(schedule.last_pid)
    return process.exit_code if process is not None and process.exit_code is not None else STARTED


def _row(tx: Transaction, schedule: Schedule) -> r.ScheduleRow:
    account = tx.account_get(schedule.schedule_id)
    limit = account.limit if account is not None else Budget()
    spawn = a.SpawnArgs.model_validate_json(schedule.spawn)
    return r.ScheduleRow(
        schedule_id=schedule.schedule_id,
        name=schedule.name,
        form=schedule.form,
        zone=schedule.zone,
        task=spawn.task,
        missed=schedule.missed,
        paused=schedule.paused,
        next_at=schedule.next_at,
        last_at=schedule.last_at,
        last_pid=schedule.last_pid,
        last_outcome=_outcome(tx, schedule),
        runs=schedule.runs,
        usage=views.usage(account.used if account is not None else None),
        total_usd=None if limit.microusd is None else limit.microusd / budget.MICRO,
        total_tokens=limit.tokens,
    )
