"""A real engine on loopback: llama.cpp's server with a model of random weights. `make engine` builds it."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.engine.weights import SLOW, TINY, Size, write_weights
from tests.tree import ROOT

BINARY = ROOT / ".cache" / "engine" / "llama-server"
WAIT_S = 60.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is here, with the reason, where the engine was not built. Nothing of it is part of `make test`."""
    if BINARY.exists():
        return
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="llama-server is not built here: make engine builds it"))


@contextmanager
def _serving(folder: Path, size: Size, slots: int) -> Iterator[str]:
    weights = folder / "model.gguf"
    write_weights(weights, size)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(BINARY), "-m", str(weights), "-a", "random", "--host", "127.0.0.1", "--port", str(port)]
    command += ["-np", str(slots), "-c", str(8_192 * slots), "-t", "1", "-tb", "1", "--slots", "--jinja", "--no-webui"]
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


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A fast model in four slots."""
    with _serving(tmp_path_factory.mktemp("tiny"), TINY, slots=4) as url:
        yield url


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A slower model that takes one call at a time."""
    with _serving(tmp_path_factory.mktemp("slow"), SLOW, slots=1) as url:
        yield url
