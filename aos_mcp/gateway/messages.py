"""Messages: Anthropic's dialect, as its own client and Claude Code speak it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from aos_mcp.abi.completion import ANY_TOOL
from aos_mcp.abi.errors import AosError, Invalid, UnknownOutcome
from aos_mcp.abi.guest_results import GenerateResult, ModelsResult, RequestRow
from aos_mcp.abi.results import UsageResult
from aos_mcp.abi.strict_json import object_in
from aos_mcp.gateway.dialect import (
    Asked,
    EventWriter,
    Fault,
    Fields,
    Json,
    bearer,
    event,
    held_to,
    judge,
    objects_in,
    passed_on,
    text_of,
    unsupported,
)
from aos_mcp.gateway.faults import headers_of, kind_of, sentence

USED = frozenset(
    {
        "model",
        "messages",
        "system",
        "stream",
        "max_tokens",
        "temperature",
        "tools",
        "tool_choice",
        "top_p",
        "top_k",
        "stop_sequences",
        "output_config",
        "output_format",
    }
)
DEFAULTS: Mapping[str, tuple[object, ...]] = {
    "mcp_servers": ([],),
    "container": (),
}
STOP = {"end": "end_turn", "tools": "tool_use", "length": "max_tokens", "refused": "refusal"}
UNKNOWN_DATE = "1970-01-01T00:00:00Z"
"""What the API itself writes where it does not know when a model was made."""


class Messages:
    """See `dialect.Dialect`."""

    id_prefix = "msg_"

    def secret(self, headers: Mapping[str, str]) -> str:
        """See `Dialect.secret`."""
        return headers.get("x-api-key", "").strip() or bearer(headers)

    def decode(self, body: Fields) -> Asked:
        """See `Dialect.decode`."""
        unheeded = judge(body, used=USED, defaults=DEFAULTS)
        model = text_of(body.get("model"), "model")
        turns: list[Json] = []
        for index, message in enumerate(objects_in(body.get("messages"), "messages")):
            turns += _turns(message, f"messages[{index}]")
        choice = body.get("tool_choice") or {"type": "auto"}
        tools = [] if choice == {"type": "none"} else _tools(body)
        prompt = {"system": _text(body.get("system") or "", "system"), "turns": turns, "tools": tools}
        arguments: Json = {
            "model": model,
            "prompt": prompt,
            **passed_on(body, "max_tokens", "temperature", "top_p", "top_k"),
            **held_to(
                must_call=_must_call(choice),
                one_call=isinstance(choice, dict) and choice.get("disable_parallel_tool_use") is True,
                stop=body.get("stop_sequences"),
            ),
        }
        schema = _schema(body)
        if schema is not None:
            arguments["schema"] = schema
        return Asked(arguments=arguments, model=model, stream=bool(body.get("stream")), unheeded=unheeded)

    def answer(self, identity: str, created: int, result: GenerateResult) -> Json:
        """See `Dialect.answer`."""
        content: list[Json] = []
        if result.reasoning:
            signature = result.reasoning_signature
            content.append({"type": "thinking", "thinking": result.reasoning, "signature": signature})
        if result.text:
            content.append({"type": "text", "text": result.text})
        content += [_tool_use(each, given) for each, given in _calls(result)]
        return {
            **_head(identity, result.model),
            "content": content,
            **_ending(result),
            "usage": usage_of(result.usage),
        }

    def writer(self, identity: str, created: int, asked: Asked) -> EventWriter:
        """See `Dialect.writer`."""
        return MessageWriter(identity, asked)

    def models(self, listed: ModelsResult) -> Json:
        """See `Dialect.models`."""
        data = [self.model(name) for name in listed.models]
        return {"data": data, "has_more": False, "first_id": data[0]["id"], "last_id": data[-1]["id"]}

    def model(self, name: str) -> Json:
        """See `Dialect.model`."""
        return {"type": "model", "id": name, "display_name": name, "created_at": UNKNOWN_DATE}

    def fault(self, error: AosError) -> Fault:
        """See `Dialect.fault`."""
        kind = kind_of(error)
        return Fault(status=kind.overloaded or kind.status, body=_error(error), headers=headers_of(error))


class MessageWriter:
    """One streamed answer; see `dialect.EventWriter`. Text comes first: what was thought is known at the end only."""

    def __init__(self, identity: str, asked: Asked) -> None:
        self._identity = identity
        self._model = asked.model
        self._blocks = 0
        self._in_text = False

    def begin(self) -> bytes:
        """See `EventWriter.begin`. What the prompt took is known at the end, and told there."""
        message = {**_head(self._identity, self._model), "content": [], "stop_reason": None}
        return _event("message_start", message={**message, "usage": {"input_tokens": 0, "output_tokens": 0}})

    def piece(self, text: str) -> bytes:
        """See `EventWriter.piece`."""
        opened = b"" if self._in_text else self._start({"type": "text", "text": ""})
        self._in_text = True
        return opened + self._delta({"type": "text_delta", "text": text})

    def ping(self) -> bytes:
        """See `EventWriter.ping`."""
        return _event("ping")

    def end(self, result: GenerateResult) -> bytes:
        """See `EventWriter.end`."""
        events = [self._stop()] if self._in_text else []
        if result.reasoning:
            thought = {"type": "thinking_delta", "thinking": result.reasoning}
            signed = {"type": "signature_delta", "signature": result.reasoning_signature}
            block = {"type": "thinking", "thinking": "", "signature": ""}
            events += [self._start(block), self._delta(thought), self._delta(signed), self._stop()]
        for each in result.requests:
            written = {"type": "input_json_delta", "partial_json": each.arguments}
            events += [self._start(_tool_use(each, {})), self._delta(written), self._stop()]
        events += [_event("message_delta", delta=_ending(result), usage=usage_of(result.usage)), _event("message_stop")]
        return b"".join(events)

    def error(self, error: AosError) -> bytes:
        """See `EventWriter.error`."""
        return event(_error(error), "error")

    def _start(self, block: Json) -> bytes:
        return _event("content_block_start", index=self._blocks, content_block=block)

    def _delta(self, delta: Json) -> bytes:
        return _event("content_block_delta", index=self._blocks, delta=delta)

    def _stop(self) -> bytes:
        self._blocks += 1
        return _event("content_block_stop", index=self._blocks - 1)


def usage_of(used: UsageResult) -> Json:
    """Return usage as the dialect counts it: input tokens without those read from or written to a cache."""
    return {
        "input_tokens": used.input_tokens,
        "cache_read_input_tokens": used.cached_tokens,
        "cache_creation_input_tokens": used.written_tokens,
        "output_tokens": used.output_tokens,
    }


def _event(kind: str, **fields: object) -> bytes:
    return event({"type": kind, **fields}, kind)


def _error(error: AosError) -> Json:
    return {"type": "error", "error": {"type": kind_of(error).messages_type, "message": sentence(error)}}


def _head(identity: str, model: str) -> Json:
    return {"id": identity, "type": "message", "role": "assistant", "model": model, "stop_sequence": None}


def _ending(result: GenerateResult) -> Json:
    if result.stop_text:
        return {"stop_reason": "stop_sequence", "stop_sequence": result.stop_text}
    return {"stop_reason": STOP[result.stop], "stop_sequence": None}


def _tool_use(request: RequestRow, given: Json) -> Json:
    return {"type": "tool_use", "id": request.request_id, "name": request.name, "input": given}


def _calls(result: GenerateResult) -> list[tuple[RequestRow, Json]]:
    """Return the tool calls with their arguments, but for one that the end of the allowed length tore.

    Raises:
        UnknownOutcome: the model wrote arguments that are none, and had room to.
    """
    calls = []
    for request in result.requests:
        given = object_in(request.arguments)
        if given is not None:
            calls.append((request, given))
        elif result.stop != "length":
            raise UnknownOutcome(
                f"The model wrote arguments for {request.name} that are no JSON object.", "Ask again; it was charged."
            )
    return calls


def _turns(message: Json, where: str) -> list[Json]:
    """Return one message as turns: each tool's result is one of its own, before what the user says."""
    content, role = message.get("content"), message.get("role")
    if role not in {"user", "assistant"}:
        raise unsupported(f"{where}: the role {role!r}", "use user or assistant, and system for the rest")
    if isinstance(content, str):
        return [{"role": role, "text": content}]
    blocks = objects_in(content, f"{where}.content")
    found = _assistant(blocks, where) if role == "assistant" else _user(blocks, where)
    if found and any("cache_control" in block for block in blocks):
        found[-1]["breakpoint"] = True
    return found


