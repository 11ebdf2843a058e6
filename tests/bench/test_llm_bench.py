"""The benchmark of model calls: its peers run apart, count what they do, and are never guessed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import anyio
import openai
import pytest

from aos_mcp.abi.errors import Unavailable
from aos_mcp.bench import aios_fifo, clients, llm, throughput
from aos_mcp.testing.providers import RETRY_AFTER_S, Behaviour, provider_server


def test_peers_are_a_program_that_needs_nothing_of_ours() -> None:
    for program in (clients.__file__, aios_fifo.__file__):
        source = Path(program).read_text("utf-8")
        assert "from aos_mcp" not in source and "import aos_mcp" not in source


AIOS_FIFO = """
import threading, queue
class FIFOScheduler:
    def __init__(self, llm, get_llm_syscall, **more):
        self.llm, self.get = llm, get_llm_syscall
    def start(self):
        self.active = True
        threading.Thread(target=self.serve, daemon=True).start()
    def serve(self):
        while self.active:
            try:
                call = self.get()
            except queue.Empty:
                continue
            call.response = self.llm.execute_llm_syscall(call)
            call.event.set()
    def stop(self):
        self.active = False
"""
AIOS_QUEUES = """
import queue
calls = queue.Queue()
global_llm_req_queue_get_message = lambda: calls.get(timeout=0.05)
global_memory_req_queue_get_message = global_storage_req_queue_get_message = global_tool_req_queue_get_message = None
"""
AIOS_SYSCALLS = """
import threading
from cerebrum.llm.apis import LLMQuery
from aios.hooks.stores._global import calls
class Call:
    def __init__(self, query):
        assert isinstance(query, LLMQuery)
        self.event = threading.Event()
class SyscallExecutor:
    def _execute_syscall(self, agent, query):
        print("noise that belongs nowhere")
        call = Call(query)
        calls.put(call)
        call.event.wait()
        return call.response
"""


def test_a_checkout_of_aios_is_measured_with_empty_names_for_what_it_needs_besides(tmp_path: Path) -> None:
    """A checkout in miniature, with the names of the real one that the program uses."""
    files = {
        "scheduler/fifo_scheduler": AIOS_FIFO,
        "hooks/stores/_global": AIOS_QUEUES,
        "syscall/syscall": AIOS_SYSCALLS,
    }
    for name, text in files.items():
        path = tmp_path / "aios" / f"{name}.py"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    said = subprocess.run(
        [sys.executable, aios_fifo.__file__, str(tmp_path), "--callers", "3", "--calls", "2"],
        capture_output=True,
        check=True,
    )
    assert json.loads(said.stdout)["per_s"] > 0
    with pytest.raises(Unavailable, match="AIOS"):
        throughput._aios_per_s(tmp_path / "nowhere", 3)


def test_a_peer_that_is_not_installed_is_said_to_be_absent() -> None:
    command = [sys.executable, "-c", "import sys; sys.modules['litellm'] = None\n" + RUN, "LiteLLM router"]
    said = subprocess.run(
        [*command, "--url", "http://127.0.0.1:9", "--callers", "1", "--calls", "1"], capture_output=True, check=True
    )
    assert json.loads(said.stdout) == {"absent": "litellm"}


RUN = f"import runpy; runpy.run_path({clients.__file__!r}, run_name='__main__')"


def test_an_interpreter_that_is_not_there_is_an_error_and_no_interpreter_an_absence() -> None:
    assert llm._peer("LiteLLM router", "http://127.0.0.1:9", 1, 1, "", per_s=0.0) is None
    with llm._server(Behaviour(repeat=True, text="Hello.")) as url, pytest.raises(Unavailable, match="LiteLLM router"):
        llm._peer("LiteLLM router", url, 1, 1, "no-such-python", per_s=0.0)


def test_a_peer_makes_the_calls_it_is_told_to_and_counts_them() -> None:
    with llm._server(Behaviour(repeat=True, text="Hello there.")) as url:
        found = llm._peer(llm.SDK, url, 3, 2, "", per_s=0.0)
    assert found is not None
    assert (found.done, found.failed, found.refused) == (6, 0, 0)
    assert found.sent == 7, "and one before the clock runs"
    assert found.cpu_us > 0


def test_a_tally_counts_what_fails_and_lets_a_cancellation_through() -> None:
    tally = clients.Tally()
    with tally:
        pass
    with tally:
        raise ValueError
    with pytest.raises(KeyboardInterrupt), tally:
        raise KeyboardInterrupt
    assert (tally.done, tally.failed) == (1, 2)


async def test_a_server_without_a_free_place_refuses_and_says_when_to_come_back() -> None:
    async with (
        provider_server(places=0) as server,
        openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none-needed", max_retries=0) as client,
    ):
        with pytest.raises(openai.RateLimitError) as refused:
            await client.chat.completions.create(model="any", messages=[{"role": "user", "content": "Hello?"}])
        assert float(refused.value.response.headers["retry-after"]) == RETRY_AFTER_S
        assert server.stats.refused == server.stats.requests == 1


async def test_a_kernel_with_its_real_drivers_answers_every_call_of_a_provider_with_few_places() -> None:
    async with provider_server(script=[Behaviour(repeat=True, text="Hello there.")], places=2) as server:
        measured = await llm.through_kernel(server.url, 6, 3, None, lambda: asdict(server.stats))
    assert (measured.done, measured.failed) == (18, 0)
    assert measured.sent == 18 + measured.refused


async def test_a_stub_agent_makes_a_tool_call_in_each_turn_but_its_last() -> None:
    model = throughput.StubModel("stub/agent", turns=3)
    async with throughput.stub_kernel(model) as kernel:
        pid = (await kernel.call("spawn_agent", task="go", budget={"usd": 0.02})).pid
        with anyio.fail_after(30):
            (agent,) = (await kernel.call("wait_agent", pids=[pid], timeout_s=20)).agents
    assert (agent.exit_code, agent.usage.turns, agent.usage.tool_calls) == ("done", 3, 2)
    assert model.answered == 3


async def test_a_flushed_store_flushes_what_nobody_asked_to_flush() -> None:
    asked: list[bool] = []

    class Watched:
        async def write(self, work: object, *, flush: bool = False, brief: bool = False) -> None:
            asked.append(flush)

        async def read(self, work: object, *, brief: bool = False) -> None:
            raise AssertionError

        async def changed(self, timeout_s: float) -> None:
            raise AssertionError

    await throughput.FlushedStore(Watched()).write(lambda tx: None)  # type: ignore[arg-type]
    assert asked == [True]
