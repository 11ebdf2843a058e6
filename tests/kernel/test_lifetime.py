"""How long a provider's cache is believed to hold a prompt: a guess at first, then what its bills show."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from aos_mcp.abi.budget import Usage
from aos_mcp.kernel.lifetime import LIFETIME_S_MAX, PROMISED_S, believed, moved
from aos_mcp.testing.clock import FakeClock
from aos_mcp.testing.devices import RecordingMounts, a_tool
from aos_mcp.testing.kernels import kernel_on
from aos_mcp.testing.model import ScriptedModel, ScriptedModels, calls, says
from tests.kernel.stage import DEADLINE_S, NAME, ended

HOUR = 3_600.0


def test_a_hit_after_a_long_pause_is_believed_at_once_and_a_miss_step_by_step() -> None:
    assert moved(300.0, HOUR, 0.98) == HOUR
    assert moved(300.0, 10 * LIFETIME_S_MAX, 1.0) == LIFETIME_S_MAX
    once = moved(1_800.0, 200.0, 0.0)
    assert 200.0 < once < 1_800.0
    assert 200.0 < moved(once, 200.0, 0.0) < once


@pytest.mark.parametrize(("pause_s", "hit"), [(5.0, 0.0), (1_000.0, 1.0), (5.0, 1.0), (2_000.0, 0.0)])
def test_what_agrees_with_the_belief_or_says_nothing_of_time_does_not_move_it(pause_s: float, hit: float) -> None:
    assert moved(1_800.0, pause_s, hit) == 1_800.0


@pytest.mark.parametrize(
    ("pause_s", "cached", "expected"),
    [(HOUR, 9_900, HOUR), (HOUR, 0, PROMISED_S), (450.0, 0, 900.0), (450.0, 9_900, PROMISED_S), (1.0, 0, PROMISED_S)],
)
async def test_what_is_billed_after_a_pause_moves_the_belief_and_outlives_the_kernel(
    tmp_path: Path, pause_s: float, cached: int, expected: float
) -> None:
    clock = FakeClock()

    def wait(_: object) -> str:
        clock.advance(pause_s)
        return "waited"

    usage = Usage(input_tokens=10_000 - cached, cached_tokens=cached, output_tokens=10, microusd=200)
    model = ScriptedModel(NAME, (calls(("lib__wait", {}), key="a"), says("done")), usage=usage)
    models, mounts = ScriptedModels(model), RecordingMounts({a_tool("lib__wait", read_only=True): wait})
    async with kernel_on(tmp_path, models, mounts=mounts, clock=clock) as k:
        with anyio.fail_after(DEADLINE_S):
            done = await ended(k, (await k.call("spawn_agent", task="wait", budget={"wall_s": 10 * HOUR})).pid)
    assert done.exit_code == "done"
    async with kernel_on(tmp_path, models) as k:
        info = await model.describe()
        assert await k.machine.store.read(lambda tx: believed(tx, info)) == pytest.approx(expected, abs=1)