def _assistant(blocks: list[Json], where: str) -> list[Json]:
    texts, requests, thoughts, signature = [], [], [], ""
    for block in blocks:
        match block:
            case {"type": "text", "text": str() as text}:
                texts.append(text)
            case {"type": "thinking", "thinking": str() as thought}:
                thoughts.append(thought)
                signature = str(block.get("signature") or "")
            case {"type": "tool_use", "id": str() as identity, "name": str() as name, "input": dict() as given}:
                requests.append({"request_id": identity, "name": name, "arguments": json.dumps(given)})
            case _:
                raise unsupported(f"{where}: a block of type {block.get('type')!r}", "send text, thinking or tool_use")
    turn = {"role": "assistant", "text": "".join(texts), "requests": requests, "reasoning": "".join(thoughts)}
    return [{**turn, "reasoning_signature": signature}]


def _user(blocks: list[Json], where: str) -> list[Json]:
    results, texts, attachments = [], [], []
    for block in blocks:
        match block:
            case {"type": "tool_result", "tool_use_id": str() as identity}:
                said, shown = _content(block.get("content") or "", where)
                attachments += shown
                text = said or ("[See what follows.]" if shown else "")
                failed = bool(block.get("is_error"))
                results.append({"role": "tool", "text": text, "request_id": identity, "is_error": failed})
            case _:
                said, shown = _content([block], where)
                texts += [said] if said else []
                attachments += shown
    if texts or attachments:
        results.append({"role": "user", "text": "\n\n".join(texts), "attachments": attachments})
    return results


