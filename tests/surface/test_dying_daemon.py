"""A daemon that is being killed: its socket may outlive its connections, and must not be taken for a daemon."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from aos_mcp import shim

TRIES = 25
# It has what a daemon has: a listener, threads, memory and open files, so that its end takes the system some time.
DAEMON = """\
import os, socket, sys, threading, time
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(128)
memory = bytearray(64 * 2**20)
for _ in range(8):
    threading.Thread(target=time.sleep, args=(100,), daemon=True).start()
kept = [os.open(os.devnull, os.O_RDONLY) for _ in range(200)]
print("listening", flush=True)
while True:
    kept.append(listener.accept()[0])
    print("accepted", flush=True)
"""


@contextmanager
def daemon(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", DAEMON, str(home / "kernel.sock")], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"listening\n"
        yield process


@pytest.mark.crash
@pytest.mark.parametrize("attempt", range(TRIES))
def test_a_connection_is_never_made_to_a_daemon_that_is_being_killed(tmp_path: Path, attempt: int) -> None:
    with daemon(tmp_path) as process:
        connection = shim.connect(tmp_path, start=False, hello={"aos": 1})
        assert process.stdout is not None
        assert process.stdout.readline() == b"accepted\n"
        with connection, suppress(ConnectionResetError):
            process.send_signal(signal.SIGKILL)
            assert connection.recv(1) == b""
        with pytest.raises(OSError):
            shim.connect(tmp_path, start=False, hello={"aos": 1}).close()
