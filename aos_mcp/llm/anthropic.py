"""Messages: the dialect of Anthropic and of those who serve it too."""

from __future__ import annotations

import json
from base64 import b64encode
from contextlib import AbstractAsyncContextManager
from itertools import groupby
from typing import Any

from aos_mcp.abi.budget import Usage
from aos_mcp.abi.completion import ANY_TOOL, Attachment, Prompt, Turn
from aos_mcp.abi.strict_json import object_in
from aos_mcp.llm.draft import NO_ANSWER, Draft, DraftRequest, Stop, count_of, text_of
from aos_mcp.llm.driver import Decoder, Driver, Fields, extra_body
from aos_mcp.llm.providers import Quirks, marks_max
from aos_mcp.llm.schema import answer_tool, is_holdable, parsed, stated, take_answer

_STOPS: dict[str, Stop] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tools",
    "refusal": "refused",
}

_COUNTS = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")

_MARK = {"type": "ephemeral"}

JsonObject = dict[str, Any]


class Anthropic(Driver):
    """A model behind Messages."""

    @property
    def _sdk(self) -> Any:
        import anthropic  # loaded by the link before the first call

        return anthropic

    def _open(self, client: Any, prompt: Prompt) -> AbstractAsyncContextManager[Any]:
        body = request_body(self._model, prompt, self._row.quirks)
        if "output_config" in body:
            form = body["output_config"]["format"]
            form["schema"] = self._sdk.transform_schema(form["schema"])
        request: AbstractAsyncContextManager[Any] = client.messages.with_streaming_response.create(**body)
        return request

    def _decoder(self, draft: Draft) -> Decoder:
        return MessageDecoder(draft, self._model)

    def _answers_by_tool(self, prompt: Prompt) -> bool:
        schema = prompt.output_schema
        return schema is not None and _form(parsed(schema), self._row.quirks) == "tool"

    def _repeated(self, prompt: Prompt) -> str:
        """A beginning may not end in blanks: they are left off, and taken off the answer where they come again."""
        whole = super()._repeated(prompt)
        return whole or prompt.continuing[len(prompt.continuing.rstrip()) :]


def request_body(model: str, prompt: Prompt, quirks: Quirks) -> JsonObject:
    """Return the arguments of `messages.create`. Pure, and byte-stable: a prefix cache sees the same prefix."""
    body: JsonObject = {"model": model, "stream": True, "max_tokens": max(1, prompt.max_output_tokens)}
    system, schema = prompt.system, prompt.output_schema
    tools = [_tool(t.name, t.description, t.input_schema) for t in prompt.tools]
    form = "none" if schema is None else _form(parsed(schema), quirks)
    if schema is not None and form == "json_schema":
        body["output_config"] = {"format": {"type": "json_schema", "schema": parsed(schema)}}
    elif schema is not None:
        system = stated(system, schema)
    if schema is not None and form == "tool":
        if not tools and quirks.tool_choice_required:
            alone = {"disable_parallel_tool_use": True} if quirks.parallel_tool_calls else {}
            body["tool_choice"] = {"type": "tool", "name": answer_tool(prompt), **alone}
        tools.append(_tool(answer_tool(prompt), "Give your answer.", schema))
    if system:
        body["system"] = [{"type": "text", "text": system}]
    if tools:
        body["tools"] = tools
    if prompt.stop:
        body["stop_sequences"] = list(prompt.stop)
    if prompt.must_call is not None or prompt.one_call:
        body["tool_choice"] = _choice(prompt)
    more = dict(extra_body(prompt, quirks))
    # The SDK has no arguments for these any more, and neither have the newest models.
    asked = {"temperature": prompt.temperature, "top_p": prompt.top_p}
    more |= {name: value for name, value in asked.items() if value is not None}
    if more:
        body["extra_body"] = more
    body["messages"], marked = _messages(model, prompt, quirks)
    _mark(body, marked, marks_max(quirks, model))
    return body


def _choice(prompt: Prompt) -> JsonObject:
    alone = {"disable_parallel_tool_use": True} if prompt.one_call else {}
    if prompt.must_call is None:
        return {"type": "auto", **alone}
    if prompt.must_call == ANY_TOOL:
        return {"type": "any", **alone}
    return {"type": "tool", "name": prompt.must_call, **alone}


