"""Commands in the sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import anyio

from aos_mcp.abi import arguments as a
from aos_mcp.abi import results as r
from aos_mcp.abi.errors import Unavailable
from aos_mcp.abi.limits import EXEC_OUTPUT_BYTES_MAX, RESULT_TOKENS_MAX
from aos_mcp.abi.message import HOST
from aos_mcp.abi.process import Process
from aos_mcp.abi.sandbox import Command, CommandLimits, CommandOutcome, WorkspaceFile
from aos_mcp.context.tokens import count
from aos_mcp.kernel import pages
from aos_mcp.kernel.call import Call
from aos_mcp.kernel.calls.process import host_rights
from aos_mcp.ports import Transaction
from aos_mcp.security.rights import narrow, permitted

PROOF_S = 120.0
"""How long a first command waits for the sandbox drivers to be proven."""
CHANGED_MAX = 100
SHOWN_CHARS = 6_000
"""Of each stream, in a result; the whole is one page_in away."""


async def execute(call: Call, args: a.ExecArgs) -> r.ExecResult:
    """Run one command and show what it wrote and which files it changed."""
    machine = call.machine
    await _proven(call)
    process = await call.read(call.own, brief=True) if call.caller.pid is not None else None
    rights = process.rights if process is not None else host_rights(call)
    level = narrow(rights, args.level)
    workspace = _workspace(call, process, args.workspace)
    for file in args.files or ():
        await anyio.to_thread.run_sync(machine.workspaces.write, workspace, file.path, file.content.encode())
    before = await anyio.to_thread.run_sync(machine.workspaces.scan, workspace, {})
    settings = machine.settings.sandbox
    command = Command(
        session=process.pid if process is not None else f"host-{workspace}",
        workspace=workspace,
        argv=("sh", "-c", args.command) if isinstance(args.command, str) else tuple(args.command),
        stdin=(args.stdin or "").encode(),
        level=level,
        limits=CommandLimits(
            timeout_s=args.timeout_s,
            memory_bytes=settings.memory_mb * 2**20,
            pids_max=settings.pids,
            output_bytes_max=EXEC_OUTPUT_BYTES_MAX,
        ),
        network=permitted(rights),
    )
    call.subject = process.pid if process is not None else workspace
    async with machine.admission.tool("sandbox"):
        if process is not None:
            machine.unsaved.setdefault(process.pid, 0)
        outcome = await machine.sandbox.execute(command)
    after = await anyio.to_thread.run_sync(machine.workspaces.scan, workspace, before)
    return await _shown(call, process, workspace, outcome, changed(before, after))


async def _proven(call: Call) -> None:
    call.machine.sandbox_wanted.set()
    with anyio.move_on_after(PROOF_S):
        await call.machine.sandbox_tried.wait()
    if call.machine.sandbox.proven() is None:
        proofs = await call.machine.sandbox.prove()
        if call.machine.sandbox.proven() is None:
            why = "; ".join(f"{proof.driver}: {proof.reason}" for proof in proofs)
            mend = " ".join(proof.repair for proof in proofs if proof.repair)
            raise Unavailable(f"No sandbox is usable here ({why}).", mend or "See `aos doctor`.")


def _workspace(call: Call, process: Process | None, asked: str | None) -> str:
    if process is not None:
        return process.workspace
    return f"h-{asked}" if asked else f"h-{call.machine.entropy.handle('w')}"


def changed(before: Mapping[str, WorkspaceFile], after: Mapping[str, WorkspaceFile]) -> list[str]:
    """Return the paths that were made, changed or removed (`-path`), at most `CHANGED_MAX`."""
    touched = [path for path, file in after.items() if path not in before or _differs(before[path], file)]
    gone = [f"-{path}" for path in before if path not in after]
    return sorted(touched)[:CHANGED_MAX] + sorted(gone)[: max(0, CHANGED_MAX - len(touched))]


def _differs(one: WorkspaceFile, other: WorkspaceFile) -> bool:
    return replace(one, mtime_ns=0) != replace(other, mtime_ns=0)


async def _shown(
    call: Call, process: Process | None, workspace: str, outcome: CommandOutcome, touched: list[str]
) -> r.ExecResult:
    stdout = outcome.stdout.decode("utf-8", "replace").replace("\x00", "\ufffd")
    stderr = outcome.stderr.decode("utf-8", "replace").replace("\x00", "\ufffd")
    page_id, long = None, count(stdout) + count(stderr) > RESULT_TOKENS_MAX
    if long:
        whole = f"{stdout}\n--- stderr ---\n{stderr}" if stderr else stdout
        page_id = await call.machine.store.write(lambda tx: _keep(tx, call, process, whole))
        stdout, stderr = stdout[:SHOWN_CHARS], stderr[:SHOWN_CHARS]
    if outcome.out_of_memory:
        stderr += "\n[killed: out of memory]"
    return r.ExecResult(
        exit_code=outcome.exit_code,
        stdout=stdout,
        stderr=stderr,
        truncated=long or bool(outcome.stdout_dropped or outcome.stderr_dropped),
        timed_out=outcome.timed_out,
        isolation=outcome.isolation,
        workspace=workspace.removeprefix("h-"),
        changed=touched,
        output_page=page_id,
    )


def _keep(tx: Transaction, call: Call, process: Process | None, text: str) -> str:
    page = pages.keep(
        tx,
        text,
        pid=process.pid if process is not None else None,
        owner=call.caller.principal,
        title="output of a command",
        entropy=call.machine.entropy,
        now=call.now,
        source=call.caller.pid or HOST,
    )
    return page.page_id
