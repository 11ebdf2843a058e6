"""What every `ports.Sandbox` must keep, as checks that run against a real one.

    @pytest.mark.parametrize("check", [*CONTRACT_CHECKS, *ESCAPE_CHECKS])
    async def test_my_sandbox(check, sandbox, workspaces):
        await check(sandbox, workspaces)

`CONTRACT_CHECKS` are the promises to a caller; those that try to get out are in `sandbox_escapes`. A check raises
AssertionError. Commands use `sh` and `python3` of the sandbox.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import anyio
import anyio.to_thread

from aos_mcp.abi.capability import IsolationLevel
from aos_mcp.abi.errors import Invalid, LimitExceeded
from aos_mcp.abi.limits import EXEC_STDIN_BYTES_MAX
from aos_mcp.abi.sandbox import Command, CommandLimits, CommandOutcome
from aos_mcp.ports import Sandbox, Workspaces

Check = Callable[[Sandbox, Workspaces], Awaitable[None]]

MEMORY_BYTES = 128 * 2**20
PIDS_MAX = 64
DEADLINE_S = 60.0
_KILLED = 137
_SUPERVISOR_AND_SELF = 2


def command(
    *argv: str,
    session: str = "checks",
    workspace: str = "checks",
    stdin: bytes = b"",
    level: IsolationLevel = IsolationLevel.STANDARD,
    timeout_s: float = 30.0,
    output_bytes_max: int = 65_536,
    network: tuple[str, ...] = (),
) -> Command:
    """Make a command with small limits (128 MiB, 64 processes)."""
    limits = CommandLimits(
        timeout_s=timeout_s, memory_bytes=MEMORY_BYTES, pids_max=PIDS_MAX, output_bytes_max=output_bytes_max
    )
    return Command(
        session=session,
        workspace=workspace,
        argv=argv,
        stdin=stdin,
        level=level,
        limits=limits,
        network=network,
    )


async def sh(sandbox: Sandbox, script: str, **options: object) -> CommandOutcome:
    """Run a shell script; options as for `command`."""
    return await sandbox.execute(command("sh", "-c", script, **options))  # type: ignore[arg-type]


async def python(sandbox: Sandbox, script: str, *arguments: str, **options: object) -> CommandOutcome:
    """Run a Python script; options as for `command`."""
    return await sandbox.execute(command("python3", "-I", "-c", script, *arguments, **options))  # type: ignore[arg-type]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another process does and nobody announces. Raises TimeoutError after a minute."""
    with anyio.fail_after(DEADLINE_S):
        while not await anyio.to_thread.run_sync(condition):  # noqa: ASYNC110
            await anyio.sleep(0.01)


async def processes(sandbox: Sandbox, **options: object) -> Sequence[str]:
    """List the process ids that a session sees: the supervisor and the lister itself when nothing else runs."""
    outcome = await sh(sandbox, "echo /proc/[0-9]*", **options)
    assert outcome.exit_code == 0, outcome
    return outcome.stdout.decode("ascii").split()


async def alone(sandbox: Sandbox, **options: object) -> None:
    """Assert that nothing of earlier commands still runs in a session."""
    left = await processes(sandbox, **options)
    assert "/proc/1" in left and len(left) <= _SUPERVISOR_AND_SELF, left


# The contract --------------------------------------------------------------------------------------------------------


