"""One turn of one agent: mail and signals, prompt, model call, tool calls, and back to the queue.

A turn can be cut anywhere. What it had done is in the store; what it had not is done again by the next one, which finds
the same unanswered requests in the page table. So there is one path, for the first try and for every later one.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import anyio

from aos_mcp.abi.audit import kernel_entry
from aos_mcp.abi.completion import Completion, ModelInfo, Prompt, ToolRequest, ToolSpec
from aos_mcp.abi.errors import AosError, BudgetExhausted, ModelError, ModelFault
from aos_mcp.abi.journal import FALLBACK, EffectClass
from aos_mcp.abi.limits import BRIEF_ROWS, MOUNT_WAKE_S
from aos_mcp.abi.message import Message
from aos_mcp.abi.page import Page, PageKind
from aos_mcp.abi.process import ExitCode, Process, ProcessState, Signal
from aos_mcp.context.layout import encode_reply, lay_out
from aos_mcp.context.tokens import count
from aos_mcp.kernel import budget, counting, journal, lifetime, pages, paging, table
from aos_mcp.kernel.basis import tools_digest
from aos_mcp.kernel.gate import Gate
from aos_mcp.kernel.generation import Generation
from aos_mcp.kernel.machine import TURN, Machine
from aos_mcp.kernel.margin import counted_in, tool_tokens
from aos_mcp.kernel.model_call import turn_order
from aos_mcp.kernel.requests import Requests, last_reply, position_of
from aos_mcp.kernel.retry import GiveUp, Next, Verdict, counted
from aos_mcp.kernel.speech import CUT, FINISH, SYSTEM, tool_specs
from aos_mcp.ports import Transaction

logger = logging.getLogger(__name__)

BUDGET_HELD_S = 0.5
"""A turn whose budget is held by its siblings' calls looks again this often."""

MAIL_PER_TURN_MAX = 16
OUTPUT_TOKENS_DEFAULT = 8_192
"""Of one turn; a model that needs more is asked to go on."""
ROOM_PART = 4
"""Tools and the kernel's text never leave pages less than this part of the window."""
SURELY_PART = 4
"""Of the window: a context that weighs less fits, however its pages were counted, and is not counted again."""
FITTINGS_MAX = 4
"""Prompts laid out and counted for one turn; each but the first is shorter by what was too much of the one before."""
CUTS_MAX = 8
"""Replies in a row that end at the token limit; a model that goes on like this never says anything."""


