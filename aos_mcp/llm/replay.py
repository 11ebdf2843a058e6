r"""Recordings: a model that plays what was written down. For offline demos, tests and regression.

A recording is JSON lines. The first says what it is a recording of; `price` is in US dollars per million tokens and may
be left out, and then the replay costs nothing, as playing it does:

    {"aos_replay": 1, "model": "anthropic/claude-…", "context_tokens": 200000,
     "price": {"input": 2, "cached": 0.2, "written": 2.5, "output": 10}}

Then one line for every model turn of a process, in order. All but `reply` may be left out; `usage` is then estimated:

    {"reply": {"text": "…", "reasoning": "…", "requests": [{"id": "…", "name": "…", "arguments": {…}}]},
     "usage": {"input_tokens": 900, "cached_tokens": 0, "written_tokens": 0, "output_tokens": 40},
     "delay_s": 0.05, "chunk_chars": 20}

The answer comes in pieces of `chunk_chars` characters (default: all at once), with a pause of `delay_s` seconds before
each. Which line answers is decided by `Prompt.turn` alone, so a replay survives a restart and follows a fork.

What a recording could not know stands in the text or in arguments as `${last:REGEX}`: the first group of the last match
of REGEX over the texts of the prompt's turns (braces in REGEX must be balanced or escaped). A pid, for instance:
`${last:"pid": ?"(p_[a-z2-7]{26})"}`.

`replay/FILE` is an absolute path, or a name (with or without .jsonl) in `$AOS_HOME/replays` or among those shipped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import anyio.to_thread
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from aos_mcp.abi import limits
from aos_mcp.abi.budget import Usage
from aos_mcp.abi.completion import Completion, ModelInfo, ModelPrice, Prompt, Reply, Turn
from aos_mcp.abi.errors import ModelError, ModelFault, NotFound
from aos_mcp.llm.draft import Draft
from aos_mcp.llm.prices import cost_microusd
from aos_mcp.llm.providers import CONTEXT_TOKENS, OUTPUT_TOKENS_MAX
from aos_mcp.ports import Clock, Deliver

SHIPPED = Path(__file__).parent / "replays"
_PLACE = "${last:"


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RecordedPrice(_Line):
    """US dollars per million tokens."""

    input: float = Field(ge=0)
    cached: float = Field(ge=0)
    written: float = Field(ge=0)
    output: float = Field(ge=0)


class Header(_Line):
    """The first line."""

    aos_replay: int = Field(ge=1, le=1)
    model: str
    price: RecordedPrice | None = None
    context_tokens: int = Field(default=CONTEXT_TOKENS, ge=1)


class RecordedRequest(_Line):
    """One tool call."""

    id: str = ""
    name: str
    arguments: dict[str, JsonValue] = {}


class RecordedReply(_Line):
    """What the model said."""

    text: str = ""
    requests: list[RecordedRequest] = []
    reasoning: str = ""


class RecordedUsage(_Line):
    """What the provider counted."""

    input_tokens: int = Field(default=0, ge=0)
    cached_tokens: int = Field(default=0, ge=0)
    written_tokens: int = Field(default=0, ge=0)
    output_tokens: int = Field(default=0, ge=0)


class RecordedTurn(_Line):
    """One of the other lines."""

    reply: RecordedReply
    usage: RecordedUsage | None = None
    delay_s: float = Field(default=0.0, ge=0)
    chunk_chars: int | None = Field(default=None, ge=1)


@dataclass(frozen=True, slots=True)
class Recording:
    """A decoded file."""

    header: Header
    turns: tuple[RecordedTurn, ...]


def find_recording(name: str, home: Path) -> Path:
    """Return the file that `replay/NAME` means.

    Raises:
        NotFound: there is none.
    """
    if Path(name).is_absolute():
        places = [Path(name)]
    elif ".." in Path(name).parts:
        places = []
    else:
        places = [folder / file for folder in (home / "replays", SHIPPED) for file in (name, f"{name}.jsonl")]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise NotFound(
            f"There is no recording {name!r}.",
            "Put NAME.jsonl in the replays folder of AOS_HOME, or give an absolute path.",
        )
    return found


def read_recording(path: Path) -> Recording:
    """Decode a file; blank lines are skipped. Raises ModelError with the number of the first line that is wrong."""
    number = 1
    try:
        if path.stat().st_size > limits.RECORDING_BYTES_MAX:
            raise _unplayable(path, "it is larger than a recording may be")
        lines = [(n, line) for n, line in enumerate(path.read_text("utf-8").splitlines(), 1) if line.strip()]
        if not lines:
            raise _unplayable(path, "it is empty")
        header = Header.model_validate_json(lines[0][1])
        turns = []
        for number, line in lines[1:]:  # noqa: B007 - the number is for the error
            turns.append(RecordedTurn.model_validate_json(line))
    except (OSError, UnicodeDecodeError):
        raise _unplayable(path, "it cannot be read") from None
    except ValidationError as error:
        # The line itself is not repeated: the file may be any file of the machine.
        raise _unplayable(path, f"line {number}: {error.errors()[0]['msg']}") from None
    return Recording(header, tuple(turns))


class Replay:
    """A recording in a model's place (see `ports.LanguageModel`). Says so in every completion."""

    def __init__(self, name: str, path: Path, clock: Clock) -> None:
        self.name = name
        self._path = path
        self._clock = clock
        self._recording: Recording | None = None

    async def describe(self) -> ModelInfo:
        """See `ports.LanguageModel.describe`."""
        header = (await self._load()).header
        return ModelInfo(
            name=self.name,
            dialect="replay",
            context_tokens=header.context_tokens,
            output_tokens_max=OUTPUT_TOKENS_MAX,
            price=_price(header),
            key_present=True,
            replay=True,
        )

    async def complete(self, prompt: Prompt, deliver: Deliver) -> Completion:
        """Play the line of this turn. Raises ModelError when the recording has none."""
        recording = await self._load()
        if not 0 <= prompt.turn < len(recording.turns):
            raise ModelError(
                ModelFault.BAD_REQUEST,
                f"The recording {self.name!r} ended after {len(recording.turns)} turns.",
                "Record more turns, or continue with a model (restore takes one).",
            )
        turn = recording.turns[prompt.turn]
        draft = Draft(prompt, deliver)
        text = fill_in(turn.reply.text, prompt.turns)
        size = turn.chunk_chars or max(1, len(text))
        for at in range(0, max(1, len(text)), size):
            await self._clock.sleep_until(self._clock.now() + turn.delay_s)
            draft.say(text[at : at + size])
        draft.think(turn.reply.reasoning)
        for recorded in turn.reply.requests:
            request = draft.request(recorded.id, recorded.name)
            draft.argue(request, json.dumps(_filled(recorded.arguments, prompt.turns), ensure_ascii=False))
        # What was recorded is told as it is, also where it is nothing.
        usage = draft.settled_usage() if turn.usage is None else Usage(**turn.usage.model_dump())
        return self._settle(draft.reply(), usage, _price(recording.header))

    def _settle(self, reply: Reply, usage: Usage, price: ModelPrice) -> Completion:
        cost = cost_microusd(price, usage)
        usage = replace(usage, microusd=cost)
        return Completion(model=self.name, reply=reply, usage=usage, replayed=True)

    async def _load(self) -> Recording:
        if self._recording is None:
            self._recording = await anyio.to_thread.run_sync(read_recording, self._path)
        return self._recording


