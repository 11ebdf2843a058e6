"""A home for a host."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.home import kernel_home
from tests.surface.conftest import end_daemon


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A home with a path short enough for a socket in it; the daemon in it is ended afterwards."""
    path = Path(tempfile.mkdtemp(prefix="aos-"))
    yield path
    end_daemon(kernel_home(path))
    shutil.rmtree(path, ignore_errors=True)
