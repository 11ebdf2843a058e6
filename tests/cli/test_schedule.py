"""How schedules are shown."""

from __future__ import annotations

from typing import Any

import pytest

from aos_mcp.cli.schedule import _table


def a_row(name: str, next_at: float | None) -> dict[str, Any]:
    plain = {"form": "every 1d", "zone": "UTC", "paused": False, "runs": 0, "usage": {"usd": 0.0}, "last_outcome": ""}
    return {**plain, "name": name, "next_at": next_at}


@pytest.mark.parametrize("far", [8.64e18, 1e300, float("inf")])
def test_a_schedule_whose_time_no_calendar_has_does_not_hide_the_others(far: float) -> None:
    shown = _table({"schedules": [a_row("far", far), a_row("soon", 1_700_000_000.0)]})
    assert "beyond any calendar" in shown
    assert "2023-11-14 22:13:20Z" in shown
