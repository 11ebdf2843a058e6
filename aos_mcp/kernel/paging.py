"""What leaves an agent's window before a turn: the store's and the model's facts, brought to the pure decision.

Owns how the kernel knows that a provider's cache holds nothing of a context any more: the last reply is too old, or was
another model's, or the tools sent with it were others. A compaction costs nothing then.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from aos_mcp.abi.completion import ModelInfo, ToolSpec
from aos_mcp.abi.handle import PageId, Pid
from aos_mcp.abi.journal import MODEL_CALL
from aos_mcp.abi.page import Page, PageKind
from aos_mcp.abi.settings import ContextSettings
from aos_mcp.context.layout import decode_reply
from aos_mcp.context.replacement import cache_prices, compaction, is_cold
from aos_mcp.context.uses import with_uses
from aos_mcp.kernel import journal
from aos_mcp.ports import Transaction

CACHE_TTL_S = 1_800.0
"""For how long a prompt may still be in a provider's cache: thirty minutes are the most that is promised,"""
CACHE_TTL_ANTHROPIC_S = 300.0
"""and this is what the Messages dialect keeps a mark for, unless asked for more."""
STEPS_LOOKED_AT = 64  # Back to the last model call; a turn makes at most 32 tool calls.


def victims(
    tx: Transaction,
    table: Sequence[Page],
    *,
    pid: Pid,
    window_tokens: int,
    settings: ContextSettings,
    info: ModelInfo,
    tools: Sequence[ToolSpec],
    now: float,
) -> tuple[PageId, ...]:
    """Return the pages that leave now; none as a rule."""
    used = {page.page_id: page for page in with_uses([p for p in table if p.resident], lambda page: _said(tx, page))}
    ttl_s = CACHE_TTL_ANTHROPIC_S if info.dialect == "anthropic" else CACHE_TTL_S
    cold = is_cold(table, model=info.name, now=now, ttl_s=ttl_s)
    return compaction(
        [used.get(page.page_id, page) for page in table],
        window_tokens=window_tokens,
        high_water=settings.high_water,
        low_water=settings.low_water,
        task_words=task_words(table),
        prices=cache_prices(info.price),
        cold=cold or _last_tools(tx, pid) not in {None, tools_digest(tools)},
    )


def task_words(table: Sequence[Page]) -> frozenset[str]:
    """Return the words of what an agent is working on, in small letters."""
    task = next((page.title for page in table if page.kind is PageKind.TASK), "")
    return frozenset(task.lower().split())


def tools_digest(tools: Sequence[ToolSpec]) -> str:
    """Return what tells one tool list from another. A model call's intent holds it."""
    told = json.dumps([[tool.name, tool.description, tool.input_schema] for tool in tools])
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _last_tools(tx: Transaction, pid: Pid) -> str | None:
    """Return the digest of the tools of the last model call; None where none is on record."""
    steps = tx.step_last(pid, limit=STEPS_LOOKED_AT)
    last = next((step for step in reversed(steps) if step.call == MODEL_CALL), None)
    if last is None:
        return None
    told = json.loads(journal.payload(tx, last.intent)).get("tools")
    return told if isinstance(told, str) else None


def _said(tx: Transaction, page: Page) -> str:
    body = journal.payload(tx, page.digest)
    if page.kind is not PageKind.REPLY:
        return body.decode("utf-8", "replace")
    reply = decode_reply(body)
    return "\n".join([reply.text, *(request.arguments for request in reply.requests)])
