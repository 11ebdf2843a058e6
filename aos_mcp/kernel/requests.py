"""A turn's tool requests: each through the gate, each answered by one page, none lost and none repeated unasked.

What may run side by side does; what may not runs alone, in the order the model gave. A request that already has a
step in the journal (its kernel died before the answer became a page) is answered from there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import anyio

from aos_mcp.abi.calls import TABLE
from aos_mcp.abi.capability import Caller, CallerKind
from aos_mcp.abi.completion import ToolRequest
from aos_mcp.abi.errors import AosError, Invalid, LimitExceeded, UnknownOutcome
from aos_mcp.abi.journal import EffectClass, Step, StepState
from aos_mcp.abi.limits import BRIEF_CHARS, TOOL_REQUESTS_PER_TURN_MAX
from aos_mcp.abi.page import Page, PageKind
from aos_mcp.abi.process import Process, ProcessState
from aos_mcp.context.layout import decode_reply
from aos_mcp.kernel import budget, journal, pages, provenance, table
from aos_mcp.kernel.gate import Gate, dumped, error_body
from aos_mcp.kernel.machine import Machine
from aos_mcp.kernel.speech import result_text
from aos_mcp.ports import Transaction


@dataclass(frozen=True, slots=True)
class Decoded:
    """A request in the kernel's terms: which call, with what; or why it is none."""

    request: ToolRequest
    index: int
    call: str
    arguments: dict[str, object]
    alone: bool
    error: AosError | None = None


def position_of(reply: Page, index: int) -> int:
    """Return where the answer to a reply's request stands in the context: the place was kept free for it."""
    return reply.position + 1 + index


def last_reply(tx: Transaction, pages: Sequence[Page]) -> tuple[Page | None, tuple[ToolRequest, ...]]:
    """Return the last reply among pages that stand in order, and the calls it asks for."""
    reply = next((page for page in reversed(pages) if page.kind is PageKind.REPLY), None)
    return (reply, decode_reply(journal.payload(tx, reply.digest)).requests) if reply is not None else (None, ())


