"""What leaves an agent's window before a turn: the store's and the model's facts, brought to the pure decision.

Owns how the kernel knows that a provider's cache holds nothing of a context any more (the last reply is too old, or was
another model's, or the tools sent with it were others), and what it makes of the hits it is billed for.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import anyio

from aos_mcp.abi.completion import ModelInfo, ToolSpec
from aos_mcp.abi.handle import PageId, Pid
from aos_mcp.abi.journal import MODEL_CALL
from aos_mcp.abi.limits import VECTORS_COMPARED
from aos_mcp.abi.process import Process
from aos_mcp.context.compaction import compacted, compaction, is_cold, may_compact
from aos_mcp.context.nearness import Nearness, focus, nearness
from aos_mcp.context.page_table import PageTable
from aos_mcp.context.replacement import CachePrices, cache_prices, choose_victims, last_resort
from aos_mcp.kernel import journal, lifetime
from aos_mcp.kernel.basis import tools_digest
from aos_mcp.kernel.contexts import Context
from aos_mcp.kernel.machine import Machine
from aos_mcp.kernel.summaries import Summaries
from aos_mcp.kernel.table import Superseded, held
from aos_mcp.ports import Transaction

STEPS_LOOKED_AT = 64  # Back to the last model call; a turn makes at most 32 tool calls.
TIER_ROOM = 4  # A tier is kept below only where what may not leave takes a quarter of it at most.
LOOK_TURNS = 4  # A context of which nothing was found to leave is looked at again after so many turns.


class Pager:
    """Lets pages of one process leave, which this kernel has claimed."""

    def __init__(self, machine: Machine, process: Process) -> None:
        self._machine = machine
        self._pid = process.pid
        self._fence = process.fence
        self._context = machine.contexts.of(process.pid)
        self._summaries = Summaries(machine, process)

    @property
    def context(self) -> Context:
        """What is known of the context."""
        return self._context

    async def fit(self, window_tokens: int, info: ModelInfo, tools: tuple[ToolSpec, ...]) -> bool:
        """Let pages leave where they must, or where it pays: a cache that is cold anyway makes it free.

        `window_tokens` is what pages may take, as we count. Returns whether any left.
        """
        settings, now, table = self._machine.settings.context, self._machine.clock.now(), self._context.table
        window_tokens = _below_tier(window_tokens, info, table)
        must = table.resident_tokens > window_tokens * settings.high_water
        if not must and (not may_compact(table) or table.turns - self._context.looked_at < LOOK_TURNS):
            return False
        prices = self._prices(info)

        def choose(tx: Transaction) -> tuple[Sequence[PageId], Nearness]:
            leaving = partial(
                compaction,
                table.pages,
                window_tokens=window_tokens,
                high_water=settings.high_water,
                low_water=settings.low_water,
                policy=settings.policy,
                prices=prices,
                experience=table.experience,
                cold=self._is_cold(tx, info, tools, now),
            )
            words = nearness(table.pages)
            victims = leaving(near=words)
            if not victims or self._machine.embedder is None:
                return victims, words
            near = self._near(tx)  # vectors are read only where something is to leave
            return leaving(near=near), near

        victims, near = await self._machine.store.read(choose)
        if victims:
            await self._leave(victims, prices, near)
        else:
            self._context.looked_at = table.turns
        return bool(victims)

    async def shrink(self) -> bool:
        """Halve a context that the provider finds too long, whatever we had counted; False when nothing may leave."""
        table = self._context.table
        before = table.resident_tokens
        near = await self._machine.store.read(self._near)
        victims = choose_victims(table.pages, target_tokens=before // 2, near=near)
        victims = victims or last_resort(table.pages, (), before // 2)
        if not victims:
            return False
        await self._leave(victims, CachePrices(), near)
        return table.resident_tokens < before

    def _near(self, tx: Transaction) -> Nearness:
        """Return how near the pages are to what the agent works on: by vectors as far as they are made, else by words.

        Nothing waits for a vector.
        """
        pages, embedder = self._context.table.pages, self._machine.embedder
        if embedder is None:
            return nearness(pages)
        there = [page.page_id for page in pages if page.resident][-VECTORS_COMPARED:]
        to = [page.page_id for page in focus(pages)]
        return nearness(pages, tx.vector_cosines(embedder.name, there, to=to))

    def _prices(self, info: ModelInfo) -> CachePrices:
        """Return the model's prices; what is read at the price at which it was really billed lately."""
        prices, heat = cache_prices(info.price), self._context.heat
        read = heat * prices.read + (1 - heat) * prices.write
        return replace(prices, read=read, round_trip=float(self._machine.settings.context.round_trip_tokens))

    def _is_cold(self, tx: Transaction, info: ModelInfo, tools: tuple[ToolSpec, ...], now: float) -> bool:
        if is_cold(self._context.table.pages, model=info.name, now=now, ttl_s=lifetime.believed(tx, info)):
            return True
        return _last_tools(tx, self._pid) not in {None, tools_digest(tools)}

    async def _leave(self, victims: Sequence[PageId], prices: CachePrices, near: Nearness) -> None:
        machine, table = self._machine, self._context.table
        before = list(table.pages)
        written = await self._summaries.ask(before, victims)
        usable = written is not None and written.is_usable
        if written is not None and usable:
            victims = (*victims, *written.also)
        now = machine.clock.now()
        after = compacted(before, victims, now=now, near=near, prices=prices, experience=table.experience)
        changed = [page for old, page in zip(before, after, strict=True) if page is not old]

        def leave(tx: Transaction) -> bool:
            """Have all of it on record at once; of a process that is no longer ours only what is to be paid."""
            if written is not None:
                written.settle(tx)
            try:
                held(tx, self._pid, self._fence)
            except Superseded:
                return False
            for page in changed:
                tx.page_put(page)
            if written is not None and usable:
                written.put(tx, machine.entropy.handle("pg_"), now)
            return True

        machine.metrics.compactions.inc()
        with anyio.CancelScope(shield=written is not None):  # a summary is paid for, whoever still wants it
            if not await machine.store.write(leave):
                raise Superseded(self._pid)
        for page in changed:
            table.put(page)
        self._context.left(victims)
        if written is not None:
            machine.metrics.summaries.labels("written" if usable else "failed").inc()
            await machine.store.read(self._context.refresh)


def _below_tier(window_tokens: int, info: ModelInfo, table: PageTable) -> int:
    """Return the window, or a price tier within it that the context can stay below: a second, softer limit."""
    tiers = info.price.tiers if info.price is not None else ()
    static = table.resident_tokens - table.log_tokens
    reachable = [tier.above_tokens for tier in tiers if tier.above_tokens > TIER_ROOM * static]
    return min([window_tokens, *reachable])


def _last_tools(tx: Transaction, pid: Pid) -> str | None:
    """Return the digest of the tools of the last model call; None where none is on record."""
    steps = tx.step_last(pid, limit=STEPS_LOOKED_AT)
    last = next((step for step in reversed(steps) if step.call == MODEL_CALL), None)
    if last is None:
        return None
    told = json.loads(journal.payload(tx, last.intent)).get("tools")
    return told if isinstance(told, str) else None
