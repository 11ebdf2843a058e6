"""Processes: spawn, wait, list, signal, exit, and reading them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

from aos_mcp.abi import arguments as a
from aos_mcp.abi import history as h
from aos_mcp.abi import results as r
from aos_mcp.abi.budget import WORKSPACE_ACCOUNT, Account, Budget
from aos_mcp.abi.capability import CallerKind, Rights
from aos_mcp.abi.definition import AgentDefinition
from aos_mcp.abi.errors import Cancelled, Conflict, Denied, LimitExceeded, NotFound
from aos_mcp.abi.event import Event, EventKind
from aos_mcp.abi.handle import Pid, workspace_of
from aos_mcp.abi.limits import (
    PROCESS_CHILDREN_MAX,
    PROCESS_DEPTH_MAX,
    PROCESS_LIVE_MAX,
    WAIT_S_MAX,
)
from aos_mcp.abi.message import HOST
from aos_mcp.abi.page import PageKind
from aos_mcp.abi.process import ExitCode, Process, ProcessState, Signal, sched_class
from aos_mcp.kernel import budget, dependents, guests, journal, pages, table
from aos_mcp.kernel.blocking import blocked, refuse_when_finishing
from aos_mcp.kernel.call import Call, caller_pid, check_model
from aos_mcp.kernel.calls import views
from aos_mcp.kernel.retry import chain_of
from aos_mcp.ports import Transaction
from aos_mcp.security.rights import attenuate

MESSAGES_PER_WAIT_MAX = 20
PROGRESS_S = 1.0


async def spawn(call: Call, args: a.SpawnArgs) -> r.SpawnResult:
    """Create a process, READY, with a share of its parent's budget and no more than its parent's rights."""
    keyed = args.idempotency_key is not None
    if keyed and await call.read(lambda tx: _same(tx, call, args), brief=True) is not None:
        result = await call.commit(lambda tx: _again(tx, call, args), brief=True)
    else:
        definition, chain = await prepare(call, args)
        result = await call.commit(lambda tx: create(tx, call, args, definition, chain), brief=True)
    if args.wait_s > 0:
        done = await _until_ended(call, result.pid, args.wait_s)
        result = r.SpawnResult(
            pid=done.pid, state=done.state, uri=result.uri, result=done.result, exit_code=done.exit_code
        )
    return result


async def prepare(call: Call, args: a.SpawnArgs) -> tuple[AgentDefinition | None, list[str]]:
    """Return what a spawn needs from outside the store: its definition, if it names one, and its models.

    Raises:
        NotFound, Unavailable: one of them is not to be had.
    """
    definition = _definition(call, args)
    model = args.model or (definition.model if definition else None)
    if model is not None:
        for name in chain_of(model):
            check_model(call, name)
    elif call.caller.pid is not None:
        own = await call.read(call.own, brief=True)
        model = ",".join((own.model, *own.fallbacks))
    model = model or await call.machine.models.default()
    chain = [(await call.machine.models.resolve(name).describe()).name for name in chain_of(model)]
    call.machine.models.warm(chain[0])
    return definition, chain


def _definition(call: Call, args: a.SpawnArgs) -> AgentDefinition | None:
    if args.agent is None:
        return None
    known = call.machine.definitions(call.caller.project)
    if args.agent not in known:
        names = ", ".join(sorted(known)) or "none"
        raise NotFound(f"There is no agent definition {args.agent!r}.", f"Known ones: {names}.")
    return known[args.agent]


def create(
    tx: Transaction,
    call: Call,
    args: a.SpawnArgs,
    definition: AgentDefinition | None,
    chain: Sequence[str],
    *,
    payer: str = WORKSPACE_ACCOUNT,
) -> r.SpawnResult:
    """Make the process; `payer` is the account above a process without a parent."""
    owner, now = call.caller.principal, call.now
    if _same(tx, call, args) is not None:
        return _again(tx, call, args)
    parent = call.own(tx) if call.caller.pid is not None else None
    key = _spawn_key(parent, args.idempotency_key)
    check_room(tx, parent)
    before = list({target.pid: target for target in (_before(tx, call, handle) for handle in args.after)}.values())
    pid = Pid(call.machine.entropy.handle("p_"))
    network = args.network if args.network is not None else _listed(definition.network if definition else None)
    tools = args.tools if args.tools is not None else _listed(definition.tools if definition else None)
    above = parent.rights if parent is not None else host_rights(call)
    process = Process(
        pid=pid,
        parent=parent.pid if parent else None,
        program=parent.program if parent else pid,
        owner=owner,
        name=args.name or (definition.name if definition else pages.title_of(args.task)[:40]),
        agent=definition.name if definition else None,
        state=ProcessState.READY,
        model=chain[0],
        fallbacks=tuple(chain[1:]),
        priority=definition.priority
        if definition and definition.priority is not None and "priority" not in args.model_fields_set
        else args.priority,
        depth=parent.depth + 1 if parent else 0,
        rights=attenuate(above, tools=tools, network=network, level=None),
        workspace=workspace_of(pid),
        position=0,
        idempotency_key=key,
        created_at=now,
        updated_at=now,
    )
    process = dependents.waiting(process, before)
    asked = asked_budget(args.budget, definition.budget if definition else None)
    open_account(tx, call, process, asked, payer=payer)
    _first_pages(tx, call, process, args.task, definition)
    dependents.follow(tx, process, before)
    call.subject = pid
    call.after.append(lambda: call.machine.process_changed(process))
    return r.SpawnResult(pid=pid, state=process.state, uri=f"aos://proc/{pid}")


def _same(tx: Transaction, call: Call, args: a.SpawnArgs) -> Process | None:
    """Return the process that this very spawn made before, as its key says."""
    if args.idempotency_key is None:
        return None
    parent = call.own(tx) if call.caller.pid is not None else None
    key = _spawn_key(parent, args.idempotency_key)
    return tx.process_by_key(call.caller.principal, key) if key is not None else None


def _again(tx: Transaction, call: Call, args: a.SpawnArgs) -> r.SpawnResult:
    """Answer a spawn that was made before; neither its models nor its definition need be there any more.

    Raises:
        Conflict: the process was forgotten just now.
    """
    known = _same(tx, call, args)
    if known is None:
        raise Conflict("The agent of this key was forgotten just now.", "Send it again: another one is made.")
    call.subject = known.pid
    shown = views.agent(tx, known)
    return r.SpawnResult(
        pid=known.pid,
        state=known.state,
        uri=f"aos://proc/{known.pid}",
        result=shown.result,
        exit_code=shown.exit_code,
    )


def _before(tx: Transaction, call: Call, handle: str) -> Process:
    """Return a process that another starts after.

    Raises:
        NotFound: there is none that is the caller's.
        Denied: it is the caller or above it, and would be waited for by what it waits for.
    """
    process = call.find(tx, handle)
    if call.caller.pid is not None and table.is_within(tx, call.own(tx), process.pid):
        raise Denied("An agent's child does not start after the agent.", "Name agents that you spawned.")
    return process


def _spawn_key(parent: Process | None, key: str | None) -> str | None:
    """Return the key as the owner's processes are told apart by it: an agent's keys are its own, nobody else's."""
    return key if key is None or parent is None else f"{parent.pid}/{key}"


