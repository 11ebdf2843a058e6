"""A downstream on the SDK: `modern.py stdio | http PORT | sse PORT` (0 picks one). Prints the port it listens on."""

from __future__ import annotations

import sys
from typing import Annotated

import anyio
import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.resolve import Elicit, Resolve
from pydantic import BaseModel

server = MCPServer("modern", log_level="WARNING")
seen: dict[str, str] = {}


class Sure(BaseModel):
    sure: bool


class Sum(BaseModel):
    value: int


async def ask(what: str) -> Elicit[Sure]:
    return Elicit(f"Do {what}?", Sure)


@server.tool(description="Adds\u202e two\u200b numbers.")
async def add(a: int, b: int) -> Sum:
    return Sum(value=a + b)


@server.tool()
async def hang() -> str:
    await anyio.sleep_forever()
    return ""


@server.tool()
async def slow(ctx: Context) -> str:
    for n in range(3):
        await ctx.report_progress(n, 3, f"step {n}")
        await anyio.sleep(0.3)
    return "done"


@server.tool()
async def confirm(what: str, answer: Annotated[Sure, Resolve(ask)]) -> str:
    return f"{what} {answer.sure}"


@server.tool()
async def big(size: int) -> str:
    return "x" * size


@server.tool()
async def headers(ctx: Context) -> dict[str, str]:
    return dict(ctx.headers or {})


@server.tool()
async def grow(ctx: Context) -> str:
    server.add_tool(late, name="late")
    await ctx.notify_tools_changed()
    return "grown"


async def late() -> str:
    return "late"


def main() -> None:
    if sys.argv[1] == "stdio":
        server.run("stdio")
        return
    app = server.sse_app() if sys.argv[1] == "sse" else server.streamable_http_app()
    config = uvicorn.Config(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error")
    socket = config.bind_socket()
    print(socket.getsockname()[1], flush=True)
    uvicorn.Server(config).run(sockets=[socket])


main()
