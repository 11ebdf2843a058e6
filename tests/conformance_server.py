"""The kernel's own server with what the conformance suite looks for beside it, over HTTP.

Run it with a port: `python tests/conformance_server.py 8799`. The fixtures (`test_*` tools and prompts, `test://`
resources) are what the suite's scenarios describe; everything around them is the product's.
"""

from __future__ import annotations

import base64
import json
import struct
import sys
import tempfile
import zlib
from collections.abc import Awaitable, Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.subscriptions import PromptsListChanged, ToolsListChanged
from mcp.shared.exceptions import MCPError

from aos_mcp.abi.capability import Caller
from aos_mcp.abi.settings import Settings
from aos_mcp.boot import boot
from aos_mcp.endpoint import Endpoint, bind
from aos_mcp.hardware import local_principal
from aos_mcp.server import AosServer, KernelSlot, Surface
from aos_mcp.web import serve_http

Context = ServerRequestContext[Any, Any]
Params = types.CallToolRequestParams
Tool = Callable[[Context, Params], Awaitable["types.CallToolResult | types.InputRequiredResult"]]
Kind = type[types.ElicitRequest] | type[types.CreateMessageRequest] | type[types.ListRootsRequest]

STEP_S = 0.05


def _png() -> str:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\x00\xff\x00\x00")) + chunk(b"IEND", b"")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + parts).decode()


def _wav() -> str:
    form = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8_000, 8_000, 1, 8)
    body = b"WAVE" + form + b"data" + struct.pack("<I", 0)
    return base64.b64encode(b"RIFF" + struct.pack("<I", len(body)) + body).decode()


PNG, WAV = _png(), _wav()
IMAGE = types.ImageContent(type="image", data=PNG, mime_type="image/png")


def text(words: str) -> types.TextContent:
    return types.TextContent(type="text", text=words)


def embedded(uri: str, mime_type: str, words: str) -> types.EmbeddedResource:
    return types.EmbeddedResource(
        type="resource", resource=types.TextResourceContents(uri=uri, mime_type=mime_type, text=words)
    )


def done(*content: types.ContentBlock) -> types.CallToolResult:
    return types.CallToolResult(content=list(content))


def form(message: str, **properties: dict[str, Any]) -> types.ElicitRequest:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return types.ElicitRequest(params=types.ElicitRequestFormParams(message=message, requested_schema=schema))


def sample(words: str, tokens: int) -> types.CreateMessageRequest:
    message = types.SamplingMessage(role="user", content=text(words))
    return types.CreateMessageRequest(params=types.CreateMessageRequestParams(messages=[message], max_tokens=tokens))


STRING, BOOLEAN = {"type": "string"}, {"type": "boolean"}
WHO = form("What is your name?", name=STRING)
ROOTS = types.ListRootsRequest()


# Plain tools


def fixed(*content: types.ContentBlock, is_error: bool = False) -> Tool:
    async def tool(ctx: Context, params: Params) -> types.CallToolResult:
        return types.CallToolResult(content=list(content), is_error=is_error)

    return tool


async def with_logging(ctx: Context, params: Params) -> types.CallToolResult:
    for words in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await ctx.session.send_log_message("info", words, related_request_id=ctx.request_id)
        await anyio.sleep(STEP_S)
    return done(text("Logged."))


async def with_progress(ctx: Context, params: Params) -> types.CallToolResult:
    for reached in (0, 50, 100):
        await ctx.session.report_progress(reached, 100)
        await anyio.sleep(STEP_S)
    return done(text("Progressed."))


async def sampling(ctx: Context, params: Params) -> types.CallToolResult:
    message = types.SamplingMessage(role="user", content=text(str((params.arguments or {})["prompt"])))
    reply = await ctx.session.create_message([message], max_tokens=100, related_request_id=ctx.request_id)
    content = reply.content
    return done(text(f"LLM response: {content.text if isinstance(content, types.TextContent) else content}"))


