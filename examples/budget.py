"""A budget refuses the call that would overdraw it, before the call leaves.

The agent may spend a hundredth of a cent. Its first model call could cost more, so it is not made: the agent ends with
the code `budget_exhausted`, the reason names the budget and what is left of it, and nothing was spent. Needs no key.
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
            poor = await run(client, budget={"usd": 0.0001})
            assert poor["exit_code"] == "budget_exhausted", poor
            assert "usd budget" in poor["reason"] and "left" in poor["reason"], poor
            assert poor["usage"]["usd"] == 0, poor
            print(poor["reason"])

            single = await run(client, budget={"turns": 1})
            assert single["exit_code"] == "budget_exhausted", single
            assert single["usage"]["turns"] == 1, single
            print(single["reason"])

            rich = await run(client, budget={"usd": 0.5})
            assert rich["exit_code"] == "done", rich
            assert 0 < rich["usage"]["usd"] <= 0.5, rich
            print(f"with a budget that suffices it is done, for ${rich['usage']['usd']:.4f}")

            status = await call(client, "kernel_status")
            spent = single["usage"]["usd"] + rich["usage"]["usd"]
            assert abs(status["budget"]["usd"] - spent) < 1e-9, "what all agents spent is what the workspace spent"
            print(f"all agents together: ${status['budget']['usd']:.4f} of ${status['budget']['usd_limit']:.2f}")


async def run(client: Client, budget: Json) -> Json:
    spawned = await call(client, "spawn_agent", task="Say hello.", model="replay/hello", budget=budget)
    waited = await call(client, "wait_agent", pids=[spawned["pid"]], timeout_s=30)
    agent: Json = waited["agents"][0]
    return agent


async def call(client: Client, tool: str, **arguments: object) -> Json:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    return result.structured_content or {}


if __name__ == "__main__":
    anyio.run(main)
