"""Chat Completions: OpenAI's dialect, as its own client and nearly every framework speak it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aos_mcp.abi.completion import ANY_TOOL
from aos_mcp.abi.errors import AosError, Invalid
from aos_mcp.abi.guest_results import GenerateResult, ModelsResult
from aos_mcp.abi.results import UsageResult
from aos_mcp.gateway.dialect import (
    Asked,
    EventWriter,
    Fault,
    Fields,
    Json,
    bearer,
    data_of,
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
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "top_p",
        "top_k",
        "stop",
        "response_format",
    }
)
DEFAULTS: Mapping[str, tuple[object, ...]] = {
    "n": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
}
FINISH = {"end": "stop", "tools": "tool_calls", "length": "length", "refused": "content_filter"}
ANY_OBJECT: Json = {"type": "object"}


class Chat:
    """See `dialect.Dialect`."""

    id_prefix = "chatcmpl-"

    def secret(self, headers: Mapping[str, str]) -> str:
        """See `Dialect.secret`."""
        return bearer(headers)

    def decode(self, body: Fields) -> Asked:
        """See `Dialect.decode`."""
        unheeded = judge(body, used=USED, defaults=DEFAULTS)
        model = text_of(body.get("model"), "model")
        system, turns = _conversation(objects_in(body.get("messages"), "messages"))
        tools = [] if body.get("tool_choice") == "none" else _tools(body)
        prompt = {"system": system, "turns": turns, "tools": tools}
        stop = body.get("stop")
        arguments: Json = {
            "model": model,
            "prompt": prompt,
            **passed_on(body, "temperature", "top_p", "top_k"),
            **held_to(
                must_call=_must_call(body.get("tool_choice")),
                one_call=body.get("parallel_tool_calls") is False,
                stop=[stop] if isinstance(stop, str) else stop,
            ),
        }
        most = body.get("max_completion_tokens") or body.get("max_tokens")
        if most is not None:
            arguments["max_tokens"] = most
        schema = _schema(body.get("response_format"))
        if schema is not None:
            arguments["schema"] = schema
        options = body.get("stream_options") or {}
        return Asked(
            arguments=arguments,
            model=model,
            stream=bool(body.get("stream")),
            usage_wanted=isinstance(options, dict) and bool(options.get("include_usage")),
            unheeded=unheeded,
        )

    def answer(self, identity: str, created: int, result: GenerateResult) -> Json:
        """See `Dialect.answer`."""
        message: Json = {"role": "assistant", "content": result.text or None, "refusal": None}
        if result.reasoning:
            message["reasoning_content"] = result.reasoning
        if result.requests:
            message["tool_calls"] = [_call(each.request_id, each.name, each.arguments) for each in result.requests]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": FINISH[result.stop]}
        return {
            "id": identity,
            "object": "chat.completion",
            "created": created,
            "model": result.model,
            "choices": [choice],
            "usage": usage_of(result.usage),
        }

    def writer(self, identity: str, created: int, asked: Asked) -> EventWriter:
        """See `Dialect.writer`."""
        return ChatWriter(identity, created, asked)

    def models(self, listed: ModelsResult) -> Json:
        """See `Dialect.models`."""
        return {"object": "list", "data": [self.model(name) for name in listed.models]}

    def model(self, name: str) -> Json:
        """See `Dialect.model`."""
        return {"id": name, "object": "model", "created": 0, "owned_by": name.partition("/")[0]}

    def fault(self, error: AosError) -> Fault:
        """See `Dialect.fault`."""
        return Fault(status=kind_of(error).status, body=_error(error), headers=headers_of(error))


class ChatWriter:
    """One streamed answer; see `dialect.EventWriter`."""

    def __init__(self, identity: str, created: int, asked: Asked) -> None:
        self._head: Json = {"id": identity, "object": "chat.completion.chunk", "created": created}
        self._model = asked.model
        self._usage_wanted = asked.usage_wanted

    def begin(self) -> bytes:
        """See `EventWriter.begin`."""
        return self._chunk({"role": "assistant", "content": ""})

    def piece(self, text: str) -> bytes:
        """See `EventWriter.piece`."""
        return self._chunk({"content": text})

    def ping(self) -> bytes:
        """See `EventWriter.ping`."""
        return b": waiting\n\n"

    def end(self, result: GenerateResult) -> bytes:
        """See `EventWriter.end`."""
        self._model = result.model
        events = []
        if result.reasoning:
            events.append(self._chunk({"reasoning_content": result.reasoning}))
        for index, each in enumerate(result.requests):
            call = {"index": index, **_call(each.request_id, each.name, each.arguments)}
            events.append(self._chunk({"tool_calls": [call]}))
        events.append(self._chunk({}, FINISH[result.stop]))
        if self._usage_wanted:
            fields = {**self._head, "model": self._model, "choices": [], "usage": usage_of(result.usage)}
            events.append(event(fields))
        return b"".join(events) + b"data: [DONE]\n\n"

    def error(self, error: AosError) -> bytes:
        """See `EventWriter.error`."""
        return event(_error(error))

    def _chunk(self, delta: Json, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return event({**self._head, "model": self._model, "choices": [choice]})


def usage_of(used: UsageResult) -> Json:
    """Return usage as the dialect counts it: prompt tokens with cached and written ones in them; and the cost."""
    prompt = used.input_tokens + used.cached_tokens + used.written_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": used.output_tokens,
        "total_tokens": prompt + used.output_tokens,
        "prompt_tokens_details": {"cached_tokens": used.cached_tokens, "cache_write_tokens": used.written_tokens},
        "cost": used.usd,
    }


def _error(error: AosError) -> Json:
    kind = kind_of(error)
    return {"error": {"message": sentence(error), "type": kind.chat_type, "param": None, "code": kind.chat_code}}


def _call(request_id: str, name: str, arguments: str) -> Json:
    return {"id": request_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _conversation(messages: list[Json]) -> tuple[str, list[Json]]:
    """Return the system text, wherever its parts stand, and the turns."""
    system, turns = [], []
    for index, message in enumerate(messages):
        where, role = f"messages[{index}]", message.get("role")
        if role in {"system", "developer"}:
            system.append(_text(message.get("content"), where))
        elif role == "user":
            turns.append(_user(message.get("content"), where))
        elif role == "assistant":
            turns.append(_assistant(message, where))
        elif role == "tool":
            answers = text_of(message.get("tool_call_id"), f"{where}.tool_call_id")
            turns.append({"role": "tool", "text": _text(message.get("content"), where), "request_id": answers})
        else:
            raise unsupported(f"{where}: the role {role!r}", "use system, user, assistant or tool")
    return "\n\n".join(text for text in system if text), turns


def _text(content: object, where: str) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    parts = []
    for part in objects_in(content, f"{where}.content"):
        if part.get("type") not in {"text", "refusal"}:
            raise unsupported(f"{where}: a part of type {part.get('type')!r}", "send text there")
        parts.append(text_of(part.get("text", part.get("refusal")), where))
    return "\n\n".join(parts)


def _user(content: object, where: str) -> Json:
    if isinstance(content, str):
        return {"role": "user", "text": content}
    texts, attachments = [], []
    for part in objects_in(content, f"{where}.content"):
        match part:
            case {"type": "text", "text": str() as text}:
                texts.append(text)
            case {"type": "image_url", "image_url": {"url": str() as url}}:
                attachments.append({"data": data_of(url, "An image")})
            case {"type": "file", "file": {"file_data": str() as url, **more}}:
                attachments.append({"data": data_of(url, "A file"), "name": str(more.get("filename") or "")})
            case _:
                raise unsupported(f"{where}: a part of type {part.get('type')!r}", "send text, images or files")
    return {"role": "user", "text": "\n\n".join(texts), "attachments": attachments}


def _assistant(message: Json, where: str) -> Json:
    if message.get("function_call"):
        raise unsupported(f"{where}.function_call", "use tool_calls")
    requests = []
    for call in objects_in(message.get("tool_calls") or [], f"{where}.tool_calls"):
        match call:
            case {"id": str() as identity, "function": {"name": str() as name, "arguments": str() as arguments}}:
                requests.append({"request_id": identity, "name": name, "arguments": arguments})
            case _:
                raise Invalid(f"{where}: a tool call has no id, name or arguments.", "Send it back as it came.")
    return {
        "role": "assistant",
        "text": _text(message.get("content"), where),
        "requests": requests,
        "reasoning": message.get("reasoning_content") or "",
    }


def _tools(body: Fields) -> list[Json]:
    tools = []
    for tool in objects_in(body.get("tools") or [], "tools"):
        match tool:
            case {"type": "function", "function": {"name": str() as name, **more}}:
                parameters: Any = more.get("parameters") or ANY_OBJECT
                description = more.get("description") or ""
                tools.append({"name": name, "description": description, "input_schema": parameters})
            case _:
                raise unsupported(f"A tool of type {tool.get('type')!r}", "offer functions")
    return tools


def _must_call(choice: object) -> str | None:
    match choice:
        case None | "auto" | "none":
            return None
        case "required":
            return ANY_TOOL
        case {"type": "function", "function": {"name": str() as name}}:
            return name
    raise unsupported("This tool_choice", "use auto, none, required or one function")


def _schema(form: object) -> Json | None:
    match form:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return ANY_OBJECT
        case {"type": "json_schema", "json_schema": {"schema": dict() as schema}}:
            return schema
    raise unsupported("This response_format", "use text, json_object or json_schema")