def _listed(values: tuple[str, ...] | None) -> list[str] | None:
    return None if values is None else list(values)


def host_rights(call: Call) -> Rights:
    """Return what a host may hand to the agents it spawns: everything the operator's configuration admits."""
    sandbox = call.machine.settings.sandbox
    return Rights(network=(tuple(sandbox.network),), level=sandbox.level)


def check_room(tx: Transaction, parent: Process | None) -> None:
    """Check the fixed bounds on depth and count.

    Raises:
        LimitExceeded, Denied: one of them stands in the way.
    """
    if tx.process_count(states=table.LIVE) >= PROCESS_LIVE_MAX:
        raise LimitExceeded(f"{PROCESS_LIVE_MAX} agents are alive.", "Wait for some to end, or end some.")
    if parent is None:
        return
    if not parent.rights.spawn:
        raise Denied("This agent may not spawn others.", "Do the work yourself.")
    if parent.finishing or parent.pending is Signal.TERM:
        raise Denied("This agent has been asked to finish.", "Exit with what you have.")
    if parent.depth + 1 > PROCESS_DEPTH_MAX:
        raise LimitExceeded(f"Agents nest at most {PROCESS_DEPTH_MAX} deep.", "Do the work yourself.")
    if tx.process_count(states=table.LIVE, parent=parent.pid) >= PROCESS_CHILDREN_MAX:
        raise LimitExceeded(f"{PROCESS_CHILDREN_MAX} children are alive.", "Wait for some of them first.")


