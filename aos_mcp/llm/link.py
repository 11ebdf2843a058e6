"""A link: the SDK client of one provider, built at the first call over the one connection pool all share.

Owns the key while it is in use. Base URL, key and headers are always given, because both SDKs otherwise take them from
variables that belong to other programs.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Collection, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import anyio
import anyio.to_thread

from aos_mcp.abi import limits
from aos_mcp.llm.keys import find_key, key_present
from aos_mcp.llm.providers import Row

if TYPE_CHECKING:
    import httpx2

_NO_KEY = "none"
"""What keyless servers are sent: the SDKs do not start with nothing."""


class Link:
    """One provider's client."""

    def __init__(
        self,
        row: Row,
        environ: Mapping[str, str],
        secrets: Collection[str],
        pool: Callable[[], Awaitable[httpx2.AsyncClient]],
    ) -> None:
        self.row = row
        self._environ = environ
        self._secrets = secrets
        self._pool = pool
        self._lock = anyio.Lock()
        self._client: Any = None
        self._elsewhere: dict[str, Any] = {}
        self._key = ""

    def load(self) -> None:
        """Load the SDK. Blocks for a second or two; the first call would otherwise."""
        import_module(self.row.dialect)

    @property
    def key_present(self) -> bool:
        """Whether a call could be made."""
        return key_present(self.row, self._environ)

    async def client(self, base_url: str | None = None) -> Any:
        """Return the SDK's client. The first call takes a second or two: it loads the SDK, on a worker thread.

        `base_url` names another place of the provider, relative to its own or whole.

        Raises:
            Unavailable: the key is not there.
        """
        async with self._lock:
            if self._client is None:
                self._key = await find_key(self.row, self._environ, self._secrets)
                pool = await self._pool()
                build = _anthropic if self.row.dialect == "anthropic" else _openai
                self._client = await anyio.to_thread.run_sync(build, self.row, self._key or _NO_KEY, pool)
            if base_url is None:
                return self._client
            if base_url not in self._elsewhere:
                self._elsewhere[base_url] = self._client.with_options(base_url=urljoin(self.row.base_url, base_url))
            return self._elsewhere[base_url]

    def forget(self) -> None:
        """Look the key up again at the next call: the provider did not accept this one, it may have been replaced."""
        self._client = None
        self._elsewhere.clear()

    def redact(self, text: str) -> str:
        """Return `text` without the key, should a provider have repeated it."""
        return text.replace(self._key, "***") if self._key else text


def _openai(row: Row, key: str, pool: httpx2.AsyncClient) -> object:
    import openai  # a second to import, and not needed by those who use the other dialect

    headers = _headers(row, os.environ.get("OPENAI_CUSTOM_HEADERS", ""), key, openai.Omit())
    headers |= {"OpenAI-Organization": openai.Omit(), "OpenAI-Project": openai.Omit()}
    return openai.AsyncOpenAI(
        api_key=key,
        base_url=row.base_url,
        max_retries=0,
        timeout=pool.timeout,
        default_headers=headers,
        http_client=pool,
    )


def _anthropic(row: Row, key: str, pool: httpx2.AsyncClient) -> object:
    import anthropic  # two seconds to import, and not needed by those who use the other dialect

    headers = _headers(row, os.environ.get("ANTHROPIC_CUSTOM_HEADERS", ""), key, anthropic.Omit())
    return anthropic.AsyncAnthropic(
        api_key=key,
        base_url=row.base_url,
        max_retries=0,
        timeout=pool.timeout,
        default_headers=headers,
        http_client=pool,
        open_telemetry=False,
    )


def _headers(row: Row, ambient: str, key: str, omit: object) -> dict[str, Any]:
    """Take back the headers an SDK would add from the environment, and say who is calling."""
    names = [line.partition(":")[0].strip() for line in ambient.split("\n") if ":" in line]
    bearer = f"Bearer {key}"
    headers: dict[str, Any] = {n: bearer if n.lower() == "authorization" else omit for n in names}
    if not row.quirks.keep_alive:
        headers["Connection"] = "close"
    return headers | {"Authorization": bearer}


def pool_timeout() -> httpx2.Timeout:
    """Return the deadlines of a connection: short to connect; the driver holds the one over the whole call."""
    import httpx2  # loaded with the SDKs, not before

    return httpx2.Timeout(limits.MODEL_CALL_S, connect=limits.MODEL_CONNECT_S)
