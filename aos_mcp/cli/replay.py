"""The command `replay`: past runs made again, step by step or on another model; and the recordings there are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aos_mcp.abi.errors import AosError, ErrorCode
from aos_mcp.abi.page import PageKind
from aos_mcp.abi.process import ProcessState
from aos_mcp.cli import output, session
from aos_mcp.cli.client import Client, Json
from aos_mcp.cli.failure import DONE, FAILED, CliError
from aos_mcp.cli.output import AsJson
from aos_mcp.cli.pages import read_whole
from aos_mcp.cli.processes import wait_for

SHOWN_CHARS = 200  # Of one turn in a readable comparison; --json has all of it.


def replay(
    pid: Annotated[str | None, typer.Argument(metavar="[PID]", help="An agent; none: list the recordings.")] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Make its run again from its journal, and compare each step.")
    ] = False,
    step: Annotated[
        int | None, typer.Option("--from", metavar="STEP", min=0, help="Go on from this step, and compare the runs.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", metavar="PROVIDER/MODEL", help="On this model.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make an agent's run again, or list the recordings that `aos run TASK --model replay/NAME` plays."""
    if pid is None:
        if offline or step is not None or model is not None:
            raise typer.BadParameter("name an agent", param_hint="PID")
        with output.reporting(as_json):
            output.show({"recordings": _recordings()}, as_json, _table)
        return
    if offline == (step is not None):
        raise typer.BadParameter("say one of the two", param_hint="--offline, --from")
    with session.kernel(as_json) as client:
        if step is None:
            answer = client.call("replay_journal", {"pid": pid})
            output.show(answer, as_json, _verdicts)
            raise typer.Exit(DONE if answer.get("first_difference") is None else FAILED)
        output.show(_parted(client, pid, step, model), as_json, _side_by_side)


def _verdicts(answer: Json) -> str:
    rows = [(str(row["step"]), row["call"], row["verdict"], row["why"]) for row in answer["steps"]]
    first = answer.get("first_difference")
    count = len(answer["steps"])
    end = f"{count} steps, all as on record." if first is None else f"The first difference is step {first}."
    return f"{output.table(('STEP', 'CALL', 'VERDICT', 'WHY'), rows)}\n{end}"


def _parted(client: Client, pid: str, step: int, model: str | None) -> Json:
    """Fork a run, let the fork end, and lay the two side by side from there on."""
    process = client.read_json(f"aos://proc/{pid}")
    whole = process["pid"]
    if process["state"] != ProcessState.EXITED:  # stopped, it might not end as long as anybody waits
        raise CliError(
            ErrorCode.CONFLICT,
            f"{whole} has not ended; only whole runs are laid side by side.",
            f"Wait for it (aos wait {output.short(whole)}) or end it, or fork it alone: aos restore {whole}@{step}.",
        )
    forked = client.call("restore", {"checkpoint_id": f"{whole}@{step}", "model": model})["pid"]
    output.note(f"agent {forked} goes on from step {step}")
    ended = wait_for(client, [whole, forked], mode="all", timeout_s=None)["agents"]
    past, other = [_replies(client, each) for each in (whole, forked)]
    shared = sum(page in dict(past) for page, _ in other)
    turns = []
    for number in range(shared, max(len(past), len(other))):
        texts = [run[number][1] if number < len(run) else None for run in (past, other)]
        turns.append({"turn": number, "original": texts[0], "other": texts[1], "same": texts[0] == texts[1]})
    parted = next((turn["turn"] for turn in turns if not turn["same"]), None)
    return {
        "pid": whole,
        "from": step,
        "fork": forked,
        "turns": turns,
        "parted_at": parted,
        "original": ended[0],
        "other": ended[1],
    }


def _replies(client: Client, pid: str) -> list[tuple[str, str]]:
    rows = client.read_json(f"aos://proc/{pid}/context")["pages"]
    names = [row["page_id"] for row in rows if row["kind"] == PageKind.REPLY]
    return [(name, str(read_whole(client, name)["content"])) for name in names]


def _side_by_side(answer: Json) -> str:
    lines = []
    for turn in answer["turns"]:
        if turn["same"]:
            lines.append(f"  {turn['turn']}: {_brief(turn['original'])}")
        else:
            lines += [f"- {turn['turn']}: {_brief(turn['original'])}", f"+ {turn['turn']}: {_brief(turn['other'])}"]
    parted = answer["parted_at"]
    lines.append("The runs never part." if parted is None else f"The runs part at turn {parted}.")
    for sign, agent in (("-", answer["original"]), ("+", answer["other"])):
        usage = agent["usage"]
        lines.append(
            f"{sign} {output.short(agent['pid'])}: {agent['exit_code']}, {output.money(usage['usd'])}, "
            f"{usage['turns']} turns"
        )
    return "\n".join(lines)


def _brief(text: str | None) -> str:
    if text is None:
        return "(ended)"
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARS else f"{line[:SHOWN_CHARS]}…"


def _recordings() -> list[Json]:
    from aos_mcp.llm.replay import SHIPPED  # pydantic: an eighth of a second that other commands do not need

    found: dict[str, Path] = {}
    for folder in (SHIPPED, session.home() / "replays"):  # a recording of the user's own hides a shipped one
        if folder.is_dir():
            found |= {path.stem: path for path in sorted(folder.glob("*.jsonl"))}
    return [_facts(name, path) for name, path in sorted(found.items())]


def _facts(name: str, path: Path) -> Json:
    from aos_mcp.llm.replay import read_recording  # as above

    try:
        recording = read_recording(path)
    except AosError as error:
        return {"name": name, "path": str(path), "model": None, "turns": None, "error": error.message}
    turns = len(recording.turns)
    return {"name": name, "path": str(path), "model": recording.header.model, "turns": turns, "error": None}


def _table(answer: Json) -> str:
    if not answer["recordings"]:
        return "There are no recordings. Put NAME.jsonl in the replays folder of AOS_HOME."
    rows = [
        (f"replay/{row['name']}", row["model"] or "-", str(row["turns"] or "-"), row["error"] or row["path"])
        for row in answer["recordings"]
    ]
    return output.table(("MODEL", "RECORDED FROM", "TURNS", "FILE"), rows)
