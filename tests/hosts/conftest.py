"""Whether the hosts are there, and a home for one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.claude_code import kernel_home
from tests.surface.conftest import end_daemon

REQUIRED = bool({"CI", "AOS_HOSTS"} & os.environ.keys())
"""`make hosts` installs them and sets AOS_HOSTS: then, as under CI, a host that is missing fails its tests."""


def needs(program: Path) -> pytest.MarkDecorator:
    """Return the mark of tests that start a host."""
    missing = not REQUIRED and not program.exists()
    return pytest.mark.skipif(missing, reason=f"{program.name} is not installed here; `make hosts` does it")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A user's home, with a path short enough for a socket in it; the daemon in it is ended afterwards."""
    path = Path(tempfile.mkdtemp(prefix="aos-"))
    kernel_home(path).mkdir()
    yield path
    end_daemon(kernel_home(path))
    shutil.copytree(path, "/tmp/hx/keep", dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.sock"))
    shutil.rmtree(path, ignore_errors=True)
