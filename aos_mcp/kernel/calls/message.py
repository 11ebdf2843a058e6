"""Messages: one way of speaking for agents, parents and the host."""

from __future__ import annotations

from aos_mcp.abi import arguments as a
from aos_mcp.abi import results as r
from aos_mcp.abi.errors import Conflict, NotFound
from aos_mcp.abi.event import Event, EventKind
from aos_mcp.abi.handle import Pid
from aos_mcp.abi.message import HOST, Message
from aos_mcp.abi.process import ProcessState
from aos_mcp.kernel.call import Call
from aos_mcp.ports import Transaction


async def send(call: Call, args: a.SendArgs) -> r.SendResult:
    """Put a message in a mailbox. An agent may write to any agent of its own tree, to its parent and to the host."""

    def work(tx: Transaction) -> r.SendResult:
        message = Message(
            message_id=call.machine.entropy.handle("m_"),
            owner=call.caller.principal,
            sender=call.caller.pid or HOST,
            recipient=_recipient(tx, call, args.to),
            text=args.text,
            topic=args.topic,
            sent_at=call.now,
        )
        tx.message_insert(message)
        call.subject = message.recipient
        call.publish(
            Event(kind=EventKind.MESSAGE, subject=message.recipient, owner=message.owner, detail=message.message_id)
        )
        return r.SendResult(message_id=message.message_id)

    return await call.commit(work, brief=True)


def _recipient(tx: Transaction, call: Call, to: str) -> str:
    if call.caller.pid is None:
        if to in {HOST, "parent"}:
            raise Conflict("You are the host.", "Name the agent's pid.")
        target = call.find(tx, to)
    else:
        own = call.own(tx)
        if to == HOST or (to == "parent" and own.parent is None):
            return HOST
        found = tx.process_get(own.parent if to == "parent" and own.parent is not None else Pid(to))
        if found is None or found.owner != own.owner or found.program != own.program:
            raise NotFound(f"There is no process {to} in your tree.", "Use a pid you were given, 'parent' or 'host'.")
        target = found
    if target.state is ProcessState.EXITED:
        raise Conflict(f"{target.pid} has ended.", "Its result is in wait_agent.")
    if target.guest:
        raise Conflict(f"{target.pid} is a program of its own, which reads no messages.", "Speak to it yourself.")
    return target.pid
