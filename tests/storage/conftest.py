"""A store in a file of its own, on the real clock's fake."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from aos_mcp.storage.sqlite import SqliteStore, open_sqlite
from aos_mcp.testing.clock import FakeClock
from aos_mcp.testing.store_record_checks import OpenStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the store of this test lies."""
    return tmp_path / "home" / "kernel.db"


@pytest.fixture
def open_store(path: Path) -> OpenStore:
    """A way to open the store of this test, again and again."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[SqliteStore]:
        async with open_sqlite(path, FakeClock()) as store:
            yield store

    return opened
