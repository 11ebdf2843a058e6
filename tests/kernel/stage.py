"""What several kernel tests need: scripted models by name, and waiting for a moment without a clock."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import anyio

from aos_mcp.abi.completion import Prompt
from aos_mcp.testing.kernels import TestKernel
from aos_mcp.testing.model import Answer, ScriptedModel, ScriptedModels, calls

NAME, CHILD = "scripted/one", "scripted/child"
DEADLINE_S = 20.0

HANDLE = re.compile(r"\b(?:p|pg|ap|ck|m)_[a-z2-7]{26}\b")


def models(*script: Answer, **changes: Any) -> ScriptedModels:
    """A catalogue with one model that plays `script`."""
    return ScriptedModels(ScriptedModel(NAME, script, **changes))


def handle_in(text: str, prefix: str) -> str:
    """Return the first handle of a kind in a text."""
    return str(next(found for found in HANDLE.findall(text) if found.startswith(prefix)))


def results_of(prompt: Prompt) -> list[str]:
    """Return the tool results a model sees, oldest first."""
    return [turn.text for turn in prompt.turns if turn.role == "tool"]


def family(*child_script: Answer, budget: dict[str, object] | None = None, **changes: Any) -> ScriptedModels:
    """A parent that spawns one child, waits for it and ends with what it saw; the child plays `child_script`."""
    spawn: dict[str, object] = {"task": "the child's task", "model": CHILD}
    if budget is not None:
        spawn["budget"] = budget
    parent = ScriptedModel(
        NAME,
        (
            calls(("spawn_agent", spawn), key="a"),
            lambda p: calls(("wait_agent", {"pids": [handle_in(results_of(p)[-1], "p_")], "timeout_s": 60}), key="b"),
            lambda p: calls(("exit", {"result": results_of(p)[-1]}), key="c"),
        ),
    )
    return ScriptedModels(parent, ScriptedModel(CHILD, child_script, **changes))


async def until(true: Callable[[], bool]) -> None:
    """Return once something has become true; the caller bounds the wait."""
    while not true():
        await anyio.lowlevel.checkpoint()


async def the_question(k: TestKernel) -> Any:
    """Return the first open question, once there is one."""
    with k.kernel.listen() as events:
        while True:
            waiting = (await k.call("list_approvals")).approvals
            if waiting:
                return waiting[0]
            await events.receive()


async def ended(k: TestKernel, pid: str) -> Any:
    """Return an agent once it has ended."""
    while True:
        waited = await k.call("wait_agent", pids=[pid])
        if not waited.timed_out and waited.agents[0].exit_code is not None:
            return waited.agents[0]
