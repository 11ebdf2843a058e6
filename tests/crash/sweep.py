"""Kills kernels at counted moments and checks what their stores come back to.

Usage: sweep.py ROOT all NAME [NAME …]         every moment of these scenarios
       sweep.py ROOT sample COUNT SEED [NAME …]  a seeded sample over all of them
       sweep.py ROOT at NAME:MOMENT[:MOMENT]      one death again, and a second one in the life after it

Every life is a forked process: imports are paid for once, and a death takes nothing along but itself and its children.
Orphans of the dead are handed to this program, which waits for all of them.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import json
import os
import random
import shutil
import signal
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import anyio

from aos_mcp.hardware import SystemClock
from aos_mcp.storage.sqlite import open_sqlite
from aos_mcp.testing.faults import Death
from tests.crash.invariants import broken, outcome
from tests.crash.life import Scenario, live, written
from tests.crash.scenarios import SCENARIOS

PR_SET_CHILD_SUBREAPER = 36
ORPHANS_S = 15
TWICE = 3
"""One death in so many is followed by another, in the life that comes after it."""
SECOND_MOMENTS = 120

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


class Point(NamedTuple):
    """A scenario, the moment it dies at, and the moment at which the next life dies too (0: it does not)."""

    scenario: str
    moment: int
    second: int = 0

    def __str__(self) -> str:
        return f"{self.scenario}:{self.moment}" + (f":{self.second}" if self.second else "")


def in_a_process_of_its_own(life: Callable[..., Awaitable[None]], *args: object) -> int:
    """Return the exit code, or minus the number of the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        code = 0
        try:
            anyio.run(functools.partial(life, *args))
        except BaseException:  # noqa: BLE001 - the life is over either way; its last words are for the log
            traceback.print_exc()
            code = 1
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def orphans_gone() -> bool:
    """Wait for what the dead kernel left; return whether all of it ended by itself."""

    def late(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, late)
    signal.alarm(ORPHANS_S)
    try:
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        return True
    except TimeoutError:
        return False
    finally:
        signal.alarm(0)


async def counted(scenario: Scenario, home: Path) -> None:
    death = Death()
    await live(scenario, home, death)
    async with open_sqlite(home / "kernel.db", SystemClock()) as store:
        undisturbed = await store.read(outcome)
        wrong = await store.read(lambda tx: broken(tx, scenario, home, undisturbed, 0))
    assert not wrong, wrong
    (home / "undisturbed").write_text(written(undisturbed), "utf-8")
    (home / "moments").write_text(json.dumps(death.moments), "utf-8")


async def checked(scenario: Scenario, home: Path, undisturbed: dict[str, Any], deaths: int) -> None:
    await live(scenario, home, Death())
    async with open_sqlite(home / "kernel.db", SystemClock()) as store:
        wrong = await store.read(lambda tx: broken(tx, scenario, home, undisturbed, deaths))
    if wrong:
        (home / "wrong").write_text("\n".join(wrong), "utf-8")


class Sweep:
    """Homes of lives below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.template = root / "template.db"
        self.moments: dict[str, list[str]] = {}
        self.undisturbed: dict[str, dict[str, Any]] = {}
        self._warm_up()

    def _warm_up(self) -> None:
        """Make the template, and run one life here: what is loaded late is then there for every fork.

        No thread of it may be left when the first life is forked.
        """
        anyio.run(self._make_template)
        anyio.run(live, BY_NAME["turn"], self.home(BY_NAME["turn"], "warm"), Death())
        for thread in threading.enumerate():
            if thread is not threading.current_thread():
                thread.join(ORPHANS_S)
        assert threading.active_count() == 1
        gc.collect()
        gc.freeze()

    async def _make_template(self) -> None:
        async with open_sqlite(self.template, SystemClock()):
            pass

    def home(self, scenario: Scenario, name: str) -> Path:
        home = self.root / f"{scenario.name}-{name}"
        home.mkdir()
        if not scenario.from_nothing:
            shutil.copyfile(self.template, home / "kernel.db")
        return home

    def count(self, scenario: Scenario) -> None:
        """Run a scenario undisturbed: what it comes to, and the moments it has."""
        home = self.home(scenario, "undisturbed")
        assert in_a_process_of_its_own(counted, scenario, home) == 0, scenario.name
        assert orphans_gone(), scenario.name
        self.undisturbed[scenario.name] = json.loads((home / "undisturbed").read_text("utf-8"))
        self.moments[scenario.name] = json.loads((home / "moments").read_text("utf-8"))

    def die(self, point: Point) -> str:
        """Die at a point, boot again, and return what does not hold; nothing, when all does."""
        scenario = BY_NAME[point.scenario]
        home = self.home(scenario, f"{point.moment}-{point.second}")
        deaths = 0
        for at in (point.moment, point.second):
            if not at:
                continue
            ended = in_a_process_of_its_own(live, scenario, home, Death(at))
            deaths += ended == -signal.SIGKILL
            if ended not in {-signal.SIGKILL, 0}:
                return f"the life ended with {ended}"
            if not orphans_gone():
                return "a process outlived its kernel"
        if in_a_process_of_its_own(checked, scenario, home, self.undisturbed[point.scenario], deaths):
            return "the life after did not come to its end"
        if not orphans_gone():
            return "a process outlived the last kernel"
        if (home / "wrong").exists():
            return (home / "wrong").read_text("utf-8")
        shutil.rmtree(home)
        return ""


def all_points(sweep: Sweep, names: Sequence[str]) -> list[Point]:
    return [Point(name, moment) for name in names for moment in range(1, len(sweep.moments[name]) + 1)]


def main(root: Path, how: str, what: list[str]) -> int:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    sweep = Sweep(root)
    if how == "at":
        parts = [text.split(":") for text in what]
        points = [Point(part[0], *map(int, part[1:])) for part in parts]
        names = sorted({point.scenario for point in points})
    else:
        names = what[2:] if how == "sample" else what
    for name in names or list(BY_NAME):
        sweep.count(BY_NAME[name])
    if how == "all":
        points = all_points(sweep, names)
    elif how == "sample":
        chance = random.Random(int(what[1]))
        points = chance.sample(all_points(sweep, names or list(BY_NAME)), int(what[0]))
        points[::TWICE] = [point._replace(second=chance.randrange(1, SECOND_MOMENTS)) for point in points[::TWICE]]
    failed = 0
    for point in points:
        wrong = sweep.die(point)
        if wrong:
            failed += 1
            what_was_next = sweep.moments[point.scenario][point.moment - 1 :][:1]
            print(f"{point} ({', '.join(what_was_next)}): {wrong}", file=sys.stderr, flush=True)
    spread = Counter(point.scenario for point in points)
    print(json.dumps({"points": len(set(points)), "failed": failed, "scenarios": spread}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
