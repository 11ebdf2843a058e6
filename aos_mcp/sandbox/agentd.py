"""The supervisor: process 1 of every sandbox. Standard library only, Python 3.9 or later, no import of this package.

It reads JSON lines on standard input and answers on standard output; it owns every process in the sandbox and
promises that none outlives the command that started it. It knows nothing of drivers, workspaces or policy.

First line in:  {"seccomp": base64 BPF or "", "egress": socket path or "", "port": n, "uid": n, "gid": n, "env": {...},
                 "die_with_parent": bool}
Answer:         {"ready": true, "oom": true when the sandbox can count its own out-of-memory kills}
Then:           {"id", "argv", "stdin": base64, "timeout_s", "output": bytes kept, "limits": {name: n}, "cwd"}
Answer:         {"id", "exit", "out", "err", "out_dropped", "err_dropped", "timed_out", "killed", "oom"}
While it runs:  {"kill": id} ends the command at once; its answer still comes.
End of input ends the supervisor, and with it the sandbox, even while a command runs.
"""

from __future__ import annotations

import base64
import ctypes
import errno
import json
import os
import resource
import selectors
import signal
import socket
import sys
import threading
import time
from typing import Any, NoReturn

LINE_MAX = 16 * 2**20
CHUNK = 65536
CONNECTIONS = threading.BoundedSemaphore(64)
OOM_FILES = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 24, 38
libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, a: int = 0, b: int = 0) -> None:
    """Set a property of this process."""
    if libc.prctl(option, ctypes.c_ulong(a), ctypes.c_void_p(b), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def drop_privileges(uid: int, gid: int) -> None:
    """Become `uid` for good and prove that no capability is left."""
    if os.geteuid() == 0:
        for cap in range(64):
            try:
                prctl(PR_CAPBSET_DROP, cap)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                break
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    libc.capset(header, (ctypes.c_uint32 * 6)())
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        caps = [line for line in status if line.startswith("Cap") and int(line.split()[1], 16) != 0]
    if caps or os.geteuid() == 0:
        raise PermissionError(f"privileges are left: {caps}")


def install_seccomp(blob: bytes) -> None:
    """Refuse what the filter refuses, from here on, for everybody."""

    class Program(ctypes.Structure):
        _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]

    program = Program(len(blob) // 8, blob)
    prctl(PR_SET_SECCOMP, 2, ctypes.addressof(program))


def oom_kills() -> int | None:
    """Count the sandbox's out-of-memory kills; None where its cgroup cannot be seen from inside."""
    for path in OOM_FILES:
        try:
            with open(path, encoding="ascii") as lines:
                found = [int(line.split()[1]) for line in lines if line.startswith("oom_kill ")]
        except OSError:
            continue
        if found:
            return found[0]
    return None


def reap() -> dict[int, int]:
    """Collect every child that has ended: {pid: wait status}."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = status


def clear() -> dict[int, int]:
    """Kill everything but this process, and wait until it is gone. Returns what ended."""
    ended: dict[int, int] = {}
    while True:
        try:
            os.kill(-1, signal.SIGKILL)
        except ProcessLookupError:
            pass
        try:
            pid, status = os.waitpid(-1, 0)
        except ChildProcessError:
            return ended
        ended[pid] = status
        ended.update(reap())


def become(request: dict[str, Any], env: dict[str, str], stdio: tuple[int, int, int]) -> NoReturn:
    """In the child: turn into the command, or say why not."""
    try:
        for target, fd in enumerate(stdio):
            os.dup2(fd, target)
        os.setsid()
        prctl(PR_SET_DUMPABLE, 1)  # Its own /proc files belong to it again, so that the next line may write one.
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:
            score.write("1000")
        for name, value in request["limits"].items():
            resource.setrlimit(getattr(resource, "RLIMIT_" + name), (value, value))
        for number in (signal.SIGPIPE, signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        os.chdir(request["cwd"])
        os.closerange(3, 4096)
        os.execvpe(request["argv"][0], request["argv"], env)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        os.write(2, f"{request['argv'][0]}: {reason}\n".encode("utf-8", "replace"))
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)
    finally:
        os._exit(126)


class Stream:
    """One output of a command: the first `keep` bytes, and how many came after."""

    def __init__(self, fd: int, keep: int) -> None:
        self.fd, self.keep, self.kept, self.dropped = fd, keep, bytearray(), 0

    def pull(self) -> bool:
        """Read once; tell whether there may be more."""
        data = os.read(self.fd, CHUNK)
        room = max(0, self.keep - len(self.kept))
        self.kept += data[:room]
        self.dropped += max(0, len(data) - room)
        return bool(data)


class Run:
    """One command from start to answer."""

    def __init__(self, request: dict[str, Any], env: dict[str, str]) -> None:
        self.request, self.selector = request, selectors.DefaultSelector()
        self.unsent = memoryview(base64.b64decode(request["stdin"]))
        self.timed_out = self.killed = False
        self.status: int | None = None
        (in_r, self.stdin), (out_r, out_w), (err_r, err_w) = os.pipe(), os.pipe(), os.pipe()
        self.streams = [Stream(out_r, request["output"]), Stream(err_r, request["output"])]
        self.pid = os.fork()
        if self.pid == 0:
            become(request, env, (in_r, out_w, err_w))
        for fd in (in_r, out_w, err_w):
            os.close(fd)
        os.set_blocking(self.stdin, False)
        self.selector.register(self.stdin, selectors.EVENT_WRITE, self.feed)
        for stream in self.streams:
            self.selector.register(stream.fd, selectors.EVENT_READ, stream)

    def feed(self) -> None:
        """Give the command some of its input, and the end of it."""
        try:
            if self.unsent:
                self.unsent = self.unsent[os.write(self.stdin, self.unsent[:CHUNK]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self.unsent = self.unsent[:0]
        if not self.unsent:
            self.selector.unregister(self.stdin)
            os.close(self.stdin)
            self.stdin = -1

    def serve(self, orders: Orders, bell: int) -> None:
        """Move bytes until the command ends, its time is up, or it is to be killed."""
        deadline = time.monotonic() + self.request["timeout_s"]
        self.selector.register(orders.fd, selectors.EVENT_READ, orders)
        self.selector.register(bell, selectors.EVENT_READ)
        while self.status is None and not self.killed:
            left = deadline - time.monotonic()
            if left <= 0:
                self.timed_out = True
                return
            for key, _ in self.selector.select(left):
                self.handle(key, orders, bell)

    def handle(self, key: selectors.SelectorKey, orders: Orders, bell: int) -> None:
        """Do what one ready descriptor asks for."""
        if key.data is orders:
            self.killed = any(order.get("kill") == self.request["id"] for order in orders.pull())
        elif key.fd == bell:
            os.read(bell, 4096)
            self.status = reap().get(self.pid)
        elif isinstance(key.data, Stream):
            if not key.data.pull():
                self.selector.unregister(key.fd)
        else:
            key.data()

    def finish(self, oom_before: int | None) -> dict[str, Any]:
        """Leave nothing running, then answer."""
        ended = clear()
        self.status = ended.get(self.pid, self.status)
        for stream in self.streams:
            while stream.pull():
                pass
            os.close(stream.fd)
        if self.stdin >= 0:
            os.close(self.stdin)
        self.selector.close()
        code = 137 if self.status is None else os.waitstatus_to_exitcode(self.status)
        oom_after = oom_kills()
        out, err = self.streams
        return {
            "id": self.request["id"],
            "exit": 128 - code if code < 0 else code,
            "out": base64.b64encode(out.kept).decode(),
            "err": base64.b64encode(err.kept).decode(),
            "out_dropped": out.dropped,
            "err_dropped": err.dropped,
            "timed_out": self.timed_out,
            "killed": self.killed,
            "oom": None if oom_after is None else oom_after > (oom_before or 0),
        }


class Orders:
    """The lines of standard input."""

    def __init__(self, fd: int) -> None:
        self.fd, self.buffer = fd, bytearray()

    def pull(self) -> list[dict[str, Any]]:
        """Read once; return the whole lines as objects. The end of input is the end of everything."""
        data = os.read(self.fd, CHUNK)
        if not data or len(self.buffer) > LINE_MAX:
            os._exit(0)
        self.buffer += data
        if b"\n" not in data:
            return []
        *lines, self.buffer = self.buffer.split(b"\n")
        return [json.loads(line) for line in lines]

    def wait(self) -> dict[str, Any]:
        """Return the next order, when there is one."""
        while True:
            found = self.pull()
            if found:
                return found[0]


def answer(reply: dict[str, Any]) -> None:
    """Write one line."""
    data = memoryview(json.dumps(reply).encode() + b"\n")
    while data:
        data = data[os.write(1, data) :]


def relay(source: socket.socket, target: socket.socket) -> None:
    """Carry one direction until its end."""
    try:
        while True:
            data = source.recv(CHUNK)
            if not data:
                break
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def carry(client: socket.socket, path: str) -> None:
    """Carry one connection to the proxy's socket."""
    try:
        with client, socket.socket(socket.AF_UNIX) as proxy:
            proxy.connect(path)
            up = threading.Thread(target=relay, args=(client, proxy), daemon=True)
            up.start()
            relay(proxy, client)
            up.join()
    except (OSError, RuntimeError):
        pass  # No proxy, or no process left for a thread: the client sees its connection closed.
    finally:
        CONNECTIONS.release()


def forward(listener: socket.socket, path: str) -> None:
    """Accept for as long as the sandbox lives."""
    while True:
        CONNECTIONS.acquire()
        try:
            client = listener.accept()[0]
            threading.Thread(target=carry, args=(client, path), daemon=True).start()
        except (OSError, RuntimeError):  # Descriptors or processes are used up: by the command, so it has to wait.
            CONNECTIONS.release()
            time.sleep(0.05)


def main() -> None:
    """Greet, then run commands until the end of input."""
    if os.getpid() != 1:
        sys.exit("agentd kills everything it can see, so it only runs as process 1 of a sandbox")
    orders = Orders(0)
    hello = orders.wait()
    drop_privileges(hello["uid"], hello["gid"])
    prctl(PR_SET_DUMPABLE, 0)
    if hello["die_with_parent"]:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # Changing the user id has cleared what the driver had set.
    if hello["seccomp"]:
        install_seccomp(base64.b64decode(hello["seccomp"]))
    bell, ring = os.pipe()
    os.set_blocking(ring, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
    if hello["egress"]:
        listener = socket.create_server(("127.0.0.1", hello["port"]), backlog=64)
        threading.Thread(target=forward, args=(listener, hello["egress"]), daemon=True).start()
    answer({"ready": True, "oom": oom_kills() is not None})
    while True:
        request = orders.wait()
        if "argv" not in request:
            continue  # A late order to kill a command that has ended.
        before = oom_kills()
        try:
            run = Run(request, hello["env"])
        except OSError as error:
            answer({"id": request["id"], "failed": str(error)})
            continue
        run.serve(orders, bell)
        answer(run.finish(before))


if __name__ == "__main__":
    main()
