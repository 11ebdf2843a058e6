"""The manners of a provider: what it refuses within its dialect, and how it says what it says.

Real providers of one dialect differ in a dozen ways. A server with manners holds its clients to them: what the provider
would refuse is answered by status 400 and a sentence that names it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

JsonObject = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Manners:
    """How one provider differs from its dialect."""

    max_tokens_field: str = "max_tokens"
    reasoning_field: str = "reasoning_content"
    reasoning_demanded: bool = False
    """A turn that called tools must come back with its reasoning; otherwise it must come back without."""
    structured: Literal["json_schema", "json_object", "tool", "none"] = "json_schema"
    tool_choice: bool = True
    tool_choice_named: bool = True
    """Whether a certain tool may be asked for, and not only any."""
    parallel_tool_calls: bool = True
    """Whether a client may ask for one tool call at a time."""
    stop: bool = True
    top_k: bool = True
    prefix: Literal["none", "trailing", "prefix", "partial"] = "none"
    prefix_path: str = ""
    """What the path of a request with a beginning must hold."""
    prefix_body: JsonObject = field(default_factory=dict)
    """What such a request must hold besides."""
    prefix_echo: bool = False
    cached_tokens: str = "prompt_tokens_details.cached_tokens"
    usage_asked: bool = False
    """Whether usage comes in a stream only for those who asked."""
    progress: Literal["none", "usage", "timings"] = "none"
    """Where a stream counts while it runs, for those who asked."""
    limits: Literal["requests_tokens", "input_output", "concurrency"] = "concurrency"
    priority_field: str | None = None
    images: bool = True
    files: bool = True


def beginning(dialect: str, body: JsonObject) -> str:
    """Return the beginning of the answer that the client gives: the text of a last message that is an assistant's."""
    last = body["messages"][-1] if body.get("messages") else {}
    content = last.get("content") if last.get("role") == "assistant" else None
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""


def progress(body: JsonObject, manners: Manners) -> str:
    """Return where a stream counts while it runs: `none` unless the client asked in this provider's form."""
    asked = {
        "usage": body.get("stream_options", {}).get("continuous_usage_stats"),
        "timings": body.get("timings_per_token"),
    }
    return manners.progress if asked.get(manners.progress) else "none"


def refusal(dialect: str, path: str, body: JsonObject, manners: Manners, thoughtful: frozenset[str]) -> str | None:
    """Return what such a provider has against a request; None where it takes it.

    `thoughtful` holds the identities of tool calls that came with reasoning.
    """
    found = _against(dialect, path, body, manners)
    if dialect == "openai":
        found = [*found, *_against_chat(body, manners, thoughtful)]
    return next(iter(found), None)


def _against(dialect: str, path: str, body: JsonObject, manners: Manners) -> list[str]:
    return [*_bounds(body, manners), *_prefix(dialect, path, body, manners), *_inputs(body, manners)]


def _bounds(body: JsonObject, manners: Manners) -> Iterator[str]:
    other = {"max_tokens", "max_completion_tokens"} - {manners.max_tokens_field}
    if other & body.keys():
        yield f"{other.pop()} is not known here"
    if body.get(manners.max_tokens_field, 1) < 1:
        yield "less than one token was asked for"
    if "tool_choice" in body and not manners.tool_choice:
        yield "tool_choice is not known here"
    if "function" in (body.get("tool_choice") or ()) and not manners.tool_choice_named:
        yield "one tool by its name is not understood here"
    if body.keys() & {"stop", "stop_sequences"} and not manners.stop:
        yield "stop texts are not heeded here"
    if "top_k" in body and not manners.top_k:
        yield "top_k is not known here"
    if "priority" in body and manners.priority_field != "priority":
        yield "priority is not known here"


def _prefix(dialect: str, path: str, body: JsonObject, manners: Manners) -> Iterator[str]:
    *before, last = body["messages"]
    for message in before:
        if message.keys() & {"prefix", "partial"}:
            yield "only the last message may be a beginning"
    if last["role"] != "assistant":
        if manners.prefix_body.keys() & body.keys():
            yield "there is no message to go on from"
        return
    fields = {"prefix", "partial"} & last.keys()
    if manners.prefix == "none":
        yield "the last message must be the user's"
    elif fields != {manners.prefix} - {"trailing"}:
        yield f"the beginning is not marked as this provider wants it: {sorted(fields)}"
    if manners.prefix_path not in path:
        yield f"beginnings are taken under {manners.prefix_path} only"
    if any(body.get(name) != value for name, value in manners.prefix_body.items()):
        yield f"a beginning needs {dict(manners.prefix_body)}"
    if dialect == "anthropic" and beginning(dialect, body) != beginning(dialect, body).rstrip():
        yield "a beginning may not end in blanks"


def _inputs(body: JsonObject, manners: Manners) -> Iterator[str]:
    kinds = {part.get("type") for m in body["messages"] if isinstance(m.get("content"), list) for part in m["content"]}
    if kinds & {"image", "image_url"} and not manners.images:
        yield "images are not taken here"
    if kinds & {"document", "file"} and not manners.files:
        yield "files are not taken here"


def _against_chat(body: JsonObject, manners: Manners, thoughtful: frozenset[str]) -> Iterator[str]:
    form = body.get("response_format", {}).get("type")
    if form is not None and form != manners.structured:
        yield f"response_format {form} is not known here"
    if "parallel_tool_calls" in body and not manners.parallel_tool_calls:
        yield "parallel_tool_calls is not known here"
    for message in body["messages"]:
        thought = message.get(manners.reasoning_field)
        if thought and not manners.reasoning_demanded:
            yield "reasoning may not be sent back"
        called = {call["id"] for call in message.get("tool_calls", ())}
        if manners.reasoning_demanded and called & thoughtful and not thought:
            yield "a turn that calls tools must come with its reasoning"


def limit_headers(kind: str) -> dict[str, str]:
    """Return the headers in which a provider tells of such limits, each family with numbers of its own."""
    if kind == "requests_tokens":
        return {
            "x-ratelimit-limit-requests": "500",
            "x-ratelimit-remaining-requests": "499",
            "x-ratelimit-reset-requests": "120ms",
            "x-ratelimit-limit-tokens": "200000",
            "x-ratelimit-remaining-tokens": "190000",
            "x-ratelimit-reset-tokens": "6m0s",
        }
    if kind == "input_output":
        named = {"requests": 50, "input-tokens": 30_000, "output-tokens": 8_000, "tokens": 38_000}
        headers = {}
        for bucket, limit in named.items():
            headers[f"anthropic-ratelimit-{bucket}-limit"] = str(limit)
            headers[f"anthropic-ratelimit-{bucket}-remaining"] = str(limit // 2)
            headers[f"anthropic-ratelimit-{bucket}-reset"] = "2026-11-23T00:00:30Z"
        return headers
    return {}
