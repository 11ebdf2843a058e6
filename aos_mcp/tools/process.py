"""The text of process calls: one line for each agent."""

from __future__ import annotations

from pydantic import BaseModel

from aos_mcp.abi.results import (
    AgentResult,
    CheckpointResult,
    ListResult,
    SignalResult,
    SpawnResult,
    UsageResult,
    WaitResult,
)

CALLS = frozenset(
    {"spawn_agent", "wait_agent", "list_agents", "signal_agent", "checkpoint", "restore"},
)


def text(result: BaseModel) -> str:
    """Return what a person or a text-only host reads."""
    match result:
        case SpawnResult():
            answer = "" if result.result is None else f"\n{result.result}"
            return f"{result.pid} {result.exit_code or result.state}{answer}"
        case WaitResult():
            return _waited(result)
        case ListResult():
            lines = [
                f"{row.pid} {row.exit_code or row.state} {row.name} {row.model} {_spent(row.usage)}"
                + (f" waits for {row.waiting_for}" if row.waiting_for else "")
                for row in result.agents
            ]
            more = [f"more: cursor {result.next_cursor}"] if result.next_cursor else []
            return "\n".join(lines + more) or "No agents."
        case SignalResult():
            return f"{result.pid} {result.state} ({result.signalled} signalled)"
        case CheckpointResult():
            return f"{result.checkpoint_id} at step {result.step}"
    raise AssertionError(f"no process call answers {type(result).__name__}")


def _waited(result: WaitResult) -> str:
    parts = [_agent(agent) for agent in result.agents]
    parts += [f"message {m.message_id} from {m.sender}: {m.text}" for m in result.messages]
    if result.timed_out:
        parts.append("Timed out; they go on. Wait again to learn more.")
    return "\n".join(parts)


def _agent(agent: AgentResult) -> str:
    head = f"{agent.pid} {agent.name} {agent.exit_code or agent.state} {_spent(agent.usage)}"
    if agent.waiting_for:
        head += f" waits for {agent.waiting_for}"
    if agent.reason:
        head += f"\n{agent.reason}"
    if agent.result is not None:
        head += f"\n{agent.result}"
    if agent.result_page:
        head += f"\n(all of it: page_in {agent.result_page})"
    return head + ("\n(replayed)" if agent.replayed else "")


def _spent(usage: UsageResult) -> str:
    return f"${usage.usd:.4f} {usage.turns} turns"
