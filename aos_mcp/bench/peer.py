"""The peer: the MCP SDK's own server with one tool that does nothing, over the SDK's own stdio transport."""

from __future__ import annotations

from mcp.server import MCPServer

server = MCPServer("peer", log_level="ERROR")


@server.tool()
async def noop() -> dict[str, int]:
    """Do nothing."""
    return {"total": 0}


if __name__ == "__main__":
    server.run("stdio")