async def exit_codes_come_back(sandbox: Sandbox, _workspaces: Workspaces) -> None:
    """0, a code of its own, 127 for a missing program, 126 for one that is no program, 128+n for signal n."""
    for script, code in (("true", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -15 $$", 143)):
        assert (await sh(sandbox, script)).exit_code == code, script
    missing = await sandbox.execute(command("no-such-program"))
    assert missing.exit_code == 127 and b"no-such-program" in missing.stderr
    assert (await sandbox.execute(command("/etc"))).exit_code == 126


async def the_driver_that_ran_it_is_named(sandbox: Sandbox, _workspaces: Workspaces) -> None:
    """Every outcome names the proven driver and takes some time."""
    proof = sandbox.proven()
    outcome = await sh(sandbox, "true")
    assert proof is not None and proof.passed and outcome.isolation == proof.driver
    assert outcome.wall_s > 0 and not outcome.timed_out and not outcome.out_of_memory


async def bytes_come_back_as_written(sandbox: Sandbox, _workspaces: Workspaces) -> None:
    """Output is bytes, the two streams are apart, and nothing is decoded."""
    outcome = await sh(sandbox, r"printf '\377\000\376out'; printf '\200err' >&2")
    assert outcome.stdout == b"\xff\x00\xfeout" and outcome.stderr == b"\x80err"


async def output_beyond_the_limit_is_counted(sandbox: Sandbox, _workspaces: Workspaces) -> None:
    """The first bytes are kept, the rest is counted, and the command still ends by itself."""
    script = "import sys; sys.stdout.write('a' * 1000 + 'b' * 999_000); sys.stderr.write('e' * 1500)"
    outcome = await python(sandbox, script, output_bytes_max=1_000)
    assert outcome.exit_code == 0
    assert outcome.stdout == b"a" * 1_000 and outcome.stdout_dropped == 999_000
    assert outcome.stderr == b"e" * 1_000 and outcome.stderr_dropped == 500


async def an_output_flood_ends_at_the_deadline(sandbox: Sandbox, _workspaces: Workspaces) -> None:
    """Gigabytes without a newline cost neither memory nor the session."""
    outcome = await sh(sandbox, "exec cat /dev/zero", timeout_s=0.5, output_bytes_max=1_000)
    assert outcome.timed_out and len(outcome.stdout) == 1_000 and outcome.stdout_dropped > 2**20
    await alone(sandbox)


async def large_input_arrives_whole(sandbox: Sandbox, _workspaces: Workspaces) -> None:
    """As much standard input as the kernel admits; more is refused before anything runs."""
    body = secrets.token_bytes(2**16) * (EXEC_STDIN_BYTES_MAX // 2**16)
    outcome = await sh(sandbox, "sha256sum", stdin=body)
    assert outcome.stdout.split()[0].decode("ascii") == hashlib.sha256(body).hexdigest()
    try:
        await sh(sandbox, "true", stdin=body + b"x")
    except LimitExceeded:
        return
    raise AssertionError("too much standard input was taken")


async def input_that_nobody_reads_blocks_nothing(sandbox: Sandbox, _workspaces: Workspaces) -> None:
    """A command that ends without reading its input ends."""
    assert (await sh(sandbox, "true", stdin=b"x" * 2**20)).exit_code == 0
    assert (await sh(sandbox, "sleep 30", stdin=b"x" * 2**20, timeout_s=0.2)).timed_out


async def a_large_command_line_is_taken(sandbox: Sandbox, _workspaces: Workspaces) -> None:
    """100,000 bytes in one argument, and characters that a shell would eat."""
    word = "a'b\"c$d\\e*\n" * 10_000
    outcome = await sandbox.execute(command("printf", "%s", word, output_bytes_max=200_000))
    assert outcome.stdout.decode("ascii") == word


async def a_command_needs_a_program(sandbox: Sandbox, _workspaces: Workspaces) -> None:
    """No argument, or a NUL byte in one, is refused."""
    for argv in ((), ("sh", "-c", "true\0false")):
        try:
            await sandbox.execute(command(*argv))
        except Invalid:
            continue
        raise AssertionError(f"{argv!r} was taken")


_TREE = """
import os, signal, subprocess, sys, time
subprocess.Popen(["sleep", "60"])
subprocess.Popen(["setsid", "sleep", "60"])
subprocess.Popen(["sh", "-c", "trap '' TERM HUP INT; while :; do sleep 1; done"], start_new_session=True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        while True:
            with open("/workspace/heartbeat", "a") as file:
                file.write("x")
            time.sleep(0.01)
    os._exit(0)
while not os.path.exists("/workspace/heartbeat"):
    time.sleep(0.01)
print("started", flush=True)
if sys.argv[1] == "stay":
    time.sleep(60)
"""


async def a_timeout_kills_the_whole_tree(sandbox: Sandbox, workspaces: Workspaces) -> None:
    """Background, own session, double fork, SIGTERM ignored: none of five outlives the deadline."""
    outcome = await python(sandbox, _TREE, "stay", timeout_s=2.0, workspace="tree", session="tree")
    assert outcome.timed_out and outcome.exit_code == _KILLED and outcome.stdout == b"started\n", outcome
    await _heart_stopped(sandbox, workspaces)


async def nothing_outlives_its_command(sandbox: Sandbox, workspaces: Workspaces) -> None:
    """What a command leaves behind is dead before its outcome is told."""
    outcome = await python(sandbox, _TREE, "leave", workspace="tree", session="tree")
    assert outcome.exit_code == 0 and outcome.stdout == b"started\n", outcome
    await _heart_stopped(sandbox, workspaces)


async def cancelling_kills_the_command(sandbox: Sandbox, workspaces: Workspaces) -> None:
    """When the cancellation has passed, nothing runs any more, and the session can be used again."""
    folder = Path(workspaces.path("tree"))
    (folder / "heartbeat").unlink(missing_ok=True)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: python(sandbox, _TREE, "stay", workspace="tree", session="tree"))
        await until((folder / "heartbeat").exists)
        tasks.cancel_scope.cancel()
    await _heart_stopped(sandbox, workspaces)


async def _heart_stopped(sandbox: Sandbox, workspaces: Workspaces) -> None:
    beats = workspaces.read("tree", "heartbeat", limit=2**20)
    assert beats, "the control failed: the detached process never ran"
    await alone(sandbox, workspace="tree", session="tree")
    assert (await sh(sandbox, "sleep 0.1", workspace="tree", session="tree")).exit_code == 0
    assert workspaces.read("tree", "heartbeat", limit=2**20) == beats


async def a_fork_bomb_is_contained(sandbox: Sandbox, _workspaces: Workspaces) -> None:
    """The process limit holds, and the session lives on."""
    script = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    outcome = await python(sandbox, script, timeout_s=1.0)
    assert outcome.timed_out
    await alone(sandbox)
    counted = await python(sandbox, _COUNT_FORKS)
    assert 4 <= int(counted.stdout) <= PIDS_MAX, counted


_COUNT_FORKS = f"""
import os, time
made = 0
try:
    while made < {PIDS_MAX * 2}:
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
        made += 1
except OSError:
    pass
print(made)
"""


async def a_memory_bomb_is_contained(sandbox: Sandbox, _workspaces: Workspaces) -> None:
    """A limit that was proven total kills and says so; any limit holds. The session lives on."""
    proof = sandbox.proven()
    assert proof is not None
    control = await python(sandbox, "b = b'x' * (16 << 20); print(len(b))")
    assert control.stdout == b"16777216\n", control
    outcome = await python(sandbox, f"b = b'x' * ({MEMORY_BYTES} * 2); print('held')")
    assert outcome.exit_code != 0 and b"held" not in outcome.stdout, outcome
    if proof.memory_limit == "total":
        assert outcome.out_of_memory and outcome.exit_code == _KILLED, outcome
    again = await sh(sandbox, "true")
    assert again.exit_code == 0 and not again.out_of_memory


async def temporary_space_is_bounded(sandbox: Sandbox, _workspaces: Workspaces) -> None:
    """/tmp and /dev/shm take something, and stop below the memory limit; nothing else can be written."""
    for path in ("/tmp/fill", "/dev/shm/fill"):
        outcome = await sh(sandbox, f"echo x > {path} && head -c {MEMORY_BYTES} /dev/zero > {path}; stat -c %s {path}")
        assert 0 < int(outcome.stdout) < MEMORY_BYTES, (path, outcome)
        assert (await sh(sandbox, f"rm {path}")).exit_code == 0
    for path in ("/fill", "/dev/fill", "/run/fill", "/etc/fill", "/usr/fill", "/proc/fill", "/var/fill"):
        assert (await sh(sandbox, f"echo x > {path}")).exit_code != 0, path


async def a_session_keeps_its_temporary_files(sandbox: Sandbox, _workspaces: Workspaces) -> None:
    """Two commands of a session share /tmp; after `close` it is gone, the workspace is not."""
    options = {"session": "keeps", "workspace": "keeps"}
    await sh(sandbox, "echo 1 > /tmp/kept; echo 2 > /workspace/kept", **options)
    assert (await sh(sandbox, "cat /tmp/kept", **options)).stdout == b"1\n"
    await sandbox.close("keeps")
    await sandbox.close("never-there")
    outcome = await sh(sandbox, "test ! -e /tmp/kept && cat /workspace/kept", **options)
    assert outcome.stdout == b"2\n", outcome


async def two_sessions_see_nothing_of_each_other(sandbox: Sandbox, _workspaces: Workspaces) -> None:
    """Not the workspace, not /tmp, not processes, not abstract sockets."""
    server = (
        "import socket, time; s = socket.socket(socket.AF_UNIX); s.bind('\\0shared'); s.listen()\n"
        "open('/workspace/up', 'w').write('x'); open('/tmp/private', 'w').write('x'); time.sleep(60)"
    )
    client = (
        "import os, socket; s = socket.socket(socket.AF_UNIX)\n"
        "print(s.connect_ex('\\0shared'), os.path.exists('/workspace/up'), os.path.exists('/tmp/private'))"
    )
    control = server.replace("time.sleep(60)", "c = socket.socket(socket.AF_UNIX); print(c.connect_ex('\\0shared'))")
    assert (await python(sandbox, control, session="one", workspace="one")).stdout == b"0\n"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: python(sandbox, server, session="one", workspace="one"))
        outcome = await python(sandbox, client, session="two", workspace="two")
        assert outcome.stdout == b"111 False False\n", outcome
        await alone(sandbox, session="two", workspace="two")
        tasks.cancel_scope.cancel()


async def levels_decide_what_can_be_written(sandbox: Sandbox, workspaces: Workspaces) -> None:
    """A session changes level with its command; read_only can read, not write."""
    workspaces.write("levels", "given", b"from the kernel")
    options = {"session": "levels", "workspace": "levels"}
    script = "cat given; echo more >> given && echo written"
    outcome = await sh(sandbox, script, level=IsolationLevel.READ_ONLY, **options)
    assert outcome.stdout == b"from the kernel" and outcome.exit_code != 0, outcome
    outcome = await sh(sandbox, script, **options)
    assert outcome.stdout == b"from the kernelwritten\n", outcome
    assert workspaces.read("levels", "given", limit=100) == b"from the kernelmore\n"


CONTRACT_CHECKS: Sequence[Check] = (
    exit_codes_come_back,
    the_driver_that_ran_it_is_named,
    bytes_come_back_as_written,
    output_beyond_the_limit_is_counted,
    an_output_flood_ends_at_the_deadline,
    large_input_arrives_whole,
    input_that_nobody_reads_blocks_nothing,
    a_large_command_line_is_taken,
    a_command_needs_a_program,
    a_timeout_kills_the_whole_tree,
    nothing_outlives_its_command,
    cancelling_kills_the_command,
    a_fork_bomb_is_contained,
    a_memory_bomb_is_contained,
    temporary_space_is_bounded,
    a_session_keeps_its_temporary_files,
    two_sessions_see_nothing_of_each_other,
    levels_decide_what_can_be_written,
)
