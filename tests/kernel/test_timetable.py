"""When a schedule is due, and what becomes of missed runs: pure, against times worked out by hand."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aos_mcp.abi.errors import Invalid
from aos_mcp.abi.scheduling import Missed, Schedule
from aos_mcp.kernel.timetable import LATE_S, due, first_at, following


def moment(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


NOON = moment("2026-11-26T12:00")


def a_schedule(form: str = "every 1h", *, next_at: float | None = NOON, missed: Missed = Missed.ONCE) -> Schedule:
    return Schedule(
        schedule_id="sc_x",
        owner="o",
        name="x",
        form=form,
        zone="UTC",
        spawn="{}",
        missed=missed,
        next_at=next_at,
        created_at=0.0,
    )


@pytest.mark.parametrize(
    ("form", "zone", "first"),
    [
        ("cron 0 9 * * *", "UTC", "2026-11-27T09:00"),
        ("cron 0 9 * * *", "Europe/Berlin", "2026-11-27T08:00"),
        ("cron 30 12 * * 4", "UTC", "2026-11-26T12:30"),
        ("every 15m", "UTC", "2026-11-26T12:15"),
        ("every 2d", "UTC", "2026-11-28T12:00"),
        ("every 3650d", "UTC", "2036-11-23T12:00"),
        ("at 2026-12-01T09:00", "America/New_York", "2026-12-01T14:00"),
        ("at 2026-12-01T09:00+00:00", "America/New_York", "2026-12-01T09:00"),
    ],
)
def test_each_form_says_when_it_comes_first(form: str, zone: str, first: str) -> None:
    assert first_at(form, zone, NOON) == moment(first)


def test_a_cron_form_goes_by_its_own_zone_through_the_change_of_the_hour() -> None:
    """02:30 does not exist on that night in Berlin; it runs when the clock has jumped."""
    night = moment("2027-03-27T12:00")
    run = following("cron 30 2 * * *", "Europe/Berlin", night, anchor=0)
    assert run == moment("2027-03-28T01:00")
    assert run is not None
    assert following("cron 30 2 * * *", "Europe/Berlin", run, anchor=0) == moment("2027-03-29T00:30")


@pytest.mark.parametrize(
    ("form", "zone"),
    [
        ("cron 0 9 * *", "UTC"),
        ("cron 0 25 * * *", "UTC"),
        ("cron 0 0 31 2 *", "UTC"),
        ("cron * * * * * *", "UTC"),
        ("every 5s", "UTC"),
        ("every 0m", "UTC"),
        ("every year", "UTC"),
        ("every 3651d", "UTC"),
        ("every 99999999999999d", "UTC"),
        ("at noon", "UTC"),
        ("at 2020-01-01T00:00", "UTC"),
        ("tomorrow", "UTC"),
        ("every 1h", "Mars/Olympus"),
        ("every 1h", "../etc/passwd"),
    ],
)
def test_what_cannot_be_read_or_never_comes_is_refused_with_a_hint(form: str, zone: str) -> None:
    with pytest.raises(Invalid) as refused:
        first_at(form, zone, NOON)
    assert refused.value.hint


def test_nothing_is_due_before_its_time_or_while_it_rests_or_after_its_last() -> None:
    assert due(a_schedule(), NOON - 1, former_runs=False) is None
    assert due(a_schedule(next_at=None), NOON, former_runs=False) is None
    paused = Schedule(**{**{n: getattr(a_schedule(), n) for n in Schedule.__dataclass_fields__}, "paused": True})
    assert due(paused, NOON, former_runs=False) is None


@pytest.mark.parametrize("missed", Missed)
def test_on_time_every_policy_runs_once_and_goes_on(missed: Missed) -> None:
    decision = due(a_schedule(missed=missed), NOON + 5, former_runs=False)
    assert decision is not None
    assert (decision.run, decision.next_at) == (True, NOON + 3_600)


def test_after_five_missed_runs_one_makes_up_for_all_of_them() -> None:
    decision = due(a_schedule(), NOON + 5 * 3_600 + 100, former_runs=False)
    assert decision is not None
    assert (decision.run, decision.next_at) == (True, NOON + 6 * 3_600)


def test_missed_runs_are_skipped_where_that_is_asked_for() -> None:
    late = a_schedule(missed=Missed.SKIP)
    decision = due(late, NOON + 5 * 3_600 + LATE_S + 1, former_runs=False)
    assert decision is not None
    assert (decision.run, decision.next_at) == (False, NOON + 6 * 3_600)
    assert "not running" in decision.why
    fresh = due(late, NOON + 5 * 3_600 + 1, former_runs=False)
    assert fresh is not None
    assert (fresh.run, fresh.next_at) == (True, NOON + 6 * 3_600), "the last of them is on time"


def test_each_missed_run_is_made_up_for_where_that_is_asked_for() -> None:
    schedule, now, runs = a_schedule(missed=Missed.ALL), NOON + 5 * 3_600 + 100, 0
    while (decision := due(schedule, now, former_runs=False)) is not None:
        assert decision.run
        runs += 1
        schedule = a_schedule(missed=Missed.ALL, next_at=decision.next_at)
    assert runs == 6
    assert schedule.next_at == NOON + 6 * 3_600


def test_while_the_former_run_lasts_none_begins() -> None:
    decision = due(a_schedule(), NOON, former_runs=True)
    assert decision is not None
    assert (decision.run, decision.next_at) == (False, NOON + 3_600)
    assert "former" in decision.why
    assert due(a_schedule(missed=Missed.ALL), NOON, former_runs=True) is None, "it waits for its turn"


def test_a_moment_comes_once() -> None:
    decision = due(a_schedule("at 2026-11-26T12:00"), NOON + 10_000, former_runs=False)
    assert decision is not None
    assert (decision.run, decision.next_at) == (True, None)


@given(
    late_s=st.integers(0, 10**6),
    form=st.sampled_from(["every 10s", "every 7m", "cron */5 * * * *", "cron 0 9 * * 1", "at 2026-11-26T12:00"]),
    missed=st.sampled_from(Missed),
    former=st.booleans(),
)
def test_the_next_run_is_always_later_and_in_time_never_doubled(
    late_s: int, form: str, missed: Missed, former: bool
) -> None:
    decision = due(a_schedule(form, missed=missed), NOON + late_s, former_runs=former)
    if decision is None:
        assert missed is Missed.ALL
        assert former
        return
    assert not (decision.run and former)
    assert decision.next_at is None or decision.next_at > NOON
    if missed is not Missed.ALL and decision.next_at is not None:
        assert decision.next_at > NOON + late_s
