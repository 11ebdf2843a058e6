"""Chat Completions: the dialect of OpenAI and of nearly everybody else. What differs is in the row's quirks."""

from __future__ import annotations

import hashlib
import json
import math
from base64 import b64encode
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from itertools import islice
from typing import Any

from aos_mcp.abi.budget import Usage
from aos_mcp.abi.completion import ANY_TOOL, Attachment, Prompt, ToolRequest, Turn
from aos_mcp.abi.strict_json import object_in
from aos_mcp.llm.draft import NO_ANSWER, Draft, DraftRequest, Stop, count_of, text_of
from aos_mcp.llm.driver import Decoder, Driver, Fields, extra_body
from aos_mcp.llm.providers import Quirks, marks_max
from aos_mcp.llm.schema import ANSWER_TOOL, answer_tool, is_closed, parsed, stated, take_answer

_STOPS: dict[str, Stop] = {
    "stop": "end",
    "tool_calls": "tools",
    "function_call": "tools",
    "length": "length",
    "content_filter": "refused",
    # What some servers say of the same: Together, TGI, Mistral, MiniMax, GLM, and routers before Messages.
    **dict.fromkeys(("eos", "eos_token", "stop_sequence", "end_turn"), "end"),
    "tool_use": "tools",
    **dict.fromkeys(("max_tokens", "model_length", "max_output", "model_context_window_exceeded"), "length"),
    **dict.fromkeys(("sensitive", "safety", "refusal"), "refused"),
}

MARKS = {"cache_control": {"type": "ephemeral"}, "prompt_cache_breakpoint": {"mode": "explicit"}}
KEY_CHARS = 1_024  # Of the first turn: the task stands there, and what follows it may leave.

JsonObject = dict[str, Any]


class OpenAICompatible(Driver):
    """A model behind Chat Completions."""

    @property
    def _sdk(self) -> Any:
        import openai  # loaded by the link before the first call

        return openai

    def _open(self, client: Any, prompt: Prompt) -> AbstractAsyncContextManager[Any]:
        body = request_body(self._model, prompt, self._row.quirks)
        request: AbstractAsyncContextManager[Any] = client.chat.completions.with_streaming_response.create(**body)
        return request

    def _decoder(self, draft: Draft) -> Decoder:
        return ChatDecoder(draft, self._row.quirks)

    def _answers_by_tool(self, prompt: Prompt) -> bool:
        return prompt.output_schema is not None and self._row.quirks.structured == "tool"


def request_body(model: str, prompt: Prompt, quirks: Quirks) -> JsonObject:
    """Return the arguments of `chat.completions.create`. Pure, and byte-stable: a prefix cache sees the same prefix."""
    body: JsonObject = {"model": model, "messages": _messages(model, prompt, quirks), "stream": True}
    body[quirks.max_tokens_field] = max(1, prompt.max_output_tokens)
    if quirks.stream_options:
        body["stream_options"] = {"include_usage": True}
        if quirks.progress == "usage":
            body["stream_options"]["continuous_usage_stats"] = True
    if prompt.temperature is not None:
        body["temperature"] = prompt.temperature
    if prompt.top_p is not None:
        body["top_p"] = prompt.top_p
    if prompt.stop:
        body["stop"] = list(prompt.stop)
    if prompt.tools:
        _offer(body, prompt, quirks)
    if prompt.output_schema is not None:
        _ask_for_schema(body, parsed(prompt.output_schema), answer_tool(prompt), quirks)
    if quirks.prompt_cache_key:
        body["prompt_cache_key"] = _cache_key(prompt)
    more = extra_body(prompt, quirks)
    if more:
        body["extra_body"] = more
    return body


def _offer(body: JsonObject, prompt: Prompt, quirks: Quirks) -> None:
    """Offer the tools, and say which must be called."""
    offered, wanted = prompt.tools, prompt.must_call
    if wanted is not None and (wanted == ANY_TOOL or not quirks.tool_choice_named):
        offered = tuple(tool for tool in offered if wanted in {ANY_TOOL, tool.name})
        body["tool_choice"] = "required"
    elif wanted is not None:
        body["tool_choice"] = {"type": "function", "function": {"name": wanted}}
    if prompt.one_call:
        body["parallel_tool_calls"] = False
    body["tools"] = [_function(t.name, t.description, parsed(t.input_schema)) for t in offered]


