"""What every `ports.Sandbox` must keep, as checks that run against a real one.

    @pytest.mark.parametrize("check", SANDBOX_CHECKS)
    async def test_my_sandbox(check, sandbox, workspaces):
        await check(sandbox, workspaces)

`CONTRACT_CHECKS` are the promises to a caller; `ESCAPE_CHECKS` try to get out, each beside a control that shows the
attempt itself works where it may. A check raises AssertionError. Commands use `sh` and `python3` of the sandbox.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import anyio.to_thread

from aos_mcp.abi.capability import IsolationLevel
from aos_mcp.abi.errors import Denied, Invalid, LimitExceeded
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


# Escapes -------------------------------------------------------------------------------------------------------------


@contextmanager
def _canary() -> Iterator[Path]:
    """A secret that anybody on this machine can read, which is the control: only the sandbox stands before it."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder, "canary")
        path.write_text(secrets.token_hex(16), "utf-8")
        path.chmod(0o644)
        yield path


_READ_ALL = """
import glob, sys
canary, secret = sys.argv[1], sys.argv[2]
doors = [canary, "/workspace/absolute", "/workspace/relative", *glob.glob("/proc/*/root" + canary)]
doors += [door + canary for door in glob.glob("/proc/[0-9]*/root") + glob.glob("/proc/[0-9]*/cwd/../..")]
doors += glob.glob("/proc/[0-9]*/fd/*") + glob.glob("/proc/[0-9]*/environ") + glob.glob("/proc/[0-9]*/cmdline")
doors.remove("/proc/self/cmdline") if "/proc/self/cmdline" in doors else None
import os
own = "/proc/%d/" % os.getpid()
for door in doors + ["/workspace/control"]:
    if door.startswith(own):
        continue
    try:
        with open(door, "rb") as file:
            if secret.encode() in file.read(1 << 20):
                print(door)
    except OSError:
        pass
"""


async def no_file_of_the_machine_can_be_read(sandbox: Sandbox, workspaces: Workspaces) -> None:
    """Not by path, link, or any door in /proc; the same reader finds the secret where it lies in the workspace."""
    with _canary() as canary:
        secret = canary.read_text("utf-8")
        folder = Path(workspaces.path("reads"))
        for name, target in (("absolute", canary), ("relative", Path("../" * 30 + str(canary).lstrip("/")))):
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(target)
            try:
                workspaces.read("reads", name, limit=100)
            except Denied:
                continue
            raise AssertionError("the kernel itself followed a link out of the workspace")
        workspaces.write("reads", "control", secret.encode("ascii"))
        outcome = await python(sandbox, _READ_ALL, str(canary), secret, session="reads", workspace="reads")
        assert outcome.stdout.decode("utf-8").split() == ["/workspace/control"], outcome


_TOUCH = """
import json, os, sys
def attempt(act, path):
    try:
        act(path)
    except OSError as error:
        return error.errno
    return 0
def read(path):
    with open(path, "rb") as file:
        file.read(1)
def write(path):
    with open(path, "ab") as file:
        file.write(b"1")
json.dump({name: {path: attempt(act, path) for path in sys.argv[1:]} for name, act in (("r", read), ("w", write))},
    sys.stdout)
"""

_FORBIDDEN_READ = (
    "/etc/shadow", "/root/.ssh/id_rsa", "/root/.bashrc", "/dev/mem", "/dev/kmem", "/dev/kmsg", "/dev/kvm", "/dev/sda",
    "/dev/vda", "/dev/fuse", "/proc/kcore", "/proc/1/environ", "/proc/1/mem", "/proc/1/maps", "/proc/kmsg",
    "/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/run/dbus/system_bus_socket",
)  # fmt: skip
_FORBIDDEN_WRITE = (
    "/usr/bin/sh", "/usr/planted", "/bin/planted", "/etc/passwd", "/etc/hosts", "/etc/ld.so.preload", "/lib/planted",
    "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sysrq-trigger", "/proc/1/oom_score_adj",
    "/sys/kernel/uevent_helper", "/sys/fs/cgroup/release_agent", "/sys/fs/cgroup/memory/release_agent",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/pids/pids.max",
    "/sys/fs/cgroup/cgroup.procs", "/run/aos-agentd.py", "/run/aos-egress/proxy.sock",
)  # fmt: skip


