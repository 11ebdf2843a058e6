"""The scheduler from outside: which policy, and who had which turn and why."""

from __future__ import annotations

from aos_mcp.abi import arguments as a
from aos_mcp.abi import results as r
from aos_mcp.abi.process import Process
from aos_mcp.kernel.call import Call
from aos_mcp.kernel.machine import Machine
from aos_mcp.ports import Transaction

POLICY_FACT = "scheduler.policy"
"""What the policy was switched to at run time; empty: the configured one."""


def policy_on_record(tx: Transaction, machine: Machine) -> str:
    """Return the policy that holds: what it was switched to, else what is configured."""
    return tx.fact_get(POLICY_FACT) or machine.settings.scheduler


async def set_policy(call: Call, args: a.SetPolicyArgs) -> r.PolicyResult:
    """Switch the scheduler's policy; the next pick goes by it, and so does every later kernel on this store."""
    machine = call.machine

    def work(tx: Transaction) -> r.PolicyResult:
        tx.fact_put(POLICY_FACT, args.policy or "")
        now = policy_on_record(tx, machine)
        call.subject = now
        call.after.append(lambda: _switch(machine, now))
        return r.PolicyResult(policy=now, configured=machine.settings.scheduler)

    return await call.commit(work)


def _switch(machine: Machine, policy: str) -> None:
    machine.policy = policy
    machine.wake()


async def read_timeline(call: Call, args: a.ReadTimelineArgs) -> r.TimelineResult:
    """Show who had which turn and why, with the journal's steps in it."""

    def work(tx: Transaction) -> r.TimelineResult:
        named = [call.find(tx, pid) for pid in args.pids]
        picks = tx.pick_list([process.pid for process in named], limit=args.limit)
        known: dict[str, Process | None] = {process.pid: process for process in named}
        for pick in picks:
            if pick.pid not in known:
                process = tx.process_get(pick.pid)
                known[pick.pid] = process if process is not None and process.owner == call.caller.principal else None
        rows = [process for process in known.values() if process is not None]
        return r.TimelineResult(
            now=call.now,
            agents=[_agent(tx, process, args.steps) for process in sorted(rows, key=lambda p: (p.created_at, p.pid))],
            picks=[r.PickRow(pid=p.pid, since=p.since, at=p.at, why=p.why) for p in picks if known[p.pid] is not None],
        )

    return await call.read(work)


def _agent(tx: Transaction, process: Process, steps: int) -> r.TimelineAgent:
    last = tx.step_last(process.pid, limit=steps) if steps else []
    return r.TimelineAgent(
        pid=process.pid,
        name=process.name,
        state=process.state,
        exit_code=process.exit_code,
        since=process.since if process.since is not None else process.created_at,
        created_at=process.created_at,
        ended_at=process.ended_at,
        steps=[
            r.TimelineStep(call=step.call, state=step.state, started_at=step.started_at, ended_at=step.ended_at)
            for step in last
        ],
    )
