"""A provider on loopback, a catalogue that points at it, and a clock that is held.

Property tests here draw the same examples in every run, and none is held against a clock.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import settings

from aos_mcp.abi.settings import ProviderSettings, Settings
from aos_mcp.llm.catalogue import Catalogue
from aos_mcp.testing.providers import ProviderServer, provider_server

settings.register_profile("pure", deadline=None, derandomize=True, database=None)
settings.load_profile("pure")

KEYS = {"OPENAI_API_KEY": "key-of-openai", "ANTHROPIC_API_KEY": "key-of-anthropic"}
NOW = 1_795_392_000.0  # 2026-11-23T00:00:00Z


class HeldClock:
    """Time stands still but for those who sleep."""

    def __init__(self) -> None:
        self.at = NOW
        self.slept: list[float] = []

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    async def sleep_until(self, when: float) -> None:
        self.slept.append(when - self.at)
        self.at = max(self.at, when)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock()


@pytest.fixture
async def server() -> AsyncIterator[ProviderServer]:
    async with provider_server() as running:
        yield running


@pytest.fixture
async def catalogue(server: ProviderServer, clock: HeldClock) -> AsyncIterator[Catalogue]:
    settings = Settings(
        providers={
            "openai": ProviderSettings(base_url=f"{server.url}/v1"),
            "anthropic": ProviderSettings(base_url=server.url),
        }
    )
    async with Catalogue(settings, KEYS, clock) as opened:
        yield opened
