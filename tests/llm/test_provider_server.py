"""The provider for tests: in this process and as one of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path

import anyio

from aos_mcp.abi.settings import ProviderSettings, Settings
from aos_mcp.llm.catalogue import Catalogue
from aos_mcp.ports import Clock
from aos_mcp.testing.model_checks import QUESTION
from aos_mcp.testing.providers import Behaviour, ProviderServer


def ignore(_: str) -> None:
    """Take what a model delivers and do nothing."""


async def test_a_behaviour_waits_for_the_request_it_is_meant_for(catalogue: Catalogue, server: ProviderServer) -> None:
    server.script(Behaviour(when="never asked", text="no"), Behaviour(when="some words", text="yes", repeat=True))
    model = catalogue.resolve("openai/m")
    assert [(await model.complete(QUESTION, ignore)).reply.text for _ in range(2)] == ["yes", "yes"]


async def test_many_calls_at_once_are_all_answered_and_counted(catalogue: Catalogue, server: ProviderServer) -> None:
    model = catalogue.resolve("anthropic/m")
    server.script(Behaviour(text="a b c", piece_delay_s=0.01, repeat=True))
    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for _ in range(40):
                group.start_soon(model.complete, QUESTION, ignore)
        await server.settled()
    assert (server.stats.requests, server.stats.completed, server.stats.disconnects) == (40, 40, 0)
    assert server.stats.in_flight_max > 1


async def test_it_runs_as_a_process_with_a_script_from_a_file(tmp_path: Path, clock: Clock) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = tmp_path / "script.json"
    script.write_text(json.dumps([{"text": "from a file"}]))
    command = [sys.executable, "-m", "aos_mcp.testing.providers", "--port", str(port), "--script", str(script)]
    settings = Settings(providers={"vllm": ProviderSettings(base_url=f"http://127.0.0.1:{port}/v1")})
    with anyio.fail_after(60):
        async with await anyio.open_process(command, stdout=None, stderr=None) as process:
            try:
                await _answers(port)
                async with Catalogue(settings, {}, clock) as catalogue:
                    reply = (await catalogue.resolve("vllm/m").complete(QUESTION, ignore)).reply
            finally:
                os.kill(process.pid, signal.SIGTERM)
                await process.wait()
    assert reply.text == "from a file"


async def _answers(port: int) -> None:
    while True:
        try:
            stream = await anyio.connect_tcp("127.0.0.1", port)
        except OSError:
            await anyio.sleep(0.02)
            continue
        async with stream:
            return
