"""Commands about agents: run, ps, wait, signal, send, reconcile, checkpoint, restore."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from aos_mcp.abi.limits import USD_MAX
from aos_mcp.abi.process import ExitCode, ProcessState, Signal
from aos_mcp.cli import output, session, transcript
from aos_mcp.cli.client import GRACE_S, Client, Json
from aos_mcp.cli.failure import DONE, EXIT_OF_AGENT, TIMED_OUT
from aos_mcp.cli.output import AsJson

WAIT_SLICE_S = 30.0  # One wait call; a longer wait is several, so that a restarted kernel is noticed.

Pid = Annotated[str, typer.Argument(metavar="PID", help="An agent's pid, or its beginning.")]
Model = Annotated[str | None, typer.Option("--model", "-m", metavar="PROVIDER/MODEL", help="Which model.")]
BudgetUsd = Annotated[
    float | None, typer.Option("--budget-usd", min=0, max=USD_MAX, help="Most it may spend, in US dollars.")
]
BudgetTokens = Annotated[int | None, typer.Option("--budget-tokens", min=0, help="Most tokens it may use.")]
AgentName = Annotated[str | None, typer.Option("--name", "-n", help="A name for people.")]


def run(
    task: Annotated[str, typer.Argument(help="What is to be done; - reads it from standard input.")],
    model: Model = None,
    budget_usd: BudgetUsd = None,
    budget_tokens: BudgetTokens = None,
    name: AgentName = None,
    agent: Annotated[str | None, typer.Option("--agent", help="An agent definition.")] = None,
    tools: Annotated[list[str] | None, typer.Option("--tools", help="Pattern of tools it may use; repeat.")] = None,
    network: Annotated[list[str] | None, typer.Option("--network", help="A host it may reach; repeat.")] = None,
    priority: Annotated[
        int | None, typer.Option("--priority", min=0, max=100, help="0 runs first; 50 is usual.")
    ] = None,
    key: Annotated[str | None, typer.Option("--key", help="The same key never starts a second agent.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show its work until it ends.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start an agent on a task. Prints its pid; with --follow its work, and the exit code is the agent's."""
    arguments: Json = {
        "model": model,
        "budget": _budget(budget_usd, budget_tokens),
        "name": name,
        "agent": agent,
        "tools": tools or None,
        "network": network or None,
        "priority": priority,
        "idempotency_key": key,
    }
    with session.kernel(as_json) as client:
        told = session.standard_input() if task == "-" else task
        spawned = client.call("spawn_agent", {"task": told, **arguments})
        if not follow:
            output.show(spawned, as_json, lambda value: str(value["pid"]))
            return
        output.note(f"agent {spawned['pid']}")
        raise typer.Exit(transcript.follow(client, spawned["pid"], as_json=as_json))


