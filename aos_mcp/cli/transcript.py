"""The command `logs`, and following an agent: what it was told, what it did, what came of it.

Owns the order in which things are told. The text comes from the pages, in their order; the journal adds when a reply
was finished, and the steps that left no page: those that failed, are under way, or may have happened.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Annotated

import typer

from aos_mcp.abi import limits
from aos_mcp.abi.journal import FALLBACK, MODEL_CALL, SUMMARY, StepState
from aos_mcp.abi.page import PageKind
from aos_mcp.abi.process import ExitCode, ProcessState
from aos_mcp.cli import output, pages, session
from aos_mcp.cli.client import GRACE_S, Client, Json
from aos_mcp.cli.failure import EXIT_OF_AGENT
from aos_mcp.cli.output import AsJson

SLICE_S = 2.0  # How often a follower looks for news, each look on record; the end of the agent is told at once.
CUT_CHARS = 4_000  # Of one entry in a readable transcript; --full cuts nothing.
UNREAD_KINDS = frozenset({PageKind.DOCUMENT})  # Kept outside the window and possibly huge: named, not told.


def logs(
    pid: Annotated[str, typer.Argument(metavar="PID", help="An agent's pid, or its beginning.")],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Until it ends; with --json one entry a line.")
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="Cut nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what an agent was told, what it did and what came of it."""
    with session.kernel(as_json) as client:
        process = client.read_json(f"aos://proc/{pid}")
        if follow:
            raise typer.Exit(Follower(client, process["pid"], as_json=as_json, full=full).run())
        entries = list(Teller(client, process["pid"], full=full or as_json, under_way=True).news())
        if as_json:
            output.document({"process": process, "entries": entries})
            return
        ending = _ending(process, told=entries[-1]["text"] if entries else "")
        output.text("\n".join([_heading(process), *map(_entry, entries), ending]))


def follow(client: Client, pid: str, *, as_json: bool) -> int:
    """Tell an agent's work until it ends; return the exit code that says how it ended."""
    return Follower(client, pid, as_json=as_json, full=False).run()


class Teller:
    """Reads what an agent's pages and journal hold, each entry once."""

    def __init__(self, client: Client, pid: str, *, full: bool, under_way: bool) -> None:
        """Tell of the agent `pid`; texts beyond `CUT_CHARS` are cut unless `full`. `under_way`: also steps that are."""
        self._under_way = under_way
        self._client = client
        self._pid = pid
        self._full = full
        self._told: set[str] = set()
        self._told_steps: set[tuple[int, str]] = set()
        self._steps: list[Json] = []

    def news(self) -> Iterator[Json]:
        """Yield the entries that are new since the last time, in order.

        An entry has kind (a page's, or `step`), title, text and at (seconds since the epoch, or null); a reply has the
        model that answered.
        """
        rows = self._client.read_json(f"aos://proc/{self._pid}/context")["pages"]
        self._read_steps()
        turns = [step for step in self._steps if step["call"] == MODEL_CALL and step["state"] == StepState.DONE]
        replies = 0
        for row in rows:
            at = None
            if row["kind"] == PageKind.REPLY:
                turn = turns[replies] if replies < len(turns) else None
                yield from self._untold_steps(before=turn)
                at = turn["ended_at"] if turn else None
                replies += 1
            if row["page_id"] not in self._told:
                self._told.add(row["page_id"])
                yield {
                    "kind": row["kind"],
                    "page_id": row["page_id"],
                    "title": row["title"],
                    "text": self._text(row),
                    "model": row["source"] if row["kind"] == PageKind.REPLY else None,
                    "at": at,
                }
        yield from self._untold_steps(before=None)

    def _read_steps(self) -> None:
        """Read the journal on from the first step that was not settled when it was last read."""
        open_ones = (n for n, step in enumerate(self._steps) if step["state"] == StepState.INTENT)
        del self._steps[next(open_ones, len(self._steps)) :]
        while True:
            after = self._steps[-1]["number"] if self._steps else -1
            steps = self._client.read_json(f"aos://proc/{self._pid}/journal/{after}")["steps"]
            self._steps += steps
            if len(steps) < limits.LIST_MAX:
                return

    def _untold_steps(self, *, before: Json | None) -> Iterator[Json]:
        for step in self._steps:
            if before is not None and step["number"] >= before["number"]:
                return
            told = (step["number"], step["state"])
            if self._is_untold(step) and told not in self._told_steps:
                self._told_steps.add(told)
                yield {
                    "kind": "step",
                    "number": step["number"],
                    "title": step["call"],
                    "text": step["state"],
                    "at": step.get("ended_at") or step["started_at"],
                }

    def _is_untold(self, step: Json) -> bool:
        """Return whether no page tells of this step."""
        if step["call"] == FALLBACK:
            return True
        if step["state"] == StepState.FAILED:
            return step["call"] in {MODEL_CALL, SUMMARY}
        return step["state"] == StepState.UNKNOWN or (self._under_way and step["state"] == StepState.INTENT)

    def _text(self, row: Json) -> str:
        if row["kind"] in UNREAD_KINDS:
            return ""
        if self._full:
            return str(pages.read_whole(self._client, row["page_id"])["content"])
        answer = self._client.call("page_in", {"page_id": row["page_id"], "limit": CUT_CHARS})
        more = "…" if answer.get("next_offset") is not None else ""
        return f"{answer['content']}{more}"