def _content(content: object, where: str) -> tuple[str, list[Json]]:
    """Return the text of blocks, and their images and files."""
    if isinstance(content, str):
        return content, []
    texts, attachments = [], []
    for block in objects_in(content, where):
        match block:
            case {"type": "text", "text": str() as text}:
                texts.append(text)
            case {"type": "image" | "document", "source": {"type": "base64", "data": str() as data}}:
                attachments.append({"data": data, "name": str(block.get("title") or "")})
            case {"type": "document", "source": {"type": "text", "data": str() as text}}:
                texts.append(text)
            case {"type": "image" | "document"}:
                raise unsupported(f"{where}: an image or document by reference", "send it as base64")
            case _:
                raise unsupported(f"{where}: a block of type {block.get('type')!r}", "send text, images or documents")
    return "\n\n".join(texts), attachments


def _text(content: object, where: str) -> str:
    text, attachments = _content(content, where)
    if attachments:
        raise unsupported(f"{where}: an image", "send text there")
    return text


def _tools(body: Fields) -> list[Json]:
    tools = []
    for tool in objects_in(body.get("tools") or [], "tools"):
        match tool:
            case {"name": str() as name, "input_schema": dict() as schema} if tool.get("type") in {None, "custom"}:
                tools.append({"name": name, "description": tool.get("description") or "", "input_schema": schema})
            case _:
                raise unsupported(f"A tool of type {tool.get('type')!r}", "offer tools of your own")
    return tools


def _must_call(choice: object) -> str | None:
    match choice:
        case {"type": "auto" | "none"}:
            return None
        case {"type": "any"}:
            return ANY_TOOL
        case {"type": "tool", "name": str() as name}:
            return name
    raise unsupported("This tool_choice", "use auto, any, none or one tool")


def _schema(body: Fields) -> Json | None:
    config = body.get("output_config") or {}
    form = config.get("format") if isinstance(config, dict) else None
    match form or body.get("output_format"):
        case None:
            return None
        case {"type": "json_schema", "schema": dict() as schema}:
            return schema
    raise Invalid("output_config.format is not of type json_schema.", "Give {type: json_schema, schema: …}.")
