"""The MCP server: one kernel behind every protocol revision and every transport.

Owns the handlers and what outlives a connection: where the kernel is, who follows what, and the key that seals the
state a client carries for us. Promises that nothing is kept in a connection that a call would need, that whatever a
client sends is answered, and that every act goes through `Kernel.syscall`. Knows nothing of sockets.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import mcp_types as types
from anyio.abc import TaskStatus
from mcp.server.caching import CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel

from aos_mcp import __version__
from aos_mcp.abi import limits
from aos_mcp.abi.audit import AuditHead
from aos_mcp.abi.calls import TABLE
from aos_mcp.abi.capability import Caller, CallerKind
from aos_mcp.abi.errors import AosError, NotFound, Unavailable
from aos_mcp.abi.results import ApprovalsResult, ListResult
from aos_mcp.abi.syscall import Audience
from aos_mcp.resources import catalog as resource_catalog
from aos_mcp.resources import prompts as prompt_catalog
from aos_mcp.resources.subscriptions import Hub
from aos_mcp.tools import catalog as tool_catalog
from aos_mcp.tools.consent import is_modern, with_consent
from aos_mcp.tools.render import anchored, error_result

if TYPE_CHECKING:
    from aos_mcp.kernel.kernel import Kernel
    from aos_mcp.ports import Progress

NAME = "aos-mcp"
TITLE = "aos-mcp: an operating system for agents"
INSTRUCTIONS = """\
aos-mcp is an operating-system kernel for AI agents. Agents run on their own, outlive this session and are shared by \
all hosts of the user.

- Delegate: spawn_agent with a task that stands alone, then wait_agent with the pid. A budget is a hard limit.
- Everything has a handle (pid, page_id, checkpoint_id, approval_id). Keep it and pass it on; list_agents finds pids.
- Large text: page_out keeps it under a page_id, page_in reads it back exactly, search_pages finds it.
- Commands: sandbox_exec runs them isolated from this machine; name a workspace to keep files between calls.
- Other servers' tools: search_tools, then call_tool by name (server__tool).
- An error has a code, a sentence and a hint. On approval_required ask the person; answer_approval only as they decide.
- kernel_status says what is configured and what is missing.
"""

LISTS = CacheHint(ttl_ms=300_000, scope="public")
LIVE = CacheHint(ttl_ms=0, scope="private")
COMPLETIONS_MAX = 100

Context = ServerRequestContext[Any, Any]


class KernelSlot:
    """Where the kernel is, or will be: a connection is answered while the kernel still recovers."""

    def __init__(self) -> None:
        self._filled = anyio.Event()
        self._kernel: Kernel | None = None
        self._failure: AosError | None = None

    def fail(self, error: AosError) -> None:
        """Say that there will be no kernel; every call answers why."""
        self._failure = error
        self._filled.set()

    def fill(self, kernel: Kernel) -> None:
        """Put the kernel in; whoever waits goes on."""
        self._kernel = kernel
        self._filled.set()

    def peek(self) -> Kernel | None:
        """Return the kernel if it is there."""
        return self._kernel

    async def filled(self) -> Kernel | None:
        """Return the kernel, however long it takes; None when it did not start."""
        await self._filled.wait()
        return self._kernel

    async def get(self) -> Kernel:
        """Return the kernel, waiting for it where it still recovers.

        Raises:
            Unavailable: it is not there in time.
            AosError: it did not start, and why.
        """
        with anyio.move_on_after(limits.BOOT_S):
            await self._filled.wait()
        if self._failure is not None:
            raise self._failure
        if self._kernel is None:
            raise Unavailable("The kernel is still recovering.", "Try again in a moment.")
        return self._kernel


class AosServer(Server[None]):
    """A server that tells clients with a handshake that its list of resources changes."""

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        """Return the options with `resources.listChanged` set unless the caller says otherwise."""
        options = notification_options or NotificationOptions(resources_changed=True)
        return super().create_initialization_options(options, experimental_capabilities, extensions)


class Surface:
    """What all connections share."""

    def __init__(self, slot: KernelSlot, principal: str, state_key: bytes) -> None:
        """`principal` owns whatever is made through this surface; `state_key` (32 bytes) outlives the process."""
        self.slot = slot
        self.principal = principal
        self._state_key = state_key
        self._hub = Hub(principal)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Spread the kernel's events until cancelled."""
        async with anyio.create_task_group() as tasks:
            await tasks.start(self._hub.run)
            task_status.started()
            kernel = await self.slot.filled()
            if kernel is not None:
                with kernel.listen() as events:
                    await self._hub.follow(events)

    def server(self, caller: Caller, key: Hashable) -> AosServer:
        """Return a server for one connection, or for one HTTP endpoint.

        Args:
            caller: who calls, as far as the transport knows.
            key: names the connection; `closed` takes it when the connection is gone.
        """
        return _Connection(self, self._hub, caller, key).server(self._state_key)

    def closed(self, key: Hashable) -> None:
        """Forget a connection."""
        self._hub.drop(key)

    def anchor(self) -> AuditHead | None:
        """Return the newest head of the audit log, as far as there is one."""
        kernel = self.slot.peek()
        return kernel.anchor if kernel is not None else None

    async def syscall(
        self, caller: Caller, name: str, arguments: Mapping[str, object], progress: Progress | None = None
    ) -> BaseModel:
        """Make one call through the gate. Raises AosError."""
        kernel = await self.slot.get()
        return await kernel.syscall(caller, name, arguments, progress=progress)


