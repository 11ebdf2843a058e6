"""Peers of `aos bench llm`: what people put between agents and a provider, each in a process of its own.

A program of its own, run by whichever interpreter has the peer installed; it imports nothing of ours. It calls one
server and prints one line of JSON: how many calls were answered, how long it took, how much processor time it cost. A
peer that this interpreter does not have is reported as absent.

    python clients.py NAME --url http://127.0.0.1:8001 --callers 16 --calls 20
"""

from __future__ import annotations

import argparse
import asyncio  # noqa: TID251 - it is what the peers are written for, and needs nothing installed
import importlib
import json
import sys
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

MODEL = "stub"
KEY = "none-needed"
MESSAGES = [{"role": "user", "content": "Say it again, please."}]
RETRIES = 10
"""Of each peer: more than any of them makes by itself."""
RETRIES_DEFAULT = 2
"""What the SDKs make by themselves."""

Call = Callable[[], Awaitable[object]]


def _sdk(url: str, retries: int) -> Call:
    # Whatever this interpreter has: peers are looked for by name.
    openai = importlib.import_module("openai")
    client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=retries)

    async def call() -> object:
        options = {"include_usage": True}
        stream = await client.chat.completions.create(
            model=MODEL, messages=MESSAGES, stream=True, stream_options=options
        )
        parts = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
        return "".join(parts)

    return call


def _sdk_behind_semaphore(places: int, retries: int) -> Callable[[str, float], Call]:
    def make(url: str, _: float) -> Call:
        semaphore, call = asyncio.Semaphore(places), _sdk(url, retries)

        async def guarded() -> object:
            async with semaphore:
                return await call()

        return guarded

    return make


def _litellm(url: str, _: float) -> Call:
    litellm = importlib.import_module("litellm")
    params = {"model": f"openai/{MODEL}", "api_base": f"{url}/v1", "api_key": KEY}
    router = litellm.Router(model_list=[{"model_name": MODEL, "litellm_params": params}], num_retries=RETRIES)

    async def call() -> object:
        stream = await router.acompletion(model=MODEL, messages=MESSAGES, stream=True)
        return [chunk async for chunk in stream]

    return call


def _langchain(url: str, per_s: float) -> Call:
    chat = importlib.import_module("langchain_openai").ChatOpenAI
    limiter: Any = None
    if per_s > 0:
        limits = importlib.import_module("langchain_core.rate_limiters")
        limiter = limits.InMemoryRateLimiter(requests_per_second=per_s, max_bucket_size=max(1.0, per_s / 4))
    model = chat(
        base_url=f"{url}/v1", api_key=KEY, model=MODEL, max_retries=RETRIES, rate_limiter=limiter, stream_usage=True
    )

    async def call() -> object:
        return [chunk async for chunk in model.astream("Say it again, please.")]

    return call


PEERS: dict[str, Callable[[str, float], Call]] = {
    "openai SDK": lambda url, _: _sdk(url, 0),
    "asyncio + SDK's 2 retries": lambda url, _: _sdk(url, RETRIES_DEFAULT),
    "semaphore at the limit + SDK": _sdk_behind_semaphore(8, RETRIES),
    "semaphore at twice the limit + SDK": _sdk_behind_semaphore(16, RETRIES),
    "LiteLLM router": _litellm,
    "LangChain limiter": _langchain,
}


class Tally:
    """Counts what is entered: done, or failed by whatever a peer raises."""

    def __init__(self) -> None:
        self.done = self.failed = 0

    def __enter__(self) -> None:
        """Begin one call."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """End it."""
        if error is None:
            self.done += 1
        else:
            self.failed += 1
        return isinstance(error, Exception)


async def measure(call: Call, callers: int, calls: int) -> dict[str, float]:
    """Make `calls` calls from each of `callers` callers. Returns done, failed, wall_s and cpu_s."""
    await call()  # connections, caches and lazy imports
    tally = Tally()

    async def caller() -> None:
        for _ in range(calls):
            with tally:
                await call()

    started, spent = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return {
        "done": tally.done,
        "failed": tally.failed,
        "wall_s": time.perf_counter() - started,
        "cpu_s": time.process_time() - spent,
    }


def main() -> None:
    """Measure the peer that is named."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=sorted(PEERS))
    parser.add_argument("--url", required=True)
    parser.add_argument("--callers", type=int, required=True)
    parser.add_argument("--calls", type=int, required=True)
    parser.add_argument("--per-s", type=float, default=0.0, help="calls a second that a limiter is set to")
    options = parser.parse_args()

    async def run() -> dict[str, float]:
        return await measure(PEERS[options.name](options.url, options.per_s), options.callers, options.calls)

    try:
        answer: dict[str, Any] = asyncio.run(run())
    except ModuleNotFoundError as missing:
        answer = {"absent": missing.name}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
