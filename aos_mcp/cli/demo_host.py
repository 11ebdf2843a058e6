"""The demo as an MCP host: it speaks to the shim over standard input and output, as any other host does.

Owns the connection, the sentences of the outcome, and the watch over the agents. Knows nothing of the kernel but what
a host can see.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
from mcp import Client, StdioServerParameters
from mcp.shared.exceptions import MCPError
from rich.console import Console
from rich.text import Text

from aos_mcp.cli.demo_stage import Stage
from aos_mcp.cli.output import plain

Json = dict[str, Any]

CALL_S = 180.0  # One call, with the start of a kernel and the proof of its sandbox in it.
LOOK_S = 0.4  # Between two looks at the agents, unless something happens before.
TITLE_CHARS = 78
STYLES = {"reviewer": "cyan", "tester": "magenta", "tester again": "yellow"}


class Broken(Exception):
    """Something that was promised did not hold."""

    def __init__(self, claim: str, why: str) -> None:
        """Name the claim, and say what was seen instead."""
        super().__init__(f"{claim}: {why}")
        self.claim = claim
        self.why = why


class Account:
    """What the demo has shown so far: each claim is checked before it is written down."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self.held: list[str] = []

    def seconds(self) -> float:
        """Return the time since the demo began."""
        return time.monotonic() - self._started

    def scene(self, title: str) -> None:
        """Begin the next part."""
        self._console.print(Text(f"\n{title}", style="bold"))

    def tell(self, text: str, style: str = "dim") -> None:
        """Say something about what is going on."""
        self._console.print(Text(f"{self.seconds():6.1f} s  {plain(text)}", style=style), soft_wrap=True)

    def hold(self, ok: bool, claim: str, why: object = "") -> None:
        """Write a claim down. Raises Broken, with what was seen instead, when it does not hold."""
        if not ok:
            raise Broken(claim, plain(str(why)))
        self.held.append(claim)
        self._console.print(Text(f"{self.seconds():6.1f} s  ✓ {plain(claim)}", style="green"), soft_wrap=True)


class Host:
    """One host, connected through one shim."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.inbox: list[Json] = []
        """What agents wrote to the host: a wait hands it out once."""

    async def tools(self) -> list[str]:
        """Return the names of the kernel's tools."""
        return [tool.name for tool in (await self._client.list_tools()).tools]

    async def call(self, tool: str, **arguments: object) -> Json:
        """Call a tool and return its structured result. Raises Broken when it is an error."""
        try:
            result = await self._client.call_tool(tool, arguments, read_timeout_seconds=CALL_S)
        except MCPError as error:
            raise Broken(f"the kernel answers {tool}", str(error)) from None
        structured = result.structured_content
        if result.is_error or not isinstance(structured, dict):
            texts = [getattr(block, "text", "") for block in result.content]
            raise Broken(f"the kernel answers {tool}", " ".join(texts))
        return structured

    async def read(self, uri: str) -> Json:
        """Read a resource that holds a JSON object."""
        try:
            contents = (await self._client.read_resource(uri)).contents
        except MCPError as error:
            raise Broken(f"the kernel answers {uri}", str(error)) from None
        value: Json = json.loads(getattr(contents[0], "text", "{}"))
        return value

    async def wait(self, pid: str, timeout_s: float) -> None:
        """Wait until the agent has ended, or wrote something, or time is up."""
        self.inbox += (await self.call("wait_agent", pids=[pid], timeout_s=timeout_s)).get("messages", [])

    async def agent(self, pid: str) -> Json:
        """Return everything about one agent."""
        return await self.read(f"aos://proc/{pid}")


@asynccontextmanager
async def connected(stage: Stage) -> AsyncIterator[Host]:
    """Start the shim, as a host does, and give the session."""
    shim = StdioServerParameters(
        command=sys.executable, args=["-m", "aos_mcp"], env=stage.environ(), cwd=stage.repository
    )
    async with Client(shim, cache=None) as client:
        yield Host(client)


@dataclass
class Watch:
    """Shows what the agents do, each thing once. Whoever asks often enough sees a live log."""

    host: Host
    account: Account
    _seen: set[str] = field(default_factory=set)
    _states: dict[str, str] = field(default_factory=dict)

    async def look(self) -> list[Json]:
        """Show what is new; return the rows of all agents, oldest first."""
        rows: list[Json] = list(reversed((await self.host.call("list_agents"))["agents"]))
        for row in rows:
            await self._show(row)
        return rows

    async def until_written(self, pid: str, topic: str, deadline_s: float) -> Json:
        """Look until somebody wrote to the host about `topic`; return the message. `pid` must not end before."""
        with anyio.move_on_after(deadline_s):
            while True:
                rows = await self.look()
                found = [message for message in self.host.inbox if message["topic"] == topic]
                if found:
                    return found[0]
                row = next(row for row in rows if row["pid"] == pid)
                if row["state"] == "exited":
                    raise Broken(f"the host is asked the {topic}", await self.last_words(pid))
                await self.host.wait(pid, LOOK_S)
        raise Broken(f"the host is asked the {topic}", f"nobody did within {deadline_s:g} s")

    async def last_words(self, pid: str) -> str:
        """Return how an agent ended, and with what."""
        agent = await self.host.agent(pid)
        return " ".join(str(agent.get(key, "")) for key in ("name", "state", "exit_code", "reason", "result"))

    async def skip(self, pid: str) -> None:
        """Take what an agent has so far as shown: a fork begins with the pages of its origin."""
        self._seen |= {page["page_id"] for page in (await self.host.read(f"aos://proc/{pid}/context"))["pages"]}

    async def until_ended(self, pid: str, deadline_s: float) -> Json:
        """Look until the agent has ended; return its row."""
        with anyio.move_on_after(deadline_s):
            while True:
                row = next(row for row in await self.look() if row["pid"] == pid)
                if row["state"] == "exited":
                    return row
                await self.host.wait(pid, LOOK_S)
        raise Broken("every agent ends", f"{pid} did not within {deadline_s:g} s")

    async def _show(self, row: Json) -> None:
        pid, name = row["pid"], row["name"]
        style = STYLES.get(name, "white")
        if self._states.get(pid) == "exited":
            return
        pages: list[Json] = (await self.host.read(f"aos://proc/{pid}/context"))["pages"]
        for page in pages:
            if page["page_id"] in self._seen or page["kind"] == "task":
                continue
            self._seen.add(page["page_id"])
            title = page["title"].replace("\n", " ")
            shown = title if len(title) <= TITLE_CHARS else title[: TITLE_CHARS - 1] + "…"
            mark = {"reply": "says", "result": "got", "message": "mail", "document": "page"}.get(page["kind"], "")
            away = "" if page["resident"] else f"  (outside the window, {page['tokens']:,} tokens)"
            self.account.tell(f"{name:<12} {mark:<4}  {shown}{away}", style)
        if self._states.get(pid) != row["state"] and row["state"] == "exited":
            self.account.tell(f"{name:<12} ended: {row.get('exit_code')}", style)
        self._states[pid] = row["state"]
