"""Answers as the two dialects put them on the wire. Pure; written from the vendors' references."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What to say, with its counts. `calls` are (identity, name, arguments as JSON text).

    `number` makes the answer's identity: clients take two answers with the same one for halves of one.
    """

    number: int
    model: str
    text: str
    reasoning: str
    calls: tuple[tuple[str, str, str], ...]
    stop: str | None
    input_tokens: int
    cached_tokens: int
    written_tokens: int
    output_tokens: int
    usage: bool
    stop_text: str = ""
    """Which of the texts that a client named ended the answer."""
    reasoning_field: str | None = None
    """Where Chat Completions puts the reasoning; None: under both names in use."""
    cached_path: str = "prompt_tokens_details.cached_tokens"
    """Where Chat Completions counts the cached tokens."""
    progress: str = "none"
    """Where each chunk with a piece of text counts what was written, a piece being a token: `usage` or `timings`."""


def last_user_text(body: Mapping[str, Any]) -> str:
    """Return the last text a user turn holds, in either dialect."""
    for message in reversed(body.get("messages", [])):
        content = message.get("content")
        if message.get("role") != "user":
            continue
        if isinstance(content, str):
            return content
        texts = [part["text"] for part in content if part.get("type") == "text"]
        if texts:
            return str(texts[-1])
    return ""


def texts(body: Mapping[str, Any]) -> list[str]:
    """Return every text that the messages hold, tool results included, in their order and in either dialect."""
    return [text for message in body.get("messages", []) for text in _texts_in(message.get("content"))]


def _texts_in(content: object) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            yield from _texts_in(part.get("text") or part.get("content"))


def cut_at_stop(body: Mapping[str, Any], text: str) -> tuple[str, str]:
    """Return an answer as far as it goes before the first text that the client wants it to end at, and that text."""
    given = body.get("stop") or body.get("stop_sequences") or []
    found = [(at, each) for each in ([given] if isinstance(given, str) else given) if (at := text.find(each)) >= 0]
    at, ended_by = min(found, default=(len(text), ""))
    return text[:at], ended_by


def error_body(dialect: str, kind: str, code: str, message: str) -> dict[str, Any]:
    """Return an error as the dialect writes it, in a body or in a stream."""
    if dialect == "anthropic":
        error: dict[str, Any] = {"type": kind or "api_error", "message": message}
        if code:
            error["details"] = {"error_code": code}
        return {"type": "error", "error": error}
    return {"error": {"type": kind or "server_error", "code": code or None, "message": message}}


def answer_body(dialect: str, answer: Answer) -> dict[str, Any]:
    """Return an answer that is not streamed."""
    return _message(answer) if dialect == "anthropic" else _chat(answer)


def answer_events(dialect: str, answer: Answer) -> Iterator[tuple[bool, bytes]]:
    """Yield the events of a stream, each with whether it is a piece of text."""
    return _message_events(answer) if dialect == "anthropic" else _chat_events(answer)


def _pieces(text: str) -> list[str]:
    return re.findall(r"\s*\S+|\s+$", text)