def eliciting(prefix: str, schema: Mapping[str, Any] | None = None) -> Tool:
    async def tool(ctx: Context, params: Params) -> types.CallToolResult:
        words = str((params.arguments or {}).get("message", "Please fill this in"))
        user = {"username": {**STRING, "description": "User's response"}, "email": {**STRING, "description": "E-mail"}}
        asked = {"type": "object", **(schema or {"properties": user, "required": list(user)})}
        reply = await ctx.session.elicit_form(words, asked, related_request_id=ctx.request_id)
        return done(text(f"{prefix}: action={reply.action}, content={json.dumps(reply.content)}"))

    return tool


async def reconnection(ctx: Context, params: Params) -> types.CallToolResult:
    if ctx.close_sse_stream is not None:
        await ctx.close_sse_stream()
    await anyio.sleep(STEP_S)
    return done(text("Reconnected."))


async def missing_capability(ctx: Context, params: Params) -> types.CallToolResult:
    wanted = types.ClientCapabilities(sampling=types.SamplingCapability())
    if not ctx.session.check_client_capability(wanted):
        raise MCPError(
            types.MISSING_REQUIRED_CLIENT_CAPABILITY,
            "This tool needs sampling.",
            {"requiredCapabilities": {"sampling": {}}},
        )
    return done(text("Has it."))


# Tools that ask by result


def asking(
    requests: Mapping[str, types.InputRequest], then: Callable[[Mapping[str, Any]], str], state: str | None = None
) -> Tool:
    """Ask until every key is answered with what was asked for."""

    async def tool(ctx: Context, params: Params) -> types.CallToolResult | types.InputRequiredResult:
        given = params.input_responses or {}
        if any(not answers(given.get(key), asked) for key, asked in requests.items()):
            return types.InputRequiredResult(input_requests=dict(requests), request_state=state)
        if state is not None and params.request_state != state:
            raise MCPError(types.INVALID_PARAMS, "Unknown requestState")
        return done(text(then(given)))

    return tool


def answers(given: Any, asked: types.InputRequest) -> bool:
    if isinstance(asked, types.ElicitRequest):
        if not isinstance(given, types.ElicitResult):
            return False
        wanted = (
            asked.params.requested_schema["required"] if isinstance(asked.params, types.ElicitRequestFormParams) else []
        )
        return given.action != "accept" or all(key in (given.content or {}) for key in wanted)
    if isinstance(asked, types.CreateMessageRequest):
        return isinstance(given, types.CreateMessageResult)
    return isinstance(given, types.ListRootsResult)


async def multi_round(ctx: Context, params: Params) -> types.CallToolResult | types.InputRequiredResult:
    given, state = params.input_responses or {}, params.request_state
    if state == "round-2" and "step2" in given:
        return done(text("All rounds are done."))
    if state == "round-1" and "step1" in given:
        second = form("Step 2: What is your favorite color?", color=STRING)
        return types.InputRequiredResult(input_requests={"step2": second}, request_state="round-2")
    first = form("Step 1: What is your name?", name=STRING)
    return types.InputRequiredResult(input_requests={"step1": first}, request_state="round-1")


async def by_capability(ctx: Context, params: Params) -> types.CallToolResult | types.InputRequiredResult:
    has = ctx.session.client_capabilities or types.ClientCapabilities()
    requests: dict[str, types.InputRequest] = {}
    if has.elicitation is not None:
        requests["who"] = WHO
    if has.sampling is not None:
        requests["greeting"] = sample("Generate a greeting", 50)
    if has.roots is not None:
        requests["client_roots"] = ROOTS
    if not requests or params.input_responses:
        return done(text("Nothing more is asked."))
    return types.InputRequiredResult(input_requests=requests)


def _name(given: Mapping[str, Any]) -> str:
    return f"Hello, {(given['user_name'].content or {}).get('name', 'stranger')}!"


