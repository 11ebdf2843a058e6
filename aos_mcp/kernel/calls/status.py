"""The kernel about itself."""

from __future__ import annotations

from aos_mcp.abi import arguments as a
from aos_mcp.abi import results as r
from aos_mcp.abi.budget import WORKSPACE_ACCOUNT
from aos_mcp.abi.errors import Unavailable
from aos_mcp.kernel.budget import MICRO
from aos_mcp.kernel.call import Call
from aos_mcp.kernel.calls import views
from aos_mcp.kernel.calls.mount import mount_rows
from aos_mcp.kernel.calls.policy import pending
from aos_mcp.kernel.lane import BreakerState, Lane
from aos_mcp.kernel.machine import Machine
from aos_mcp.ports import Transaction


async def kernel_status(call: Call, args: a.NoArgs) -> r.StatusResult:
    """Show what runs, what is configured, and what was proven."""
    machine = call.machine
    default = await _default(call)

    def work(tx: Transaction) -> r.StatusResult:
        return r.StatusResult(
            version=machine.version,
            node=machine.node,
            uptime_s=round(machine.clock.now() - machine.started_at, 3),
            agents={state: count for state, count in tx.process_counts().items() if count},
            policy=machine.policy,
            default_model=default,
            providers=[
                r.ProviderRow(name=name, ready=ready, lane=_lane(machine, name))
                for name, ready in machine.models.providers()
            ],
            mounts=mount_rows(machine),
            sandbox=_sandbox(call),
            budget=_budget(tx),
            approvals=pending(tx, call),
            audit_head=views.audit_head(tx.audit_head()),
        )

    return await call.read(work)


def _lane(machine: Machine, provider: str) -> str | None:
    lanes = machine.admission.lanes()
    own = {name: lane for name, lane in lanes.items() if name.partition("/")[0] == provider}
    told = [(f"{name}: " if name != provider else "") + _of_lane(machine, lane) for name, lane in own.items()]
    return "; ".join(told) or None


def _of_lane(machine: Machine, lane: Lane) -> str:
    blocked_s = lane.blocked_s(machine.clock.now())
    words = [f"{len(lane.in_flight)} of {int(lane.window)} calls at once", f"{lane.waiting} waiting"]
    if lane.breaker.state is not BreakerState.CLOSED:
        words.append(f"breaker {lane.breaker.state}")
    if blocked_s > 0:
        words.append(f"left alone for {blocked_s:.1f} s")
    words += [f"{bucket.per_min:g} {name} a minute" for name, bucket in lane.buckets.items()]
    return ", ".join(words)


async def _default(call: Call) -> str | None:
    try:
        return await call.machine.models.default()
    except Unavailable:
        return None


def _sandbox(call: Call) -> r.SandboxStatus:
    machine = call.machine
    if not machine.sandbox_tried.is_set():
        return r.SandboxStatus(driver=None, reason="The drivers are being proven.")
    proof = machine.sandbox.proven()
    if proof is None:
        failed = machine.sandbox_failures
        return r.SandboxStatus(
            driver=None,
            reason="; ".join(f"{one.driver}: {one.reason}" for one in failed),
            repair=" ".join(one.repair for one in failed if one.repair),
        )
    return r.SandboxStatus(driver=proof.driver, memory_limit=proof.memory_limit)


def _budget(tx: Transaction) -> r.BudgetRow:
    account = tx.account_get(WORKSPACE_ACCOUNT)
    assert account is not None, "the workspace account is opened at boot"
    return r.BudgetRow(
        account=WORKSPACE_ACCOUNT,
        usd=account.used.microusd / MICRO,
        usd_limit=None if account.limit.microusd is None else account.limit.microusd / MICRO,
        tokens=account.used.tokens,
        tokens_limit=account.limit.tokens,
    )


async def read_metrics(call: Call, args: a.NoArgs) -> r.MetricsResult:
    """Return the metrics in the Prometheus text form."""
    counts = await call.read(lambda tx: tx.process_counts())
    for state, count in counts.items():
        call.machine.metrics.processes.labels(state).set(count)
    metrics = call.machine.metrics
    now = call.machine.clock.now()
    for name, lane in call.machine.admission.lanes().items():
        metrics.lane_window.labels(name).set(lane.window)
        metrics.lane_in_flight.labels(name).set(len(lane.in_flight))
        metrics.lane_waiting.labels(name).set(lane.waiting)
        metrics.lane_blocked.labels(name).set(lane.blocked_s(now))
        metrics.lane_breaker.labels(name).set(lane.breaker.state is not BreakerState.CLOSED)
        for kind, bucket in lane.buckets.items():
            metrics.lane_limit.labels(name, kind).set(bucket.per_min)
    return r.MetricsResult(text=metrics.text())