def _form(schema: JsonObject, quirks: Quirks) -> str:
    """Return how to ask for a schema: as the row says, or through a tool, or in words where the dialect cannot."""
    form: str = quirks.structured
    if form == "json_schema" and not is_holdable(schema):
        form = "tool"
    return "none" if form == "tool" and schema.get("type") != "object" else form


def _mark(body: JsonObject, marked: list[JsonObject], most: int) -> None:
    """Set the cache marks.

    One stands behind the system text (which covers the tools before it), the rest on the newest breakpoints, which are
    the ones the next request will find.
    """
    fixed = body.get("system") or body.get("tools") or []
    if most and fixed:
        fixed[-1]["cache_control"] = _MARK
    left = most - bool(fixed)
    for block in marked[-left:] if left > 0 else ():
        block["cache_control"] = _MARK


def _tool(name: str, description: str, schema: str) -> JsonObject:
    return {"name": name, "description": description, "input_schema": parsed(schema)}


def _messages(model: str, prompt: Prompt, quirks: Quirks) -> tuple[list[JsonObject], list[JsonObject]]:
    """Return the messages, and the blocks that end at a breakpoint.

    All that stands between two assistant turns is one user message, with the tool results first: the dialect wants
    every result of a turn together, right behind it.
    """
    messages: list[JsonObject] = []
    marked: list[JsonObject] = []
    for by_model, group in groupby(prompt.turns, key=lambda turn: turn.role == "assistant"):
        turns = sorted(group, key=lambda turn: turn.role == "user")
        content: list[JsonObject] = []
        for turn in turns:
            blocks = _assistant(model, turn, quirks) if by_model else _given(turn)
            content += blocks
            if turn.breakpoint and blocks[-1]["type"] != "thinking" and blocks[-1].get("text") != "":
                marked.append(blocks[-1])
        messages.append({"role": "assistant" if by_model else "user", "content": content})
    if prompt.continuing.strip():
        beginning = {"type": "text", "text": prompt.continuing.rstrip()}
        messages.append({"role": "assistant", "content": [beginning]})
    return messages, marked


def _given(turn: Turn) -> list[JsonObject]:
    if turn.role == "user":
        carried = [_carried(attachment) for attachment in turn.attachments]
        return [*carried, {"type": "text", "text": turn.text}] if turn.text or not carried else carried
    block: JsonObject = {"type": "tool_result", "tool_use_id": turn.request_id, "content": turn.text}
    if turn.is_error:
        block["is_error"] = True
    return [block]


def _carried(attachment: Attachment) -> JsonObject:
    data = b64encode(attachment.data).decode()
    source = {"type": "base64", "media_type": attachment.media_type, "data": data}
    if attachment.kind == "image":
        return {"type": "image", "source": source}
    return {"type": "document", "source": source, **({"title": attachment.name} if attachment.name else {})}


def _assistant(model: str, turn: Turn, quirks: Quirks) -> list[JsonObject]:
    blocks = _thoughts(model, turn) if turn.requests and quirks.reasoning_send_back else []
    if turn.text.strip() or not turn.requests:
        blocks.append({"type": "text", "text": turn.text.rstrip() or NO_ANSWER})
    blocks += [
        {"type": "tool_use", "id": r.request_id, "name": r.name, "input": _arguments(r.arguments)}
        for r in turn.requests
    ]
    return blocks


def _arguments(text: str) -> JsonObject:
    """Return the arguments as the object the dialect demands; a call that was never well formed goes back as text."""
    found = object_in(text)
    return {"malformed": text} if found is None else found


def _thoughts(model: str, turn: Turn) -> list[JsonObject]:
    """Return the thinking blocks of a turn as this very model made them; another model's signatures are not valid."""
    signed = object_in(turn.reasoning_signature) or {}
    if signed.get("model") != model:
        return []
    try:
        return _signed(signed["blocks"], turn.reasoning)
    except (KeyError, TypeError):
        return []  # a program made it up


def _signed(parts: list[JsonObject], reasoning: str) -> list[JsonObject]:
    blocks: list[JsonObject] = []
    at = 0
    for part in parts:
        if "data" in part:
            blocks.append({"type": "redacted_thinking", "data": part["data"]})
            continue
        end = at + part["chars"]
        blocks.append({"type": "thinking", "thinking": reasoning[at:end], "signature": part["signature"]})
        at = end
    return blocks