def asked_budget(asked: a.BudgetArgs | None, definition: Budget | None) -> Budget:
    """Merge what the caller asks for with what the definition says; None where neither does."""
    own = asked or a.BudgetArgs()
    base = definition or Budget()
    return Budget(
        microusd=budget.microusd(own.usd) if own.usd is not None else base.microusd,
        tokens=own.tokens if own.tokens is not None else base.tokens,
        turns=own.turns if own.turns is not None else base.turns,
        tool_calls=own.tool_calls if own.tool_calls is not None else base.tool_calls,
        wall_s=own.wall_s if own.wall_s is not None else base.wall_s,
    )


def open_account(
    tx: Transaction, call: Call, process: Process, asked: Budget, *, payer: str = WORKSPACE_ACCOUNT
) -> None:
    """Store a new process and open its account under its parent's, or under the payer's where it has none."""
    above = process.parent or payer
    available = budget.left_of_chain(tx.account_chain(above))
    default = budget.as_budget(call.machine.settings.budget)
    if process.guest:  # it has no task to be done with, so no number of turns and no time that would be enough
        default = Budget(microusd=default.microusd, tokens=default.tokens)
    limit = budget.within(asked, default, available)
    budget.check_alive(limit, asked)
    tx.process_insert(process)
    tx.account_insert(Account(account=process.pid, parent=above, limit=limit, opened_at=call.now))


def _first_pages(tx: Transaction, call: Call, process: Process, task: str, definition: AgentDefinition | None) -> None:
    texts = [(PageKind.TASK, task)]
    if definition is not None and definition.prompt.strip():
        texts.insert(0, (PageKind.SYSTEM, definition.prompt.strip()))
    for position, (kind, text) in enumerate(texts):
        pages.make(
            tx,
            page_id=call.machine.entropy.handle("pg_"),
            pid=process.pid,
            owner=process.owner,
            kind=kind,
            body=text.encode(),
            text=text,
            position=position,
            now=call.now,
            source=call.caller.pid or HOST,
            importance=1.0,
            pinned=True,
        )
    tx.process_put(replace(process, position=len(texts)))


async def wait(call: Call, args: a.WaitArgs) -> r.WaitResult:
    """Wait until the agents have ended, a message comes in for the caller, or time is up."""
    return await _wait(call, args.pids, timeout_s=args.timeout_s, any_one=args.mode == "any")


async def _wait(call: Call, pids: list[str], *, timeout_s: float, any_one: bool) -> r.WaitResult:
    machine = call.machine
    deadline = machine.clock.monotonic() + min(timeout_s, WAIT_S_MAX)
    found = await call.read(lambda tx: _look(tx, call, pids), brief=True)
    if not _enough(found, any_one=any_one) and timeout_s > 0:
        pids = [agent.pid for agent in found]
        lends_to = [Pid(pid) for pid in pids]
        async with blocked(call, "agents " + ", ".join(pids) if pids else "a message", lends_to):
            found, timed_out = await _watch(call, pids, deadline, any_one=any_one, mail=not _only_looks(call))
    else:
        timed_out = not _enough(found, any_one=any_one)
    # Mail is taken in the transaction that puts the answer on record: neither is there without the other.
    call.completion = lambda tx: _with_mail(tx, call, found, timed_out)
    return r.WaitResult(agents=found, timed_out=timed_out)


def _with_mail(tx: Transaction, call: Call, found: list[r.AgentResult], timed_out: bool) -> r.WaitResult:
    messages = _mail(tx, call)
    if _only_looks(call):
        own = {agent.pid for agent in found}
        shown = [message for message in messages if message.sender in own]
        return r.WaitResult(agents=found, timed_out=timed_out, messages=shown)
    return r.WaitResult(agents=found, timed_out=timed_out and not messages, messages=messages)


async def _until_ended(call: Call, pid: str, wait_s: float) -> r.AgentResult:
    """Wait for one agent alone: mail stays where it is. Never fails: whoever asks has a pid to be told of."""
    deadline = call.machine.clock.monotonic() + min(wait_s, WAIT_S_MAX)
    try:
        async with blocked(call, f"agents {pid}", [Pid(pid)]):
            found, _ = await _watch(call, [pid], deadline, any_one=False, mail=False)
    except Cancelled:
        found = await call.read(lambda tx: _look(tx, call, [pid]), brief=True)
    return found[0]


async def _watch(
    call: Call, pids: list[str], deadline: float, *, any_one: bool, mail: bool
) -> tuple[list[r.AgentResult], bool]:
    machine = call.machine
    with machine.bus.listen() as events:
        while True:
            found = await call.read(lambda tx: _look(tx, call, pids), brief=True)
            if _enough(found, any_one=any_one) or (
                mail and await call.read(lambda tx: _has_mail(tx, call), brief=True)
            ):
                return found, False
            now = machine.clock.monotonic()
            if now >= deadline:
                return found, True
            await call.read(lambda tx: refuse_when_finishing(tx, call), brief=True)
            if call.progress is not None:
                ended = sum(agent.state is ProcessState.EXITED for agent in found)
                await call.progress(ended, len(found), _summary(found))
            subjects = {_mailbox(call), *(agent.pid for agent in found)}
            with anyio.move_on_after(min(deadline - now, PROGRESS_S)):
                await _until_about(events, subjects)


