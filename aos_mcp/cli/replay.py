"""The command `replay`: the recorded runs that `--model replay/NAME` plays, without a provider or a key."""

from __future__ import annotations

from pathlib import Path

from aos_mcp.abi.errors import AosError
from aos_mcp.cli import output, session
from aos_mcp.cli.client import Json
from aos_mcp.cli.output import AsJson


def replay(as_json: AsJson = False) -> None:
    """List the recordings there are; `aos run TASK --model replay/NAME` plays one."""
    with output.reporting(as_json):
        output.show({"recordings": _recordings()}, as_json, _table)


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
