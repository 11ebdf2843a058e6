from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command import Aos


@pytest.fixture(scope="module")
def aos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aos]:
    command = Aos(tmp_path_factory.mktemp("cli"))
    yield command
    command("stop")


@pytest.fixture
def idle(tmp_path: Path) -> Aos:
    """Give a home in which no daemon runs and none is started."""
    return Aos(tmp_path)