class Requests:
    """Answers the requests of one reply."""

    def __init__(
        self, machine: Machine, gate: Gate, process: Process, reply: Page, answered: frozenset[int] = frozenset()
    ) -> None:
        """Take the reply whose requests these are, and the positions at which answers stand already."""
        self._machine = machine
        self._gate = gate
        self._process = process
        self._reply = reply
        self._answered = answered

    async def answer(self, requests: Sequence[ToolRequest]) -> None:
        """Answer all. Returns early, without answers for the rest, when the process has ended by one of them.

        Raises:
            Superseded: the turn is no longer ours.
            BudgetExhausted: the tool-call budget is used up; what was answered until then is kept.
        """
        batch: list[Decoded] = []
        for index, request in enumerate(requests):
            if position_of(self._reply, index) in self._answered:
                continue
            decoded = self._decode(index, request)
            if decoded.alone and batch:
                await self._together(batch)
                batch = []
            batch.append(decoded)
            if decoded.alone:
                await self._together(batch)
                batch = []
                if await self._over():
                    return
        if batch:
            await self._together(batch)

    async def _together(self, batch: Sequence[Decoded]) -> None:
        if len(batch) == 1:
            await self._one(batch[0])
            return
        failures: list[AosError | table.Superseded] = []

        async def guarded(decoded: Decoded) -> None:
            try:
                await self._one(decoded)
            except (AosError, table.Superseded) as error:
                failures.append(error)

        async with anyio.create_task_group() as group:
            for decoded in batch:
                group.start_soon(guarded, decoded)
        if failures:
            raise failures[0]

    async def _over(self) -> bool:
        process = await self._machine.store.read(lambda tx: tx.process_get(self._process.pid), brief=True)
        return process is None or process.state is ProcessState.EXITED

    async def _one(self, decoded: Decoded) -> None:
        known = await self._machine.store.write(lambda tx: self._before(tx, decoded), brief=True)
        if known is not None:
            await self._keep(decoded, *known)
            return
        if decoded.error is not None:
            await self._keep(decoded, decoded.call, error_body(decoded.error))
            return
        caller = Caller(kind=CallerKind.AGENT, principal=self._process.owner, pid=self._process.pid)
        try:
            result = await self._gate.syscall(
                caller,
                decoded.call,
                decoded.arguments,
                process=self._process,
                request_id=self._key(decoded),
            )
            body = dumped(result)
        except AosError as error:
            body = error_body(error)
        if decoded.call != "exit" or not await self._over():
            await self._keep(decoded, decoded.call, body)

    def _before(self, tx: Transaction, decoded: Decoded) -> tuple[str, bytes] | None:
        """Return what is on record for this request; charge a tool call when there is nothing."""
        step = tx.step_by_request(self._process.pid, self._key(decoded))
        answer = None if step is None else self._from_record(tx, step)
        if answer is None and decoded.call != "exit":
            budget.count_tool_call(tx, self._process.pid)
        return answer

    def _from_record(self, tx: Transaction, step: Step) -> tuple[str, bytes] | None:
        if step.state is StepState.DONE or (step.state is StepState.FAILED and step.result is not None):
            return step.call, journal.result_of(tx, step)
        if step.state is StepState.UNKNOWN:
            return step.call, error_body(
                UnknownOutcome(
                    f"The kernel stopped while {step.call} (step {step.number}) was under way; it may have happened.",
                    f"Look at the state of things, then say what you found: reconcile(step={step.number}, outcome=…).",
                )
            )
        return None

    async def _keep(self, decoded: Decoded, call: str, body: bytes) -> None:
        """Make the answer a page."""
        text, is_error = result_text(call, body)

        def work(tx: Transaction) -> None:
            now, process = self._machine.clock.now(), table.held(tx, self._process.pid, self._process.fence)
            shown = text
            origin = provenance.page_read(tx, process.owner, decoded.arguments) if call == "page_in" else None
            if call != "page_in":
                shown = pages.shortened(
                    tx,
                    process,
                    text,
                    title=f"{decoded.request.name} result",
                    entropy=self._machine.entropy,
                    now=now,
                    source=decoded.request.name,
                )
            pages.make(
                tx,
                page_id=self._machine.entropy.handle("pg_"),
                pid=process.pid,
                owner=process.owner,
                kind=PageKind.RESULT,
                body=shown.encode(),
                text=shown,
                position=position_of(self._reply, decoded.index),
                now=now,
                source=decoded.request.name,
                title=f"{decoded.request.name}: {pages.title_of(shown)}",
                group=self._reply.group,
                request_id=decoded.request.request_id,
                is_error=is_error,
                labels=provenance.of_result(tx, process.owner, call, decoded.arguments, body),
                origin=origin.page_id if origin is not None else None,
            )

        await self._machine.store.write(work, brief=len(text) <= BRIEF_CHARS)

    def _key(self, decoded: Decoded) -> str:
        """Return what the journal knows a request by. Some models use one id again and again; its place is its own."""
        return f"{position_of(self._reply, decoded.index)}:{decoded.request.request_id}"

    def _decode(self, index: int, request: ToolRequest) -> Decoded:
        name = request.name
        try:
            arguments = json.loads(request.arguments or "{}")
        except (ValueError, RecursionError):
            return self._bad(index, request, Invalid(f"The arguments of {name} are not JSON.", "Send one JSON object."))
        if not isinstance(arguments, dict):
            shape = Invalid(f"The arguments of {name} are not a JSON object.", "Send one JSON object.")
            return self._bad(index, request, shape)
        if index >= TOOL_REQUESTS_PER_TURN_MAX:
            many = LimitExceeded(
                f"At most {TOOL_REQUESTS_PER_TURN_MAX} calls are answered in one turn.", "Ask for the rest again."
            )
            return self._bad(index, request, many)
        if name not in TABLE and self._machine.mounts.tool(name) is not None:
            arguments, name = {"name": name, "arguments": arguments}, "call_tool"
        return Decoded(request, index, name, arguments, self._alone(name, arguments))

    def _bad(self, index: int, request: ToolRequest, error: AosError) -> Decoded:
        return Decoded(request, index, request.name, {}, alone=False, error=error)

    def _alone(self, call: str, arguments: dict[str, object]) -> bool:
        row = TABLE.get(call)
        if row is None:
            return False
        if call == "call_tool":
            tool = self._machine.mounts.tool(str(arguments.get("name")))
            return tool is None or not (tool.read_only or tool.idempotent)
        return row.effect is EffectClass.UNSAFE or call == "exit"
