"""A real engine for the tests that need one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.server import BINARY, serving
from tests.engine.weights import SLOW, TINY


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is here, with the reason, where the engine was not built. Nothing of it is part of `make test`."""
    if BINARY.exists():
        return
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="llama-server is not built here: make engine builds it"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A fast model in four slots."""
    with serving(tmp_path_factory.mktemp("tiny"), TINY, slots=4) as url:
        yield url


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A slower model that takes one call at a time."""
    with serving(tmp_path_factory.mktemp("slow"), SLOW, slots=1) as url:
        yield url


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A fast model in two slots."""
    with serving(tmp_path_factory.mktemp("pair"), TINY, slots=2) as url:
        yield url