async def _until_about(events: MemoryObjectReceiveStream[Event], subjects: set[str]) -> None:
    async for event in events:
        if event.subject in subjects and event.kind in {EventKind.PROCESS, EventKind.MESSAGE}:
            return


def _look(tx: Transaction, call: Call, pids: list[str]) -> list[r.AgentResult]:
    found = [call.find(tx, pid) for pid in pids]
    if any(process.pid == call.caller.pid for process in found):
        raise Denied("An agent does not wait for itself.", "Wait for pids that you were given; end with exit.")
    return [views.agent(tx, process) for process in found]


def _enough(found: list[r.AgentResult], *, any_one: bool) -> bool:
    ended = [agent.state is ProcessState.EXITED for agent in found]
    return bool(ended) and (any(ended) if any_one else all(ended))


def _summary(found: list[r.AgentResult]) -> str:
    return "; ".join(f"{agent.name}: {agent.state}, {agent.usage.turns} turns" for agent in found)


def _mailbox(call: Call) -> str:
    return call.caller.pid or HOST


def _only_looks(call: Call) -> bool:
    """The command line shows the host's mail and leaves it there: the host it was meant for still gets it."""
    return call.caller.kind is CallerKind.OPERATOR


def _has_mail(tx: Transaction, call: Call) -> bool:
    return tx.message_count(_mailbox(call), call.caller.principal) > 0


def _mail(tx: Transaction, call: Call) -> list[r.MessageResult]:
    if _only_looks(call):
        waiting = tx.message_waiting(HOST, call.caller.principal, limit=MESSAGES_PER_WAIT_MAX)
        return [views.message(row) for row in waiting]
    taken = tx.message_take(_mailbox(call), call.caller.principal, call.now, limit=MESSAGES_PER_WAIT_MAX)
    return [views.message(row) for row in taken]


async def list_agents(call: Call, args: a.ListArgs) -> r.ListResult:
    """List the caller's processes, newest first."""

    def work(tx: Transaction) -> r.ListResult:
        parent = call.find(tx, args.parent).pid if args.parent else None
        program = call.own(tx).program if call.caller.pid is not None else None
        rows = tx.process_list(
            owner=call.caller.principal,
            states=[args.state] if isinstance(args.state, ProcessState) else args.state or (),
            parent=parent,
            program=program,
            after=_decode_cursor(args.cursor),
            limit=args.limit,
        )
        pids = [row.pid for row in rows]
        accounts, unknown = tx.accounts_get(pids), tx.step_unknown(pids)
        last = rows[-1] if len(rows) == args.limit else None
        return r.ListResult(
            agents=[views.agent_row(row, accounts.get(row.pid), unknown.get(row.pid, []), call.now) for row in rows],
            next_cursor=f"{last.created_at!r}~{last.pid}" if last else None,
        )

    return await call.read(work, brief=True)


def _decode_cursor(cursor: str | None) -> tuple[float, str] | None:
    if cursor is None:
        return None
    at, _, pid = cursor.partition("~")
    try:
        return float(at), pid
    except ValueError:
        raise NotFound("This cursor is not one of ours.", "List again without a cursor.") from None


async def signal(call: Call, args: a.SignalArgs) -> r.SignalResult:
    """Send a signal to a process and, by default, its descendants."""

    def work(tx: Transaction) -> r.SignalResult:
        process = call.find(tx, args.pid)
        if process.pid == call.caller.pid:
            raise Denied("An agent does not signal itself.", "End with exit(result=...).")
        targets = table.subtree(tx, process) if args.tree else [process]
        moved = [_send(tx, call, target, args) for target in targets if target.state is not ProcessState.EXITED]
        if not moved and args.signal is Signal.CONT:
            raise Conflict(f"{process.pid} has ended.", "Restore a checkpoint of it instead.")
        after = tx.process_get(process.pid)
        assert after is not None
        return r.SignalResult(pid=process.pid, state=after.state, signalled=len(moved))

    return await call.commit(work)


