"""A provider on loopback, a catalogue that points at it, and a clock that is held."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack

import pytest

from aos_mcp.abi.settings import ProviderSettings, Settings
from aos_mcp.llm.catalogue import Catalogue
from aos_mcp.testing.providers import ProviderServer, provider_server

KEYS = {"OPENAI_API_KEY": "key-of-openai", "ANTHROPIC_API_KEY": "key-of-anthropic"}
MODELS = {"openai": "openai/gpt-5.4-mini", "anthropic": "anthropic/claude-haiku-5-5"}
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


Open = Callable[..., Catalogue]


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


def at_server(server: ProviderServer, name: str, dialect: str) -> ProviderSettings:
    return ProviderSettings(base_url=server.url if dialect == "anthropic" else f"{server.url}/v1")


@pytest.fixture
async def catalogue(server: ProviderServer, clock: HeldClock) -> AsyncIterator[Catalogue]:
    settings = Settings(providers={name: at_server(server, name, name) for name in MODELS})
    async with Catalogue(settings, KEYS, clock) as opened:
        yield opened


@pytest.fixture
async def open_catalogue(clock: HeldClock) -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:
        opened: list[Catalogue] = []

        def make(settings: Settings, environ: Mapping[str, str]) -> Catalogue:
            catalogue = Catalogue(settings, environ, clock)
            opened.append(catalogue)
            return catalogue

        yield make
        for each in opened:
            await stack.enter_async_context(each)
