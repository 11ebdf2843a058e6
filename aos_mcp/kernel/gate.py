"""The gate: the one door. Decode, authorize, commit, publish, in that order, for agents and hosts alike.

Decode may fail and changes nothing. Authorize is a pure decision. Commit is one transaction with the effect, the
journal and the audit record in it; for an act on the world it is two, with the act between them. Publishing comes after
and can be lost without loss. Every call returns or raises exactly once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import anyio
from pydantic import BaseModel, ValidationError

from aos_mcp.abi.calls import TABLE
from aos_mcp.abi.capability import Caller, CallerKind
from aos_mcp.abi.errors import AosError, Cancelled, Denied, ErrorCode, Internal, Invalid, NotFound
from aos_mcp.abi.event import Event, EventKind
from aos_mcp.abi.journal import EffectClass, Step, StepState
from aos_mcp.abi.limits import MOUNT_WAKE_S
from aos_mcp.abi.process import Process
from aos_mcp.abi.syscall import Audience, Reach, Syscall
from aos_mcp.kernel import journal, table
from aos_mcp.kernel.approvals import approve
from aos_mcp.kernel.call import Call
from aos_mcp.kernel.machine import Machine
from aos_mcp.ports import Deliver, Progress, Transaction
from aos_mcp.security.policy import Action, Allow, Deny, decide

logger = logging.getLogger(__name__)

T = TypeVar("T")
Handler = Callable[[Call, BaseModel], Awaitable[BaseModel]]

ALWAYS_GRANTED = frozenset(
    {
        "exit",
        "page_in",
        "page_out",
        "search_pages",
        "send_message",
        "wait_agent",
        "list_agents",
        "search_tools",
        "call_tool",
        "reconcile",
    }
)
"""What an agent may always call: it touches only what is its own. `call_tool` is checked by the tool's own name."""


