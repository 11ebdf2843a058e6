"""The world around simulated kernels: models, a shop and a sandbox that take their time, fail, and remember.

It outlives every kernel of a walk. Its ledger says what really happened, by the key that each act came with.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aos_mcp.abi.budget import Usage
from aos_mcp.abi.completion import Completion, ModelInfo, Prompt, Reply
from aos_mcp.abi.errors import ModelError, ModelFault, NotFound, TimedOut
from aos_mcp.abi.mount import ToolOutcome
from aos_mcp.abi.sandbox import Command, CommandOutcome
from aos_mcp.kernel.calls.mount import KEY_META
from aos_mcp.ports import Clock, Deliver, LanguageModel, Progress
from aos_mcp.testing.devices import RecordingMounts, RecordingSandbox, a_tool
from aos_mcp.testing.model import PRICE, calls, says
from tests.kernel.stage import HANDLE, results_of

TURNS = 9
WINDOWS = {"sim/small": 9_000, "sim/large": 100_000, "other/large": 100_000}
USAGE = Usage(input_tokens=100, output_tokens=10, microusd=200)
FAULTS = (
    (0.06, ModelFault.RATE, 9.0),
    (0.10, ModelFault.OVERLOAD, None),
    (0.13, ModelFault.TRANSPORT, None),
)
"""Up to which draw a call fails in this way, and when the provider says to come again."""
CUT = 0.20
PIECE_CHARS = 40


@dataclass
class World:
    """What is true whichever kernel lives."""

    seed: int
    ledger: list[str] = field(default_factory=list)
    """The key of every unsafe act, each time it was done."""
    calls: int = 0
    """To models; each has its own fate."""
    heard: Counter[tuple[str, str]] = field(default_factory=Counter)
    """What hosts did, and what they were answered."""

    def chance(self, what: str) -> random.Random:
        """Return the luck of one thing."""
        return random.Random(f"{self.seed} {what}")

    def twice(self) -> list[str]:
        return [f"{key} was done {count} times" for key, count in Counter(self.ledger).items() if count > 1]


def turn(seed: int, prompt: Prompt) -> Reply:
    """Choose what an agent does in a turn, by its task and the number of the turn."""
    task = next(t.text for t in prompt.turns if t.role == "user")
    chance = random.Random(f"{seed} {task} {prompt.turn}")
    number = chance.randrange(10**9)
    seen = [handle for text in results_of(prompt) for handle in HANDLE.findall(text)]
    page = next((handle for handle in seen if handle.startswith("pg_")), "pg_" + "a" * 26)
    child = next((handle for handle in seen if handle.startswith("p_")), "p_" + "a" * 26)
    requests: list[tuple[str, Mapping[str, object]]] = [
        ("shop__order", {"n": number}),
        ("shop__look", {"n": number % 50}),
        ("shop__reserve", {"n": number}),
        ("page_out", {"content": f"note {number}"}),
        ("page_out", {"content": f"fact {number % 7}", "namespace": "shared"}),
        ("page_in", {"page_id": page}),
        ("sandbox_exec", {"command": f"make-{number}"}),
        ("send_message", {"to": chance.choice(["host", "parent", child]), "text": f"word {number}"}),
        ("search_pages", {"query": "note"}),
        ("spawn_agent", {"task": f"{task}.{number}", "budget": {"turns": chance.randrange(1, 5)}}),
        ("wait_agent", {"pids": [child], "timeout_s": chance.randrange(1, 90)}),
        ("no_such_tool", {}),
    ]
    if prompt.turn >= TURNS or chance.random() < 0.12:
        return says(f"done {number} " + "and so on " * chance.randrange(40))
    told = "thinking " * chance.randrange(30)
    return calls(*chance.sample(requests, chance.randrange(1, 4)), text=told, key=f"k{prompt.turn}-")


class SimulatedModel:
    """Answers by the seed, after a while; refuses, breaks off and is overloaded by the seed too."""

    def __init__(self, name: str, world: World, clock: Clock) -> None:
        self.name = name
        self._world = world
        self._clock = clock

    async def describe(self) -> ModelInfo:
        return ModelInfo(
            name=self.name,
            dialect="scripted",
            context_tokens=WINDOWS[self.name],
            output_tokens_max=4_096,
            price=PRICE,
            key_present=True,
            continues=self.name == "sim/large",
            inputs=frozenset({"text"}),
        )

    async def complete(self, prompt: Prompt, deliver: Deliver) -> Completion:
        self._world.calls += 1
        chance = self._world.chance(f"call {self._world.calls}")
        fate = chance.random()
        await self._pass(chance.uniform(0.2, 8.0))
        for share, fault, again_s in FAULTS:
            if fate < share:
                raise ModelError(fault, "It does not answer just now.", "Wait.", retry_after_s=again_s)
        reply = turn(self._world.seed, prompt)
        text = reply.text.removeprefix(prompt.continuing)
        cut_at = chance.randrange(len(text) + 1) if fate < CUT else None
        for start in range(0, len(text), PIECE_CHARS):
            if cut_at is not None and start >= cut_at:
                break
            await self._pass(chance.uniform(0.1, 3.0))
            deliver(text[start : start + PIECE_CHARS])
        if cut_at is not None:
            partial = text[: -(-cut_at // PIECE_CHARS) * PIECE_CHARS]
            raise ModelError(ModelFault.CUT_STREAM, "The stream broke off.", "Again.", partial_text=partial)
        return Completion(
            model=self.name, reply=Reply(text=text, requests=reply.requests, stop=reply.stop), usage=USAGE
        )

    async def _pass(self, seconds: float) -> None:
        await self._clock.sleep_until(self._clock.now() + seconds)


class SimulatedModels:
    """A catalogue of them."""

    def __init__(self, world: World, clock: Clock) -> None:
        self._models = {name: SimulatedModel(name, world, clock) for name in WINDOWS}

    def resolve(self, name: str) -> LanguageModel:
        if name not in self._models:
            raise NotFound(f"There is no model {name}.", "Take another.")
        return self._models[name]

    async def default(self) -> str:
        return next(iter(self._models))

    def warm(self, name: str) -> None:
        pass

    def providers(self) -> Sequence[tuple[str, bool]]:
        return [("sim", True), ("other", True)]


class SlowSandbox(RecordingSandbox):
    """Notes each command on the ledger and leaves a file, somewhere in the middle of the time it takes."""

    world: World
    clock: Clock
    folder: Path

    async def execute(self, command: Command) -> CommandOutcome:
        what = f"sandbox:{command.session}:{command.argv[-1]}"
        chance = self.world.chance(what)
        await self.clock.sleep_until(self.clock.now() + chance.uniform(0.0, 30.0))
        self.world.ledger.append(what)
        file = self.folder / command.workspace / f"made-{chance.randrange(6)}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(what, "utf-8")
        at = round(self.clock.now() * 1e9)
        os.utime(file, ns=(at, at))
        await self.clock.sleep_until(self.clock.now() + chance.uniform(0.0, 30.0))
        return await super().execute(command)


class SlowShop(RecordingMounts):
    """A shop whose orders are on the ledger; some answers come late, some never."""

    def __init__(self, world: World, clock: Clock) -> None:
        super().__init__(
            {
                a_tool("shop__order"): lambda arguments: f"ordered {arguments['n']}",
                a_tool("shop__look", read_only=True): lambda a: f"item {a['n']}: " + "a fine thing " * 260,
                a_tool("shop__reserve", idempotent=True): lambda arguments: f"reserved {arguments['n']}",
            }
        )
        self._world = world
        self._clock = clock

    async def call(
        self,
        name: str,
        arguments: Mapping[str, object],
        *,
        timeout_s: float,
        progress: Progress | None = None,
        meta: Mapping[str, object] | None = None,
    ) -> ToolOutcome:
        chance = self._world.chance(f"{name} {json.dumps(arguments)}")
        await self._clock.sleep_until(self._clock.now() + chance.uniform(0.0, 5.0))
        if name == "shop__order":
            self._world.ledger.append(f"shop:{(meta or {})[KEY_META]}")
        await self._clock.sleep_until(self._clock.now() + chance.uniform(0.0, 5.0))
        if chance.random() < 0.05:
            raise TimedOut(f"{name} did not answer in time.", "It may have been done.")
        return await super().call(name, arguments, timeout_s=timeout_s, progress=progress, meta=meta)