async def no_kernel_or_engine_file_can_be_touched(sandbox: Sandbox, _workspaces: Workspaces) -> None:
    """Devices, sockets of engines, kernel switches, limits, the supervisor's own file."""
    outcome = await python(sandbox, _TOUCH, "/workspace/control", *_FORBIDDEN_READ, *_FORBIDDEN_WRITE)
    control = await python(sandbox, _TOUCH, "/workspace/control")
    assert json.loads(control.stdout) == {"r": {"/workspace/control": 0}, "w": {"/workspace/control": 0}}
    found = json.loads(outcome.stdout)
    assert not [path for path in _FORBIDDEN_READ if found["r"][path] == 0], found
    assert not [path for path in _FORBIDDEN_READ + _FORBIDDEN_WRITE if found["w"][path] == 0], found


_SYSCALLS = """
import ctypes, json, os, platform, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
numbers = json.loads(sys.argv[1])[platform.machine()]
def call(number, *args):
    ctypes.set_errno(0)
    pid = os.fork()
    if pid == 0:
        result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) for a in args])
        os._exit(ctypes.get_errno() if result == -1 else 0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
def sock(*args):
    try:
        socket.socket(*args).close()
    except OSError as error:
        return error.errno
    return 0
FLAGS = {"mnt": 0x20000, "user": 0x10000000, "net": 0x40000000, "pid": 0x20000000, "ipc": 0x08000000}
found = {name: call(number, 0, 0, 0, 0, 0, 0) for name, number in numbers.items()}
found.update({"unshare " + n: call(numbers["unshare"], flag) for n, flag in FLAGS.items()})
found.update({"clone " + n: call(numbers["clone"], flag | 17, 0, 0, 0, 0) for n, flag in FLAGS.items()})
found["ptrace pid 1"] = call(numbers["ptrace"], 16, 1, 0, 0)
families = {"alg": (38, 5, 0), "packet": (17, 3, 0), "vsock": (40, 1, 0), "raw": (2, 3, 1), "raw6": (10, 3, 58),
    "key": (15, 3, 2), "xdp": (44, 3, 0), "netfilter": (16, 3, 12), "bluetooth": (31, 3, 1), "tipc": (30, 1, 0)}
found.update({"socket " + n: sock(*f) for n, f in families.items()})
control = {"getpid": call(numbers["getpid"]), "clone": call(numbers["clone"], 17, 0, 0, 0, 0),
    "unix": sock(socket.AF_UNIX), "tcp": sock(socket.AF_INET), "udp": sock(socket.AF_INET, socket.SOCK_DGRAM)}
json.dump({"found": found, "control": control}, sys.stdout)
"""

_NAMES = (
    "getpid", "clone", "unshare", "setns", "mount", "umount2", "pivot_root", "chroot", "ptrace", "process_vm_readv",
    "process_vm_writev", "open_by_handle_at", "name_to_handle_at", "bpf", "perf_event_open", "userfaultfd",
    "io_uring_setup", "io_uring_enter", "keyctl", "add_key", "request_key", "init_module", "kexec_load", "reboot",
    "clock_settime", "settimeofday", "sethostname", "swapon", "fsopen", "open_tree", "move_mount", "mount_setattr",
    "pidfd_getfd", "syslog", "clone3",
)  # fmt: skip
_NUMBERS = {
    "x86_64": (39, 56, 272, 308, 165, 166, 155, 161, 101, 310, 311, 304, 303, 321, 298, 323, 425, 426, 250, 248, 249,
               175, 246, 169, 227, 164, 170, 167, 430, 428, 429, 442, 438, 103, 435),
    "aarch64": (172, 220, 97, 268, 40, 39, 41, 51, 117, 270, 271, 265, 264, 280, 241, 282, 425, 426, 219, 217, 218,
                105, 104, 142, 112, 170, 161, 224, 430, 428, 429, 442, 438, 116, 435),
}  # fmt: skip
_REFUSED = {1, 13, 38, 97, 93, 94}
"""EPERM, EACCES, ENOSYS; for socket families EAFNOSUPPORT, EPROTONOSUPPORT, ESOCKTNOSUPPORT too."""


