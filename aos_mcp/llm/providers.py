"""Providers as data: the rows of providers.toml, changed and extended by aos.toml.

Owns the meaning of every field. Knows nothing of SDKs, keys' values or prices.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from importlib import resources
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from aos_mcp.abi import limits
from aos_mcp.abi.errors import Invalid
from aos_mcp.abi.settings import ProviderSettings

CONTEXT_TOKENS = 128_000
"""The window assumed of a model nobody describes."""
OUTPUT_TOKENS_MAX = 8_192
"""The longest answer assumed of a model nobody describes."""


class Quirks(BaseModel):
    """How a provider differs from its dialect. Paths are dotted and start at the answer's `usage` object."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What bounds an answer."""
    reasoning_field: str = "reasoning_content"
    """Where a message keeps its reasoning, apart from the text."""
    reasoning_send_back: bool = False
    """Assistant turns that call tools must come back with their reasoning."""
    signature_field: str | None = None
    """A field of a tool call that must come back unchanged."""
    structured: Literal["json_schema", "json_object", "tool", "none"] = "json_schema"
    """How an output schema is asked for; the last three also state it in the system text or in a tool."""
    tool_choice_required: bool = True
    """The provider can be made to call a tool."""
    tool_choice_named: bool = True
    """It can be made to call a certain one by its name; where not, that tool is offered alone."""
    parallel_tool_calls: bool = False
    """The provider can be told to make no more than one tool call in a turn."""
    cached_tokens: tuple[str, ...] = ("prompt_tokens_details.cached_tokens",)
    """Where cached prompt tokens are counted; the first path that is there."""
    written_tokens: str = "prompt_tokens_details.cache_write_tokens"
    """Where tokens written to the cache are counted."""
    cost: str | None = None
    """Where the provider itself says what the call cost, in US dollars."""
    cache_breakpoints: int = Field(default=0, ge=0, le=limits.MODEL_CACHE_BREAKPOINTS_MAX)
    """How many cache marks a request may carry; 0 where the provider caches by itself."""
    cache_mark: Literal["cache_control", "prompt_cache_breakpoint"] = "cache_control"
    """The form of a mark. The provider of the second one marks the end of a prompt by itself, so that is left out."""
    cache_mark_models: tuple[str, ...] = ("*",)
    """Patterns of the models that take marks; the others refuse the field, or cache by themselves."""
    prompt_cache_key: bool = False
    """A key goes with each request, the same through a whole conversation, so that it meets the cache it filled."""
    stream_options: bool = True
    """Usage in a stream must be asked for."""
    progress: Literal["none", "usage", "timings"] = "none"
    """How a stream counts while it runs, which we ask for: in the `usage` of each chunk (vLLM's
    continuous_usage_stats) or in its `timings` (llama.cpp's timings_per_token). A call that is cut is charged by it,
    and the length that is left is known."""
    keep_alive: bool = True
    """A connection is kept for the next call. Not to a server that closes it after each stream and does not say so:
    a request that crosses with the close is lost."""
    prefix: Literal["none", "trailing", "prefix", "partial"] = "none"
    """How an answer is gone on with (`Prompt.continuing`): its beginning is the last message, an assistant's, as it is
    (`trailing`) or with the field of this name set to true."""
    prefix_models: tuple[str, ...] = ("*",)
    """Patterns of the models that go on; the others take the beginning for a finished turn, or refuse it."""
    prefix_base_url: str | None = None
    """Where only such requests go; may be relative to the row's base URL."""
    prefix_body: dict[str, JsonValue] = {}
    """More fields for such requests."""
    prefix_echo: bool = False
    """The answer repeats the beginning it was given."""
    limits: Literal["requests_tokens", "input_output", "concurrency"] = "requests_tokens"
    """What the provider bounds, and with that which headers tell of it (see `llm.rate_limits`): requests and tokens a
    minute, input and output tokens apart, or calls at once, of which no header tells."""
    priority_field: str | None = None
    """Where a request's own priority goes (0 first), for servers that schedule by it; others refuse the field."""
    stop: bool = True
    """Texts at which an answer ends are heeded."""
    top_k: bool = False
    """`top_k` is known; Chat Completions itself has no such field."""
    images: tuple[str, ...] = ()
    """Patterns of the models that take images."""
    files: tuple[str, ...] = ()
    """Patterns of the models that take PDF files."""
    o200k: tuple[str, ...] = ()
    """Patterns of the models whose tokens are counted by the vocabulary o200k."""
    extra_body: dict[str, JsonValue] = {}
    """More fields for every request."""


