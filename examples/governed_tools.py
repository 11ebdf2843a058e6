"""Mount an MCP server, and have a person asked before one of its tools is called.

The server keeps a git repository; reading it is free, committing to it is asked about. An answer is bound to the very
call it was given for, and is used up by it. Needs git and mcp-server-git (extra `dev`), no key.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, StdioServerParameters

CALL_S = 60.0

Json = dict[str, Any]


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="aos-example-") as scratch:
        repository = make_repository(Path(scratch))
        home = Path(scratch) / "home"
        home.mkdir()
        server = json.dumps(["-m", "mcp_server_git", "--repository", str(repository)])
        (home / "aos.toml").write_text(
            f"""
            [mounts.git]
            command = {json.dumps(sys.executable)}
            args = {server}

            [[rules]]
            effect = "ask"
            tool = "git__git_commit"
            reason = "commits are seen by others"
            """
        )
        kernel = StdioServerParameters(
            command=sys.executable, args=["-m", "aos_mcp", "--standalone"], env={**os.environ, "AOS_HOME": str(home)}
        )
        async with Client(kernel, read_timeout_seconds=CALL_S) as client:
            await governed(client, repository)


async def governed(client: Client, repository: Path) -> None:
    found = await answer(client, "search_tools", query="commit changes to the repository")
    print("found:", ", ".join(tool["name"] for tool in found["tools"]))

    read = await answer(client, "call_tool", name="git__git_status", arguments={"repo_path": str(repository)})
    assert "code" not in read, read
    print("reading needs no answer")

    commit = {"name": "git__git_commit", "arguments": {"repo_path": str(repository), "message": "Add a note"}}
    asked = await answer(client, "call_tool", **commit)
    assert asked["code"] == "approval_required", asked
    assert subjects(repository) == ["Begin"], "nothing happened before somebody said yes"
    print(asked["message"], asked["hint"])

    # The question is a row of the store: it could be answered tomorrow, from another host, or by `aos approvals`.
    allowed = await answer(client, "answer_approval", approval_id=asked["approval_id"], decision="allow")
    assert allowed["state"] == "allowed", allowed
    done = await answer(client, "call_tool", **commit)
    assert "code" not in done, done
    assert subjects(repository) == ["Begin", "Add a note"]
    print("allowed, and done once")

    again = await answer(client, "call_tool", **commit)
    assert again["code"] == "approval_required", "an answer counts for one call"
    refusal = {"approval_id": again["approval_id"], "decision": "deny", "note": "once is enough"}
    await answer(client, "answer_approval", **refusal)
    denied = await answer(client, "call_tool", **commit)
    assert denied["code"] == "denied", denied
    assert subjects(repository) == ["Begin", "Add a note"]
    print(denied["message"])


async def answer(client: Client, tool: str, /, **arguments: object) -> Json:
    """Return what a call answers; a refusal has `code`, `message` and `hint`."""
    return (await client.call_tool(tool, arguments)).structured_content or {}


def make_repository(scratch: Path) -> Path:
    repository = scratch / "repository"
    repository.mkdir()
    git(repository, "init", "--quiet")
    git(repository, "config", "user.name", "example")
    git(repository, "config", "user.email", "example@example.org")
    git(repository, "commit", "--quiet", "--allow-empty", "--message=Begin")
    (repository / "note.txt").write_text("A note.\n")
    git(repository, "add", "note.txt")
    return repository


def subjects(repository: Path) -> list[str]:
    return git(repository, "log", "--reverse", "--format=%s").splitlines()


def git(repository: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=repository, check=True, capture_output=True, text=True)
    return done.stdout


if __name__ == "__main__":
    anyio.run(main)
