"""The catalogue: from a name to a driver (see `ports.Models`). Owns the rows and the one connection pool.

Loads no SDK: the first call of a provider does. Knows nothing of budgets, queues or retries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Thread
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import anyio
import anyio.to_thread

from aos_mcp.abi import limits
from aos_mcp.abi.errors import Invalid, NotFound, Unavailable
from aos_mcp.abi.settings import Settings, home_directory
from aos_mcp.llm.anthropic import Anthropic
from aos_mcp.llm.driver import Driver
from aos_mcp.llm.embeddings import EndpointEmbedder
from aos_mcp.llm.keys import AFTER, missing_key
from aos_mcp.llm.link import Link, pool_timeout
from aos_mcp.llm.openai_compatible import OpenAICompatible
from aos_mcp.llm.prices import PriceTable
from aos_mcp.llm.providers import Row, load_rows
from aos_mcp.llm.replay import Replay, find_recording
from aos_mcp.ports import Clock, LanguageModel

if TYPE_CHECKING:
    import httpx2

REPLAY = "replay"


class Catalogue:
    """All models there are. An async context manager: leaving it closes every connection."""

    def __init__(self, settings: Settings, environ: Mapping[str, str], clock: Clock) -> None:
        """Read the rows. Raises Invalid when aos.toml changes them in a way that makes no sense."""
        self._settings = settings
        self._environ = environ
        self._clock = clock
        self._rows = load_rows(settings.providers, environ)
        self._prices = PriceTable(settings.prices)
        self._lock = anyio.Lock()
        self._pool: httpx2.AsyncClient | None = None
        secrets = frozenset(name for row in self._rows.values() for name in row.key_variables)
        self._links = {name: Link(row, environ, secrets, self._open_pool) for name, row in self._rows.items()}
        self._models: dict[str, LanguageModel] = {}
        self._warmed: set[str] = set()

    async def __aenter__(self) -> Catalogue:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            with anyio.CancelScope(shield=True):
                await pool.aclose()

    def resolve(self, name: str) -> LanguageModel:
        """See `ports.Models.resolve`."""
        if name not in self._models:
            self._models[name] = self._make(name)
        model = self._models[name]
        if isinstance(model, Driver) and not model.key_present:
            raise missing_key(self._rows[name.partition("/")[0]])
        return model

    def _make(self, name: str) -> LanguageModel:
        provider, _, model = name.partition("/")
        if not model:
            raise NotFound(f"{name!r} is not a model's name.", "Write provider/model, for example ollama/qwen2.5:7b.")
        if provider == REPLAY:
            return Replay(name, find_recording(model, home_directory(self._environ)), self._clock)
        if provider not in self._links:
            known = ", ".join([*self._rows, REPLAY])
            raise NotFound(f"There is no provider {provider!r}.", f"Known are {known}; aos.toml can add more.")
        link = self._links[provider]
        if link.row.dialect == "anthropic":
            return Anthropic(model, link, self._prices, self._clock)
        return OpenAICompatible(model, link, self._prices, self._clock)

    async def default(self) -> str:
        """See `ports.Models.default`."""
        named = self._settings.model or self._environ.get("AOS_MODEL")
        if named:
            return named
        for row in self._rows.values():
            if row.default_model and not row.keyless and self._links[row.name].key_present:
                return f"{row.name}/{row.default_model}"
        for row in self._rows.values():
            found = await self._first_served(row) if row.probe_path else None
            if found:
                return f"{row.name}/{found}"
        rows = (row for row in self._rows.values() if row.key_variables and not row.keyless)
        variables = ", ".join(row.key_variables[0] for row in rows)
        raise Unavailable(
            "No model is configured, no provider has a key, and no Ollama answers.",
            f"Set AOS_MODEL, or model in aos.toml, or one of {variables}; or start Ollama. {AFTER}",
        )

    async def _first_served(self, row: Row) -> str | None:
        """Return the first model a local server lists; None when it is not there."""
        assert row.probe_path is not None
        pool = await self._open_pool()
        import httpx2  # loaded with the pool

        try:
            with anyio.move_on_after(limits.MODEL_PROBE_S):
                answer = await pool.get(urljoin(row.base_url, row.probe_path))
                listed = answer.raise_for_status().json()["models"]
                return str(listed[0]["name"]) if listed else None
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, KeyError, TypeError, IndexError):
            return None  # nobody there, or not an Ollama
        return None

    def embedder(self, name: str) -> EndpointEmbedder:
        """Return the embedder for `provider/model`. Loads no SDK.

        Raises:
            Invalid: the provider is not known, not in OpenAI's dialect, or not a local one.
        """
        provider, _, model = name.partition("/")
        link = self._links.get(provider)
        if link is None or not model or not link.row.local or link.row.dialect != "openai":
            local = ", ".join(row.name for row in self._rows.values() if row.local)
            raise Invalid(
                f"search.model {name!r} is no model of a local provider, and embedding must cost nothing.",
                f"Write provider/model with one of {local}, for example ollama/nomic-embed-text.",
            )
        return EndpointEmbedder(model, link)

    def warm(self, name: str) -> None:
        """See `ports.Models.warm`."""
        link = self._links.get(name.partition("/")[0])
        if link is not None and link.row.dialect not in self._warmed:
            self._warmed.add(link.row.dialect)
            # A thread of its own: nobody waits for it, and a first call that comes meanwhile waits for the same import.
            Thread(target=link.load, name=f"load {link.row.dialect}", daemon=True).start()

    def providers(self) -> Sequence[tuple[str, bool]]:
        """See `ports.Models.providers`."""
        return [(name, link.key_present) for name, link in self._links.items()]

    async def _open_pool(self) -> httpx2.AsyncClient:
        async with self._lock:
            if self._pool is None:
                self._pool = await anyio.to_thread.run_sync(_new_pool)
            return self._pool


def _new_pool() -> httpx2.AsyncClient:
    import httpx2  # a third of a second, with the certificates; not needed by those who only replay

    bounds = httpx2.Limits(
        max_connections=limits.QUANTA_INFLIGHT_MAX, max_keepalive_connections=limits.MODEL_KEEPALIVE_MAX
    )
    return httpx2.AsyncClient(limits=bounds, timeout=pool_timeout(), follow_redirects=True)