class Row(BaseModel):
    """One provider. `prices` is its identity in the price package; without one the base URL decides."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    base_url: str
    dialect: Literal["openai", "anthropic"] = "openai"
    base_url_variables: tuple[str, ...] = ()
    key_variables: tuple[str, ...] = ()
    key: str | None = None
    """A key reference from aos.toml; it goes before the variables."""
    keyless: bool = False
    """Works without a key."""
    local: bool = False
    """Runs on the user's own machine: a call costs nothing."""
    probe_path: str | None = None
    """Where a local server lists its models; asked when a default model is looked for."""
    default_model: str | None = None
    prices: str | None = None
    context_tokens: int = CONTEXT_TOKENS
    output_tokens_max: int = OUTPUT_TOKENS_MAX
    quirks: Quirks = Quirks()

    def continues(self, model: str) -> bool:
        """Tell whether `model` goes on from a given beginning of its answer."""
        return self.quirks.prefix != "none" and _fits(model, self.quirks.prefix_models)

    def heeds(self) -> frozenset[str]:
        """Return which of `HELD_TO` its models heed."""
        quirks = self.quirks
        heeded = {
            "must_call": quirks.tool_choice_required,
            "one_call": quirks.parallel_tool_calls,
            "stop": quirks.stop,
            "top_k": quirks.top_k,
        }
        return frozenset(field for field, is_heeded in heeded.items() if is_heeded)

    def vocabulary(self, model: str) -> str | None:
        """Return the vocabulary by which `model` counts, where it is known."""
        return "o200k" if _fits(model, self.quirks.o200k) else None

    def inputs(self, model: str) -> frozenset[str]:
        """Return what a user turn may carry to `model`: `text`, `image`, `file`."""
        more = {"image": self.quirks.images, "file": self.quirks.files}
        return frozenset({"text", *(kind for kind, patterns in more.items() if _fits(model, patterns))})


def _fits(model: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(model.lower(), pattern.lower()) for pattern in patterns)


def marks_max(quirks: Quirks, model: str) -> int:
    """Return how many cache marks a request to `model` may carry."""
    return quirks.cache_breakpoints if _fits(model, quirks.cache_mark_models) else 0


def load_rows(settings: Mapping[str, ProviderSettings], environ: Mapping[str, str]) -> dict[str, Row]:
    """Return all rows by name: those of providers.toml in its order, then the user's own.

    Raises:
        Invalid: a new row has no base URL, or a quirk is unknown.
    """
    text = resources.files(__package__).joinpath("providers.toml").read_text("utf-8")
    rows = {name: Row(name=name, **fields) for name, fields in tomllib.loads(text).items()}
    rows = {name: _from_environ(row, environ) for name, row in rows.items()}
    for name, changes in settings.items():
        rows[name] = _changed(rows.get(name), name, changes)
    return rows


def _from_environ(row: Row, environ: Mapping[str, str]) -> Row:
    given = next((environ[name] for name in row.base_url_variables if environ.get(name)), None)
    return row if given is None else row.model_copy(update={"base_url": _with_path(given, row.base_url)})


def _with_path(given: str, usual: str) -> str:
    """Complete a bare `http://host:port`, as such variables mostly are, by the path the provider's API has."""
    parts = urlsplit(given if "://" in given else f"http://{given}")
    path = parts.path if parts.path.strip("/") else urlsplit(usual).path
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def _changed(row: Row | None, name: str, changes: ProviderSettings) -> Row:
    if row is None and changes.base_url is None:
        raise Invalid(
            f"Provider {name!r} in aos.toml has no base_url.",
            f"Add base_url to [providers.{name}], or use the name of a known provider.",
        )
    fields: dict[str, object] = {"name": name, "keyless": changes.key is None} if row is None else row.model_dump()
    for key in ("base_url", "dialect", "key", "context_tokens", "output_tokens_max"):
        value = getattr(changes, key)
        if value is not None:
            fields[key] = value
    known = row.quirks.model_dump() if row else {}
    fields["quirks"] = _quirks(name, {**known, **changes.quirks})
    return Row.model_validate(fields)


def _quirks(name: str, fields: Mapping[str, object]) -> Quirks:
    try:
        return Quirks.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        near = difflib.get_close_matches(where, list(Quirks.model_fields), n=1, cutoff=0)
        wrong = f"unknown quirk {where!r}" if first["type"] == "extra_forbidden" else f"{where}: {first['msg']}"
        raise Invalid(f"Provider {name!r} in aos.toml: {wrong}.", f"The nearest known quirk is {near[0]!r}.") from None
