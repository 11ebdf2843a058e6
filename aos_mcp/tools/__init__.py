"""The MCP tools: rows of the syscall table, shown to hosts."""