DEFAULTS = {
    "properties": {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "default": True},
    }
}
OPTIONS = ["option1", "option2", "option3"]
CHOICES = [{"const": f"value{n}", "title": f"{word} Option"} for n, word in enumerate(("First", "Second", "Third"), 1)]
ENUMS = {
    "properties": {
        "untitledSingle": {"type": "string", "enum": OPTIONS},
        "titledSingle": {"type": "string", "oneOf": CHOICES},
        "legacyEnum": {
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": OPTIONS}},
        "titledMulti": {"type": "array", "items": {"anyOf": CHOICES}},
    }
}
ADDRESS = {"$anchor": "addressDef", "type": "object", "properties": {"street": STRING, "city": STRING}}
JSON_SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {"address": ADDRESS},
    "properties": {
        "name": STRING,
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": STRING,
        "email": STRING,
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}
NOTHING = {"type": "object", "properties": {}}
HEADERS = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "priority": {"type": "integer", "x-mcp-header": "Priority"},
    },
}

TOOLS: dict[str, tuple[dict[str, Any], Tool]] = {
    "test_simple_text": (NOTHING, fixed(text("This is a simple text response for testing."))),
    "test_image_content": (NOTHING, fixed(IMAGE)),
    "test_audio_content": (NOTHING, fixed(types.AudioContent(type="audio", data=WAV, mime_type="audio/wav"))),
    "test_embedded_resource": (
        NOTHING,
        fixed(embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")),
    ),
    "test_multiple_content_types": (
        NOTHING,
        fixed(
            text("Multiple content types test:"),
            IMAGE,
            embedded("test://mixed-content-resource", "application/json", '{"test":"data","value":123}'),
        ),
    ),
    "test_error_handling": (
        NOTHING,
        fixed(text("This tool intentionally returns an error for testing"), is_error=True),
    ),
    "test_tool_with_logging": (NOTHING, with_logging),
    "test_logging_tool": (NOTHING, with_logging),
    "test_tool_with_progress": (NOTHING, with_progress),
    "test_sampling": ({"type": "object", "properties": {"prompt": STRING}, "required": ["prompt"]}, sampling),
    "test_elicitation": (
        {"type": "object", "properties": {"message": STRING}, "required": ["message"]},
        eliciting("User response"),
    ),
    "test_elicitation_sep1034_defaults": (NOTHING, eliciting("Elicitation completed", DEFAULTS)),
    "test_elicitation_sep1330_enums": (NOTHING, eliciting("Elicitation completed", ENUMS)),
    "test_reconnection": (NOTHING, reconnection),
    "json_schema_2020_12_tool": (JSON_SCHEMA, fixed(text("Fits."))),
    "test_custom_headers": (HEADERS, fixed(text("Headers fit."))),
    "test_missing_capability": (NOTHING, missing_capability),
    "test_streaming_elicitation": (NOTHING, asking({"user_name": WHO}, _name)),
    "test_input_required_result_elicitation": (NOTHING, asking({"user_name": WHO}, _name)),
    "test_input_required_result_sampling": (
        NOTHING,
        asking({"capital_question": sample("What is the capital of France?", 100)}, lambda given: f"{given}"),
    ),
    "test_input_required_result_list_roots": (NOTHING, asking({"client_roots": ROOTS}, lambda given: f"{given}")),
    "test_input_required_result_request_state": (
        NOTHING,
        asking({"confirm": form("Please confirm", ok=BOOLEAN)}, lambda given: "state-ok", "known"),
    ),
    "test_input_required_result_tampered_state": (
        NOTHING,
        asking({"confirm": form("Please confirm", ok=BOOLEAN)}, lambda given: "state-ok", "known"),
    ),
    "test_input_required_result_multiple_inputs": (
        NOTHING,
        asking(
            {"user_name": WHO, "greeting": sample("Generate a greeting", 50), "client_roots": ROOTS},
            lambda given: "All was given.",
            "known",
        ),
    ),
    "test_input_required_result_multi_round": (NOTHING, multi_round),
    "test_input_required_result_capabilities": (NOTHING, by_capability),
}


# Prompts

PROMPTS: dict[str, tuple[tuple[str, ...], Callable[[Mapping[str, str]], list[types.ContentBlock]]]] = {
    "test_simple_prompt": ((), lambda given: [text("This is a simple prompt for testing.")]),
    "test_prompt_with_arguments": (
        ("arg1", "arg2"),
        lambda given: [text(f"Prompt with arguments: arg1='{given['arg1']}', arg2='{given['arg2']}'")],
    ),
    "test_prompt_with_embedded_resource": (
        ("resourceUri",),
        lambda given: [
            embedded(given["resourceUri"], "text/plain", "Embedded resource content for testing."),
            text("Please process the embedded resource above."),
        ],
    ),
    "test_prompt_with_image": ((), lambda given: [IMAGE, text("Please analyze the image above.")]),
    "test_input_required_result_prompt": ((), lambda given: [text("With the context given.")]),
}
ASKING_PROMPT = "test_input_required_result_prompt"
CONTEXT = form("What context should the prompt use?", context=STRING)


class Fixtures:
    """Puts the fixtures before a server's own handlers."""

    def __init__(self, surface: Surface, server: Server[Any]) -> None:
        self._surface = surface
        self._own = {
            method: entry.handler
            for method in (
                "tools/list",
                "tools/call",
                "resources/list",
                "resources/read",
                "prompts/list",
                "prompts/get",
            )
            if (entry := server.get_request_handler(method)) is not None
        }
        templates = server.get_request_handler("resources/templates/list")
        assert templates is not None
        self._templates = templates.handler
        own_schema = server.get_tool_input_schema
        assert own_schema is not None
        server.get_tool_input_schema = lambda name: TOOLS[name][0] if name in TOOLS else own_schema(name)
        server.add_request_handler("tools/list", types.PaginatedRequestParams, self.list_tools)
        server.add_request_handler("tools/call", types.CallToolRequestParams, self.call_tool)
        server.add_request_handler("resources/list", types.PaginatedRequestParams, self.list_resources)
        server.add_request_handler("resources/templates/list", types.PaginatedRequestParams, self.list_templates)
        server.add_request_handler("resources/read", types.ReadResourceRequestParams, self.read_resource)
        server.add_request_handler("prompts/list", types.PaginatedRequestParams, self.list_prompts)
        server.add_request_handler("prompts/get", types.GetPromptRequestParams, self.get_prompt)
        server.add_request_handler("logging/setLevel", types.SetLevelRequestParams, self.set_level)

    async def list_tools(self, ctx: Context, params: types.PaginatedRequestParams) -> types.ListToolsResult:
        own = await self._own["tools/list"](ctx, params)
        assert isinstance(own, types.ListToolsResult)
        names = {**TOOLS, "test_trigger_tool_change": (NOTHING, None), "test_trigger_prompt_change": (NOTHING, None)}
        more = [
            types.Tool(name=name, description=f"Fixture {name}", input_schema=row[0]) for name, row in names.items()
        ]
        return types.ListToolsResult(tools=[*own.tools, *more])

    async def call_tool(self, ctx: Context, params: Params) -> Any:
        if params.name == "test_trigger_tool_change":
            await self._surface._hub._bus.publish(ToolsListChanged())
            return done(text("Told."))
        if params.name == "test_trigger_prompt_change":
            await self._surface._hub._bus.publish(PromptsListChanged())
            return done(text("Told."))
        if params.name in TOOLS:
            return await TOOLS[params.name][1](ctx, params)
        return await self._own["tools/call"](ctx, params)

    async def list_resources(self, ctx: Context, params: types.PaginatedRequestParams) -> types.ListResourcesResult:
        own = await self._own["resources/list"](ctx, params)
        assert isinstance(own, types.ListResourcesResult)
        more = [
            types.Resource(uri=f"test://{name}", name=name, description=f"Fixture {name}", mime_type=mime_type)
            for name, mime_type in (
                ("static-text", "text/plain"),
                ("static-binary", "image/png"),
                ("watched-resource", "text/plain"),
            )
        ]
        return types.ListResourcesResult(resources=[*own.resources, *more])

    async def list_templates(
        self, ctx: Context, params: types.PaginatedRequestParams
    ) -> types.ListResourceTemplatesResult:
        own = await self._templates(ctx, params)
        assert isinstance(own, types.ListResourceTemplatesResult)
        more = types.ResourceTemplate(uri_template="test://template/{id}/data", name="template", description="Fixture")
        return types.ListResourceTemplatesResult(resource_templates=[*own.resource_templates, more])

    async def read_resource(self, ctx: Context, params: types.ReadResourceRequestParams) -> Any:
        uri = params.uri
        if uri == "test://static-binary":
            blob = types.BlobResourceContents(uri=uri, mime_type="image/png", blob=PNG)
            return types.ReadResourceResult(contents=[blob])
        words = {
            "test://static-text": "This is the content of the static text resource.",
            "test://watched-resource": "Watched.",
        }.get(uri)
        mime_type = "text/plain"
        if uri.startswith("test://template/") and uri.endswith("/data"):
            given = uri.split("/")[3]
            words = json.dumps({"id": given, "templateTest": True, "data": f"Data for ID: {given}"})
            mime_type = "application/json"
        if words is None:
            return await self._own["resources/read"](ctx, params)
        return types.ReadResourceResult(contents=[types.TextResourceContents(uri=uri, mime_type=mime_type, text=words)])

    async def list_prompts(self, ctx: Context, params: types.PaginatedRequestParams) -> types.ListPromptsResult:
        own = await self._own["prompts/list"](ctx, params)
        assert isinstance(own, types.ListPromptsResult)
        more = [
            types.Prompt(
                name=name,
                description=f"Fixture {name}",
                arguments=[types.PromptArgument(name=given, description=given, required=True) for given in row[0]],
            )
            for name, row in PROMPTS.items()
        ]
        return types.ListPromptsResult(prompts=[*own.prompts, *more])

    async def get_prompt(self, ctx: Context, params: types.GetPromptRequestParams) -> Any:
        row = PROMPTS.get(params.name)
        if row is None:
            return await self._own["prompts/get"](ctx, params)
        if params.name == ASKING_PROMPT and not answers((params.input_responses or {}).get("user_context"), CONTEXT):
            return types.InputRequiredResult(input_requests={"user_context": CONTEXT})
        content = row[1](params.arguments or {})
        return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=block) for block in content])

    async def set_level(self, ctx: Context, params: types.SetLevelRequestParams) -> types.EmptyResult:
        return types.EmptyResult()


class FixtureSurface(Surface):
    """The product's surface; each of its servers has the fixtures too."""

    def server(self, caller: Caller, key: Hashable) -> AosServer:
        server = super().server(caller, key)
        Fixtures(self, server)
        return server


async def main(port: int) -> None:
    with tempfile.TemporaryDirectory(prefix="aos-") as home:
        listener, endpoint = bind(Endpoint(host="127.0.0.1", port=port, token=None))
        surface = FixtureSurface(KernelSlot(), local_principal(), bytes(range(32)))
        async with anyio.create_task_group() as tasks:
            await tasks.start(surface.run)
            tasks.start_soon(serve_http, surface, endpoint, listener)
            settings = Settings.model_validate({"sandbox": {"drivers": []}})
            async with boot(settings, {}, Path(home)) as kernel:
                surface.slot.fill(kernel)
                print(endpoint.url, flush=True)
                await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(main, int(sys.argv[1]))
