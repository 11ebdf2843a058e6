"""Running a loop of one's own from a test that has none: in a thread, whatever the test's own thread is in."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def apart(work: Callable[[], T]) -> T:
    """Return what `work` returns, called in a fresh thread."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(work).result()
