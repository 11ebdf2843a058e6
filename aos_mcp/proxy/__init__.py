"""Downstream MCP servers: the kernel as their client."""
