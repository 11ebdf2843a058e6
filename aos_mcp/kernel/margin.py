"""Margins: how much is reserved for a prompt whose tokens only its provider can count.

Our own count is reserved with a margin on top, a small one where we count by the model's own vocabulary. A provider
that bills more than that teaches the margin of its model, which is kept in the store: what was too little once is
enough the next time, also after a restart. A margin never shrinks. What a short prompt was billed beyond it is taken
for what a provider puts around every prompt, and no factor is made of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

from aos_mcp.abi.budget import Usage
from aos_mcp.abi.completion import ModelInfo, Prompt, ToolSpec
from aos_mcp.context.tokens import CLASSES, O200K, count, counter
from aos_mcp.kernel.counting import COUNTED_MIN, by_counter
from aos_mcp.ports import Transaction

MARGIN = {O200K: 1.5, CLASSES: 1.35}
"""By counter, of a model that counts by another vocabulary: more than plain text, code, JSON and hexadecimal were ever
found to be off. Classes lean to the high side by themselves."""
MARGIN_EXACT = 1.1
"""Of a model whose vocabulary we count by: what its provider makes of tools and turns is still its own."""
LEARNED_SLACK = 1.1
"""A prompt that surprised us is not the worst there will be."""
TURN_OVERHEAD_TOKENS = 16
"""What a dialect puts around each turn and tool."""
FACT, FACT_EXTRA = "margin:", "margin_extra:"


@dataclass(frozen=True, slots=True)
class Margin:
    """What a count is multiplied by, and how many tokens come on top of any prompt."""

    factor: float
    extra: int = 0


@dataclass(frozen=True, slots=True)
class Counted:
    """A prompt as we count it."""

    words: int = 0
    """Tokens of its texts and tools."""
    overhead: int = 0
    """Tokens that a dialect puts around turns and tools."""
    carried: int = 0
    """The bound of all attachments together."""

    @property
    def plain(self) -> int:
        """Tokens of everything but attachments, without a margin."""
        return self.words + self.overhead

    @property
    def fixed(self) -> int:
        """Tokens that no margin is needed for."""
        return self.overhead + self.carried

    def at_most(self, margin: Margin) -> int:
        """Return a number of input tokens that a provider's own count should not exceed."""
        return int(self.words * margin.factor) + self.fixed + margin.extra


class Margins:
    """The margin of each model."""

    def __init__(self) -> None:
        """Start with none; each is read from the store when it is first asked for."""
        self._known: dict[str, Margin] = {}

    def of(self, tx: Transaction, info: ModelInfo) -> Margin:
        """Return a model's margin."""
        name = by_counter(info.name)
        if name not in self._known:
            fact = tx.fact_get(FACT + name)
            known = first_margin(info) if fact is None else Margin(float(fact))
            self._known[name] = replace(known, extra=int(tx.fact_get(FACT_EXTRA + name) or 0))
        return self._known[name]

    def learn(self, tx: Transaction, info: ModelInfo, counted: Counted, used: Usage) -> None:
        """Widen a model's margin where it billed more input than it allowed for."""
        billed, margin = used.prompt_tokens, self.of(tx, info)
        missing = billed - counted.at_most(margin)
        if not counted.words or missing <= 0:
            return
        name = by_counter(info.name)
        if counted.words < COUNTED_MIN:
            wider = replace(margin, extra=math.ceil(margin.extra + missing * LEARNED_SLACK))
            tx.fact_put(FACT_EXTRA + name, str(wider.extra))
        else:
            wider = replace(margin, factor=(billed - counted.fixed - margin.extra) / counted.words * LEARNED_SLACK)
            tx.fact_put(FACT + name, repr(wider.factor))
        self._known[name] = wider


def first_margin(info: ModelInfo) -> Margin:
    """Return the margin of a model that never billed more than it allows for."""
    return Margin(MARGIN_EXACT if info.vocabulary == counter() else MARGIN[counter()])


def counted_in(prompt: Prompt) -> Counted:
    """Count a prompt."""
    parts = [prompt.system, prompt.output_schema or "", prompt.continuing]
    for turn in prompt.turns:
        parts += [turn.text, turn.reasoning, *(r.name + r.arguments for r in turn.requests)]
    words = sum(count(part) for part in parts if part) + sum(tool_tokens(tool) for tool in prompt.tools)
    overhead = TURN_OVERHEAD_TOKENS * (len(prompt.turns) + len(prompt.tools) + 1)
    carried = sum(attachment.tokens_max for attachment in prompt.attachments)
    return Counted(words=words, overhead=overhead, carried=carried)


@lru_cache(maxsize=4_096)
def tool_tokens(tool: ToolSpec) -> int:
    """Count a tool's definition, once: the same ones are sent with every turn."""
    return count(f"{tool.name}{tool.description}{tool.input_schema}")