async def dangerous_system_calls_are_refused(sandbox: Sandbox, _workspaces: Workspaces) -> None:
    """Refused as such, not only for bad arguments (EFAULT, EINVAL would mean that the kernel had begun to listen)."""
    numbers = {machine: dict(zip(_NAMES, row, strict=True)) for machine, row in _NUMBERS.items()}
    outcome = await python(sandbox, _SYSCALLS, json.dumps(numbers))
    assert outcome.exit_code == 0, outcome
    result = json.loads(outcome.stdout)
    assert set(result["control"].values()) == {0}, result["control"]
    allowed = {name: code for name, code in result["found"].items() if code not in _REFUSED}
    assert not set(allowed) - {"getpid", "clone"}, allowed


async def processes_of_the_machine_are_out_of_reach(sandbox: Sandbox, _workspaces: Workspaces) -> None:
    """Neither seen nor signalled; the same calls work on a child."""
    script = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen(['sleep', '9']); os.kill(child.pid, 0); print(os.path.exists(f'/proc/{child.pid}'))\n"
        "for pid in map(int, sys.argv[1:]):\n"
        "    try: os.kill(pid, 0); print('reached', pid)\n"
        "    except ProcessLookupError: pass\n"
        "try: os.kill(1, 9)\n"
        "except OSError: pass\n"
        "ours = (1, os.getpid(), child.pid)\n"
        "print(sorted(int(p) for p in os.listdir('/proc') if p.isdigit() and int(p) not in ours))"
    )
    high = os.getpid() + 10_000_000  # Nobody's number: the control that an absent process is told apart.
    outcome = await python(sandbox, script, str(os.getpid()) if os.getpid() > 1_000 else str(high), str(high))
    assert outcome.stdout == b"True\n[]\n", outcome
    assert (await sh(sandbox, "true")).exit_code == 0, "a signal reached the supervisor"