class Quantum:
    """Runs one turn of a process that this kernel has claimed."""

    def __init__(self, machine: Machine, gate: Gate, process: Process) -> None:
        self._machine = machine
        self._gate = gate
        self._pid = process.pid
        self._fence = process.fence
        self._process = process
        self._pager = paging.Pager(machine, process)

    async def run(self) -> None:
        """Run the turn to its end. The process is READY, STOPPED or EXITED after it, or no longer ours."""
        try:
            await self._turn()
        except table.Superseded:
            return
        except budget.BudgetHeld:
            await self._back_off(BUDGET_HELD_S)
        except BudgetExhausted as error:
            await self._end(ExitCode.BUDGET, str(error))
        except AosError as error:
            await self._end(ExitCode.FAILED, str(error))
        except Exception as error:
            logger.exception("the turn of %s failed", self._pid)
            await self._end(ExitCode.FAILED, f"internal: {type(error).__name__}. See the daemon's log.")

    async def _turn(self) -> None:
        machine = self._machine
        process = await machine.store.write(self._open, brief=True)
        if process.state is not ProcessState.RUNNING:
            machine.process_changed(process)
            return
        self._process = process
        if any("__" in pattern for layer in process.rights.tools for pattern in layer):
            # After a boot its servers are still starting; without them its calls would be unknown, its prompt another.
            await machine.mounts.settled(MOUNT_WAKE_S)
        table_, reply_page, requests = await machine.store.read(self._standing, brief=self._pager.context.is_warm)
        if reply_page is None:
            if self._process.fallbacks and machine.admission.is_blocked(self._process.model):
                await self._finally(lambda tx: self._fall_back(tx, "left alone"))
                return
            reply_page, requests = await self._think(table_)
            if reply_page is None:
                return
        answered = frozenset(page.position for page in table_ if page.kind is PageKind.RESULT)
        await Requests(machine, self._gate, self._process, reply_page, answered).answer(requests)
        process = await machine.store.write(self._close, brief=True)
        machine.process_changed(process)

    def _open(self, tx: Transaction) -> Process:
        """Take what came in since the last turn: signals, the wall clock, mail."""
        now, machine = self._machine.clock.now(), self._machine
        process = table.held(tx, self._pid, self._fence)
        if process.pending is Signal.STOP:
            return table.transition(
                tx, process, ProcessState.STOPPED, now=now, pending=None, lease_holder=None, lease_until=None
            )
        budget.check_wall(tx.account_chain(self._pid), now)
        if process.pending is Signal.TERM:
            reason = f" ({process.exit_reason})" if process.exit_reason else ""
            process = tx.process_put(replace(process, pending=None, finishing=True, updated_at=now))
            process = self._append(tx, process, FINISH.format(reason=reason), source="kernel")
        for message in tx.message_take(self._pid, process.owner, now, limit=MAIL_PER_TURN_MAX):
            shown = pages.shortened(
                tx,
                process,
                message.text,
                title=f"message from {message.sender}",
                entropy=machine.entropy,
                now=now,
                source=message.sender,
            )
            process = self._append(tx, process, letter(replace(message, text=shown)), source=message.sender)
        machine.sign_of_life(self._pid)
        return process

    def _append(self, tx: Transaction, process: Process, text: str, *, source: str) -> Process:
        now = self._machine.clock.now()
        return pages.append(tx, process, text, entropy=self._machine.entropy, now=now, source=source)

    def _standing(self, tx: Transaction) -> tuple[Sequence[Page], Page | None, tuple[ToolRequest, ...]]:
        """Return the page table, and the last reply if some of its requests have no result yet."""
        table_ = self._pager.context.refresh(tx)
        last, requests = last_reply(tx, table_)
        if last is None:
            return table_, None, ()
        answered = {page.position for page in table_ if page.kind is PageKind.RESULT}
        if all(position_of(last, index) in answered for index in range(len(requests))):
            return table_, None, ()
        return table_, last, requests

    async def _think(self, table_: Sequence[Page]) -> tuple[Page | None, tuple[ToolRequest, ...]]:
        """Make the model call of this turn; None for the page when the turn is over after it."""
        machine = self._machine
        model = machine.models.resolve(self._process.model)
        info = await model.describe()
        tools = tool_specs(self._process, machine.mounts.tools())
        window = min(info.context_tokens, machine.settings.context.window_tokens or info.context_tokens)
        wanted = min(OUTPUT_TOKENS_DEFAULT, info.output_tokens_max, window // 2)
        context = self._pager.context
        prompt, cut = await self._fitted(info, tools, window - wanted, wanted)
        table_ = list(context.table.pages)
        call = Generation(
            machine,
            model,
            info,
            account=self._pid,
            order=turn_order(machine, self._process),
            kind=self._process.agent or self._process.name,
            faults=self._process.faults,
            has_next=bool(self._process.fallbacks),
        )
        sent_at = machine.clock.now()
        try:
            completion = await call.run(prompt, process=self._process)
        except ModelError as error:
            if error.fault is ModelFault.CONTEXT_TOO_LONG:
                await machine.store.write(lambda tx: counting.too_long(tx, info, call.counted), brief=True)
            if error.fault is not ModelFault.CONTEXT_TOO_LONG or not await self._shrunk():
                await self._fault(error, call.verdict)
            return None, ()
        told = context.billed(
            completion.usage,
            prompt_grew=not cut,
            sent_as=(info.name, tools_digest(tools)),
            sent_at=sent_at,
            now=machine.clock.now(),
        )
        cuts = cuts_in_a_row(table_)

        def settle(tx: Transaction) -> tuple[Page | None, Process] | None:
            if told is not None and not completion.replayed:
                lifetime.learn(tx, info, *told)
            return self._settle(tx, call, completion, cuts)

        with anyio.CancelScope(shield=True):  # the answer is paid for, whoever still wants it
            settled = await machine.store.write(settle, brief=True)
        if settled is None:
            raise table.Superseded(self._pid)
        page, process = settled
        self._process = process
        machine.process_changed(process, TURN)
        return page, completion.reply.requests

    async def _fitted(
        self, info: ModelInfo, tools: tuple[ToolSpec, ...], window_tokens: int, wanted: int
    ) -> tuple[Prompt, bool]:
        """Return the prompt of this turn, held against so many of the provider's tokens, and whether pages left for it.

        Pages leave by the counts they are stored with, some of them perhaps another counter's. The window is held
        against the prompt itself, counted as a whole; where that is too much, pages are weighed by it, and more leave.
        """
        machine, context, cut = self._machine, self._pager.context, False
        room = await machine.store.read(lambda tx: counting.room(tx, info, window_tokens), brief=True)
        fixed = count(SYSTEM) + sum(tool_tokens(tool) for tool in tools)
        fits = for_pages = max(room - fixed, room // ROOM_PART)
        for attempt in range(FITTINGS_MAX):
            left = await self._pager.fit(fits, info, tools)
            cut, resident = cut or left, context.table.resident_tokens
            lay = partial(self._laid_out, rows=list(context.table.pages), tools=tools, wanted=wanted)
            prompt = await machine.store.read(lay, brief=len(context.table.pages) <= BRIEF_ROWS)
            counted = counted_in(prompt).plain if fixed + resident > room // SURELY_PART else 0
            if counted <= room or (attempt and not left):
                break
            fits = for_pages * resident // (counted - fixed)
        return prompt, cut

    def _laid_out(self, tx: Transaction, *, rows: Sequence[Page], tools: tuple[ToolSpec, ...], wanted: int) -> Prompt:
        context = self._pager.context
        return lay_out(
            rows,
            lambda page: journal.payload(tx, page.digest),
            system=SYSTEM,
            tools=tools,
            max_output_tokens=wanted,
            turn=context.table.turns,
            drawn=context.drawn,
        )

    async def _shrunk(self) -> bool:
        """Halve a context that the provider finds too long; False when nothing may leave."""
        if not await self._pager.shrink():
            return False
        process = await self._machine.store.write(self._close, brief=True)
        self._machine.process_changed(process)
        return True

    def _settle(
        self, tx: Transaction, call: Generation, completion: Completion, cuts: int
    ) -> tuple[Page | None, Process] | None:
        """Put the reply on record: money, journal, page and state in one transaction. `cuts` were cut before it.

        Where the process is no longer ours, only money and journal, and the answer is None.
        """
        now, reply = self._machine.clock.now(), completion.reply
        call.settle(tx, completion)
        try:
            process = table.held(tx, self._pid, self._fence)
        except table.Superseded:
            return None
        page = pages.make(
            tx,
            page_id=self._machine.entropy.handle("pg_"),
            pid=process.pid,
            owner=process.owner,
            kind=PageKind.REPLY,
            body=encode_reply(reply),
            text=pages.said(reply),
            position=process.position,
            now=now,
            source=completion.model,
            group=process.position,
        )
        after = process.position + 1 + len(reply.requests)
        said = process.result
        if process.finishing and reply.text:
            said = tx.payload_put(reply.text.encode())  # beside its last calls: nobody will hear it say more
        process = tx.process_put(replace(process, position=after, faults=0, wake_at=None, updated_at=now, result=said))
        if reply.requests:
            return page, process
        if reply.stop == "length" and not process.finishing and cuts < CUTS_MAX:
            return page, self._append(tx, process, CUT, source="kernel")
        code, reason = ExitCode.DONE, "finished"
        if reply.stop == "refused":
            code, reason = ExitCode.FAILED, "The model refused the task."
        elif reply.stop == "length" and not process.finishing:
            code, reason = ExitCode.FAILED, f"The model was cut at the token limit {cuts + 1} times in a row."
        elif process.finishing:
            code, reason = ExitCode.TERMINATED, process.exit_reason or "asked to finish"
        pages.keep_result(tx, process, reply.text, entropy=self._machine.entropy, now=now)
        result = tx.payload_put(reply.text.encode())
        return None, table.end(tx, process, now=now, code=code, reason=reason, result=result)

    def _close(self, tx: Transaction) -> Process:
        now = self._machine.clock.now()
        process = tx.process_get(self._pid)
        assert process is not None
        if process.state is ProcessState.EXITED:
            return process
        process = table.held(tx, self._pid, self._fence)
        if process.finishing:
            reason = process.exit_reason or "asked to finish"
            return table.end(tx, process, now=now, code=ExitCode.TERMINATED, reason=reason)
        return table.transition(tx, process, ProcessState.READY, now=now, lease_holder=None, lease_until=None)

    async def _fault(self, error: ModelError, verdict: Verdict) -> None:
        """Put the process back in the queue after a model call failed, or end it where waiting cures nothing."""
        if isinstance(verdict, GiveUp):
            await self._end(ExitCode.FAILED, str(error))
        elif isinstance(verdict, Next):
            await self._finally(lambda tx: self._fall_back(tx, error.fault))
        else:
            await self._back_off(verdict.seconds, faults=counted(error.fault, self._process.faults))

    def _fall_back(self, tx: Transaction, why: str) -> Process:
        """Go on with the next model of the chain, on record in the journal and on the audit log."""
        now, process = self._machine.clock.now(), table.held(tx, self._pid, self._fence)
        following, *rest = process.fallbacks
        told = {"from": process.model, "to": following, "fault": why}
        body = json.dumps(told, ensure_ascii=False).encode()
        effect = EffectClass.PURE
        journal.record(tx, process, call=FALLBACK, effect=effect, intent=body, result=b"{}", now=now, request_id=None)
        moved = f"{process.model}: {why}"
        tx.audit_stage(kernel_entry(now, "model", FALLBACK, pid=process.pid, subject=following, detail=moved))
        process = table.held(tx, self._pid, self._fence)
        changes = {"model": following, "fallbacks": tuple(rest), "faults": 0, "ready_at": process.ready_at}
        ready = ProcessState.READY
        return table.transition(tx, process, ready, now=now, lease_holder=None, lease_until=None, **changes)

    async def _back_off(self, wait_s: float, *, faults: int | None = None) -> None:
        machine, now = self._machine, self._machine.clock.now()

        def back_off(tx: Transaction) -> Process:
            process = table.held(tx, self._pid, self._fence)
            return table.transition(
                tx,
                process,
                ProcessState.READY,
                now=now,
                faults=process.faults if faults is None else faults,
                ready_at=process.ready_at,
                wake_at=now + wait_s,
                lease_holder=None,
                lease_until=None,
            )

        machine.alarm = min(machine.alarm, now + wait_s)
        await self._finally(back_off)

    async def _end(self, code: ExitCode, reason: str) -> None:
        def work(tx: Transaction) -> Process:
            process = table.held(tx, self._pid, self._fence)
            return table.end(tx, process, now=self._machine.clock.now(), code=code, reason=self._machine.redact(reason))

        await self._finally(work)

    async def _finally(self, work: Callable[[Transaction], Process]) -> None:
        with anyio.CancelScope(shield=True):
            try:
                process = await self._machine.store.write(work, brief=True)
            except table.Superseded:
                return
            except AosError as error:
                # The store cannot be written to. The row says RUNNING; the watchdog frees it once the store is back.
                logger.warning("the turn of %s could not be put on record: %s", self._pid, error)
                return
            self._machine.process_changed(process)


def cuts_in_a_row(table_: Sequence[Page]) -> int:
    """Return how many of the last replies were cut at the token limit: each was followed by the note that says so."""
    cuts = 0
    for page in reversed(table_):
        if page.kind is PageKind.MESSAGE and (page.source, page.title) == ("kernel", pages.title_of(CUT)):
            cuts += 1
        elif page.kind is not PageKind.REPLY:
            break
    return cuts


def letter(message: Message) -> str:
    """Return a message as its reader sees it."""
    topic = f" about {message.topic}" if message.topic else ""
    return f"[message from {message.sender}{topic}]\n{message.text}"
