"""One live box and the conversation with its supervisor: commands in, outcomes out, one at a time."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass

import anyio

from aos_mcp.abi.errors import Unavailable, UnknownOutcome
from aos_mcp.abi.limits import EXEC_REPLY_GRACE_S, LINE_BYTES_MAX, WORKSPACE_BYTES_MAX
from aos_mcp.abi.sandbox import Command, CommandOutcome
from aos_mcp.ports import Clock
from aos_mcp.sandbox.box import INSIDE_WORKSPACE, Box, Channel, Driver

_START_S = 20.0  # A cold container on a loaded machine takes a few seconds.
_NOFILE_MAX = 1_024


@dataclass(frozen=True, slots=True)
class _Reply:
    fields: Mapping[str, object]

    def number(self, name: str) -> int:
        value = self.fields.get(name)
        return value if isinstance(value, int) else 0

    def flag(self, name: str) -> bool:
        return self.fields.get(name) is True

    def body(self, name: str) -> bytes:
        value = self.fields.get(name)
        try:
            return base64.b64decode(value) if isinstance(value, str) else b""
        except binascii.Error:
            return b""


class Session:
    """A started box. Not for two tasks at once: whoever owns it serialises the commands."""

    def __init__(self, driver: Driver, box: Box, channel: Channel, clock: Clock) -> None:
        """Take over a started channel; `open` is the way to get one."""
        self.driver = driver
        self.box = box
        self._channel = channel
        self._clock = clock
        self._pending = b""
        self._number = 0
        self._dead = False

    @classmethod
    async def open(cls, driver: Driver, box: Box, clock: Clock) -> Session:
        """Start a box and wait for its supervisor.

        Raises Unavailable when it does not come up in time; nothing is left then.
        """
        channel = await driver.start(box)
        session = cls(driver, box, channel, clock)
        ready = None
        try:
            with anyio.move_on_after(_START_S):
                await session._send(driver.greeting(box))
                ready = await session._reply()
        except BrokenPipeError:
            pass
        finally:
            if ready is None:
                await session.destroy()
        if ready is None or not ready.flag("ready"):
            said = channel.diagnosis() or "it said nothing"
            raise Unavailable(
                f"The sandbox supervisor did not start under {driver.name}: {said}.",
                "Run `aos doctor` to see which part of the sandbox fails.",
            )
        return session

    @property
    def dead(self) -> bool:
        """Whether the box is known to be gone."""
        return self._dead or self._channel.gone()

    async def run(self, command: Command) -> CommandOutcome:
        """Run one command.

        Raises Unavailable when the box was gone before the command was sent, UnknownOutcome when it went while the
        command ran. Cancelled: the command is dead when the cancellation passes on.
        """
        self._number += 1
        number = self._number
        began = self._clock.monotonic()
        kills = self._channel.oom_kills()
        await self._submit(number, command)
        try:
            reply = await self._answer(number, command.limits.timeout_s + EXEC_REPLY_GRACE_S)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await self._abort(number)
            raise
        kills_after = self._channel.oom_kills()
        seen = reply.flag("oom") if kills is None or kills_after is None else kills_after > kills
        return CommandOutcome(
            exit_code=reply.number("exit"),
            stdout=reply.body("out"),
            stderr=reply.body("err"),
            stdout_dropped=reply.number("out_dropped"),
            stderr_dropped=reply.number("err_dropped"),
            timed_out=reply.flag("timed_out"),
            out_of_memory=seen,
            isolation=self.driver.name,
            wall_s=self._clock.monotonic() - began,
        )

    async def destroy(self) -> None:
        """End the box and everything in it."""
        self._dead = True
        with anyio.CancelScope(shield=True):
            await self._channel.destroy()

    async def _submit(self, number: int, command: Command) -> None:
        request = {
            "id": number,
            "argv": list(command.argv),
            "stdin": base64.b64encode(command.stdin).decode("ascii"),
            "timeout_s": command.limits.timeout_s,
            "output": command.limits.output_bytes_max,
            "limits": self._limits(command),
            "cwd": INSIDE_WORKSPACE,
        }
        sent = False
        try:
            with anyio.move_on_after(EXEC_REPLY_GRACE_S):
                await self._send(request)
                sent = True
        except BrokenPipeError:
            pass
        finally:
            if not sent:  # Half a line may be in there: this box cannot be spoken to any more.
                await self.destroy()
        if not sent:
            raise Unavailable(
                f"The sandbox was gone before the command was sent: {self._channel.diagnosis()}",
                "Run it again: a new sandbox is started.",
            )

    def _limits(self, command: Command) -> Mapping[str, int]:
        limits = {"CORE": 0, "NOFILE": _NOFILE_MAX, "FSIZE": WORKSPACE_BYTES_MAX}
        if self.driver.memory_limit != "total":
            limits["AS"] = command.limits.memory_bytes
        if self.driver.limits_processes_by_user:
            limits["NPROC"] = command.limits.pids_max
        return limits

    async def _answer(self, number: int, within_s: float) -> _Reply:
        with anyio.move_on_after(within_s):
            while True:
                reply = await self._reply()
                if reply is None or "failed" in reply.fields:
                    break
                if reply.number("id") == number:
                    return reply
        await self.destroy()
        raise UnknownOutcome(
            f"The sandbox died while the command ran: {self._channel.diagnosis() or 'no reason is known'}.",
            "Look at the workspace before running it again; what it did until then has happened.",
        )

    async def _abort(self, number: int) -> None:
        """Have the running command killed; when the supervisor does not obey at once, the box goes."""
        obeyed = False
        try:
            with anyio.move_on_after(EXEC_REPLY_GRACE_S):
                await self._send({"kill": number})
                while (reply := await self._reply()) is not None:
                    if reply.number("id") == number:
                        obeyed = True
                        break
        except BrokenPipeError:
            pass
        if not obeyed:
            await self.destroy()

    async def _send(self, message: Mapping[str, object]) -> None:
        await self._channel.send(json.dumps(message).encode() + b"\n")

    async def _reply(self) -> _Reply | None:
        """Return the supervisor's next line; None when it is gone or no longer makes sense."""
        while b"\n" not in self._pending:
            data = await self._channel.receive()
            self._pending += data
            if not data or len(self._pending) > LINE_BYTES_MAX:
                return None
        line, _, self._pending = self._pending.partition(b"\n")
        try:
            fields = json.loads(line)
        except ValueError:
            return None
        return _Reply(fields) if isinstance(fields, dict) else None
