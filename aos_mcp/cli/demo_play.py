"""The demo's plot: two agents review a repository, the kernel is killed under them, and every promise is checked.

Owns the order of the scenes and the claims. Each claim is checked against something outside the kernel where there is
such a thing: the ledgers that the agents' commands write, the commits of the repository, the processes of the machine.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.to_thread

from aos_mcp.cli.demo_host import Account, Broken, Host, Json, Watch
from aos_mcp.cli.demo_repository import HISTORY, commits
from aos_mcp.cli.demo_stage import Stage, stop_kernel

TOOLS = 17
REVIEWER, TESTER = "replay/demo-reviewer", "replay/demo-tester"
BUDGET_USD = 0.5
TESTER_BUDGET_USD = 0.05
REPLAY_S, MODEL_S = 100.0, 900.0
"""How long the agents may take: a recording's pace is known, a model's is not."""
POLL_S = 0.02
GONE_S = 10.0
VERIFY_S = 120.0
PLANNED = ("tests", "cases", "issue")
"""What the tester writes to its ledger, a line for each act."""
FALSE_DETAIL = " (nothing to see here)"

TASK = """\
Review a Python repository, and have your finding proven by a second agent.
Repository: {repository}

1. Read the history (git__git_log, git__git_show) and the files (files__read_text_file). Find the commit that broke \
median in stats.py: it is HEAD~1.
2. Spawn one agent, name "tester", model "{tester}", priority 60, tools ["files__read_text_file", "git__git_show", \
"sandbox_exec"], budget {{"usd": 0.05}}. Give it the repository's path, your finding, and this task: (a) copy stats.py \
into its workspace and reproduce the finding with sandbox_exec, the command beginning with `echo tests >> ledger.txt`; \
(b) compare median with statistics.median over 600 random lists, one line a case, the command beginning with \
`echo cases >> ledger.txt` and its output piped through `tee cases.txt`; (c) read the end of that output with page_in, \
keep the finding with page_out, send it to the parent; (d) ask the host by send_message with topic "question" whether \
it may file the issue, and wait with wait_agent(pids=[]); (e) file it once, by a shell script that appends `issue` to \
ledger.txt and one line to issues.log, then sleeps 4 seconds, then prints `filed as number N`; (f) look at ledger.txt \
and issues.log, never file twice, and exit with a report.
3. Wait for it with wait_agent until it has ended.
4. Check the right body in your own sandbox, the command beginning with `echo verify >> ledger.txt`.
5. Write REVIEW.md in the repository (files__write_file), stage it (git__git_add) and commit it once (git__git_commit) \
with the message "Review of median".
6. Exit with your report.
"""


@dataclass
class Play:
    """One performance. `model` takes the place of both recordings."""

    stage: Stage
    host: Host
    account: Account
    model: str | None
    facts: Json = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._watch = Watch(self.host, self.account)
        self._patience_s = REPLAY_S if self.model is None else MODEL_S
        self._pids: dict[str, str] = {}
        self._question: Json = {}

    async def run(self) -> None:
        """Play all scenes. Raises Broken at the first claim that does not hold."""
        await self._arrive()
        await self._spawn()
        await self._ask_and_checkpoint()
        await self._kill()
        await self._finish()
        await self._check_effects()
        await self._check_pages()
        await self._fork()
        await self._audit()
        self.facts["agents"] = await self._watch.look()
        self.facts["budgets"] = {row["pid"]: await self._budget(row) for row in self.facts["agents"]}

    async def _arrive(self) -> None:
        self.account.scene("A host connects")
        tools = await self.host.tools()
        self.account.hold(len(tools) == TOOLS, f"the shim started a kernel, which lists {TOOLS} tools", tools)
        for sentence in self.stage.missing:
            self.account.tell(sentence, "yellow")
        found = await self.host.call("search_tools", query="", k=50)
        servers = {tool["name"].partition("__")[0] for tool in found["tools"]}
        claim = f"downstream servers are mounted: {', '.join(self.stage.servers) or 'none'} ({found['total']} tools)"
        self.account.hold(servers == set(self.stage.servers), claim, sorted(servers))

    async def _spawn(self) -> None:
        self.account.scene("It spawns a reviewer, who spawns a tester")
        spawned = await self.host.call(
            "spawn_agent",
            task=TASK.format(repository=self.stage.repository, tester=self.model or TESTER),
            name="reviewer",
            model=self.model or REVIEWER,
            priority=20,
            tools=["git__*", "files__*", "sandbox_exec", "spawn_agent"],
            budget={"usd": BUDGET_USD},
            idempotency_key="review",
        )
        pid = self._pids["reviewer"] = spawned["pid"]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._prove_sandbox)
            self._question = await self._watch.until_written(pid, "question", self._patience_s)

    async def _prove_sandbox(self) -> None:
        # Where no sandbox works this says so, and how to mend it; no command ever runs outside of one.
        proof = await self.host.call("sandbox_exec", command="id -u", timeout_s=30)
        claim = f"commands run in a sandbox that has proven itself: {proof['isolation']}"
        self.account.hold(proof["exit_code"] == 0 and proof["stdout"].strip() != str(os.getuid()), claim, proof)
        self.facts["sandbox"] = proof["isolation"]

    async def _ask_and_checkpoint(self) -> None:
        pid = self._pids["tester"] = self._question["sender"]
        self.account.tell(f"the tester asks: {self._question['text']}", "bold")
        tester, reviewer = await self.host.agent(pid), await self.host.agent(self._pids["reviewer"])
        self.account.hold(
            tester["parent"] == reviewer["pid"] and (reviewer["priority"], tester["priority"]) == (20, 60),
            "the tester is the reviewer's child, with a priority of its own",
            tester,
        )
        self.account.hold(
            tester["budget"]["usd"] <= TESTER_BUDGET_USD < reviewer["budget"]["usd"],
            f"it has ${TESTER_BUDGET_USD:.2f} of the reviewer's ${BUDGET_USD:.2f}, and only some of its tools",
            tester["budget"],
        )
        saved = await self.host.call("checkpoint", pid=pid, label="before filing")
        self.facts["checkpoint"] = saved["checkpoint_id"]
        self.account.hold(bool(saved["checkpoint_id"]), f"the tester is saved at step {saved['step']}, files and all")
        await self.host.call("send_message", to=pid, text="Yes, file it. Once.", topic="answer")
        self.account.tell("the host answers: Yes, file it. Once.", "bold")

    async def _kill(self) -> None:
        self.account.scene("The kernel is killed in the middle of an act")
        ledger = self.stage.workspace((await self.host.agent(self._pids["tester"]))["workspace"]) / "ledger.txt"
        begun = await anyio.to_thread.run_sync(until, lambda: "issue" in lines_of(ledger), self._patience_s)
        self.account.hold(begun, "the tester has begun to file the issue", lines_of(ledger))
        killed = daemon_pid(self.stage.home)
        children = descendants(killed)
        os.kill(killed, signal.SIGKILL)
        at = self.account.seconds()
        self.account.tell(f"kill -9 {killed}", "bold red")
        status = await self.host.call("kernel_status")
        seconds, back = self.account.seconds() - at, daemon_pid(self.stage.home)
        claim = f"the next call brings it back by itself, in {seconds:.1f} s, and the host noticed nothing"
        self.account.hold(back != killed and bool(status["node"]), claim, {"killed": killed, "now": back})
        await anyio.to_thread.run_sync(until, lambda: not any(map(alive, children)), GONE_S)
        left = [child for child in children if alive(child)]
        self.account.hold(not left, f"nothing of the dead kernel is left: {len(children)} processes went with it", left)
        self.facts["crash"] = {"killed": killed, "came_back_as": back, "seconds": round(seconds, 2)}

    async def _finish(self) -> None:
        self.account.scene("Both agents go on where they were")
        for name in ("tester", "reviewer"):
            row = await self._watch.until_ended(self._pids[name], self._patience_s)
            done = row["exit_code"] == "done"
            why = "" if done else await self._watch.last_words(row["pid"])
            self.account.hold(done, f"the {name} is done", why)
        report = (await self.host.agent(self._pids["reviewer"]))["result"]
        self.account.tell(f"report: {report}", "bold")
        self.facts["report"] = report

    async def _check_effects(self) -> None:
        self.account.scene("No effect happened twice")
        tester, reviewer = [await self.host.agent(self._pids[name]) for name in ("tester", "reviewer")]
        ledger = self._ledger(tester["workspace"])
        self.account.hold(
            ledger == dict.fromkeys(PLANNED, 1), f"the tester's ledger has each act once: {ledger}", ledger
        )
        own = self._ledger(reviewer["workspace"])
        self.account.hold(own == {"verify": 1}, f"so has the reviewer's: {own}", own)
        issues = lines_of(self.stage.workspace(tester["workspace"]) / "issues.log")
        self.account.hold(
            len(issues) == 1, "one issue is on file, though the kernel died while it was being filed", issues
        )
        steps: list[Json] = (await self.host.read(f"aos://proc/{tester['pid']}/journal"))["steps"]
        unknown = [step["call"] for step in steps if step["state"] == "unknown"]
        claim = "its journal calls that act unknown: the agent looked for itself, and was never made to repeat it"
        self.account.hold(unknown == ["sandbox_exec"], claim, unknown)
        if self.stage.git is not None and {"git", "files"} <= set(self.stage.servers):
            subjects = await anyio.to_thread.run_sync(commits, self.stage.repository, self.stage.git)
            claim = "the repository has the review, committed once"
            self.account.hold(len(subjects) == len(HISTORY) + 1 and subjects[-1] == "Review of median", claim, subjects)
        self.facts["ledger"] = {"tester": ledger, "reviewer": own}

    async def _check_pages(self) -> None:
        pid = self._pids["tester"]
        context = await self.host.read(f"aos://proc/{pid}/context")
        away = [page for page in context["pages"] if page["title"] == "output of a command" and not page["resident"]]
        self.account.hold(bool(away), "a large result was kept outside the tester's window", context["pages"])
        whole, offset = "", 0
        while True:
            piece = await self.host.call("page_in", page_id=away[0]["page_id"], offset=offset, limit=10_000)
            whole += piece["content"]
            offset = piece.get("next_offset") or 0
            if not offset:
                break
        workspace = self.stage.workspace((await self.host.agent(pid))["workspace"])
        written = (workspace / "cases.txt").read_text("utf-8")
        claim = f"page_in returns it exactly: {len(whole):,} characters, as the command wrote them"
        self.account.hold(whole == written, claim, f"{len(whole)} characters against {len(written)}")

    async def _fork(self) -> None:
        self.account.scene("The past is forked: the tester again, from before the crash")
        budget = {"usd": TESTER_BUDGET_USD}
        saved = self.facts["checkpoint"]
        restored = await self.host.call("restore", checkpoint_id=saved, name="tester again", budget=budget)
        pid = self._pids["fork"] = restored["pid"]
        await self._watch.skip(pid)
        row = await self._watch.until_ended(pid, self._patience_s)
        agent = await self.host.agent(pid)
        self.account.hold(row["exit_code"] == "done", "the fork is done too", await self._watch.last_words(pid))
        ledger = self._ledger(agent["workspace"])
        claim = f"it had the files of the checkpoint and a ledger of its own: {ledger}"
        self.account.hold(ledger == dict.fromkeys(PLANNED, 1), claim, ledger)
        before = self._ledger((await self.host.agent(self._pids["tester"]))["workspace"])
        self.account.hold(before == self.facts["ledger"]["tester"], "it left the first tester's files alone", before)
        self.account.tell(f"report: {agent['result']}", "bold")

    async def _audit(self) -> None:
        self.account.scene("All of it is on the log")
        answer = await self.host.call("read_audit", verify=True, limit=1)
        verified = answer["verified"]
        claim = f"{verified['records']} audit records verify, up to a head signed by this kernel"
        self.account.hold(verified["ok"] and answer["head"]["seq"] == verified["records"], claim, verified)
        copy = self.stage.root / "copy"
        seq = await anyio.to_thread.run_sync(tamper, self.stage.home, copy)
        self.account.tell(f"in a copy of the store, somebody rewrites record {seq}", "bold red")
        found = await self._verify_copy(copy)
        self.account.hold(
            not found["ok"] and found.get("first_bad") == seq, f"verification names it: {found['why']}", found
        )
        self.facts["audit"] = {"records": verified["records"], "tampered": seq, "named": found.get("first_bad")}

    async def _verify_copy(self, copy: Path) -> Json:
        """Ask a second kernel, on the copy."""
        command = [sys.executable, "-m", "aos_mcp", "audit", "verify", "--json"]
        try:
            with anyio.fail_after(VERIFY_S):
                done = await anyio.run_process(command, env=self.stage.environ(copy), check=False)
        finally:
            with anyio.CancelScope(shield=True):
                await stop_kernel(self.stage, copy)
        try:
            answer: Json = json.loads(done.stdout)
        except ValueError:
            raise Broken("a second kernel verifies the copy", done.stderr.decode(errors="replace")) from None
        if "ok" not in answer:
            raise Broken("a second kernel verifies the copy", str(answer))
        return answer

    async def _budget(self, row: Json) -> float | None:
        limit: float | None = (await self.host.agent(row["pid"]))["budget"]["usd"]
        spent = row["usage"]["usd"]
        self.account.hold(limit is None or spent <= limit, f"{row['name']} kept its budget: ${spent:.4f}", limit)
        return limit

    def _ledger(self, workspace: str) -> dict[str, int]:
        return dict(Counter(lines_of(self.stage.workspace(workspace) / "ledger.txt")))


def until(true: Callable[[], bool], within_s: float) -> bool:
    """Look at the machine until `true()`, at most so long; return whether it came true. Nothing tells us: we look."""
    deadline = time.monotonic() + within_s
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def lines_of(path: Path) -> list[str]:
    """Return the lines of a file; none if it is not there."""
    try:
        return path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return []


def daemon_pid(home: Path) -> int:
    """Return the operating system's number of the daemon."""
    pid: int = json.loads((home / "daemon.json").read_text("utf-8"))["pid"]
    return pid


