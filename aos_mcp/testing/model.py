"""Language models that do as they are told: for tests of agents, without a provider and without a key."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import anyio

from aos_mcp.abi.budget import Usage
from aos_mcp.abi.completion import Completion, ModelInfo, ModelPrice, Prompt, Reply, ToolRequest
from aos_mcp.abi.errors import NotFound
from aos_mcp.ports import Deliver, LanguageModel

PRICE = ModelPrice(input=1.0, cached=0.1, written=1.25, output=10.0, source="scripted")

Answer = Reply | Exception | Callable[[Prompt], Reply]
"""What a scripted model does next: reply, fail, or work it out from the prompt."""


def says(text: str) -> Reply:
    """Return a reply without tool calls."""
    return Reply(text=text)


def calls(*requests: tuple[str, Mapping[str, object]], text: str = "", key: str = "r") -> Reply:
    """Return a reply that makes tool calls; request ids are `key` and a number."""
    made = tuple(
        ToolRequest(request_id=f"{key}{index}", name=name, arguments=json.dumps(arguments))
        for index, (name, arguments) in enumerate(requests)
    )
    return Reply(text=text, requests=made, stop="tools")


@dataclass(slots=True)
class ScriptedModel:
    """Plays a list of answers by the process's turn; keeps every prompt it was given."""

    name: str
    script: Sequence[Answer]
    context_tokens: int = 100_000
    price: ModelPrice | None = PRICE
    usage: Usage = field(default_factory=lambda: Usage(input_tokens=100, output_tokens=10, microusd=200))
    prompts: list[Prompt] = field(default_factory=list)
    gate: anyio.Event | None = None
    """While set to an unset event, calls wait for it: a model that is busy."""
    failures: list[Exception] = field(default_factory=list)
    """Raised one by one before the script goes on: passing faults."""
    continues: bool = False
    inputs: frozenset[str] = frozenset({"text"})
    vocabulary: str | None = None

    async def describe(self) -> ModelInfo:
        """See `ports.LanguageModel`."""
        return ModelInfo(
            name=self.name,
            dialect="scripted",
            context_tokens=self.context_tokens,
            output_tokens_max=4_096,
            price=self.price,
            key_present=True,
            continues=self.continues,
            inputs=self.inputs,
            vocabulary=self.vocabulary,
        )

    async def complete(self, prompt: Prompt, deliver: Deliver) -> Completion:
        """See `ports.LanguageModel`."""
        self.prompts.append(prompt)
        if self.gate is not None:
            await self.gate.wait()
        await anyio.lowlevel.checkpoint()
        if self.failures:
            raise self.failures.pop(0)
        assert prompt.turn < len(self.script), f"{self.name} was asked for turn {prompt.turn}, which it does not have"
        answer = self.script[prompt.turn]
        if isinstance(answer, Exception):
            raise answer
        reply = answer if isinstance(answer, Reply) else answer(prompt)
        if reply.text:
            deliver(reply.text)
        return Completion(model=self.name, reply=reply, usage=self.usage)


class ScriptedModels:
    """A catalogue of scripted models, by name."""

    def __init__(self, *models: ScriptedModel) -> None:
        """Take the models; the first is the default."""
        self._models = {model.name: model for model in models}

    def resolve(self, name: str) -> LanguageModel:
        """See `ports.Models`."""
        if name not in self._models:
            raise NotFound(f"There is no model {name}.", f"Scripted ones: {', '.join(self._models)}.")
        return self._models[name]

    async def default(self) -> str:
        """See `ports.Models`."""
        return next(iter(self._models))

    def warm(self, name: str) -> None:
        """See `ports.Models`."""

    def providers(self) -> Sequence[tuple[str, bool]]:
        """See `ports.Models`."""
        return [(name.partition("/")[0], True) for name in self._models]
