"""A random walk over one store: callers who do anything, kernels that die at any moment, and what must hold throughout.

Usage: walk.py ROOT SEED LIVES

What is chosen follows from the seed: the calls of the host (spawns, signals, checkpoints, forks, mail, answers), what
agents do, their budgets, and the moment each life ends at. How tasks interleave is the machine's. After every death the
log is verified and no effect has happened twice; at the end all agents are ended, and money, journals and log agree.
"""

from __future__ import annotations

import ctypes
import random
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import anyio

from aos_mcp.abi.completion import Prompt, Reply
from aos_mcp.abi.errors import AosError
from aos_mcp.abi.settings import Rule, Settings
from aos_mcp.hardware import SystemClock
from aos_mcp.ports import Transaction
from aos_mcp.storage.sqlite import open_sqlite
from aos_mcp.testing.faults import Death
from aos_mcp.testing.kernels import TestKernel
from aos_mcp.testing.model import ScriptedModel, ScriptedModels, calls, says
from tests.crash.invariants import EVERY, evidence, lives, money
from tests.crash.life import Scenario, ledger_of, live
from tests.crash.scenarios import PERSON
from tests.crash.sweep import PR_SET_CHILD_SUBREAPER, in_a_process_of_its_own, orphans_gone

TURNS = 8
CALLS_PER_LIFE = 14
LIFE_MOMENTS = 2_500
RULES = [Rule(effect="ask", tool="shop__order", args={"n": "*7"}), Rule(effect="allow", tool="*")]


def turn(seed: int, prompt: Prompt) -> Reply:
    """Choose what an agent does in a turn, by its task and the number of the turn."""
    task = next(t.text for t in prompt.turns if t.role == "user")
    chance = random.Random(f"{seed} {task} {prompt.turn}")
    number = chance.randrange(10**9)
    requests: list[tuple[str, Mapping[str, object]]] = [
        ("shop__order", {"n": number}),
        ("shop__look", {"n": number % 50}),
        ("page_out", {"content": f"note {number}"}),
        ("sandbox_exec", {"command": f"make-{number}"}),
        ("send_message", {"to": "host", "text": f"word {number}"}),
        ("search_pages", {"query": "note"}),
        ("spawn_agent", {"task": f"{task}.{number}", "budget": {"turns": chance.randrange(1, 5)}}),
    ]
    if prompt.turn >= TURNS or chance.random() < 0.15:
        return says(f"done {number}")
    return calls(*chance.sample(requests, chance.randrange(1, 4)), key=f"k{prompt.turn}-")


async def host(k: TestKernel, chance: random.Random, life: int) -> None:
    for number in range(CALLS_PER_LIFE):
        with suppress(AosError):  # whatever is refused is refused in words; what must hold is looked at later
            await one_call(k, chance, f"{life}-{number}")


async def one_call(k: TestKernel, chance: random.Random, name: str) -> None:
    agents = sorted((await k.call("list_agents", limit=200)).agents, key=lambda row: row.pid)
    pid = chance.choice(agents).pid if agents else "p_none"
    match chance.randrange(8):
        case 0 | 1 | 2:
            budget = {"turns": chance.randrange(1, 12), "tool_calls": chance.randrange(1, 20)}
            await k.call("spawn_agent", task=f"walk {name}", budget=budget, idempotency_key=name)
        case 3:
            await k.call("signal_agent", pid=pid, signal=chance.choice(["stop", "cont", "cont", "term", "kill"]))
        case 4:
            saved = await k.call("checkpoint", pid=pid)
            await k.call("restore", checkpoint_id=saved.checkpoint_id, name=f"fork {name}")
        case 5:
            await k.call("send_message", to=pid, text=f"mail {name}")
        case 6:
            for row in (await k.call("list_approvals")).approvals:
                decision = chance.choice(["allow", "deny"])
                await k.call("answer_approval", PERSON, approval_id=row.approval_id, decision=decision)
        case _:
            await k.call("wait_agent", pids=[pid], timeout_s=0.2)


async def the_end(k: TestKernel) -> None:
    """End whatever still lives."""
    while live_ones := [row for row in (await k.call("list_agents", limit=200)).agents if row.exit_code is None]:
        for row in live_ones:
            with suppress(AosError):
                await k.call("signal_agent", pid=row.pid, signal="kill")
        with anyio.move_on_after(1):
            await k.call("wait_agent", pids=[row.pid for row in live_ones][:20], timeout_s=1)


def broken(tx: Transaction, home: Path, *, ended: bool) -> list[str]:
    rows = tx.process_list(limit=EVERY)
    steps = {row.pid: tx.step_list(row.pid, limit=EVERY) for row in rows}
    forked = any(row.forked_from for row in rows)
    twice = [line for line, count in Counter(ledger_of(home)).items() if count > 1 and not forked]
    found = [f"{line} happened more than once" for line in twice]
    if ended:
        found += [*lives(rows, steps), *money(tx, rows, steps, deaths=EVERY)]
        found += evidence(tx, rows, steps, home)
    else:
        found += [line for line in evidence(tx, rows, {pid: [] for pid in steps}, home) if "chain" in line]
    return found


async def look(home: Path, ended: bool) -> None:
    async with open_sqlite(home / "kernel.db", SystemClock()) as store:
        wrong = await store.read(lambda tx: broken(tx, home, ended=ended))
    assert not wrong, "\n".join(wrong)


def main(home: Path, seed: int, count: int) -> int:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    chance = random.Random(seed)

    def models() -> ScriptedModels:
        return ScriptedModels(ScriptedModel("scripted/any", tuple([lambda p: turn(seed, p)] * 99)))

    base = Scenario("walk", models, the_end, settings=Settings(rules=RULES))
    for life in range(count):
        driven = random.Random(chance.randrange(2**32))
        at = chance.randrange(20, LIFE_MOMENTS)
        scenario = replace(base, drive=lambda k, c=driven, n=life: host(k, c, n))  # type: ignore[misc]
        ended = in_a_process_of_its_own(live, scenario, home, Death(at))
        if ended not in {0, -9} or not orphans_gone() or in_a_process_of_its_own(look, home, False):
            print(f"life {life} of seed {seed}, ended with {ended} at moment {at}: see {home}", file=sys.stderr)
            return 1
    if in_a_process_of_its_own(live, base, home, Death()) or in_a_process_of_its_own(look, home, True):
        print(f"the end of seed {seed}: see {home}", file=sys.stderr)
        return 1
    print(f"seed {seed}: {count} lives")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
