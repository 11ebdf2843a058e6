"""A gateway on a real socket, over a whole kernel whose providers are the scripted server; and the vendors' clients."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import anyio
import httpx2
import openai
from pydantic import JsonValue

from aos_mcp.abi.capability import Caller, CallerKind
from aos_mcp.abi.settings import GatewaySettings, PriceSettings, ProviderSettings, Rule, Settings
from aos_mcp.endpoint import admit_local, bind
from aos_mcp.gateway.service import serve_gateway
from aos_mcp.hardware import SystemClock
from aos_mcp.kernel.kernel import Kernel
from aos_mcp.llm.catalogue import Catalogue
from aos_mcp.testing.kernels import OWNER, TestKernel, kernel_on
from aos_mcp.testing.providers import ProviderServer, provider_server

OPERATOR = Caller(kind=CallerKind.OPERATOR, principal=OWNER, host="test")
PRICE = PriceSettings(input=1.0, output=10.0)
QUIRKS: dict[str, JsonValue] = {"images": ["*"], "files": ["*"], "parallel_tool_calls": True, "top_k": True}
ALIASES = {"gpt-cheap": "there/small", "claude-*": "thence/large"}


@dataclass
class Gate:
    """A gateway, and what stands behind it. `there` speaks Chat Completions upstream, `thence` Messages."""

    url: str
    kernel: TestKernel
    provider: ProviderServer

    async def issue(self, **arguments: object) -> Any:
        given = {"name": "program", "model": "there/small", **arguments}
        return await self.kernel.call("issue_key", OPERATOR, **given)

    def chat(self, key: str, **options: Any) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, **options)

    def messages(self, key: str, **options: Any) -> anthropic.AsyncAnthropic:
        return anthropic.AsyncAnthropic(base_url=self.url, api_key=key, max_retries=0, **options)

    async def post(self, path: str, body: object, key: str = "", **headers: str) -> httpx2.Response:
        sent = {"authorization": f"Bearer {key}", **headers} if key else headers
        async with httpx2.AsyncClient() as client:
            return await client.post(self.url + path, json=body, headers=sent)


@asynccontextmanager
async def gateway(home: Path, *, rules: list[Rule] | None = None) -> AsyncIterator[Gate]:
    async with provider_server() as provider:
        upstream = {
            "there": ProviderSettings(base_url=provider.url + "/v1", dialect="openai", key="env:AN_UPSTREAM_KEY"),
            "thence": ProviderSettings(
                base_url=provider.url, dialect="anthropic", key="env:AN_UPSTREAM_KEY", quirks=QUIRKS
            ),
        }
        settings = Settings(
            providers=upstream,
            prices={"there/small": PRICE, "thence/large": PRICE},
            gateway=GatewaySettings(aliases=ALIASES),
            rules=rules or [],
        )
        models = Catalogue(settings, {"AN_UPSTREAM_KEY": "upstream-secret"}, SystemClock())
        async with models, kernel_on(home, models, settings=settings) as kernel:
            listener, at = bind(admit_local("127.0.0.1", 0))

            async def ready() -> Kernel:
                return kernel.kernel

            async with anyio.create_task_group() as group:
                group.start_soon(serve_gateway, ready, at, listener)
                yield Gate(at.url, kernel, provider)
                group.cancel_scope.cancel()