def _halves(text: str) -> tuple[str, str]:
    """Arguments come in pieces that are not JSON by themselves."""
    return text[: len(text) // 2], text[len(text) // 2 :]


# Chat Completions ----------------------------------------------------------------------------------------------------


def _chat_usage(answer: Answer) -> dict[str, Any]:
    usage: dict[str, Any] = {
        "prompt_tokens": answer.input_tokens,
        "completion_tokens": answer.output_tokens,
        "total_tokens": answer.input_tokens + answer.output_tokens,
        "prompt_tokens_details": {"cache_write_tokens": answer.written_tokens},
    }
    *path, name = answer.cached_path.split(".")
    place = usage
    for step in path:
        place = place.setdefault(step, {})
    place[name] = answer.cached_tokens
    return usage


def _chat_reasoning(answer: Answer, piece: str) -> dict[str, str]:
    fields = ("reasoning_content", "reasoning") if answer.reasoning_field is None else (answer.reasoning_field,)
    return dict.fromkeys(fields, piece)


def _chat_stop(answer: Answer) -> str:
    return answer.stop or ("tool_calls" if answer.calls else "stop")


def _chat_call(index: int, identity: str, name: str, arguments: str) -> dict[str, Any]:
    return {"index": index, "id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def _chat(answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text or None}
    if answer.reasoning:
        message |= _chat_reasoning(answer, answer.reasoning)
    if answer.calls:
        message["tool_calls"] = [_chat_call(index, *call) for index, call in enumerate(answer.calls)]
    choice = {"index": 0, "message": message, "finish_reason": _chat_stop(answer)}
    body = {"id": f"chatcmpl-{answer.number}", "object": "chat.completion", "model": answer.model, "choices": [choice]}
    return {**body, "usage": _chat_usage(answer)} if answer.usage else body


def _chat_events(answer: Answer) -> Iterator[tuple[bool, bytes]]:
    def chunk(delta: dict[str, Any], stop: str | None = None, counts: Mapping[str, Any] | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": stop}
        fields = {"object": "chat.completion.chunk", "model": answer.model, "choices": [choice]}
        return _data({**fields, **(counts or {})})

    yield False, b": a comment, as some routers send\n\n"
    yield False, chunk({"role": "assistant", "content": ""})
    for piece in _pieces(answer.reasoning):
        yield False, chunk(_chat_reasoning(answer, piece))
    for number, piece in enumerate(_pieces(answer.text), 1):
        yield True, chunk({"content": piece}, counts=_so_far(answer, number))
    for index, (identity, name, arguments) in enumerate(answer.calls):
        first, second = _halves(arguments)
        yield False, chunk({"tool_calls": [_chat_call(index, identity, name, first)]})
        yield False, chunk({"tool_calls": [{"index": index, "function": {"arguments": second}}]})
    yield False, chunk({}, _chat_stop(answer))
    if answer.usage:
        yield False, _data({"object": "chat.completion.chunk", "choices": [], "usage": _chat_usage(answer)})
    yield False, b"data: [DONE]\n\n"


def _so_far(answer: Answer, tokens: int) -> dict[str, Any]:
    if answer.progress == "usage":
        return {"usage": {"prompt_tokens": answer.input_tokens, "completion_tokens": tokens}}
    if answer.progress == "timings":
        fresh = answer.input_tokens - answer.cached_tokens
        return {"timings": {"prompt_n": fresh, "cache_n": answer.cached_tokens, "predicted_n": tokens}}
    return {}


def _data(fields: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


# Messages ------------------------------------------------------------------------------------------------------------


def _message_usage(answer: Answer) -> dict[str, Any]:
    return {
        "input_tokens": answer.input_tokens - answer.cached_tokens - answer.written_tokens,
        "cache_read_input_tokens": answer.cached_tokens,
        "cache_creation_input_tokens": answer.written_tokens,
        "output_tokens": answer.output_tokens,
    }


def _message_stop(answer: Answer) -> dict[str, Any]:
    if answer.stop_text:
        return {"stop_reason": "stop_sequence", "stop_sequence": answer.stop_text}
    return {"stop_reason": answer.stop or ("tool_use" if answer.calls else "end_turn")}


def _message_head(answer: Answer) -> dict[str, Any]:
    return {"id": f"msg_{answer.number}", "type": "message", "role": "assistant", "model": answer.model}


def _message(answer: Answer) -> dict[str, Any]:
    content: list[dict[str, Any]] = []
    if answer.reasoning:
        content.append({"type": "thinking", "thinking": answer.reasoning, "signature": "signed"})
    if answer.text:
        content.append({"type": "text", "text": answer.text})
    for identity, name, arguments in answer.calls:
        content.append({"type": "tool_use", "id": identity, "name": name, "input": json.loads(arguments)})
    body = {**_message_head(answer), "content": content, **_message_stop(answer)}
    return {**body, "usage": _message_usage(answer)} if answer.usage else body


def _message_events(answer: Answer) -> Iterator[tuple[bool, bytes]]:
    usage = _message_usage(answer) if answer.usage else {}
    start = {**_message_head(answer), "content": []}
    yield (
        False,
        _event("message_start", {"message": {**start, "usage": {**usage, "output_tokens": 1} if usage else {}}}),
    )
    index = 0
    if answer.reasoning:
        yield False, _event("content_block_start", {"index": 0, "content_block": {"type": "thinking", "thinking": ""}})
        for piece in _pieces(answer.reasoning):
            yield False, _delta(0, {"type": "thinking_delta", "thinking": piece})
        yield False, _delta(0, {"type": "signature_delta", "signature": "signed"})
        yield False, _event("content_block_stop", {"index": 0})
        index += 1
    yield False, _event("ping", {})
    if answer.text:
        yield False, _event("content_block_start", {"index": index, "content_block": {"type": "text", "text": ""}})
        for piece in _pieces(answer.text):
            yield True, _delta(index, {"type": "text_delta", "text": piece})
        yield False, _event("content_block_stop", {"index": index})
        index += 1
    for identity, name, arguments in answer.calls:
        block = {"type": "tool_use", "id": identity, "name": name, "input": {}}
        yield False, _event("content_block_start", {"index": index, "content_block": block})
        for half in _halves(arguments):
            yield False, _delta(index, {"type": "input_json_delta", "partial_json": half})
        yield False, _event("content_block_stop", {"index": index})
        index += 1
    yield False, _event("message_delta", {"delta": _message_stop(answer), "usage": usage})
    yield False, _event("message_stop", {})


def _delta(index: int, delta: dict[str, Any]) -> bytes:
    return _event("content_block_delta", {"index": index, "delta": delta})


def _event(kind: str, fields: dict[str, Any]) -> bytes:
    return f"event: {kind}\n".encode() + _data({"type": kind, **fields})


def embeddings_body(request: Mapping[str, Any]) -> dict[str, object]:
    """Return an answer of an embeddings endpoint: each text as the counts of its letters, a to z."""
    texts = [request["input"]] if isinstance(request["input"], str) else request["input"]
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": [float(text.lower().count(each)) for each in ascii_lowercase],
        }
        for index, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": 0, "total_tokens": 0}
    return {"object": "list", "data": data, "model": request["model"], "usage": usage}
