"""One call on its way through the gate: who asks, for what, and the one commit that carries its effect."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import anyio
from pydantic import BaseModel

from aos_mcp.abi.audit import AuditEntry
from aos_mcp.abi.capability import Caller, CallerKind
from aos_mcp.abi.errors import Denied, NotFound
from aos_mcp.abi.event import Event
from aos_mcp.abi.handle import Pid, pid_in
from aos_mcp.abi.limits import AUDIT_DETAIL_CHARS_MAX
from aos_mcp.abi.process import Process
from aos_mcp.abi.syscall import Syscall
from aos_mcp.kernel import journal, table
from aos_mcp.kernel.machine import Machine
from aos_mcp.ports import Deliver, Progress, Transaction

R = TypeVar("R", bound=BaseModel)
T = TypeVar("T")


VALUE_CHARS_MAX = AUDIT_DETAIL_CHARS_MAX
SECRET_CHARS = 256
"""As long as the keys and tokens of the known forms are, with room."""


@dataclass(slots=True, kw_only=True)
class Call:
    """What a handler gets. `subject` is set by the handler: the handle the audit record names."""

    machine: Machine
    row: Syscall
    caller: Caller
    arguments: Mapping[str, object]
    progress: Progress | None
    request_id: str | None = None
    allowed_by: str = ""
    """The rule, right or answer that let the call through, in words."""
    approval: str = ""
    """The question that a person answered, where one was asked."""
    key: str = ""
    """Of an act: what tells a downstream that two calls of it are one; the same when a later turn makes it again."""
    deliver: Deliver | None = None
    """Takes the text of a model turn as it is written, where the caller wants it so."""
    fence: int = 0
    """Of an agent's turn: writes are refused when it is no longer the process's."""
    subject: str = ""
    committed: bool = False
    _recorded: Mapping[str, object] | None = None
    _shown: str | None = None
    """The arguments as the audit log has them."""
    completion: Callable[[Transaction], BaseModel] | None = None
    """Of an act: makes its result in the very transaction that puts it on record, where the result takes something."""
    events: list[Event] = field(default_factory=list)
    after: list[Callable[[], None]] = field(default_factory=list)
    """Run once the commit is durable: cancel turns, wake the loop."""

    async def read(self, work: Callable[[Transaction], T], *, brief: bool = False) -> T:
        """Read the store."""
        return await self.machine.store.read(work, brief=brief)

    async def commit(self, work: Callable[[Transaction], R], *, brief: bool = False) -> R:
        """Run the one transaction of a WRITE call: its effect, its journal step and its audit record together."""
        assert not self.committed, "a call commits once"

        def unit(tx: Transaction) -> R:
            self.events.clear()
            self.after.clear()
            result = work(tx)
            if self.caller.pid is not None and self.row.name != "exit":
                self._journal(tx, result)
            tx.audit_stage(self.entry("ok"))
            return result

        with anyio.CancelScope(shield=True):  # what is committed is also published, though the caller went away
            result = await self.machine.store.write(unit, brief=brief)
        self.committed = True
        for hook in self.after:
            hook()
        for event in self.events:
            self.machine.bus.publish(event)
        return result

    def _journal(self, tx: Transaction, result: BaseModel) -> None:
        assert self.caller.pid is not None
        journal.record(
            tx,
            table.held(tx, self.caller.pid, self.fence),
            call=self.row.name,
            effect=self.row.effect,
            intent=self.intent(),
            result=result.model_dump_json(exclude_none=True).encode(),
            now=self.machine.clock.now(),
            request_id=self.request_id,
        )

    def intent(self) -> bytes:
        """Return the canonical form of what is asked, and why it was let through."""
        told: dict[str, object] = {"call": self.row.name, "arguments": self.recorded}
        if self.allowed_by:
            told["allowed_by"] = self.allowed_by
        if self.approval:
            told["approval"] = self.approval
        return json.dumps(told, sort_keys=True, ensure_ascii=False).encode()

    @property
    def recorded(self) -> Mapping[str, object]:
        """The arguments as journal and audit log hold them."""
        if self._recorded is None:
            digested = self.row.digested
            self._recorded = {n: _digest(v) if n in digested else v for n, v in self.arguments.items()}
        return self._recorded

    def entry(self, outcome: str, detail: str = "") -> AuditEntry:
        """Make this call's audit entry: `detail`, and the arguments, in brief."""
        if self._shown is None:
            self._shown = brief(self.recorded, self.machine.redact)
        text = f"{self.machine.redact(detail)} {self._shown}" if detail else self._shown
        return AuditEntry(
            at=self.machine.clock.now(),
            category=self.row.category,
            actor=actor(self.caller),
            pid=self.caller.pid or pid_in(self.subject),
            call=self.row.name,
            outcome=outcome,
            subject=self.machine.redact(self.subject),
            detail=text[:AUDIT_DETAIL_CHARS_MAX],
        )

    def find(self, tx: Transaction, handle: str) -> Process:
        """Return a process the caller may name, and make it the subject."""
        process = table.find(tx, self.caller, handle)
        self.subject = process.pid
        return process

    def own(self, tx: Transaction) -> Process:
        """Return the calling agent's own process."""
        assert self.caller.pid is not None
        return table.held(tx, self.caller.pid, self.fence)

    def publish(self, event: Event) -> None:
        """Publish an event once the commit is durable."""
        self.events.append(event)

    @property
    def now(self) -> float:
        """The time, in seconds since the epoch."""
        return self.machine.clock.now()


def brief(arguments: Mapping[str, object], redact: Callable[[str], str]) -> str:
    """Return arguments as the audit log shows them: redacted, long values cut.

    Values are cut before they are searched for secrets, so that what an act costs on the log does not grow with what it
    carries; the end of what was cut is left out, since half a secret looks like none.
    """
    shown = {}
    for name, value in arguments.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        if len(text) <= VALUE_CHARS_MAX:
            shown[name] = redact(text)
        else:
            shown[name] = f"{redact(text[:VALUE_CHARS_MAX])[:-SECRET_CHARS]}… ({len(text)} characters)"
    return json.dumps(shown, ensure_ascii=False)


def _digest(value: object) -> Mapping[str, object]:
    body = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str).encode(errors="surrogatepass")
    return {"sha256": hashlib.sha256(body).hexdigest(), "size_bytes": len(body)}


def actor(caller: Caller) -> str:
    """Name a caller in the audit log."""
    if caller.pid is not None:
        return str(caller.pid)
    return f"{caller.kind}:{caller.principal}" if caller.kind is not CallerKind.KERNEL else "kernel"


def check_model(call: Call, name: str) -> None:
    """Refuse a recording that an agent names by a path: it would be a way to look at the kernel's own disk.

    Raises:
        Denied: the caller is an agent, and the recording is not one of the installed ones.
    """
    provider, _, recording = name.partition("/")
    if call.caller.pid is not None and provider == "replay" and ("/" in recording or ".." in recording):
        raise Denied("An agent may name only installed recordings.", "Use replay/NAME.")


def caller_pid(call: Call) -> Pid:
    """Return the calling agent's pid.

    Raises:
        NotFound: the caller is not an agent.
    """
    if call.caller.pid is None:
        raise NotFound("This call is for agents only.", "Hosts use the tools listed in tools/list.")
    return call.caller.pid
