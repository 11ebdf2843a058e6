"""The MCP resources: what can be read, by URI."""