def fill_in(text: str, turns: Sequence[Turn]) -> str:
    """Return `text` with every `${last:REGEX}` filled from the turns.

    Raises:
        ModelError: a place cannot be filled, or its REGEX is none.
    """
    done: list[str] = []
    while _PLACE in text:
        before, _, rest = text.partition(_PLACE)
        pattern, text = _split_at_brace(rest)
        done += [before, _last(pattern, turns)]
    return "".join([*done, text])


def _split_at_brace(text: str) -> tuple[str, str]:
    """Split behind the brace that closes a place, over pairs of braces and over escapes."""
    depth = 0
    for match in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        if depth < 0:
            return text[: match.start()], text[match.end() :]
    raise ModelError(
        ModelFault.BAD_REQUEST,
        "The recording has a ${last:…} that is not closed.",
        "Close it with }, and escape or pair the braces inside.",
    )


def _last(pattern: str, turns: Sequence[Turn]) -> str:
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise ModelError(
            ModelFault.BAD_REQUEST,
            f"The recording has a pattern that is none: {error}.",
            "Mend the ${last:…} it stands in.",
        ) from None
    for turn in reversed(turns):
        matches = list(regex.finditer(turn.text))
        if matches and regex.groups:
            return matches[-1].group(1) or ""
    raise ModelError(
        ModelFault.BAD_REQUEST,
        f"Nothing in the prompt fits the recording's ${{last:{pattern}}}.",
        "The run has left the recording: check the earlier results, and that the pattern has a group.",
    )


def _filled(value: JsonValue, turns: Sequence[Turn]) -> JsonValue:
    if isinstance(value, str):
        return fill_in(value, turns)
    if isinstance(value, list):
        return [_filled(item, turns) for item in value]
    if isinstance(value, dict):
        return {key: _filled(item, turns) for key, item in value.items()}
    return value


def _price(header: Header) -> ModelPrice:
    source = f"recording of {header.model}"
    if header.price is None:
        return ModelPrice(input=0, cached=0, written=0, output=0, source=source)
    return ModelPrice(**header.price.model_dump(), source=source)


def _unplayable(path: Path, why: str) -> ModelError:
    return ModelError(
        ModelFault.BAD_REQUEST,
        f"The recording {path.name!r} cannot be played: {why}.",
        "See the form of a recording in docs/configuration.md.",
    )