class Gate:
    """Runs syscalls on a machine. `handlers` has one entry for each row of the table."""

    def __init__(self, machine: Machine, handlers: Mapping[str, Handler]) -> None:
        self._machine = machine
        self._handlers = handlers

    async def syscall(
        self,
        caller: Caller,
        name: str,
        arguments: Mapping[str, object],
        *,
        progress: Progress | None = None,
        process: Process | None = None,
        request_id: str | None = None,
        deliver: Deliver | None = None,
    ) -> BaseModel:
        """Make one call.

        `process` is the calling agent's row, whose turn is under way, or the calling guest's; None for hosts.

        Raises:
            AosError: the call was refused or failed; nothing half-done remains.
        """
        machine = self._machine
        started = machine.clock.monotonic()
        row = TABLE.get(name)
        if row is None or not is_audience(row, caller):
            raise NotFound(f"There is no call {name!r}.", "See tools/list for what there is.")
        call = Call(
            machine=machine,
            row=row,
            caller=caller,
            arguments=arguments,
            progress=progress,
            request_id=request_id,
            deliver=deliver,
            fence=process.fence if process is not None else 0,
        )
        outcome = "ok"
        try:
            args = decode(row, arguments)
            await self._authorize(call, process)
            result = await self._perform(call, args)
        except AosError as error:
            outcome = error.code
            await self._refused(call, error)
            raise
        except table.Superseded:
            outcome = "superseded"
            await self._refused(call, Cancelled("The turn that made this call is over.", "Nothing needs to be done."))
            raise
        except anyio.get_cancelled_exc_class():
            outcome = "cancelled"
            with anyio.CancelScope(shield=True):
                await self._cut_short(call)
            raise
        except Exception as error:
            outcome = "internal"
            logger.exception("syscall %s failed", name)
            internal = Internal(f"The kernel failed at {name}: {type(error).__name__}.", "See the daemon's log.")
            await self._refused(call, internal)
            raise internal from error
        finally:
            machine.metrics.syscalls.labels(name, outcome).inc()
            machine.metrics.syscall_seconds.labels(name).observe(machine.clock.monotonic() - started)
        if caller.pid is not None:
            machine.sign_of_life(caller.pid)
        return result

    async def _authorize(self, call: Call, process: Process | None) -> None:
        named = call.arguments.get("name")
        if call.row.name == "call_tool" and isinstance(named, str) and self._machine.mounts.tool(named) is None:
            await self._machine.mounts.settled(MOUNT_WAKE_S)  # what a tool may do is known once its server is up
        action = self._action(call, process)
        if call.row.audience is Audience.HOSTS and call.caller.kind is CallerKind.AGENT:
            raise Denied(f"{call.row.name} is not for agents.", "Ask the host with send_message(to='host').")
        if action.tool in self._machine.quarantined:
            raise Denied(
                f"The definition of {action.tool} changed since it was first used.",
                "A person must look at the change and allow it: aos approvals.",
            )
        rights = process.rights if process is not None else None
        if rights is not None and action.tool in ALWAYS_GRANTED:
            rights = replace(rights, tools=(("*",),))
        decision = decide(action, rights, self._machine.settings.rules, None)
        call.allowed_by = decision.reason
        if isinstance(decision, Allow):
            return
        if isinstance(decision, Deny):
            raise Denied(f"{action.tool} is denied: {decision.reason}.", "Work without it; the operator sets rules.")
        # A program that came in through the gateway asks for itself again: it has no turn that could wait.
        call.approval = await approve(call, action, process if call.caller.kind is CallerKind.AGENT else None)

    def _action(self, call: Call, process: Process | None) -> Action:
        tool, effect, read_only = call.row.name, call.row.effect, call.row.effect is EffectClass.PURE
        named = call.arguments.get("name")
        if tool == "call_tool" and isinstance(named, str):
            mounted = self._machine.mounts.tool(named)
            tool, read_only = named, mounted is not None and mounted.read_only
        inner = call.arguments.get("arguments") if tool != call.row.name else call.arguments
        return Action(
            caller_kind=call.caller.kind,
            agent="host" if process is None else process.agent or process.name,
            call=call.row.name,
            tool=tool,
            arguments=inner if isinstance(inner, Mapping) else {},
            effect=effect,
            read_only=read_only,
            external=call.row.reach is Reach.EXTERNAL,
        )

    async def _perform(self, call: Call, args: BaseModel) -> BaseModel:
        handler = self._handlers[call.row.name]
        if call.row.reach is Reach.WRITE:
            result = await handler(call, args)
            assert call.committed, f"{call.row.name} did not commit"
            return result
        if call.row.reach is Reach.READ:
            result = await handler(call, args)
            await self._machine.store.write(lambda tx: self._account_for(tx, call, result), brief=True)
            return result
        return await self._act(call, args, handler)

    def _account_for(self, tx: Transaction, call: Call, result: BaseModel) -> None:
        if call.caller.pid is not None:
            journal.record(
                tx,
                call.own(tx),
                call=call.row.name,
                effect=call.row.effect,
                intent=call.intent(),
                result=dumped(result),
                now=call.now,
                request_id=call.request_id,
            )
        tx.audit_stage(call.entry("ok"))

    async def _act(self, call: Call, args: BaseModel, handler: Handler) -> BaseModel:
        effect = self._effect(call)
        unsafe = effect is EffectClass.UNSAFE

        def before(tx: Transaction) -> Step:
            if unsafe:
                tx.audit_stage(call.entry("intent"))
            if call.caller.pid is None:
                return journal.begin_host(
                    tx, call.caller.principal, call=call.row.name, effect=effect, intent=call.intent(), now=call.now
                )
            return journal.begin(
                tx,
                call.own(tx),
                call=call.row.name,
                effect=effect,
                intent=call.intent(),
                now=call.now,
                request_id=call.request_id,
            )

        step = None
        if unsafe or call.caller.pid is not None:
            with anyio.CancelScope(shield=True):  # an intent that is committed is known here, so that it is settled
                step = await self._machine.store.write(before, flush=unsafe, brief=True)
                call.key = step.idempotency_key
        try:
            with self._machine.acting(call.caller.pid):
                result = await handler(call, args)
        except AosError as failure:
            error = failure
            if step is not None and may_have_happened(step, error):
                error.hint = f"{error.hint} {_how_to_settle(step, call)}"
            await self._settled(call, lambda tx: self._ended(tx, call, step, error))
            self._ask(step, error)
            raise
        except BaseException as cut:
            how = "internal" if isinstance(cut, Exception) else "cancelled"
            if isinstance(cut, table.Superseded):
                how = "superseded"
            await self._settled(call, lambda tx: self._cut(tx, call, step, how))
            self._ask(step, None)
            raise
        return await self._settled(call, lambda tx: self._done(tx, call, step, result))

    def _ask(self, step: Step | None, error: AosError | None) -> None:
        """Have whoever listens look at the questions, where an act has left one."""
        if step is None or not may_have_happened(step, error):
            return
        question = journal.question_about(step.pid, step.number)
        event = Event(kind=EventKind.APPROVAL, subject=question, owner="", uris=("aos://approvals",))
        self._machine.bus.publish(event)

    async def _settled(self, call: Call, work: Callable[[Transaction], T]) -> T:
        """Put the end of an act on record, whatever becomes of its caller meanwhile: it has happened."""
        with anyio.CancelScope(shield=True):
            settled = await self._machine.store.write(work, brief=True)
        call.committed = True
        return settled

    def _done(self, tx: Transaction, call: Call, step: Step | None, result: BaseModel) -> BaseModel:
        whole = call.completion(tx) if call.completion is not None else result
        self._ended(tx, call, step, whole)
        return whole

    def _cut(self, tx: Transaction, call: Call, step: Step | None, how: str) -> None:
        """Settle an act that was cut: unsafe, it may have happened; otherwise a later turn makes it again."""
        process = tx.process_get(step.pid) if step is not None else None
        if step is not None and (process is None or process.fence == step.fence):
            journal.cut(tx, step, now=call.now)
        tx.audit_stage(call.entry(how))

    def _ended(self, tx: Transaction, call: Call, step: Step | None, outcome: BaseModel | AosError) -> None:
        failed = isinstance(outcome, AosError)
        code = outcome.code if isinstance(outcome, AosError) else "ok"
        if step is not None:
            state = StepState.FAILED if failed else StepState.DONE
            if isinstance(outcome, AosError) and may_have_happened(step, outcome):
                state = StepState.UNKNOWN
            body = error_body(outcome) if isinstance(outcome, AosError) else dumped(outcome)
            journal.finish(tx, step, state=state, result=body, now=call.now)
        tx.audit_stage(call.entry(code, outcome.message if isinstance(outcome, AosError) else ""))

    def _effect(self, call: Call) -> EffectClass:
        named = call.arguments.get("name")
        tool = self._machine.mounts.tool(named) if call.row.name == "call_tool" and isinstance(named, str) else None
        if tool is None:
            return call.row.effect
        if tool.read_only:
            return EffectClass.PURE
        return EffectClass.IDEMPOTENT if tool.idempotent else EffectClass.UNSAFE

    async def _cut_short(self, call: Call) -> None:
        try:
            await self._refused(call, Cancelled("The caller went away, or a signal ended it.", "Call again."))
        except AosError as error:  # it must not take the place of the cancellation
            logger.warning("a cancelled %s could not be put on the audit log: %s", call.row.name, error)

    async def _refused(self, call: Call, error: AosError) -> None:
        if call.committed:
            return  # an act that failed has its record already
        entry = call.entry(error.code, error.message)
        await self._machine.store.write(lambda tx: tx.audit_stage(entry), brief=True)


