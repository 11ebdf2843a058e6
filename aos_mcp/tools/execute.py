"""The text of a sandboxed command: what a terminal would show."""

from __future__ import annotations

from pydantic import BaseModel

from aos_mcp.abi.results import ExecResult

CALLS = frozenset({"sandbox_exec"})


def text(result: BaseModel) -> str:
    """Return what a person or a text-only host reads."""
    assert isinstance(result, ExecResult), type(result)
    parts = [result.stdout.rstrip("\n"), result.stderr.rstrip("\n")]
    if result.timed_out:
        parts.append("(timed out)")
    if result.truncated:
        parts.append("(output was cut)" if result.output_page is None else f"(all of it: page_in {result.output_page})")
    parts.append(f"(exit {result.exit_code}, {result.isolation}, workspace {result.workspace})")
    return "\n".join(part for part in parts if part)
