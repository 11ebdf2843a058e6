"""Asking the person at the host, when the policy wants a person asked.

Promises that a question is put to a person at most once a round, that a closed or unanswered form leaves the question
open elsewhere (command line, dashboard, `answer_approval`), and that the answer goes through the one door. Knows both
ways of asking: the revisions with a handshake ask over the session, 2026-07-28 by a result the client answers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError, NoBackChannelError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel, ValidationError

from aos_mcp.abi import limits
from aos_mcp.abi.errors import ApprovalRequired, Conflict, NotFound

INPUT_KEY = "approval"

FORM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "decision": {"type": "string", "title": "Decision", "enum": ["allow", "deny"]},
        "remember": {"type": "boolean", "title": "Do not ask again for this tool", "default": False},
    },
    "required": ["decision"],
}

Act = Callable[[], Awaitable[BaseModel]]
Answer = Callable[[dict[str, object]], Awaitable[BaseModel]]
"""Makes the `answer_approval` call, on behalf of the person."""
Explain = Callable[[str], Awaitable[str | None]]
"""Takes an approval's id, and returns the whole question as it is on record."""


def is_modern(ctx: ServerRequestContext[Any, Any]) -> bool:
    """Return whether the request speaks a revision without a handshake."""
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS


async def with_consent(
    ctx: ServerRequestContext[Any, Any],
    params: types.CallToolRequestParams,
    *,
    act: Act,
    answer: Answer,
    explain: Explain,
) -> BaseModel | types.InputRequiredResult:
    """Act; where a person must allow it first, ask and act again.

    Raises:
        ApprovalRequired: nobody could be asked here, or whoever was asked closed the form.
        AosError: whatever acting raises.
    """
    approval_id = params.request_state
    reply = _reply_in(params) if approval_id is not None else None
    if approval_id is not None and reply is not None:
        await _settle(approval_id, reply, answer)
    try:
        return await act()
    except ApprovalRequired as question:
        closed = reply is not None and reply.action == "cancel"
        if closed or not _can_ask(ctx):
            raise
        words = await explain(question.approval_id) or question.message
        if is_modern(ctx):
            return _ask(question.approval_id, words)
        live = await _ask_live(ctx, words)
        if live is None or live.action == "cancel":
            raise
        await _settle(question.approval_id, live, answer)
    return await act()


def _can_ask(ctx: ServerRequestContext[Any, Any]) -> bool:
    capabilities = ctx.session.client_capabilities
    if capabilities is None or capabilities.elicitation is None:
        return False
    # A client that names no mode means forms, the only mode there was when the capability had no fields.
    return capabilities.elicitation.form is not None or capabilities.elicitation.url is None


def _ask(approval_id: str, words: str) -> types.InputRequiredResult:
    form = types.ElicitRequest(params=types.ElicitRequestFormParams(message=words, requested_schema=FORM))
    return types.InputRequiredResult(input_requests={INPUT_KEY: form}, request_state=approval_id)


async def _ask_live(ctx: ServerRequestContext[Any, Any], words: str) -> types.ElicitResult | None:
    with anyio.move_on_after(limits.ELICIT_S):
        try:
            return await ctx.session.elicit_form(words, FORM, related_request_id=ctx.request_id)
        except (NoBackChannelError, MCPError, ValidationError):
            return None  # the host declared forms and cannot show them: the question stays open elsewhere
    return None


def _reply_in(params: types.CallToolRequestParams) -> types.ElicitResult | None:
    reply = (params.input_responses or {}).get(INPUT_KEY)
    return reply if isinstance(reply, types.ElicitResult) else None


async def _settle(approval_id: str, reply: types.ElicitResult, answer: Answer) -> None:
    """Record the person's decision. Declining the form is a no; closing it is no answer."""
    if reply.action == "cancel":
        return
    content = reply.content or {}
    allowed = reply.action == "accept" and content.get("decision") == "allow"
    arguments: dict[str, object] = {
        "approval_id": approval_id,
        "decision": "allow" if allowed else "deny",
        "remember": reply.action == "accept" and content.get("remember") is True,
    }
    try:
        await answer(arguments)
    except (Conflict, NotFound):
        return  # it was answered elsewhere meanwhile, or has expired: acting again tells