@contextmanager
def _listeners() -> Iterator[tuple[int, int, str]]:
    """TCP, UDP and abstract Unix listeners of this machine, with the first shown to answer."""
    name = f"aos-check-{secrets.token_hex(8)}"
    with (
        socket.create_server(("0.0.0.0", 0)) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        udp.bind(("0.0.0.0", 0))
        unix.bind("\0" + name)
        unix.listen()
        socket.create_connection(("127.0.0.1", tcp.getsockname()[1]), timeout=5).close()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect("\0" + name)
        yield tcp.getsockname()[1], udp.getsockname()[1], name


_CONNECT = """
import json, socket, sys
port, udp, name = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
def attempt(family, kind, address):
    try:
        with socket.socket(family, kind) as s:
            s.settimeout(2)
            s.connect(address)
            s.send(b"x")
    except OSError as error:
        return error.errno or -1
    return 0
T, U = socket.SOCK_STREAM, socket.SOCK_DGRAM
hosts = ["127.0.0.1", "172.17.0.1", "10.0.0.1", "192.168.0.1", "169.254.169.254", "1.1.1.1", *sys.argv[4:]]
found = {h + " tcp": attempt(socket.AF_INET, T, (h, port)) for h in hosts}
found.update({h + " udp": attempt(socket.AF_INET, U, (h, udp)) for h in hosts if h != "127.0.0.1"})
found["dns"] = attempt(socket.AF_INET, U, ("8.8.8.8", 53))
found["abstract"] = attempt(socket.AF_UNIX, T, "\\0" + name)
try:
    socket.getaddrinfo("example.com", 80)
    found["name"] = 0
except OSError as error:
    found["name"] = error.errno or -1
with socket.create_server(("127.0.0.1", 0)) as own:
    control = attempt(socket.AF_INET, T, own.getsockname())
json.dump({"control": control, "found": found}, sys.stdout)
"""


async def there_is_no_network(sandbox: Sandbox, _workspaces: Workspaces) -> None:
    """No loopback of the machine, gateway, metadata address, public address, name service or abstract socket."""
    own = {str(entry[4][0]) for entry in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    with _listeners() as (tcp, udp, name):
        outcome = await python(sandbox, _CONNECT, str(tcp), str(udp), name, *sorted(own - {"127.0.0.1", "127.0.1.1"}))
    result = json.loads(outcome.stdout)
    assert result["control"] == 0, result
    assert not [door for door, code in result["found"].items() if code == 0], result


async def shared_memory_of_the_machine_is_out_of_reach(sandbox: Sandbox, _workspaces: Workspaces) -> None:
    """A System V segment made here is not there; one made there is."""
    libc = ctypes.CDLL(None, use_errno=True)
    key = secrets.randbelow(2**30) + 1
    segment = libc.shmget(key, 4096, 0o1666)
    assert segment >= 0 and libc.shmget(key, 0, 0) == segment
    script = (
        "import ctypes, sys; libc = ctypes.CDLL(None); key = int(sys.argv[1])\n"
        "print(libc.shmget(key, 0, 0), libc.shmget(key, 4096, 0o1600) >= 0)"
    )
    try:
        outcome = await python(sandbox, script, str(key))
    finally:
        libc.shmctl(segment, 0, None)
    assert outcome.stdout == b"-1 True\n", outcome


async def a_command_has_nothing_but_its_own(sandbox: Sandbox, _workspaces: Workspaces) -> None:
    """A fixed environment, three descriptors, no terminal to type into, no privileges."""
    script = (
        "import json, os\n"
        "s = dict(l.split(':', 1) for l in open('/proc/self/status') if ':' in l)\n"
        "tty = [n for n in range(3) if os.isatty(n)]\n"
        "fds = sorted(map(int, os.listdir('/proc/self/fd')))\n"
        "json.dump([sorted(os.environ), fds[:3], len(fds), tty,\n"
        "  s['CapEff'].strip(), s['CapBnd'].strip(), s['NoNewPrivs'].strip(), s['Seccomp'].strip(),\n"
        "  os.getuid() != 0, os.getgroups() in ([], [os.getgid()])], __import__('sys').stdout)"
    )
    os.environ["AOS_CHECK_SECRET"] = secret = secrets.token_hex(16)
    try:
        outcome = await python(sandbox, script, session="own")
        doors = await sh(sandbox, "cat /proc/*/environ /proc/*/cmdline", session="own")
    finally:
        del os.environ["AOS_CHECK_SECRET"]
    environment, fds, count, tty, effective, bounding, no_new, seccomp, user, groups = json.loads(outcome.stdout)
    assert environment == ["HOME", "LANG", "PATH", "TMPDIR"] and fds == [0, 1, 2] and count <= 4 and tty == []
    assert int(effective, 16) == 0 and int(bounding, 16) == 0 and (no_new, seccomp) == ("1", "2") and user and groups
    assert b"PATH=" in doors.stdout and secret.encode("ascii") not in doors.stdout


async def a_terminal_cannot_be_typed_into(sandbox: Sandbox, _workspaces: Workspaces) -> None:
    """TIOCSTI and TIOCLINUX are refused on a terminal whose size can be asked for."""
    script = (
        "import fcntl, os\n"
        "end, tty = os.openpty()\n"
        "def ask(n):\n"
        "    try: fcntl.ioctl(tty, n, b'x' * 8); return 0\n"
        "    except OSError as e: return e.errno\n"
        "print(ask(0x5413), ask(0x5412), ask(0x541C))"
    )
    outcome = await python(sandbox, script)
    size, *refused = outcome.stdout.decode("ascii").split()
    assert size == "0" and all(int(code) in _REFUSED | {25} for code in refused), outcome


async def privileges_cannot_be_left_behind(sandbox: Sandbox, workspaces: Workspaces) -> None:
    """A set-user-id bit gives nothing inside and does not survive a scan; devices cannot be made."""
    script = (
        "cp /usr/bin/id tool; chmod 4755 tool; ./tool -u; id -u;"
        " mknod device c 1 3 2>/dev/null && echo device; rm -f pipe; mkfifo pipe && echo pipe"
    )
    outcome = await sh(sandbox, script, session="bits", workspace="bits")
    first, second, *rest = outcome.stdout.decode("ascii").split()
    assert first == second != "0" and rest == ["pipe"], outcome
    entries = await anyio.to_thread.run_sync(lambda: workspaces.scan("bits", {}))
    assert set(entries) == {"tool"} and entries["tool"].mode == 0o755, entries


ESCAPE_CHECKS: Sequence[Check] = (
    no_file_of_the_machine_can_be_read,
    no_kernel_or_engine_file_can_be_touched,
    dangerous_system_calls_are_refused,
    processes_of_the_machine_are_out_of_reach,
    there_is_no_network,
    shared_memory_of_the_machine_is_out_of_reach,
    a_command_has_nothing_but_its_own,
    a_terminal_cannot_be_typed_into,
    privileges_cannot_be_left_behind,
)

SANDBOX_CHECKS: Sequence[Check] = (*CONTRACT_CHECKS, *ESCAPE_CHECKS)
