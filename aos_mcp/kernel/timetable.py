"""When a schedule is due, and what becomes of runs that nobody was there for. Pure: time comes in as a number.

Cron forms go by the schedule's own time zone, summer time included: an hour that does not exist is skipped to the next
one that does, an hour that comes twice is run once (the library follows Debian's cron in both).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from aos_mcp.abi.errors import Invalid
from aos_mcp.abi.limits import SCHEDULE_EVERY_S_MIN
from aos_mcp.abi.scheduling import Missed, Schedule

EVERY_S_MAX = 10 * 365 * 86_400
"""Ten years: a longer step is a slip of the hand, and its next time may be none that a calendar has."""
LATE_S = 60.0
"""A run that begins this late is on time still: the kernel was busy, not away."""
UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
EVERY = re.compile(r"every (\d+)([smhd])")
AT = re.compile(r"at (\S+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What to do with a schedule whose time has come. `next_at` None: never again."""

    run: bool
    next_at: float | None
    why: str
    """For its last outcome, where it does not run."""


def zone_of(name: str) -> ZoneInfo:
    """Return a time zone by its name in the tz database.

    Raises:
        Invalid: this machine knows none of that name.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise Invalid(f"There is no time zone {name!r} here.", "Write one like UTC or Europe/Berlin.") from None


def first_at(form: str, zone: str, now: float) -> float:
    """Return when a new schedule runs first, in seconds since the epoch.

    Forms: `cron MINUTE HOUR DAY MONTH WEEKDAY`, `every 15m` (s, m, h, d), `at 2026-12-01T09:00` (in the zone).

    Raises:
        Invalid: the form is none of these, or its moment has passed.
    """
    zone_of(zone)
    at = AT.fullmatch(form)
    if at is not None:
        when = _moment(at[1], zone)
        if when <= now:
            raise Invalid(f"{at[1]} ({zone}) has passed.", "Give a moment to come.")
        return when
    found = following(form, zone, now, anchor=now)
    if found is None:
        raise Invalid(f"{form!r} never comes.", "Check the day and the month.")
    return found


def following(form: str, zone: str, after: float, *, anchor: float) -> float | None:
    """Return the first time later than `after`; None when there is none. `every` counts from `anchor`.

    Raises:
        Invalid: the form cannot be read.
    """
    if AT.fullmatch(form):
        return None
    every = EVERY.fullmatch(form)
    if every is not None:
        step = int(every[1]) * UNITS_S[every[2]]
        if step < SCHEDULE_EVERY_S_MIN:
            raise Invalid(f"Every {step} s is too often.", f"At least {SCHEDULE_EVERY_S_MIN:g} s lie between two runs.")
        if step > EVERY_S_MAX:
            raise Invalid(f"Every {every[1]}{every[2]} is too seldom.", "At most ten years lie between two runs.")
        return anchor + step * max(1, ceil((after - anchor) / step + 1e-9))
    name, _, fields = form.partition(" ")
    if name != "cron":
        raise Invalid(
            f"{form!r} is no form of a schedule.", "Write: cron 0 9 * * 1-5, every 15m, or at 2026-12-01T09:00."
        )
    try:
        if len(fields.split()) != 5:
            raise CronSimError("five fields")
        found = next(CronSim(fields, datetime.fromtimestamp(after, UTC).astimezone(zone_of(zone))), None)
    except CronSimError as error:
        raise Invalid(
            f"{fields!r} is no cron form: {error}.", "Five fields: minute, hour, day, month, weekday."
        ) from None
    return found.timestamp() if found is not None else None


def due(schedule: Schedule, now: float, *, former_runs: bool) -> Due | None:
    """Decide about a schedule at `now`; None: nothing to do yet.

    While the former run has not ended, none begins. With `missed=all` the occurrence waits for its turn then; else it
    is skipped. An occurrence is missed when it is more than `LATE_S` late, or when a later one has come too.
    """
    if schedule.paused or schedule.next_at is None or schedule.next_at > now:
        return None
    after_this = following(schedule.form, schedule.zone, schedule.next_at, anchor=schedule.next_at)
    if schedule.missed is Missed.ALL:
        return None if former_runs else Due(run=True, next_at=after_this, why="")
    latest = _latest(schedule, after_this, now)
    after_now = after_this
    if after_this is not None and after_this <= now:
        after_now = following(schedule.form, schedule.zone, now, anchor=schedule.next_at)
    if former_runs:
        return Due(run=False, next_at=after_now, why="skipped: the former run had not ended")
    if schedule.missed is Missed.SKIP and now - latest > LATE_S:
        return Due(run=False, next_at=after_now, why="skipped: the kernel was not running then")
    return Due(run=True, next_at=after_now, why="")


def _latest(schedule: Schedule, after_this: float | None, now: float) -> float:
    """Return the last time that has come, where it matters: among those that are not late yet."""
    assert schedule.next_at is not None
    recent = after_this
    if after_this is not None and after_this <= now:
        recent = following(schedule.form, schedule.zone, max(schedule.next_at, now - LATE_S), anchor=schedule.next_at)
    return recent if recent is not None and recent <= now else schedule.next_at


def _moment(text: str, zone: str) -> float:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise Invalid(f"{text!r} is no moment.", "Write it like 2026-12-01T09:00.") from None
    return (when if when.tzinfo is not None else when.replace(tzinfo=zone_of(zone))).timestamp()