def descendants(pid: int) -> list[tuple[int, int]]:
    """Return all processes under `pid`, each as its number and its start time, which no later process shares."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        fields = _stat(int(entry.name)) if entry.name.isdigit() else None
        if fields is not None:
            parents[int(entry.name)] = int(fields[1])
    found, level = [], {pid}
    while level:
        level = {child for child, parent in parents.items() if parent in level}
        found += sorted(level)
    return [(child, started) for child in found if (started := _started(child)) is not None]


def alive(process: tuple[int, int]) -> bool:
    """Return whether this very process still runs; one that waits to be reaped does not."""
    pid, started = process
    fields = _stat(pid)
    return fields is not None and int(fields[19]) == started and fields[0] not in "ZX"


def _started(pid: int) -> int | None:
    fields = _stat(pid)
    return None if fields is None else int(fields[19])


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat from the state on; None where there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


def tamper(home: Path, copy: Path) -> int:
    """Copy the store and its key, and rewrite one record of the log in the copy; return its number."""
    copy.mkdir(mode=0o700)
    for name in ("audit.key", "audit.heads"):
        shutil.copy(home / name, copy / name)
    (copy / "aos.toml").write_text(
        "[sandbox]\ndrivers = []\n", "utf-8"
    )  # it runs nothing, and need not prove that it could
    with (
        closing(sqlite3.connect(f"file:{home / 'kernel.db'}?mode=ro", uri=True)) as source,
        closing(sqlite3.connect(copy / "kernel.db")) as target,
    ):
        source.backup(target)
        row = target.execute(
            "SELECT seq FROM audit_record WHERE call = 'sandbox_exec' AND outcome = 'ok' ORDER BY seq DESC LIMIT 1"
        ).fetchone()
        seq = int(row[0])
        target.execute("UPDATE audit_record SET detail = detail || ? WHERE seq = ?", (FALSE_DETAIL, seq))
        target.commit()
    return seq
