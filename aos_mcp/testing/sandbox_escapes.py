"""Ways out of a sandbox, tried in earnest against any `ports.Sandbox`, as checks beside those of `sandbox_checks`.

Each stands beside a control that shows that the attempt itself works where it may: a check that could not run fails.
"""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio.to_thread

from aos_mcp.abi.errors import Denied
from aos_mcp.ports import Sandbox, Workspaces
from aos_mcp.testing.sandbox_checks import Check, python, sh


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