def is_audience(row: Syscall, caller: Caller) -> bool:
    """Tell whether a call exists for this caller. One for hosts does for agents too: it is refused with a reason."""
    if row.audience is Audience.GUESTS or caller.kind is CallerKind.GUEST:
        return row.audience is Audience.GUESTS and caller.kind is CallerKind.GUEST
    if row.audience is Audience.AGENTS:
        return caller.kind is CallerKind.AGENT
    if row.audience is Audience.OPERATORS:
        return caller.kind in {CallerKind.OPERATOR, CallerKind.KERNEL}
    return True


def may_have_happened(step: Step, error: AosError | None) -> bool:
    """Tell whether an act that ended in this error, or was cut, may have changed something that nobody knows of."""
    unsure = error is None or error.code in {ErrorCode.UNKNOWN_OUTCOME, ErrorCode.TIMED_OUT}
    return unsure and step.effect is EffectClass.UNSAFE


def _how_to_settle(step: Step, call: Call) -> str:
    if call.caller.pid is not None:
        return f"Then say what you found: reconcile(step={step.number}, outcome=…)."
    return f"Once you know, answer {journal.question_about(step.pid, step.number)}: done, allow (do it) or deny."


def decode(row: Syscall, arguments: Mapping[str, object]) -> BaseModel:
    """Turn JSON arguments into the row's model.

    Raises:
        Invalid: the first argument that does not fit, and why.
    """
    try:
        return row.args.model_validate_json(json.dumps(arguments), strict=True)
    except ValidationError as error:
        where, why = _complaint(error, arguments)
        raise Invalid(f"{row.name}: {where or 'arguments'}: {why}.", f"{_takes(row)}") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise Invalid(f"{row.name}: the arguments are not JSON: {type(error).__name__}.", _takes(row)) from None


def _complaint(error: ValidationError, arguments: Mapping[str, object]) -> tuple[str, str]:
    """Return where the first thing that does not fit is, and why.

    Of the forms that one argument may have, the one that was meant is the one that fits best: furthest in, or by kind.
    """
    found = [
        (_place(one["loc"], arguments, missing=one["type"] == "missing"), not one["type"].endswith("_type"), one["msg"])
        for one in error.errors(include_url=False, include_input=False)
    ]
    first = found[0][0]
    where, _, why = max((one for one in found if one[0][: len(first)] == first), key=lambda one: (len(one[0]), one[1]))
    return ".".join(where), why


def _place(path: Sequence[int | str], arguments: object, *, missing: bool) -> tuple[str, ...]:
    """Return a path without the names of the forms that were tried, which are not the caller's words."""
    place, at = [], arguments
    for part in path[:-1] if missing else path:
        if isinstance(at, Mapping) and part in at:
            at = at[part]
        elif isinstance(at, list) and isinstance(part, int) and part < len(at):
            at = at[part]
        else:
            continue
        place.append(str(part))
    return (*place, str(path[-1])) if missing else tuple(place)


def _takes(row: Syscall) -> str:
    names = [f.alias or name for name, f in row.args.model_fields.items()]
    return f"{row.name} takes: {', '.join(names)}." if names else f"{row.name} takes no arguments."


def dumped(result: BaseModel) -> bytes:
    """Return the JSON form of a result, as journals hold it and agents read it."""
    return result.model_dump_json(exclude_none=True, by_alias=True).encode()


def error_body(error: AosError) -> bytes:
    """Return the JSON form of an error, as journals hold it and agents read it."""
    return json.dumps({"code": error.code, "message": error.message, "hint": error.hint}, ensure_ascii=False).encode()
