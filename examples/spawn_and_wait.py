"""Spawn an agent over MCP and wait for its answer, as a host does.

Needs no key and no network: the agent plays a recording that comes with the package. Run it with `python
examples/spawn_and_wait.py`.
"""

import os
import sys
import tempfile
from typing import Any

import anyio
from mcp import Client, StdioServerParameters

CALL_S = 60.0

Json = dict[str, Any]


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="aos-example-") as home:
        kernel = StdioServerParameters(
            command=sys.executable, args=["-m", "aos_mcp", "--standalone"], env={**os.environ, "AOS_HOME": home}
        )
        async with Client(kernel, read_timeout_seconds=CALL_S) as client:
            spawned = await call(client, "spawn_agent", task="Say hello.", name="greeter", model="replay/hello")
            print(f"spawned {spawned['pid']}")

            waited = await call(client, "wait_agent", pids=[spawned["pid"]], timeout_s=30)
            (agent,) = waited["agents"]
            assert agent["exit_code"] == "done", agent
            assert agent["replayed"], "a replay says in every result that it is one"
            print(f"{agent['name']} says: {agent['result']}")
            print(f"it took {agent['usage']['turns']} turns and ${agent['usage']['usd']:.4f}")

            # The agent kept a note outside its window, and its answer names the page. Nothing is lost.
            page_id = agent["result"].removesuffix(".").rpartition(" ")[2]
            page = await call(client, "page_in", page_id=page_id)
            assert page["content"].startswith("Hello from a recording"), page
            print(f"its note: {page['content']}")


async def call(client: Client, tool: str, **arguments: object) -> Json:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    return result.structured_content or {}


if __name__ == "__main__":
    anyio.run(main)
