"""The provider for tests: in this process and as one of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path

import anyio
import pytest
from anthropic import AsyncAnthropic
from anthropic.types import MessageParam

from aos_mcp.abi.completion import Prompt, ToolRequest, Turn
from aos_mcp.abi.errors import ModelError, ModelFault
from aos_mcp.abi.settings import ProviderSettings, Settings
from aos_mcp.llm.catalogue import Catalogue
from aos_mcp.ports import Clock
from aos_mcp.testing.model_checks import QUESTION
from aos_mcp.testing.providers import Behaviour, Call, ProviderServer


def ignore(_: str) -> None:
    """Take what a model delivers and do nothing."""


async def test_a_behaviour_waits_for_the_request_it_is_meant_for(catalogue: Catalogue, server: ProviderServer) -> None:
    server.script(Behaviour(when="never asked", text="no"), Behaviour(when="some words", text="yes", repeat=True))
    model = catalogue.resolve("openai/m")
    assert [(await model.complete(QUESTION, ignore)).reply.text for _ in range(2)] == ["yes", "yes"]


async def test_a_script_takes_up_what_an_earlier_message_told(catalogue: Catalogue, server: ProviderServer) -> None:
    arguments = '{"pid": "${last:agent (p_[a-z]+)}"}'
    server.script(
        Behaviour(text="You said ${last:is (\\w+)}.", calls=(Call(name="wait", arguments=arguments),), repeat=True)
    )
    asked = Prompt(
        system="",
        turns=(
            Turn(role="user", text="My name is Ada."),
            Turn(role="assistant", text="", requests=(ToolRequest(request_id="c", name="spawn", arguments="{}"),)),
            Turn(role="tool", text="agent p_first, agent p_second", request_id="c"),
        ),
    )
    for model in ("openai/m", "anthropic/m"):
        reply = (await catalogue.resolve(model).complete(asked, ignore)).reply
        assert reply.text == "You said Ada."
        assert json.loads(reply.requests[0].arguments) == {"pid": "p_second"}


async def test_a_script_that_the_request_does_not_fit_is_refused(catalogue: Catalogue, server: ProviderServer) -> None:
    server.script(Behaviour(text="${last:agent (p_[a-z]+)}"))
    with pytest.raises(ModelError, match="Nothing in the prompt fits") as caught:
        await catalogue.resolve("anthropic/m").complete(QUESTION, ignore)
    assert caught.value.fault is ModelFault.BAD_REQUEST


async def test_every_answer_has_an_identity_of_its_own(server: ProviderServer) -> None:
    async with AsyncAnthropic(base_url=server.url, api_key="none") as client:
        asked: MessageParam = {"role": "user", "content": "hello"}
        told = [await client.messages.create(model="m", max_tokens=9, messages=[asked]) for _ in range(2)]
    assert told[0].id != told[1].id


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
