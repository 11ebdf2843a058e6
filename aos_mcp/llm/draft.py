"""A reply while it is being written: what came so far, in the kernel's form. Knows no dialect and no socket."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from os.path import commonprefix
from typing import Literal

from aos_mcp.abi.budget import Usage
from aos_mcp.abi.characters import whole
from aos_mcp.abi.completion import Prompt, RateLimits, Reply, ToolRequest
from aos_mcp.ports import Deliver

Stop = Literal["end", "tools", "length", "refused"]

NO_ANSWER = "(no answer)"
"""Stands for an assistant turn without text or calls, which providers refuse."""

CHARS_PER_TOKEN = 4
"""English text and code run at about four characters a token; used only where a provider counts nothing."""

COUNT_MAX = 2**53
"""The largest count that is believed: beyond it numbers in JSON are not exact."""


def estimate_tokens(chars: int) -> int:
    """Return the tokens in so many characters, rounded up."""
    return -(-chars // CHARS_PER_TOKEN)


def count_of(value: object) -> int:
    """Return what a provider counted as a count: whole, not negative, and none that another reader would round."""
    if not isinstance(value, int | float) or not 0 < value < math.inf:  # NaN is not either
        return 0
    return int(min(value, COUNT_MAX))


def prompt_chars(prompt: Prompt) -> int:
    """Return the characters a provider has to read."""
    tools = sum(len(t.name) + len(t.description) + len(t.input_schema) for t in prompt.tools)
    turns = sum(len(t.text) + sum(len(r.name) + len(r.arguments) for r in t.requests) for t in prompt.turns)
    carried = sum(each.tokens_max for each in prompt.attachments) * CHARS_PER_TOKEN
    return len(prompt.system) + tools + turns + len(prompt.continuing) + carried


def text_of(value: object) -> str:
    """Return what a provider sent for text; nothing is an empty one. Raises TypeError for anything else."""
    if value and not isinstance(value, str):
        raise TypeError("not text")
    return value if isinstance(value, str) else ""


class Echo:
    """Takes off an answer what it repeats of the beginning it was given, however it is cut into pieces.

    What comes is held back while it may still be the repetition. A beginning of blanks alone is what a dialect does not
    take at the end of one: as much of it as comes again is taken off. Any other is taken off whole or not at all.
    """

    def __init__(self, expected: str) -> None:
        self._expected = expected
        self._held = ""

    def take(self, piece: str) -> str:
        """Return what of the answer is known to be new."""
        if not self._expected:
            return piece
        self._held += piece
        if self._expected.startswith(self._held) and self._held != self._expected:
            return ""
        return self.rest()

    def rest(self) -> str:
        """Return what was held back, once nothing more comes or it is known not to be the repetition."""
        expected, held = self._expected, self._held
        self._expected = self._held = ""
        if held.startswith(expected):
            return held[len(expected) :]
        if not expected.isspace():
            return held
        return held[len(commonprefix((expected, held))) :]


@dataclass(slots=True)
class DraftRequest:
    """A tool call as it arrives."""

    request_id: str
    name: str
    arguments: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Draft:
    """What came so far."""

    prompt: Prompt
    deliver: Deliver
    echo: Echo = field(default_factory=lambda: Echo(""))
    counts_as_it_goes: bool = False
    """`usage` is right at any moment, not only at the end."""
    holds: bool = False
    """The text is shown when it is whole: it may give place to what the answer tool says."""
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    requests: list[DraftRequest] = field(default_factory=list)
    signature: str = ""
    stop: Stop = "end"
    stop_text: str = ""
    finished: bool | None = None
    """Set by the dialect when the provider said that it is done, or that it broke off; None: it said neither."""
    usage: Usage | None = None
    """What the provider counted; None where it did not, or counted nothing at all."""
    cost_usd: float | None = None
    """What the provider itself says the call cost."""
    limits: RateLimits | None = None
    _chars: int = 0
    _half: str = ""

    def say(self, piece: str) -> None:
        """Take a piece of the answer and show it to whoever waits; half a character waits for its other half."""
        piece = self._half + piece
        self._half = piece[-1] if piece and "\ud800" <= piece[-1] <= "\udbff" else ""
        self._show(self.echo.take(whole(piece[: len(piece) - len(self._half)])))

    def close(self) -> None:
        """Take note that nothing more comes."""
        self._show(self.echo.take(whole(self._half)) + self.echo.rest())
        self._half = ""

    def _show(self, piece: str) -> None:
        if piece:
            self.text.append(piece)
            self._chars += len(piece)
            self.deliver("" if self.holds else piece)

    def release(self) -> None:
        """Show what was held back: the answer is whole."""
        if self.holds and self.text:
            self.deliver(self.partial_text)

    def think(self, piece: str) -> None:
        """Take a piece of reasoning; it is kept apart and not shown as the answer."""
        if piece and not self.reasoning:
            self.deliver("")
        self.reasoning.append(piece)
        self._chars += len(piece)

    def request(self, request_id: str, name: str) -> DraftRequest:
        """Begin a tool call. One without an identity gets one that a second run would give it too."""
        fallback = f"call_{self.prompt.turn}_{len(self.requests)}"
        request = DraftRequest(request_id=request_id or fallback, name=name)
        self.requests.append(request)
        self.deliver("")
        return request

    def argue(self, request: DraftRequest, piece: str) -> None:
        """Take a piece of a tool call's arguments."""
        request.arguments.append(piece)
        self._chars += len(piece)

    @property
    def begun(self) -> bool:
        """Whether anything was generated."""
        return bool(self._chars or self.requests)

    @property
    def partial_text(self) -> str:
        """The text so far."""
        return "".join(self.text)

    @property
    def output_tokens(self) -> int:
        """Tokens generated so far: as the provider counts, and, until it counted all, at least what is estimated."""
        counted = self.usage.output_tokens if self.usage else 0
        if counted and self.counts_as_it_goes:
            return counted
        return max(counted, estimate_tokens(self._chars))

    def settled_usage(self) -> Usage:
        """Return what to charge.

        Where the provider counted nothing, on one side or on both, that is an estimate from the characters seen:
        charging nothing would let an agent run past its budget. Nothing is estimated of an empty answer.
        """
        used = self.usage or Usage()
        read = used.input_tokens if used.prompt_tokens else estimate_tokens(prompt_chars(self.prompt))
        return replace(used, input_tokens=read, output_tokens=used.output_tokens or estimate_tokens(self._chars))

    def reply(self) -> Reply:
        """Return the finished turn."""
        requests = tuple(
            ToolRequest(request_id=r.request_id, name=r.name, arguments=whole("".join(r.arguments)) or "{}")
            for r in self.requests
        )
        stop = "tools" if requests and self.stop == "end" else self.stop
        return Reply(
            text=self.partial_text,
            requests=requests,
            reasoning=whole("".join(self.reasoning)),
            reasoning_signature=self.signature,
            stop=stop,
            stop_text=self.stop_text,
        )
