"""aos-mcp: an operating-system kernel for AI agents, driven from any MCP host.

Importing this package loads nothing: every floor is imported by its own name.
"""

__version__ = "0.1.0"