class _Connection:
    """The handlers of one connection. Holds who calls, and nothing else."""

    def __init__(self, surface: Surface, hub: Hub, caller: Caller, key: Hashable) -> None:
        self._surface = surface
        self._hub = hub
        self._caller = caller
        self._key = key

    def server(self, state_key: bytes) -> AosServer:
        server = AosServer(
            NAME,
            version=__version__,
            title=TITLE,
            instructions=INSTRUCTIONS,
            cache_hints={
                "server/discover": LISTS,
                "tools/list": LISTS,
                "prompts/list": LISTS,
                "resources/templates/list": LISTS,
                "resources/list": LIVE,
                "resources/read": LIVE,
            },
            get_tool_input_schema=tool_catalog.input_schema_of,
            on_list_tools=self.list_tools,
            on_call_tool=self.call_tool,
            on_list_resources=self.list_resources,
            on_list_resource_templates=self.list_resource_templates,
            on_read_resource=self.read_resource,
            on_subscribe_resource=self.subscribe,
            on_unsubscribe_resource=self.unsubscribe,
            on_subscriptions_listen=self._hub.listen,
            on_list_prompts=self.list_prompts,
            on_get_prompt=self.get_prompt,
            on_completion=self.complete,
        )
        server.add_notification_handler("notifications/initialized", types.NotificationParams, self.initialized)
        security = RequestStateSecurity(keys=[state_key], bind_principal=lambda ctx: self._caller.principal)
        server.middleware.append(RequestStateBoundary(security, default_audience=NAME))
        return server

    # Tools

    async def list_tools(self, ctx: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        return types.ListToolsResult(tools=list(tool_catalog.tools()))

    async def call_tool(
        self, ctx: Context, params: types.CallToolRequestParams
    ) -> types.CallToolResult | types.InputRequiredResult:
        try:
            if params.name not in tool_catalog.ROWS_BY_TOOL and not self._is_for_operator(params.name):
                raise NotFound("There is no tool of that name.", "tools/list has the names there are.")
            result = await with_consent(
                ctx,
                params,
                act=lambda: self._act(ctx, params),
                answer=lambda given: self._answer(ctx, given),
                explain=lambda approval_id: self._explain(ctx, approval_id),
            )
            if isinstance(result, types.InputRequiredResult):
                return result
            answer = tool_catalog.success(result, params.name, modern=is_modern(ctx))
        except AosError as error:
            answer = error_result(error)
        return anchored(answer, self._surface.anchor())

    def _is_for_operator(self, name: str) -> bool:
        """Tell whether the command line makes a call that is no tool. The gate asks again."""
        row = TABLE.get(name)
        return row is not None and row.audience is not Audience.AGENTS and self._caller.kind is CallerKind.OPERATOR

    async def _act(self, ctx: Context, params: types.CallToolRequestParams) -> BaseModel:
        return await self._surface.syscall(
            self._caller_in(ctx), params.name, params.arguments or {}, progress=_progress_of(ctx)
        )

    async def _answer(self, ctx: Context, arguments: dict[str, object]) -> BaseModel:
        # The form was filled in by the person at the host, not by the model that made the call.
        person = replace(self._caller_in(ctx), kind=CallerKind.OPERATOR)
        return await self._surface.syscall(person, "answer_approval", arguments)

    async def _explain(self, ctx: Context, approval_id: str) -> str | None:
        listed = await self._surface.syscall(self._caller_in(ctx), "list_approvals", {})
        assert isinstance(listed, ApprovalsResult), type(listed)
        return next((row.question for row in listed.approvals if row.approval_id == approval_id), None)

    # Resources

    async def list_resources(
        self, ctx: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListResourcesResult:
        try:
            listed = await self._reader(ctx)("list_agents", {"limit": resource_catalog.AGENTS_LISTED})
        except AosError:
            return types.ListResourcesResult(resources=resource_catalog.resources([]))  # what is fixed can be listed
        assert isinstance(listed, ListResult), type(listed)
        return types.ListResourcesResult(resources=resource_catalog.resources(listed.agents))

    async def list_resource_templates(
        self, ctx: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListResourceTemplatesResult:
        return types.ListResourceTemplatesResult(resource_templates=resource_catalog.templates())

    async def read_resource(self, ctx: Context, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        return await resource_catalog.read_resource(params.uri, self._reader(ctx))

    async def subscribe(self, ctx: Context, params: types.SubscribeRequestParams) -> types.EmptyResult:
        try:
            self._hub.subscribe(self._key_in(ctx), ctx.session, params.uri)
        except AosError as error:
            raise MCPError(resource_catalog.KERNEL_ERROR, str(error)) from None
        return types.EmptyResult()

    async def unsubscribe(self, ctx: Context, params: types.UnsubscribeRequestParams) -> types.EmptyResult:
        self._hub.unsubscribe(self._key_in(ctx), params.uri)
        return types.EmptyResult()

    async def initialized(self, ctx: Context, params: types.NotificationParams) -> None:
        self._hub.join(self._key_in(ctx), ctx.session)

    # Prompts and completion

    async def list_prompts(self, ctx: Context, params: types.PaginatedRequestParams | None) -> types.ListPromptsResult:
        return types.ListPromptsResult(prompts=prompt_catalog.prompts())

    async def get_prompt(self, ctx: Context, params: types.GetPromptRequestParams) -> types.GetPromptResult:
        return prompt_catalog.get_prompt(params.name, params.arguments or {})

    async def complete(self, ctx: Context, params: types.CompleteRequestParams) -> types.CompleteResult:
        """Complete a pid, the one argument whose values are known here."""
        values: list[str] = []
        if params.argument.name == "pid":
            try:
                listed = await self._reader(ctx)("list_agents", {"limit": COMPLETIONS_MAX})
            except AosError:
                listed = ListResult(agents=[])  # no suggestion is a fair answer to half a word
            assert isinstance(listed, ListResult), type(listed)
            values = [row.pid for row in listed.agents if row.pid.startswith(params.argument.value)]
        return types.CompleteResult(
            completion=types.Completion(values=values[:COMPLETIONS_MAX], total=len(values), has_more=False)
        )

    # Who calls

    def _reader(self, ctx: Context) -> Callable[[str, Mapping[str, object]], Awaitable[BaseModel]]:
        caller = self._caller_in(ctx)
        return lambda name, arguments: self._surface.syscall(caller, name, arguments)

    def _caller_in(self, ctx: Context) -> Caller:
        """Return the caller with what the request says of itself: for display and audit, never proof of anything."""
        client = ctx.session.client_params
        host = self._caller.host or (client.client_info.name[: limits.NAME_CHARS_MAX] if client else "")
        use = (ctx.meta or {}).get("claudecode/toolUseId")
        session = (
            f"{self._caller.session}/{use[: limits.NAME_CHARS_MAX]}" if isinstance(use, str) else self._caller.session
        )
        return replace(self._caller, host=host, session=session)

    def _key_in(self, ctx: Context) -> Hashable:
        """Return what names the session: over Streamable HTTP many share one server, and a header tells them apart."""
        session_id = ctx.request.headers.get("mcp-session-id") if ctx.request is not None else None
        return session_id or self._key


def _progress_of(ctx: Context) -> Progress | None:
    if not (ctx.meta or {}).get("progress_token"):
        return None

    async def report(done: float, total: float | None, words: str) -> None:
        await ctx.session.report_progress(done, total, words)

    return report


def load_state_key(home: Path) -> bytes:
    """Return the key that seals what clients carry for us, made on first use.

    It is kept in `request_state.key`, readable by the owner alone, so that a question survives a restart.

    Raises:
        Unavailable: the file cannot be read or made.
    """
    path = home / "request_state.key"
    try:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            key = path.read_bytes()
            if len(key) >= 32:
                return key
            descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)  # cut short by a crash
        with os.fdopen(descriptor, "wb") as file:
            key = secrets.token_bytes(32)
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
        return key
    except OSError as error:
        raise Unavailable(f"{path} cannot be used: {error.strerror}.", "Check its owner and permissions.") from None
