"""What kernels are killed in the middle of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import anyio

from aos_mcp.abi.capability import CallerKind
from aos_mcp.abi.completion import Prompt, Reply
from aos_mcp.abi.errors import Conflict
from aos_mcp.abi.settings import ContextSettings, Rule, Settings
from aos_mcp.testing.kernels import HOST, TestKernel
from aos_mcp.testing.model import Answer, ScriptedModel, ScriptedModels, calls, says
from tests.crash.life import ALLOWED, Scenario
from tests.kernel.stage import handle_in, results_of

PARENT, CHILD = "scripted/parent", "scripted/child"
KEY = "the-one"
PERSON = replace(HOST, kind=CallerKind.OPERATOR)


def playing(*script: Answer, child: Sequence[Answer] = (), **changes: Any) -> Callable[[], ScriptedModels]:
    return lambda: ScriptedModels(ScriptedModel(PARENT, script, **changes), ScriptedModel(CHILD, tuple(child)))


async def spawned(k: TestKernel, **more: object) -> str:
    """Have the one agent, whether this life makes it or an earlier one did."""
    return str((await k.call("spawn_agent", task="parent", name="parent", idempotency_key=KEY, **more)).pid)


async def finished(k: TestKernel, pid: str) -> None:
    while not (await k.call("wait_agent", pids=[pid], timeout_s=30)).agents[0].exit_code:
        continue


async def run_to_the_end(k: TestKernel) -> None:
    await finished(k, await spawned(k))


async def run_on_little(k: TestKernel) -> None:
    await finished(k, await spawned(k, budget={"turns": 2}))


def wait_for_the_child(prompt: Prompt) -> Reply:
    return calls(("wait_agent", {"pids": [handle_in(spawn_result(prompt), "p_")], "timeout_s": 20}), key="w")


def spawn_result(prompt: Prompt) -> str:
    return next(text for text in results_of(prompt) if '"pid"' in text)


def read_the_page(prompt: Prompt) -> Reply:
    text = next(text for text in results_of(prompt) if '"page_id"' in text)
    return calls(("page_in", {"page_id": handle_in(text, "pg_")}), key="p")


async def saved(k: TestKernel) -> tuple[str, str]:
    """Let an agent run to its end and have it on record, once, however often this is begun."""
    pid = await spawned(k)
    await finished(k, pid)
    known = (await k.call("read_process", pid=pid)).checkpoints
    name = known[0] if known else (await k.call("checkpoint", pid=pid, label="end")).checkpoint_id
    return pid, name


async def save(k: TestKernel) -> None:
    await saved(k)


async def save_and_go_on(k: TestKernel) -> None:
    """Begin another agent at the moment that was saved, once."""
    _, name = await saved(k)
    again = next((row for row in (await k.call("list_agents")).agents if row.name == "again"), None)
    await finished(k, (again or await k.call("restore", checkpoint_id=name, name="again")).pid)


async def answer_what_is_asked(k: TestKernel) -> None:
    pid = await spawned(k)
    with k.kernel.listen() as events:
        while not (await k.call("wait_agent", pids=[pid], timeout_s=0)).agents[0].exit_code:
            for row in (await k.call("list_approvals")).approvals:
                if row.step is not None:
                    continue  # whether it has happened: to allow that would be to have it done again
                with suppress(Conflict):  # answered in the life before
                    await k.call("answer_approval", PERSON, approval_id=row.approval_id, decision="allow")
            with anyio.move_on_after(0.5):
                await events.receive()


READING = tuple(calls(("shop__look", {"n": n}), text=f"step {n}", key=f"r{n}-") for n in range(12))

SCRIBE = "other/scribe"
SUMMING_UP = ALLOWED.model_copy(
    update={"context": ContextSettings(summary_model=SCRIBE, high_water=0.22, low_water=0.02)}
)


def summing_up() -> ScriptedModels:
    script = (*READING, calls(("shop__order", {"n": 1}), key="o"), says("all done"))
    return ScriptedModels(
        ScriptedModel(PARENT, script, context_tokens=9_000),
        ScriptedModel(SCRIBE, (says("items were looked at"),) * len(script)),
    )


SCENARIOS = (
    Scenario(
        "spawn",
        playing(
            calls(("spawn_agent", {"task": "child", "name": "child", "model": CHILD}), key="a"),
            wait_for_the_child,
            calls(("exit", {"result": "all done"}), key="f"),
            child=(says("child done"),),
        ),
        run_to_the_end,
        from_nothing=True,
    ),
    Scenario(
        "turn",
        playing(
            calls(
                ("sandbox_exec", {"command": "make"}),
                ("page_out", {"content": "a finding", "title": "finding"}),
                ("shop__order", {"n": 1}),
                key="a",
            ),
            says("all done"),
        ),
        run_to_the_end,
        effects=("sandbox:make", "shop__order:1"),
    ),
    Scenario(
        "compaction",
        playing(*READING, calls(("shop__order", {"n": 1}), key="o"), says("all done"), context_tokens=9_000),
        run_to_the_end,
        effects=("shop__order:1",),
    ),
    Scenario(
        "summary",
        summing_up,
        run_to_the_end,
        effects=("shop__order:1",),
        settings=SUMMING_UP,
    ),
    Scenario(
        "checkpoint",
        playing(
            calls(("page_out", {"content": "a finding"}), ("sandbox_exec", {"command": "make"}), key="a"),
            read_the_page,
            says("all done"),
        ),
        save,
        effects=("sandbox:make",),
    ),
    Scenario(
        "restore",
        playing(
            calls(("page_out", {"content": "a finding"}), ("sandbox_exec", {"command": "make"}), key="a"),
            says("all done"),
            calls(("sandbox_exec", {"command": "make more"}), key="c"),
            says("all done again"),
        ),
        save_and_go_on,
        effects=("sandbox:make", "sandbox:make more"),
    ),
    Scenario(
        "approval",
        playing(calls(("shop__order", {"n": 1}), key="a"), calls(("shop__order", {"n": 2}), key="b"), says("all done")),
        answer_what_is_asked,
        effects=("shop__order:1", "shop__order:2"),
        settings=Settings(rules=[Rule(effect="ask", tool="shop__*")]),
    ),
    Scenario(
        "message",
        playing(
            calls(("spawn_agent", {"task": "child", "name": "child", "model": CHILD}), key="a"),
            lambda p: calls(("send_message", {"to": handle_in(spawn_result(p), "p_"), "text": "go on"}), key="s"),
            wait_for_the_child,
            calls(("send_message", {"to": "host", "text": "nearly there"}), key="h"),
            says("all done"),
            child=(
                calls(("wait_agent", {"pids": [], "timeout_s": 5}), key="c"),
                calls(("send_message", {"to": "parent", "text": "going"}), key="m"),
                says("child done"),
            ),
        ),
        run_to_the_end,
    ),
    Scenario(
        "budget",
        playing(
            calls(("shop__order", {"n": 1}), key="a"),
            calls(("shop__order", {"n": 2}), key="b"),
            calls(("shop__order", {"n": 3}), key="c"),
            says("all done"),
        ),
        run_on_little,
        effects=("shop__order:1", "shop__order:2"),
        may_end_early=True,
    ),
    Scenario(
        "family",
        playing(
            calls(("sandbox_exec", {"command": "make"}), ("shop__order", {"n": 1}), key="a"),
            calls(
                ("spawn_agent", {"task": "child", "name": "child", "model": CHILD}), ("shop__order", {"n": 2}), key="b"
            ),
            wait_for_the_child,
            calls(("exit", {"result": "all done"}), key="f"),
            child=(calls(("sandbox_exec", {"command": "child"}), key="c"), says("child done")),
        ),
        run_to_the_end,
        effects=("sandbox:make", "shop__order:1", "shop__order:2", "sandbox:child"),
    ),
    Scenario(
        "downstream",
        playing(calls(("shop__order", {"n": 1}), ("shop__order", {"n": 2}), key="a"), says("all done")),
        run_to_the_end,
        effects=("shop__order:1", "shop__order:2"),
        mounts="stdio",
    ),
    Scenario(
        "sandbox",
        playing(
            calls(("sandbox_exec", {"command": "echo once >> ledger"}), key="a"),
            calls(("sandbox_exec", {"command": "echo twice >> ledger"}), key="b"),
            says("all done"),
        ),
        run_to_the_end,
        effects=("once", "twice"),
        settings=ALLOWED,
        sandbox="bwrap",
    ),
)