class MessageDecoder(Decoder):
    """Reads the events of Messages.

    The thinking blocks of a turn become one text and one signature: JSON with the model, and per block its length in
    characters and its signature, or the data of a redacted one.
    """

    def __init__(self, draft: Draft, model: str) -> None:
        self._draft = draft
        self._model = model
        self._requests: dict[int, DraftRequest] = {}
        self._thoughts: dict[int, JsonObject] = {}
        self._usage: dict[str, int] = {}

    def feed(self, event: str, fields: Fields) -> None:
        """Take one event."""
        kind = fields.get("type")
        if kind == "content_block_delta":
            self._delta(fields.get("index", 0), fields.get("delta") or {})
        elif kind == "content_block_start":
            self._begin(fields.get("index", 0), fields.get("content_block") or {})
        elif kind == "message_start":
            self._count((fields.get("message") or {}).get("usage"))
        elif kind == "message_delta":
            self._stop(fields.get("delta") or {})
            self._count(fields.get("usage"))
        elif kind == "message_stop":
            self._draft.finished = True

    def whole(self, fields: Fields) -> None:
        """Take an answer that came in one piece."""
        content = fields["content"]
        if not isinstance(content, list):
            raise TypeError("content is no list")
        for index, block in enumerate(content):
            self._begin(index, block)
        self._stop(fields)
        self._count(fields.get("usage"))
        self._draft.finished = bool(fields.get("stop_reason"))

    def close(self) -> None:
        """Turn the answer tool's arguments into the answer, and keep the signatures."""
        draft = self._draft
        if self._thoughts:
            draft.signature = json.dumps({"model": self._model, "blocks": list(self._thoughts.values())})
        take_answer(draft)

    def _begin(self, index: int, block: JsonObject) -> None:
        draft, kind = self._draft, block.get("type")
        if kind == "text":
            draft.say(text_of(block.get("text")))
        elif kind == "tool_use":
            self._requests[index] = draft.request(text_of(block.get("id")), text_of(block.get("name")))
            if block.get("input"):
                draft.argue(self._requests[index], json.dumps(block["input"]))
        elif kind == "thinking":
            self._thoughts[index] = {"chars": 0, "signature": text_of(block.get("signature"))}
            self._think(index, text_of(block.get("thinking")))
        elif kind == "redacted_thinking":
            self._thoughts[index] = {"data": text_of(block.get("data"))}

    def _delta(self, index: int, delta: JsonObject) -> None:
        kind = delta.get("type")
        if kind == "text_delta":
            self._draft.say(text_of(delta.get("text")))
        elif kind == "input_json_delta" and index in self._requests:
            self._draft.argue(self._requests[index], text_of(delta.get("partial_json")))
        elif kind == "thinking_delta":
            self._think(index, text_of(delta.get("thinking")))
        elif kind == "signature_delta" and index in self._thoughts:
            self._thoughts[index]["signature"] = text_of(delta.get("signature"))

    def _think(self, index: int, piece: str) -> None:
        if index in self._thoughts:
            self._thoughts[index]["chars"] += len(piece)
            self._draft.think(piece)

    def _stop(self, fields: Fields) -> None:
        reason = fields.get("stop_reason")
        if reason:
            self._draft.stop = _STOPS.get(reason, "end")
            self._draft.stop_text = text_of(fields.get("stop_sequence"))

    def _count(self, usage: JsonObject | None) -> None:
        """Take counts: those of the prompt come first and again at the end, those of the answer grow."""
        self._usage |= {k: count_of(v) for k, v in (usage or {}).items() if k in _COUNTS and isinstance(v, int | float)}
        counted = self._usage
        if not any(counted.values()):
            self._draft.usage = None  # some fill the form in and do not count
            return
        self._draft.usage = Usage(
            input_tokens=counted.get("input_tokens", 0),
            cached_tokens=counted.get("cache_read_input_tokens", 0),
            written_tokens=counted.get("cache_creation_input_tokens", 0),
            output_tokens=counted.get("output_tokens", 0),
        )