def _ask_for_schema(body: JsonObject, schema: JsonObject, tool: str, quirks: Quirks) -> None:
    if quirks.structured == "json_schema":
        form = {"name": ANSWER_TOOL, "schema": schema, "strict": is_closed(schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": form}
    elif quirks.structured == "json_object":
        body["response_format"] = {"type": "json_object"}
    elif quirks.structured == "tool":
        alone = "tools" not in body
        body.setdefault("tools", []).append(_function(tool, "Give your answer.", schema))
        if alone and quirks.tool_choice_required:
            body["tool_choice"] = "required"
        if alone and quirks.parallel_tool_calls:
            body["parallel_tool_calls"] = False


def _cache_key(prompt: Prompt) -> str:
    """Return what the requests of one conversation have in common and others have not: how it begins.

    It says which of the provider's machines is asked, and one machine keeps up with a few requests of a key a minute.
    Single questions without tools share the key of their system text, which is all they have in common.
    """
    digest = hashlib.sha256(prompt.system.encode("utf-8", "replace"))
    for tool in prompt.tools:
        digest.update(tool.name.encode("utf-8", "replace"))
    if prompt.turns and (prompt.tools or len(prompt.turns) > 1):
        digest.update(prompt.turns[0].text[:KEY_CHARS].encode("utf-8", "replace"))
    return digest.hexdigest()[:32]


def _function(name: str, description: str, schema: JsonObject) -> JsonObject:
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


def _messages(model: str, prompt: Prompt, quirks: Quirks) -> list[JsonObject]:
    system = prompt.system
    if prompt.output_schema is not None and quirks.structured != "json_schema":
        system = stated(system, prompt.output_schema)
    messages: list[JsonObject] = [{"role": "system", "content": system}] if system else []
    messages += [_message(turn, quirks) for turn in prompt.turns]
    if prompt.continuing:
        beginning: JsonObject = {"role": "assistant", "content": prompt.continuing}
        messages.append(beginning if quirks.prefix == "trailing" else {**beginning, quirks.prefix: True})
    most = marks_max(quirks, model)
    _mark(messages[: bool(system)], most, quirks)
    marked = [m for m, t in zip(messages[bool(system) :], prompt.turns, strict=False) if t.breakpoint]
    if quirks.cache_mark == "prompt_cache_breakpoint":
        marked = [message for message in marked if message is not messages[-1]]
    # The newest marks are the ones the next request will find.
    _mark(reversed(marked), most - bool(system), quirks)
    return _folded(messages, apart=most > 0)


def _folded(messages: Iterable[JsonObject], *, apart: bool) -> list[JsonObject]:
    """Make one message of neighbouring ones of the user: some chat templates refuse two in a row.

    Their texts stay `apart`, as parts of it, where one may be marked: it must be the same text then as when it is not.
    """
    folded: list[JsonObject] = []
    for message in messages:
        before = folded[-1] if folded else message
        if before is message or not before["role"] == message["role"] == "user":
            folded.append(message)
        elif not apart and isinstance(before["content"], str) and isinstance(message["content"], str):
            before["content"] = f"{before['content']}\n\n{message['content']}"
        else:
            before["content"] = [*_as_parts(before["content"]), *_as_parts(message["content"])]
    return folded


def _as_parts(content: str | list[JsonObject]) -> list[JsonObject]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _mark(messages: Iterable[JsonObject], most: int, quirks: Quirks) -> None:
    able = (message for message in messages if isinstance(message["content"], str) and message["content"])
    for message in islice(able, max(0, most)):
        part = {"type": "text", "text": message["content"], quirks.cache_mark: MARKS[quirks.cache_mark]}
        message["content"] = [part]


def _message(turn: Turn, quirks: Quirks) -> JsonObject:
    if turn.role == "tool":
        return {"role": "tool", "tool_call_id": turn.request_id, "content": turn.text}
    if turn.role == "user":
        return {"role": "user", "content": _parts(turn) if turn.attachments else turn.text}
    message: JsonObject = {"role": "assistant", "content": turn.text or (None if turn.requests else NO_ANSWER)}
    if turn.requests:
        signatures = _signatures(turn.reasoning_signature, quirks)
        message["tool_calls"] = [_call(request, signatures, quirks) for request in turn.requests]
    if turn.reasoning and quirks.reasoning_send_back:
        message[quirks.reasoning_field] = turn.reasoning
    return message


def _parts(turn: Turn) -> list[JsonObject]:
    parts = [_part(attachment) for attachment in turn.attachments]
    return [*parts, {"type": "text", "text": turn.text}] if turn.text else parts


def _part(attachment: Attachment) -> JsonObject:
    url = f"data:{attachment.media_type};base64,{b64encode(attachment.data).decode()}"
    if attachment.kind == "image":
        return {"type": "image_url", "image_url": {"url": url}}
    return {"type": "file", "file": {"filename": attachment.name or "file.pdf", "file_data": url}}


def _call(request: ToolRequest, signatures: JsonObject, quirks: Quirks) -> JsonObject:
    call: JsonObject = {
        "id": request.request_id,
        "type": "function",
        "function": {"name": request.name, "arguments": request.arguments},
    }
    if quirks.signature_field and request.request_id in signatures:
        call[quirks.signature_field] = signatures[request.request_id]
    return call


def _signatures(text: str, quirks: Quirks) -> JsonObject:
    """Return the signatures by request; none where the turn was made by a provider of another kind."""
    if not quirks.signature_field or not text:
        return {}
    found = (object_in(text) or {}).get(quirks.signature_field)
    return found if isinstance(found, dict) else {}


class ChatDecoder(Decoder):
    """Reads chunks of Chat Completions."""

    def __init__(self, draft: Draft, quirks: Quirks) -> None:
        self._draft = draft
        self._quirks = quirks
        self._open: dict[int, DraftRequest] = {}
        self._signatures: JsonObject = {}

    def feed(self, event: str, fields: Fields) -> None:
        """Take one chunk."""
        usage = fields.get("usage")
        if not usage and self._quirks.progress == "timings" and "timings" in fields:
            self._draft.usage = _timed(fields["timings"]) or self._draft.usage
        for choice in fields.get("choices") or ():
            usage = usage or choice.get("usage")  # some count there
            self._message(choice.get("delta") or {})
            reason = choice.get("finish_reason")
            if reason:
                # A reason nobody knows (out of resources, aborted) is not an end: the answer counts as cut.
                known = _STOPS.get(reason.lower())
                self._draft.finished = known is not None
                if self._draft.stop != "refused":  # a refusal in words ends with an ordinary reason
                    self._draft.stop = known or "end"
        if usage:
            self._draft.usage = _usage(usage, self._quirks) or self._draft.usage
            self._draft.cost_usd = _number(usage, self._quirks.cost) if self._quirks.cost else None

    def whole(self, fields: Fields) -> None:
        """Take an answer that came in one piece."""
        choices = [{**choice, "delta": choice.get("message")} for choice in fields.get("choices") or ()]
        self.feed("", {**fields, "choices": choices})
        if self._draft.finished is None and any(choice["delta"] for choice in choices):
            self._draft.finished = True  # as in a stream, some give no reason

    def close(self) -> None:
        """Turn the answer tool's arguments into the answer, and keep the signatures."""
        draft = self._draft
        if self._signatures:
            draft.signature = json.dumps({self._quirks.signature_field: self._signatures})
        take_answer(draft)

    def _message(self, delta: JsonObject) -> None:
        draft = self._draft
        draft.think(text_of(delta.get(self._quirks.reasoning_field)))
        draft.say(text_of(delta.get("content")))
        if delta.get("refusal"):
            draft.say(text_of(delta["refusal"]))
            draft.stop = "refused"
        for call in delta.get("tool_calls") or ():
            self._call(call)

    def _call(self, call: JsonObject) -> None:
        function = call.get("function") or {}
        index = call.get("index", len(self._open))
        identity, name = text_of(call.get("id")), text_of(function.get("name"))
        request = self._open.get(index)
        if request is None or _is_another(request, identity, name):
            request = self._draft.request(identity, name)
            self._open[index] = request
        signature = call.get(self._quirks.signature_field) if self._quirks.signature_field else None
        if signature:
            self._signatures[request.request_id] = signature
        arguments = function.get("arguments")
        if arguments:
            self._draft.argue(request, arguments if isinstance(arguments, str) else json.dumps(arguments))


def _is_another(request: DraftRequest, identity: str, name: str) -> bool:
    """Tell whether a chunk under the index of this call begins another: some servers send every call under index 0.

    A new identity does. Where there is none, a name does: another one, or the same once the arguments are whole, since
    some repeat the name with every piece of them.
    """
    if identity:
        return identity != request.request_id
    return bool(name) and (name != request.name or object_in("".join(request.arguments)) is not None)


def _usage(usage: JsonObject, quirks: Quirks) -> Usage | None:
    """Return the counts; None where none is positive, as of servers that fill the form in and do not count."""
    total, output = count_of(_number(usage, "prompt_tokens")), count_of(_number(usage, "completion_tokens"))
    cached = min(total, _first(usage, quirks.cached_tokens))
    written = min(total - cached, count_of(_number(usage, quirks.written_tokens)))
    if not (total or output):
        return None
    return Usage(
        input_tokens=total - cached - written, cached_tokens=cached, written_tokens=written, output_tokens=output
    )


def _timed(timings: JsonObject) -> Usage | None:
    fresh, cached, output = (count_of(timings.get(name)) for name in ("prompt_n", "cache_n", "predicted_n"))
    if not (fresh or cached or output):
        return None
    return Usage(input_tokens=fresh, cached_tokens=cached, output_tokens=output)


def _first(usage: JsonObject, paths: Iterable[str]) -> int:
    return count_of(next((n for n in (_number(usage, path) for path in paths) if n is not None), 0))


def _number(usage: JsonObject, path: str) -> float | None:
    found: Any = usage
    for step in path.split("."):
        found = found.get(step) if isinstance(found, dict) else None
    return found if isinstance(found, int | float) and math.isfinite(found) else None
