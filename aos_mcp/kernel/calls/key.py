"""Keys of guests: issue, list, revoke. For the operator alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from aos_mcp.abi import arguments as a
from aos_mcp.abi import guest_results as g
from aos_mcp.abi.calls import ROWS
from aos_mcp.abi.capability import IsolationLevel, Rights
from aos_mcp.abi.errors import Conflict, Invalid, LimitExceeded, NotFound
from aos_mcp.abi.guest import GuestKey
from aos_mcp.abi.handle import Pid, workspace_of
from aos_mcp.abi.limits import GUEST_KEYS_MAX, LIST_MAX
from aos_mcp.abi.process import ExitCode, Process, ProcessState
from aos_mcp.abi.syscall import Audience
from aos_mcp.kernel import guests, table
from aos_mcp.kernel.call import Call
from aos_mcp.kernel.calls.process import asked_budget, check_room, host_rights, open_account
from aos_mcp.kernel.retry import chain_of
from aos_mcp.ports import Transaction
from aos_mcp.security.rights import attenuate

GUEST_CALLS = tuple(row.name for row in ROWS if row.audience is Audience.GUESTS)


async def issue(call: Call, args: a.IssueKeyArgs) -> g.IssueKeyResult:
    """Make a key: of a new guest, of a new guest under an agent, or one more of a guest that there is."""
    asked = chain_of(args.model) if args.model else await call.read(lambda tx: _models_above(tx, call, args.pid))
    asked = asked or chain_of(await call.machine.models.default())
    chain = [(await call.machine.models.resolve(name).describe()).name for name in asked]
    secret = call.machine.entropy.handle(guests.SECRET_PREFIX)
    return await call.commit(lambda tx: _issue(tx, call, args, chain, secret))


def _models_above(tx: Transaction, call: Call, pid: str | None) -> tuple[str, ...]:
    if pid is None:
        return ()
    above = call.find(tx, pid)
    return (above.model, *above.fallbacks)


def _issue(tx: Transaction, call: Call, args: a.IssueKeyArgs, chain: Sequence[str], secret: str) -> g.IssueKeyResult:
    named = call.find(tx, args.pid) if args.pid is not None else None
    if named is not None and named.state is ProcessState.EXITED:
        raise Conflict(f"{named.pid} has ended.", "Issue a key for a process that lives, or a new one with a name.")
    if named is not None and named.guest:
        guest = _again(tx, named, args)
    else:
        guest = _guest(tx, call, args, named, chain)
    key = GuestKey(
        key_id=call.machine.entropy.handle("gk_"), digest=guests.digest_of(secret), pid=guest.pid, created_at=call.now
    )
    tx.guest_key_insert(key)
    call.subject = guest.pid
    call.after.append(lambda: call.machine.process_changed(guest))
    return g.IssueKeyResult(pid=guest.pid, key_id=key.key_id, key=secret, name=guest.name, model=guest.model)


def _again(tx: Transaction, guest: Process, args: a.IssueKeyArgs) -> Process:
    if args.name or args.model or args.budget or args.priority is not None:
        raise Invalid(
            f"{guest.pid} has its name, model, priority and budget already.",
            "Name the pid alone for one more key, or leave the pid out for a new process.",
        )
    if len(guests.live_keys(tx, guest)) >= GUEST_KEYS_MAX:
        raise LimitExceeded(f"{guest.pid} has {GUEST_KEYS_MAX} keys.", "Revoke one first: aos gateway revoke.")
    return guest


def _guest(tx: Transaction, call: Call, args: a.IssueKeyArgs, parent: Process | None, chain: Sequence[str]) -> Process:
    check_room(tx, parent)
    pid = Pid(call.machine.entropy.handle("p_"))
    guest = Process(
        pid=pid,
        parent=parent.pid if parent else None,
        program=parent.program if parent else pid,
        owner=call.caller.principal,
        name=args.name or "guest",
        agent=None,
        state=ProcessState.BLOCKED,
        model=chain[0],
        fallbacks=tuple(chain[1:]),
        priority=_priority(args, parent),
        depth=parent.depth + 1 if parent else 0,
        rights=_rights(parent.rights if parent else host_rights(call)),
        workspace=workspace_of(pid),
        waiting_for=guests.WAITING_FOR,
        guest=True,
        created_at=call.now,
        updated_at=call.now,
    )
    open_account(tx, call, guest, asked_budget(args.budget, None))
    return guest


def _priority(args: a.IssueKeyArgs, parent: Process | None) -> int:
    if args.priority is not None:
        return args.priority
    return parent.priority if parent is not None else 50


def _rights(above: Rights) -> Rights:
    """Return a guest's rights: its model calls and nothing else, whatever it is under."""
    own = Rights(tools=(("*",),), network=above.network)
    return attenuate(own, tools=GUEST_CALLS, network=[], level=IsolationLevel.READ_ONLY, spawn=False)


async def list_keys(call: Call, args: a.ListKeysArgs) -> g.KeysResult:
    """List keys, newest first; never the secrets, which nobody has."""

    def work(tx: Transaction) -> g.KeysResult:
        pid = call.find(tx, args.pid).pid if args.pid is not None else None
        rows = []
        for key in tx.guest_key_list(owner=call.caller.principal, pid=pid, limit=LIST_MAX):
            guest = tx.process_get(key.pid)
            assert guest is not None, "a key is of a process"
            rows.append(
                g.KeyRow(
                    key_id=key.key_id,
                    pid=guest.pid,
                    name=guest.name,
                    state=guest.state,
                    model=guest.model,
                    created_at=key.created_at,
                    revoked_at=key.revoked_at,
                )
            )
        return g.KeysResult(keys=rows)

    return await call.read(work)


async def revoke(call: Call, args: a.RevokeKeyArgs) -> g.RevokeKeyResult:
    """Revoke a key. A guest without another one ends: nobody could ever speak for it again."""

    def work(tx: Transaction) -> g.RevokeKeyResult:
        key = tx.guest_key_get(args.key_id)
        guest = tx.process_get(key.pid) if key is not None else None
        if key is None or guest is None or guest.owner != call.caller.principal:
            raise NotFound(f"There is no key {args.key_id}.", "List them with: aos gateway keys.")
        if key.revoked_at is None:
            tx.guest_key_put(replace(key, revoked_at=call.now))
        call.subject = guest.pid
        if guest.state is not ProcessState.EXITED and not guests.live_keys(tx, guest):
            guest = table.end(tx, guest, now=call.now, code=ExitCode.DONE, reason="its last key was revoked")
            call.after.append(lambda: call.machine.cut(guest.pid))
            call.after.append(lambda: call.machine.process_changed(guest))
        return g.RevokeKeyResult(key_id=key.key_id, pid=guest.pid, state=guest.state)

    return await call.commit(work)
