"""llama.cpp's server with a model of random weights, on loopback. `make engine` builds it.

python -m tests.engine.server 2     # the slower model in two slots, until interrupted
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.engine.weights import SLOW, Size, write_weights
from tests.tree import ROOT

BINARY = ROOT / ".cache" / "engine" / "llama-server"
WAIT_S = 60.0


@contextmanager
def serving(folder: Path, size: Size, slots: int) -> Iterator[str]:
    weights = folder / "model.gguf"
    write_weights(weights, size)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(BINARY), "-m", str(weights), "-a", "random", "--host", "127.0.0.1", "--port", str(port)]
    command += ["-np", str(slots), "-c", str(8_192 * slots), "-t", "1", "-tb", "1", "--slots", "--jinja", "--no-webui"]
    # Flash attention rounds to 16 bits, and otherwise for a token alone than for many at once: a text that is gone on
    # with from a cold cache would differ. Without it the two agree to 1e-3 where the choices lie 8e-3 apart at least.
    command += ["-fa", "off", "-ctk", "f32", "-ctv", "f32"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env={"PATH": os.environ["PATH"]})
    try:
        _wait(f"http://127.0.0.1:{port}/health", server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)


def _wait(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + WAIT_S
    while True:
        assert server.poll() is None, "the engine ended by itself"
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except (urllib.error.URLError, OSError):
            assert time.monotonic() < deadline, "the engine does not answer"
            time.sleep(0.05)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as _folder, serving(Path(_folder), SLOW, int(sys.argv[1])) as _url:
        print(_url, flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
