"""An agent of another framework on a budget of the kernel: LangGraph's, unchanged, with a base URL and a key.

It calls a tool and answers; the kernel shows what it spent. A second agent has hardly any budget, and its first call is
refused before it is made. The model is a scripted server on loopback, so that nothing here needs a key or a network.

    pip install langgraph langchain-openai
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import openai
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from aos_mcp.testing.providers import Behaviour, Call, provider_server

START_S = 30.0
QUESTION = {"messages": [("user", "How much is 19 and 23?")]}
SCRIPT = (
    Behaviour(calls=(Call(name="add", arguments='{"a": 19, "b": 23}'),), input_tokens=200, output_tokens=20),
    Behaviour(text="It is 42.", input_tokens=240, output_tokens=5),
)
CONFIG = """
[providers.local]
base_url = "{url}/v1"
dialect = "openai"

[prices."local/scripted"]
input = 1.0
output = 4.0
"""


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def agent(key: dict[str, Any]) -> Any:
    """Make the framework's agent: a model, tools, and back to the model. It knows nothing of the kernel."""
    model = ChatOpenAI(model="gpt-5-mini", base_url=key["url"] + "/v1", api_key=key["key"], max_retries=0)

    async def turn(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.bind_tools([add]).ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("model", turn)
    graph.add_node("tools", ToolNode([add]))
    graph.set_entry_point("model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph.compile()


async def main(home: str) -> None:
    async with provider_server(script=SCRIPT) as provider:
        await anyio.Path(home, "aos.toml").write_text(CONFIG.format(url=provider.url), "utf-8")
        environ = {**os.environ, "AOS_HOME": home, "AOS_CONFIG": str(Path(home, "aos.toml"))}
        environ = {name: value for name, value in environ.items() if not name.startswith("LANGSMITH")}
        serving = [sys.executable, "-m", "aos_mcp", "serve", "--gateway", "127.0.0.1:0"]
        quiet = subprocess.DEVNULL
        async with await anyio.open_process(serving, env=environ, stdout=quiet, stderr=quiet) as kernel:
            try:
                await anyio.to_thread.run_sync(wait_for_it, environ)
                await two_agents(environ)
            finally:
                kernel.terminate()


async def two_agents(environ: dict[str, str]) -> None:
    key = await issue(environ, "crew", usd=0.5)
    answer = await agent(key).ainvoke(QUESTION)
    assert answer["messages"][-1].content == "It is 42.", answer
    assert any(message.type == "tool" and message.content == "42" for message in answer["messages"]), answer
    (shown,) = (await anyio.to_thread.run_sync(aos, environ, "ps"))["agents"]
    spent = (440 * 1.0 + 25 * 4.0) / 1e6
    assert abs(shown["usage"]["usd"] - spent) < 1e-9, shown
    assert (await anyio.to_thread.run_sync(aos, environ, "audit", "verify"))["ok"]
    on_record = (await anyio.to_thread.run_sync(aos, environ, "audit", "tail", "--pid", shown["pid"]))["records"]
    made = [row for row in on_record if row["call"] == "model" and row["outcome"] == "ok"]
    assert [row["subject"] for row in made] == ["local/scripted"] * 2, on_record
    print(f"{answer['messages'][-1].content} That took two calls and ${shown['usage']['usd']:.6f} of ${0.5:.2f}.")

    poor = await issue(environ, "poor", usd=0.000_001)
    try:
        await agent(poor).ainvoke(QUESTION)
    except openai.APIStatusError as refused:
        assert refused.status_code == 402, refused
        print(f"refused with {refused.status_code}: {refused.message}")
    else:
        raise AssertionError("a budget of a millionth of a dollar pays for no call")


async def issue(environ: dict[str, str], name: str, usd: float) -> Any:
    words = ("gateway", "key", "--name", name, "--model", "local/scripted", "--budget-usd", str(usd))
    return await anyio.to_thread.run_sync(aos, environ, *words)


def wait_for_it(environ: dict[str, str]) -> None:
    """Return once the gateway listens."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with suppress(subprocess.CalledProcessError):
            if aos(environ, "gateway")["url"]:
                return
        time.sleep(0.1)
    raise AssertionError("the kernel did not start")


def aos(environ: dict[str, str], *words: str) -> Any:
    """Run one command of `aos`."""
    command = [sys.executable, "-m", "aos_mcp", *words, "--json"]
    return json.loads(subprocess.run(command, env=environ, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="aos-example-") as folder:
        anyio.run(main, folder)
