"""`aos bench journal`: what the record of a run costs in bytes and time, and how fast the audit log seals and verifies.

Times are processor time, of all threads: what others do on the machine is not in them.

The peer is LangGraph's default checkpointer, in an interpreter of its own that the user names (`--peer-python`): 200
steps of 5 KB through a graph with one state list, on the same disk, in the same run.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import anyio

from aos_mcp.abi.audit import AuditEntry
from aos_mcp.abi.journal import EffectClass, StepState
from aos_mcp.abi.process import Process
from aos_mcp.audit.chain import link
from aos_mcp.audit.merkle import root_of
from aos_mcp.audit.verify import verify
from aos_mcp.bench.figures import Figure
from aos_mcp.hardware import SystemClock
from aos_mcp.kernel import journal
from aos_mcp.kernel.sealer import seal_all
from aos_mcp.ports import Store, Transaction
from aos_mcp.storage.sqlite import open_sqlite
from aos_mcp.testing.kernels import TestKernel, kernel_on
from aos_mcp.testing.model import ScriptedModel, ScriptedModels, says
from aos_mcp.testing.store_samples import a_process

AT = 1_700_000_000.0
STEPS = 200
STEP_BYTES = 5_000
CHEAP_STEPS = 2_000
GROUP = 50
RECORDS = 20_000
ROUNDS = 5
PEER_S = 300.0
PEER_NAME = "LangGraph with SqliteSaver"

PEER = """
import operator, os, sys
from typing import Annotated, TypedDict
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph

steps, size, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]

class State(TypedDict):
    notes: Annotated[list[str], operator.add]

def step(state):
    return {"notes": [os.urandom(size // 2).hex()]}

graph = StateGraph(State)
graph.add_node("step", step)
graph.add_edge(START, "step")
graph.add_conditional_edges("step", lambda state: END if len(state["notes"]) >= steps else "step", ["step", END])
with SqliteSaver.from_conn_string(path) as saver:
    app = graph.compile(checkpointer=saver)
    app.invoke({"notes": []}, {"configurable": {"thread_id": "one"}, "recursion_limit": steps + 10})
"""


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


async def _growth(folder: Path) -> float:
    """Return the bytes a store grew by, for each byte of payload: random, so that nothing packs it."""
    path = folder / "kernel.db"
    async with open_sqlite(path, SystemClock()) as store:
        await store.write(lambda tx: tx.process_insert(a_process("p_1")))
    before = _size(folder)
    async with open_sqlite(path, SystemClock()) as store:
        for _ in range(STEPS):
            body = os.urandom(STEP_BYTES)
            await store.write(_step(body))
    return (_size(folder) - before) / (STEPS * STEP_BYTES)


def _step(body: bytes) -> Callable[[Transaction], None]:
    def work(tx: Transaction) -> None:
        step = journal.begin(tx, _process(tx), call="call_tool", effect=EffectClass.IDEMPOTENT, intent=b"{}", now=AT)
        journal.finish(tx, step, state=StepState.DONE, result=body, now=AT)

    return work


def _process(tx: Transaction) -> Process:
    found = tx.process_get(a_process("p_1").pid)
    assert found is not None
    return found


def _has_peer(python: str) -> bool:
    probe = "import langgraph.graph, langgraph.checkpoint.sqlite"
    return bool(python) and not subprocess.run([python, "-c", probe], capture_output=True, check=False).returncode


def _peer_growth(python: str, folder: Path) -> float:
    program = [python, "-c", PEER, str(STEPS), str(STEP_BYTES), str(folder / "peer.db")]
    subprocess.run(program, check=True, timeout=PEER_S, env={"PATH": os.environ["PATH"]})
    return _size(folder) / (STEPS * STEP_BYTES)


async def _step_ms(store: Store) -> float:
    """Return what intent and result of one step cost, in a unit of work of its own, without flush."""
    await store.write(lambda tx: tx.process_insert(a_process("p_1")))

    async def some(count: int) -> None:
        for number in range(count):
            await store.write(_step(b"result %d" % number))

    await some(GROUP)
    times = []
    for _ in range(ROUNDS):
        started = time.process_time()
        async with anyio.create_task_group() as group:
            for _ in range(GROUP):
                group.start_soon(some, CHEAP_STEPS // ROUNDS // GROUP)
        times.append((time.process_time() - started) / (CHEAP_STEPS // ROUNDS))
    return statistics.median(times) * 1_000


def _entry(number: int) -> AuditEntry:
    return AuditEntry(
        at=1_700_000_000.0 + number,
        category="execute",
        actor="p_agentagentagentagentagent",
        pid="p_agentagentagentagentagent",
        call="sandbox_exec",
        outcome="ok",
        subject="",
        detail=json.dumps({"command": f"make target-{number}", "timeout_s": 60}) + " " * 120,
    )


async def _sealed_per_s(k: TestKernel) -> float:
    rates = []
    for _ in range(ROUNDS):

        def stage(tx: Transaction) -> None:
            for number in range(RECORDS // ROUNDS):
                tx.audit_stage(_entry(number))

        await k.machine.store.write(stage)
        started = time.process_time()
        sealed = await seal_all(k.machine, keep=False)
        rates.append(sealed / (time.process_time() - started))
    return statistics.median(rates)


def _verified_per_s() -> float:
    """Return how many records are checked against the chain and against the tree of a head, each second."""
    records = link(None, [_entry(number) for number in range(RECORDS)])
    root = root_of([bytes.fromhex(record.digest) for record in records]).hex()
    rates = []
    for _ in range(ROUNDS):
        started = time.process_time()
        assert verify(records, anchors={RECORDS: root}).ok
        rates.append(RECORDS / (time.process_time() - started))
    return max(rates)


async def _times(folder: Path) -> tuple[float, float]:
    (folder / "steps").mkdir()
    async with open_sqlite(folder / "steps" / "kernel.db", SystemClock()) as store:
        step_ms = await _step_ms(store)
    models = ScriptedModels(ScriptedModel("scripted/none", (says("nothing"),)))
    async with kernel_on(folder, models) as k:
        return step_ms, await _sealed_per_s(k)


def run(peer_python: str = "") -> list[Figure]:
    """Measure."""
    peer = None
    with tempfile.TemporaryDirectory(prefix="aos-bench-") as folder:
        growth = anyio.run(_growth, Path(folder))
    if _has_peer(peer_python):
        with tempfile.TemporaryDirectory(prefix="aos-bench-") as folder:
            peer = _peer_growth(peer_python, Path(folder))
    with tempfile.TemporaryDirectory(prefix="aos-bench-") as folder:
        step_ms, sealed = anyio.run(_times, Path(folder))
    size = f"{STEPS} steps of {STEP_BYTES:,} bytes"
    named = PEER_NAME if peer is not None else None
    return [
        Figure(
            name=f"journal growth for {size}", value=growth, unit="x payload", target="<= 1.5",
            baseline=named, baseline_value=peer,
        ),
        Figure(name=f"journal, one step without flush, {GROUP} agents", value=step_ms, unit="ms", target="<= 0.3 ms"),
        Figure(name="audit records sealed, in groups", value=sealed, unit="1/s", target=">= 5000/s"),
        Figure(name="audit records verified", value=_verified_per_s(), unit="1/s", target=">= 200000/s"),
    ]  # fmt: skip