def _send(tx: Transaction, call: Call, target: Process, args: a.SignalArgs) -> Process:
    now, reason = call.now, call.machine.redact(args.reason or f"{args.signal} by {call.caller.kind}")
    active = target.state in {ProcessState.RUNNING, ProcessState.BLOCKED}
    if args.signal is Signal.KILL:
        moved = table.end(tx, target, now=now, code=ExitCode.KILLED, reason=reason)
        call.after.append(lambda: call.machine.cut(target.pid))
    elif target.guest:
        moved = guests.signalled(tx, target, args.signal, now=now, reason=reason)
        if moved.state is ProcessState.EXITED:
            call.after.append(lambda: call.machine.cut(target.pid))
    elif args.signal is Signal.CONT and target.state is ProcessState.STOPPED:
        moved = table.transition(tx, target, ProcessState.READY, now=now)
    elif args.signal is Signal.CONT:
        moved = tx.process_put(replace(target, pending=None)) if target.pending is Signal.STOP else target
    elif args.signal is Signal.TERM and dependents.has_yet_to_start(target):
        moved = table.end(tx, target, now=now, code=ExitCode.TERMINATED, reason=reason)
    elif args.signal is Signal.STOP and (target.pending is Signal.TERM or target.finishing):
        moved = target  # It is about to finish, as it was asked to: a stop would only hide that it was.
    elif args.signal is Signal.STOP and target.state is ProcessState.READY:
        moved = table.transition(tx, target, ProcessState.STOPPED, now=now)
    elif args.signal is Signal.STOP:
        moved = tx.process_put(replace(target, pending=Signal.STOP)) if active else target
    elif target.state is ProcessState.STOPPED:
        moved = table.transition(
            tx, target, ProcessState.READY, now=now, pending=Signal.TERM, exit_reason=reason, wake_at=None
        )
    else:
        moved = tx.process_put(replace(target, pending=Signal.TERM, exit_reason=reason, wake_at=None))
    call.after.append(lambda: call.machine.process_changed(moved))
    return moved


async def exit_(call: Call, args: a.ExitArgs) -> r.ExitResult:
    """End the calling agent with a result."""
    pid = caller_pid(call)

    def work(tx: Transaction) -> r.ExitResult:
        journal.record(
            tx,
            call.own(tx),
            call="exit",
            effect=call.row.effect,
            intent=call.intent(),
            result=b'{"ok":true}',
            now=call.now,
            request_id=call.request_id,
        )
        process = call.own(tx)
        pages.keep_result(tx, process, args.result, entropy=call.machine.entropy, now=call.now)
        code = ExitCode.FAILED if args.failed else ExitCode.DONE
        ended = table.end(
            tx,
            process,
            now=call.now,
            code=code,
            reason="the agent gave up" if args.failed else "finished",
            result=tx.payload_put(args.result.encode()),
        )
        call.subject = pid
        call.after.append(lambda: call.machine.process_changed(ended))
        return r.ExitResult()

    return await call.commit(work, brief=True)


async def read_process(call: Call, args: a.PidArgs) -> r.ProcessResult:
    """Show everything about one process."""

    def work(tx: Transaction) -> r.ProcessResult:
        process = call.find(tx, args.pid)
        account = tx.account_get(process.pid)
        limit = account.limit if account else Budget()
        shown = views.agent(tx, process).model_dump()
        return r.ProcessResult(
            **shown,
            priority=process.priority,
            sched_class=sched_class(process.priority).name.lower(),
            times=views.times(process, account, call.now),
            parent=process.parent,
            children=[child.pid for child in tx.process_children(process.pid)],
            program=process.program,
            agent=process.agent,
            depth=process.depth,
            tools=[list(layer) for layer in process.rights.tools],
            workspace=process.workspace,
            step=process.step,
            budget={
                "usd": None if limit.microusd is None else limit.microusd / budget.MICRO,
                "tokens": limit.tokens,
                "turns": limit.turns,
                "tool_calls": limit.tool_calls,
                "wall_s": limit.wall_s,
            },
            created_at=process.created_at,
            ended_at=process.ended_at,
            forked_from=process.forked_from,
            checkpoints=[row.checkpoint_id for row in tx.checkpoint_list(process.pid, limit=20)],
        )

    return await call.read(work)


async def read_journal(call: Call, args: a.ReadJournalArgs) -> h.JournalResult:
    """Show a piece of a journal."""

    def work(tx: Transaction) -> h.JournalResult:
        process = call.find(tx, args.pid)
        steps = tx.step_list(process.pid, after=args.after, limit=args.limit)
        return h.JournalResult(pid=process.pid, steps=[views.step(row) for row in steps])

    return await call.read(work)
