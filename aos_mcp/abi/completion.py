"""What goes to a language model and what comes back, in one form over all dialects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from aos_mcp.abi.budget import Usage

IMAGE_TOKENS_MAX = 5_000
"""The dearest of the providers scales an image to at most about this many."""
PDF_TOKENS_MIN = 10_000
PDF_BYTES_PER_TOKEN = 4
"""The tightest PDFs, of compressed text, hold about one page of 3,000 tokens in 12 kB."""


ANY_TOOL = "*"
"""Of `Prompt.must_call`: no tool has this name."""
HELD_TO = frozenset({"must_call", "one_call", "stop", "top_k"})
"""The fields of a prompt that not every model can be held to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolRequest:
    """A tool call the model asks for. `arguments` is JSON text as the model wrote it, not yet checked."""

    request_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Attachment:
    """An image or a file that stands in a user turn. `data` is its bytes, `name` what a person would call it."""

    media_type: str
    data: bytes = field(repr=False)
    name: str = ""

    @property
    def kind(self) -> Literal["image", "file"]:
        """What the model must be able to take (see `ModelInfo.inputs`)."""
        return "image" if self.media_type.startswith("image/") else "file"

    @property
    def tokens_max(self) -> int:
        """What it may count as in a prompt, at most. A page of a PDF counts as text and as image."""
        return IMAGE_TOKENS_MAX if self.kind == "image" else max(PDF_TOKENS_MIN, len(self.data) // PDF_BYTES_PER_TOKEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One element of a prompt.

    `role` is `user`, `assistant` or `tool`. A `tool` turn answers `request_id`. `breakpoint` marks the end of a prefix
    that is worth caching, for dialects that want to be told. `reasoning` and `reasoning_signature` are what the model
    thought in an assistant turn, re-sent only to providers that demand it. `attachments` stand before the text of a
    user turn; a model that does not take them refuses the prompt before anything is sent.
    """

    role: Literal["user", "assistant", "tool"]
    text: str
    requests: tuple[ToolRequest, ...] = ()
    request_id: str | None = None
    is_error: bool = False
    reasoning: str = ""
    reasoning_signature: str = ""
    breakpoint: bool = False
    attachments: tuple[Attachment, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSpec:
    """A function tool offered to a model. `input_schema` is JSON Schema as JSON text, byte-stable between calls."""

    name: str
    description: str
    input_schema: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A whole request: `system`, then `tools`, then `turns`. `output_schema` (JSON text) asks for structured output.

    `turn` is how many model turns this process has made before, whatever has left the context since; a recording is
    played by it. It is never sent to a provider.

    `continuing` is text of the answer that was generated before, which the model is to go on from; the reply then holds
    only what is new. Only models with `ModelInfo.continues` take it. `native_priority` (0 first … 100) is passed on to
    providers that schedule by themselves.

    `stop` are texts at which the answer ends, without them. `must_call` names the tool that the model has to call,
    `ANY_TOOL` whichever it likes; `one_call` bounds a turn to one tool call. A model that cannot be held to one of
    these refuses the prompt before anything is sent.
    """

    system: str
    turns: tuple[Turn, ...]
    tools: tuple[ToolSpec, ...] = ()
    max_output_tokens: int = 4_096
    output_schema: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    must_call: str | None = None
    one_call: bool = False
    turn: int = 0
    continuing: str = ""
    native_priority: int | None = None

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        """What all turns carry."""
        return tuple(each for turn in self.turns for each in turn.attachments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A model's turn, as kept in the journal and in REPLY pages.

    `stop_text` is which of `Prompt.stop` ended it, where the provider says so; it is not kept.
    """

    text: str = ""
    requests: tuple[ToolRequest, ...] = ()
    reasoning: str = ""
    reasoning_signature: str = ""
    stop: Literal["end", "tools", "length", "refused"] = "end"
    stop_text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimits:
    """What a provider said of its limits with an answer or an error; None where it said nothing.

    `…_left` is what remains of `…_limit`, `…_reset_s` the seconds from now until all of it is back. `tokens_…` counts
    input and output together, for providers that do not tell them apart.
    """

    requests_limit: int | None = None
    requests_left: int | None = None
    requests_reset_s: float | None = None
    input_tokens_limit: int | None = None
    input_tokens_left: int | None = None
    input_tokens_reset_s: float | None = None
    output_tokens_limit: int | None = None
    output_tokens_left: int | None = None
    output_tokens_reset_s: float | None = None
    tokens_limit: int | None = None
    tokens_left: int | None = None
    tokens_reset_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A finished model call. `usage.microusd` is the price, rounded up to the micro-dollar.

    `priced` is False when no price is known for the model; `usage.microusd` is 0 then. `replayed` is True when a
    recording answered. `limits` is None where the provider says nothing of its limits.
    """

    model: str
    reply: Reply
    usage: Usage
    priced: bool = True
    replayed: bool = False
    limits: RateLimits | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceTier:
    """Rates of a whole call whose prompt has more than `above_tokens` tokens, cached and written ones included."""

    above_tokens: int
    input: float
    cached: float
    written: float
    output: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPrice:
    """Prices in US dollars per million tokens; `source` says where they come from and of which date.

    `tiers`, in rising order, are the rates of calls with long prompts.
    """

    input: float
    cached: float
    written: float
    output: float
    source: str
    tiers: tuple[PriceTier, ...] = ()

    def at(self, prompt_tokens: int) -> ModelPrice:
        """Return the rates of a call whose prompt has so many tokens."""
        reached = [tier for tier in self.tiers if prompt_tokens > tier.above_tokens]
        return self if not self.tiers else self._with(reached[-1:] or [self])

    def up_to(self, prompt_tokens: int) -> ModelPrice:
        """Return the dearest rates that can apply to a call whose prompt has at most so many tokens."""
        reached = [tier for tier in self.tiers if prompt_tokens > tier.above_tokens]
        return self if not self.tiers else self._with([self, *reached])

    def _with(self, rates: Sequence[ModelPrice | PriceTier]) -> ModelPrice:
        return ModelPrice(
            input=max(rate.input for rate in rates),
            cached=max(rate.cached for rate in rates),
            written=max(rate.written for rate in rates),
            output=max(rate.output for rate in rates),
            source=self.source,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What is known of a model before the first call. `price` is None when unknown (never 0 for unknown).

    `continues` tells whether the provider goes on from a given beginning of the answer (`Prompt.continuing`). `inputs`
    holds what turns may carry: `text`, `image`, `file`; `heeds` is which of `HELD_TO` it heeds. `vocabulary` is what
    its tokens are counted by, where that is known: `o200k`.
    """

    name: str
    """`provider/model`."""
    dialect: str
    context_tokens: int
    output_tokens_max: int
    price: ModelPrice | None
    key_present: bool
    replay: bool = False
    quirks: tuple[str, ...] = field(default=())
    continues: bool = False
    inputs: frozenset[str] = frozenset({"text"})
    heeds: frozenset[str] = HELD_TO
    vocabulary: str | None = None
