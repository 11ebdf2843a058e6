"""Where the commands `aos-mcp` and `aos` begin: with no arguments the shim, else the command line."""

from __future__ import annotations

import sys

from aos_mcp import shim


def main() -> int:
    """Run and return the exit code. A person at a terminal who gives no arguments is shown the help."""
    if len(sys.argv) == 1 and sys.stdin is not None and not sys.stdin.isatty():
        return shim.main()
    # The shim must be ready before its host looks; the command line is imported only where it was asked for.
    from aos_mcp.cli.app import main as command_line

    return command_line()