class Follower:
    """Tells an agent's work until it ends. A person also sees what a model is writing, as it writes it."""

    def __init__(self, client: Client, pid: str, *, as_json: bool, full: bool) -> None:
        """Follow the agent `pid`."""
        self._client = client
        self._pid = pid
        self._as_json = as_json
        self._last = ""
        self._mail_told: set[str] = set()
        self._teller = Teller(client, pid, full=full or as_json, under_way=False)

    def run(self) -> int:
        """Tell everything, then wait for more until the agent has ended; return the command's exit code."""
        while True:
            answer = self._client.call(
                "wait_agent",
                {"pids": [self._pid], "timeout_s": SLICE_S},
                on_progress=self._progress,
                timeout_s=SLICE_S + GRACE_S,
            )
            agent = answer["agents"][0]
            for entry in self._teller.news():
                self._tell(entry)
            for message in answer.get("messages", []):
                if message["message_id"] in self._mail_told:
                    continue
                self._mail_told.add(message["message_id"])
                self._tell({"kind": "mail", "title": message["sender"], "text": message["text"], "at": None})
            if agent["state"] == ProcessState.EXITED:
                break
        if self._as_json:
            output.line({"kind": "exit", "agent": agent})
        else:
            output.text(_ending(agent, told=self._last))
        return EXIT_OF_AGENT[ExitCode(agent["exit_code"])]

    def _tell(self, entry: Json) -> None:
        if self._as_json:
            output.line(entry)
        else:
            output.text(_entry(entry))
        self._last = entry["text"]

    def _progress(self, done: float, total: float | None, sentence: str) -> None:
        if sentence and sys.stderr.isatty() and not self._as_json:
            print(f"\r\x1b[K{output.plain(sentence)[-100:]}", end="\r", file=sys.stderr, flush=True)


def _heading(process: Json) -> str:
    return f"{process['pid']}  {process['name']}  {process['model'] or 'no model'}"


def _entry(entry: Json) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(entry["at"])) if entry["at"] else ""
    if entry["kind"] == "step":
        state = "under way" if entry["text"] == StepState.INTENT else entry["text"]
        return f"--- {clock} step {entry['number']}: {entry['title']} {state}"
    if not entry["text"]:
        return f"--- {entry['kind']} {entry.get('page_id', '')}: {entry['title']}"
    by = f" by {entry['model']}" if entry.get("model") else ""
    return f"--- {entry['kind']} {clock}".rstrip() + by + f"\n{entry['text'].rstrip()}"


def _ending(agent: Json, *, told: str) -> str:
    """Say how an agent stands, and its result unless `told` was it."""
    usage = agent["usage"]
    tokens = f"{output.count(usage['input_tokens'])} + {output.count(usage['output_tokens'])} tokens"
    spent = f"{usage['turns']} turns, {tokens}, {output.money(usage['usd'])}"
    if not agent.get("exit_code"):
        waiting = f", waits for {agent['waiting_for']}" if agent.get("waiting_for") else ""
        return f"=== {agent['state']}{waiting}: {spent}"
    replayed = " (a replay)" if agent.get("replayed") else ""
    reason = f" ({agent['reason']})" if agent.get("reason") else ""
    body = f"\n{agent['result']}" if agent.get("result") and agent["result"].strip() != told.strip() else ""
    return f"=== {agent['exit_code']}{reason}: {spent}{replayed}{body}"