def ps(
    everything: Annotated[bool, typer.Option("--all", "-a", help="Also those that have ended.")] = False,
    state: Annotated[ProcessState | None, typer.Option("--state", help="Only those in this state.")] = None,
    parent: Annotated[str | None, typer.Option("--parent", help="Only the children of this pid.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List agents: those that live, or with --all the newest of all."""
    with session.kernel(as_json) as client:
        if everything or state or parent:
            rows = session.agents(client, limit=limit, state=state, parent=parent)
        else:
            rows = session.live_agents(client)[:limit]
        output.show({"agents": rows}, as_json, agent_table)


def agent_table(answer: Json) -> str:
    """Lay out rows of `list_agents`."""
    headings = ("PID", "NAME", "STATE", "MODEL", "PRIO", "WAIT S", "RUN S", "TURNS", "TOKENS", "COST", "WAITING FOR")
    rows = [
        (
            output.short(row["pid"]),
            row["name"][:32],
            row.get("exit_code") or row["state"],
            row.get("model") or "-",
            str(row["priority"]),
            f"{row['times']['waiting_s']:.1f}",
            f"{row['times']['running_s']:.1f}",
            str(row["usage"]["turns"]),
            output.count(row["usage"]["input_tokens"] + row["usage"]["output_tokens"]),
            output.money(row["usage"]["usd"]),
            _attention(row),
        )
        for row in answer["agents"]
    ]
    return output.table(headings, rows)


def _attention(row: Json) -> str:
    """Say what an agent waits for, and which of its steps somebody has to look at."""
    unknown = ", ".join(str(step) for step in row.get("unknown_steps", ()))
    asked = f"an answer about step {unknown} (aos approvals)" if unknown else ""
    return "; ".join(part for part in (row.get("waiting_for") or "", asked) if part)


def reconcile(
    pid: Pid,
    step: Annotated[int, typer.Argument(metavar="STEP", min=0, help="A step that `aos logs` shows as unknown.")],
    done: Annotated[str | None, typer.Option("--done", metavar="RESULT", help="It happened, and gave this.")] = None,
    redo: Annotated[bool, typer.Option("--redo", help="It did not happen: have it done.")] = False,
    give_up: Annotated[bool, typer.Option("--give-up", help="Nobody will find out: leave it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what became of a call that was cut off, once you have looked. Nothing else makes it again."""
    if sum((done is not None, redo, give_up)) != 1:
        raise typer.BadParameter("say one of the three", param_hint="--done, --redo, --give-up")
    outcome = "done" if done is not None else "redo" if redo else "give_up"
    with session.kernel(as_json) as client:
        answer = client.call("reconcile", {"pid": pid, "step": step, "outcome": outcome, "note": done})
        output.show(answer, as_json, lambda a: f"step {a['step']} of {output.short(a['pid'])}: {a['state']}")


def wait(
    pids: Annotated[list[str], typer.Argument(metavar="PID...", help="Agents to wait for.")],
    timeout_s: Annotated[float | None, typer.Option("--timeout", min=0, help="Give up after so many seconds.")] = None,
    any_: Annotated[bool, typer.Option("--any", help="Until one of them ends, not all.")] = False,
    as_json: AsJson = False,
) -> None:
    """Wait until agents end, and print their results. The exit code tells how they ended; 7 when time ran out."""
    with session.kernel(as_json) as client:
        answer = wait_for(client, pids, mode="any" if any_ else "all", timeout_s=timeout_s)
        output.show(answer, as_json, _waited)
        raise typer.Exit(_exit_code(answer))


def wait_for(client: Client, pids: list[str], *, mode: str, timeout_s: float | None) -> Json:
    """Wait until the kernel says so, or `timeout_s` has passed; return its last answer."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        left = WAIT_SLICE_S if deadline is None else max(0.0, min(WAIT_SLICE_S, deadline - time.monotonic()))
        arguments = {"pids": pids, "mode": mode, "timeout_s": left}
        answer = client.call("wait_agent", arguments, timeout_s=left + GRACE_S)
        if not answer["timed_out"] or (deadline is not None and time.monotonic() >= deadline):
            return answer


def _exit_code(answer: Json) -> int:
    if answer["timed_out"]:
        return TIMED_OUT
    ended = [EXIT_OF_AGENT[ExitCode(agent.get("exit_code"))] for agent in answer["agents"] if agent.get("exit_code")]
    return next((code for code in ended if code != DONE), DONE)


def _waited(answer: Json) -> str:
    parts = [f"message from {m['sender']}: {m['text']}" for m in answer["messages"]]
    parts += [agent_outcome(agent, titled=len(answer["agents"]) > 1) for agent in answer["agents"]]
    return "\n".join(parts)


def agent_outcome(agent: Json, *, titled: bool) -> str:
    """Say how an agent stands: its result, or why there is none."""
    usage = agent["usage"]
    state = agent.get("exit_code") or agent["state"]
    title = (
        f"{output.short(agent['pid'])} {agent['name']}: {state}, {output.money(usage['usd'])}, {usage['turns']} turns"
    )
    replayed = " (a replay)" if agent["replayed"] else ""
    body = agent.get("result") or ""
    if agent.get("result_page"):
        body += f"\n(all of it: aos page in {agent['result_page']})"
    if agent.get("exit_code") != ExitCode.DONE and agent.get("reason"):
        body = f"{agent['reason']}\n{body}".rstrip()
    if titled or not agent.get("result"):
        return f"{title}{replayed}\n{body}".rstrip()
    return body


def signal(
    pid: Pid,
    which: Annotated[Signal, typer.Argument(metavar="stop|cont|term|kill", help="term lets it finish up.")],
    tree: Annotated[bool, typer.Option("--tree/--no-tree", help="Its descendants too.")] = True,
    reason: Annotated[str | None, typer.Option("--reason", help="Why, for the record.")] = None,
    as_json: AsJson = False,
) -> None:
    """Stop, continue, end or kill an agent and its descendants."""
    with session.kernel(as_json) as client:
        answer = client.call("signal_agent", {"pid": pid, "signal": which, "tree": tree, "reason": reason})
        output.show(answer, as_json, lambda a: f"{output.short(a['pid'])} {a['state']}, {a['signalled']} signalled")


def send(
    to: Annotated[str, typer.Argument(metavar="PID", help="Who gets it.")],
    message: Annotated[str, typer.Argument(help="The text; - reads it from standard input.")],
    topic: Annotated[str, typer.Option("--topic", help="What it is about.")] = "",
    as_json: AsJson = False,
) -> None:
    """Send a message to an agent; it reads it before its next turn."""
    with session.kernel(as_json) as client:
        text = session.standard_input() if message == "-" else message
        answer = client.call("send_message", {"to": to, "text": text, "topic": topic})
        output.show(answer, as_json, lambda a: str(a["message_id"]))


def checkpoint(
    pid: Pid,
    label: Annotated[str | None, typer.Option("--label", "-l", help="What it is good for.")] = None,
    as_json: AsJson = False,
) -> None:
    """Save an agent's context, journal position and files."""
    with session.kernel(as_json) as client:
        answer = client.call("checkpoint", {"pid": pid, "label": label})
        output.show(answer, as_json, lambda a: f"{a['checkpoint_id']} at step {a['step']}")


def restore(
    checkpoint_id: Annotated[
        str, typer.Argument(metavar="CHECKPOINT|PID@STEP", help="What `aos checkpoint` printed, or a step.")
    ],
    model: Model = None,
    budget_usd: BudgetUsd = None,
    budget_tokens: BudgetTokens = None,
    name: AgentName = None,
    count: Annotated[int, typer.Option("--count", min=1, help="So many, each with its own files.")] = 1,
    race: Annotated[
        int | None, typer.Option("--race", metavar="N", min=2, help="N; the first that is done ends the others.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show its work until it ends.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start a new agent from a checkpoint or a step, on another model if you like. Prints its pid."""
    arguments = {
        "checkpoint_id": checkpoint_id,
        "model": model,
        "budget": _budget(budget_usd, budget_tokens),
        "name": name,
        "count": race or count,
        "race": race is not None,
    }
    if follow and (race or count) > 1:
        raise typer.BadParameter("several cannot be followed; see aos wait --any", param_hint="--follow")
    with session.kernel(as_json) as client:
        spawned = client.call("restore", arguments)
        if not follow:
            output.show(spawned, as_json, lambda value: "\n".join(value["pids"]))
            return
        raise typer.Exit(transcript.follow(client, spawned["pid"], as_json=as_json))


def _budget(usd: float | None, tokens: int | None) -> Json | None:
    given = {name: value for name, value in (("usd", usd), ("tokens", tokens)) if value is not None}
    return given or None
