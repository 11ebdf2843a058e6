"""One scenario over a whole kernel, run in a process of its own that may die at any commit; and what must hold after.

Usage: scenario.py ROOT count            print how many points there are
       scenario.py ROOT POINT [POINT …]  for each: live until that point and die, boot again, assert the invariants

Every life is a forked process: imports are paid for once, and a death takes nothing along but itself.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import anyio

from aos_mcp.abi.audit import AuditRecord
from aos_mcp.abi.budget import WORKSPACE_ACCOUNT
from aos_mcp.abi.completion import Prompt, Reply
from aos_mcp.abi.journal import StepState
from aos_mcp.abi.process import ProcessState
from aos_mcp.abi.sandbox import Command, CommandOutcome
from aos_mcp.abi.settings import Rule, Settings
from aos_mcp.audit.verify import verify
from aos_mcp.hardware import SystemClock
from aos_mcp.ports import Store, Transaction
from aos_mcp.storage.sqlite import open_sqlite
from aos_mcp.testing.devices import RecordingMounts, RecordingSandbox, a_tool
from aos_mcp.testing.faults import MortalStore
from aos_mcp.testing.kernels import kernel_on
from aos_mcp.testing.model import ScriptedModel, ScriptedModels, calls, says

SETTINGS = Settings(rules=[Rule(effect="allow", tool="shop__*")])
KEY = "the-one"
EFFECTS = ("sandbox:make", "shop__order:1", "shop__order:2", "sandbox:child")


class LedgerSandbox(RecordingSandbox):
    """Notes each command in a file outside the kernel: what really happened."""

    ledger: Path

    async def execute(self, command: Command) -> CommandOutcome:
        note(self.ledger, f"sandbox:{command.argv[-1]}")
        return await super().execute(command)


def note(ledger: Path, line: str) -> None:
    with ledger.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def pid_of_child(prompt: Prompt) -> Reply:
    text = next(t.text for t in prompt.turns if t.role == "tool" and '"pid": "p_' in t.text or '"pid":"p_' in t.text)
    start = text.index("p_")
    return calls(("wait_agent", {"pids": [text[start : start + 28]], "timeout_s": 20}), key="d")


def machine_parts(home: Path) -> tuple[ScriptedModels, LedgerSandbox, RecordingMounts]:
    ledger = home / "ledger"
    parent = ScriptedModel(
        "scripted/parent",
        (
            calls(
                ("sandbox_exec", {"command": "make"}),
                ("page_out", {"content": "a finding", "title": "finding"}),
                ("shop__order", {"n": 1}),
                key="a",
            ),
            calls(("spawn_agent", {"task": "child", "model": "scripted/child"}), ("shop__order", {"n": 2}), key="b"),
            pid_of_child,
            calls(("send_message", {"to": "host", "text": "nearly there"}), key="e"),
            calls(("exit", {"result": "all done"}), key="f"),
        ),
    )
    child = ScriptedModel(
        "scripted/child", (calls(("sandbox_exec", {"command": "child"}), key="c"), says("child done"))
    )
    sandbox = LedgerSandbox()
    sandbox.ledger = ledger

    def order(arguments: Mapping[str, object]) -> str:
        note(ledger, f"shop__order:{arguments['n']}")
        return "ordered"

    return ScriptedModels(parent, child), sandbox, RecordingMounts({a_tool("shop__order"): order})


async def live(home: Path, store: Store | None) -> None:
    models, sandbox, mounts = machine_parts(home)
    async with kernel_on(home, models, settings=SETTINGS, sandbox=sandbox, mounts=mounts, store=store) as k:
        spawned = await k.call("spawn_agent", task="parent", idempotency_key=KEY)
        with anyio.fail_after(30):
            while not (await k.call("wait_agent", pids=[spawned.pid], timeout_s=10)).agents[0].exit_code:
                continue


async def run(home: Path, point: int) -> None:
    async with open_sqlite(home / "kernel.db", SystemClock()) as inner:
        store = MortalStore(inner, die_at=point or None)
        await live(home, store)
        (home / "points").write_text(str(store.points), encoding="utf-8")


async def check(home: Path) -> None:
    await live(home, None)
    async with open_sqlite(home / "kernel.db", SystemClock()) as store:
        await store.read(lambda tx: invariants(tx, home))


def invariants(tx: Transaction, home: Path) -> None:
    ledger = home / "ledger"
    done = Counter(ledger.read_text("utf-8").split() if ledger.exists() else [])
    assert all(count == 1 for count in done.values()), f"an unsafe effect happened twice: {done}"
    rows = tx.process_list(limit=100)
    assert {row.state for row in rows} == {ProcessState.EXITED}, [row.state for row in rows]
    assert sorted(row.name for row in rows) == ["child", "parent"], [row.name for row in rows]
    unknown = 0
    for row in rows:
        assert row.exit_code == "done", row.exit_reason
        steps = tx.step_list(row.pid, limit=1_000)
        assert [step.number for step in steps] == list(range(len(steps))), "the journal has a gap"
        assert not any(step.state is StepState.INTENT for step in steps), "a step was left open"
        unknown += sum(step.state is StepState.UNKNOWN for step in steps)
        account = tx.account_get(row.pid)
        assert account is not None
        assert (account.reserved_microusd, account.reserved_tokens) == (0, 0)
    missing = [effect for effect in EFFECTS if effect not in done]
    assert len(missing) <= unknown, f"lost without a word: {missing}"
    assert set(done) <= set(EFFECTS)
    top = next(row for row in rows if row.name == "parent")
    body = tx.payload_get(top.result) if top.result else None
    assert body == b"all done"
    conserved(tx, top.pid)
    audited(tx)


def conserved(tx: Transaction, pid: str) -> None:
    whole, workspace = tx.account_get(pid), tx.account_get(WORKSPACE_ACCOUNT)
    assert whole is not None
    assert workspace is not None
    assert whole.used == workspace.used, "a charge was not made to every ancestor"
    assert (workspace.reserved_microusd, workspace.reserved_tokens) == (0, 0)


def audited(tx: Transaction) -> None:
    records: list[AuditRecord] = tx.audit_list(after=0, limit=10_000)
    assert not tx.audit_staged(limit=1)
    assert verify(records).ok
    ends = {record.entry.subject for record in records if record.entry.call == "spawn_agent"}
    assert len(ends) >= 2


def in_a_process_of_its_own(life: Callable[..., Awaitable[None]], *args: object) -> int:
    """Return the exit code, or minus the number of the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        code = 0
        try:
            anyio.run(life, *args)
        except BaseException:  # noqa: BLE001 - the life is over either way; its last words are for the log
            traceback.print_exc()
            code = 1
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(root: Path, what: list[str]) -> int:
    if what == ["count"]:
        home = root / "count"
        home.mkdir()
        code = in_a_process_of_its_own(run, home, 0)
        print((home / "points").read_text("utf-8"))
        return code
    failed = 0
    for point in map(int, what):
        home = root / f"point-{point}"
        home.mkdir()
        died = in_a_process_of_its_own(run, home, point)
        assert died in {-signal.SIGKILL, 0}, f"point {point}: {died}"
        if in_a_process_of_its_own(check, home):
            print(f"point {point}: the invariants do not hold, see {home}", file=sys.stderr)
            failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
