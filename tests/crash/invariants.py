"""What must hold after a kernel died and its store was booted again, whatever the moment was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aos_mcp.abi.approval import Approval, ApprovalState
from aos_mcp.abi.audit import AuditHead, AuditRecord
from aos_mcp.abi.budget import WORKSPACE_ACCOUNT, Usage
from aos_mcp.abi.journal import MODEL_CALL, SUMMARY, EffectClass, Step, StepState
from aos_mcp.abi.page import PageKind
from aos_mcp.abi.process import Process, ProcessState
from aos_mcp.audit.chain import load_key, parse_head
from aos_mcp.audit.verify import verify
from aos_mcp.kernel.journal import question_about
from aos_mcp.ports import Transaction
from aos_mcp.testing.kernels import AUDIT_KEY, OWNER
from aos_mcp.testing.model import PRICE
from tests.crash.life import Scenario, ledger_of

EVERY = 10_000
CALL_MICROUSD = 200
"""What a scripted model's call is billed."""


def outcome(tx: Transaction) -> dict[str, Any]:
    """Return what the run came to, without what differs from one run to the next: handles, times, repetitions."""
    rows = tx.process_list(limit=EVERY)
    return {
        "processes": sorted(
            [row.name, str(row.exit_code), (tx.payload_get(row.result) or b"").decode() if row.result else ""]
            for row in rows
        ),
        "messages": sorted(message.text for message in tx.message_waiting("host", OWNER, limit=EVERY)),
        # A kernel that dies between an answer's claim and the act asks the person again: how often is no outcome.
        # What became of an unknown step is asked too, and nobody answers here.
        "approvals": sorted({row.state.value for row in asked(tx) if row.state is not ApprovalState.PENDING}),
    }


def asked(tx: Transaction) -> list[Approval]:
    return tx.approval_list(owner=OWNER, states=list(ApprovalState), limit=EVERY)


def broken(tx: Transaction, scenario: Scenario, home: Path, undisturbed: dict[str, Any], deaths: int) -> list[str]:
    """Return what does not hold, in words."""
    rows = tx.process_list(limit=EVERY)
    steps = {row.pid: tx.step_list(row.pid, limit=EVERY) for row in rows}
    return [
        *effects(scenario, ledger_of(home), [step for each in steps.values() for step in each]),
        *questions(asked(tx), [step for each in steps.values() for step in each]),
        *consent(scenario, ledger_of(home), asked(tx)),
        *lives(rows, steps),
        *money(tx, rows, steps, deaths),
        *summaries(tx, rows, steps),
        *evidence(tx, rows, steps, home),
        *same(outcome(tx), undisturbed, scenario),
    ]


def effects(scenario: Scenario, ledger: Sequence[str], steps: Sequence[Step]) -> list[str]:
    done = Counter(ledger)
    told = (StepState.UNKNOWN, StepState.FAILED)  # the second: a person was asked what became of it, and gave it up
    unknown = sum(step.effect is EffectClass.UNSAFE and step.state in told for step in steps)
    missing = [effect for effect in scenario.effects if effect not in done]
    found = [f"the unsafe effect {name} happened {count} times" for name, count in done.items() if count > 1]
    found += [f"the effect {name} was never asked for" for name in done if name not in scenario.effects]
    if len(missing) > unknown and not scenario.may_end_early:
        found.append(f"lost without a word: {missing}, and {unknown} steps are unknown")
    return found


def questions(rows: Sequence[Approval], steps: Sequence[Step]) -> list[str]:
    pending = sum(row.state is ApprovalState.PENDING for row in rows)
    unknown = sum(step.state is StepState.UNKNOWN for step in steps)
    return [f"{pending} questions wait, and {unknown} steps are unknown"] if pending > unknown else []


def consent(scenario: Scenario, ledger: Sequence[str], answers: Sequence[Approval]) -> list[str]:
    if not any(rule.effect == "ask" for rule in scenario.settings.rules):
        return []
    claimed = sum(row.state is ApprovalState.CLAIMED for row in answers)
    return [f"{len(ledger)} effects, and {claimed} answers were claimed"] if claimed < len(ledger) else []


def lives(rows: Sequence[Process], steps: dict[Any, list[Step]]) -> list[str]:
    found = []
    for row in rows:
        if row.state is not ProcessState.EXITED:
            found.append(f"{row.name} is {row.state}")
        if [step.number for step in steps[row.pid]] != list(range(row.step)):
            found.append(f"the journal of {row.name} has a gap")
        found += [
            f"step {step.number} of {row.name} was left open"
            for step in steps[row.pid]
            if step.state is StepState.INTENT
        ]
    return found


def money(tx: Transaction, rows: Sequence[Process], steps: dict[Any, list[Step]], deaths: int) -> list[str]:
    found = [f"reservation {held.reservation_id} is open" for held in tx.reservation_list()]
    own: dict[str, Usage] = {row.pid: Usage() for row in rows}
    for row in rows:
        account = tx.account_get(row.pid)
        assert account is not None
        below = [tx.account_get(other.pid) for other in rows if other.parent == row.pid]
        mine = difference(account.used, [child.used for child in below if child is not None])
        own[row.pid] = mine
        if (account.reserved_microusd, account.reserved_tokens) != (0, 0):
            found.append(f"{row.name} still holds {account.reserved_microusd} microusd")
        for name in ("turns", "microusd", "tokens", "tool_calls"):
            limit = getattr(account.limit, name)
            if limit is not None and getattr(account.used, name) > limit:
                found.append(f"{row.name} is overdrawn: {getattr(account.used, name)} {name} of {limit}")
        if row.guest:
            continue  # its program has the journal
        model = [
            step for step in steps[row.pid] if step.call in {MODEL_CALL, SUMMARY} and step.effect is EffectClass.LLM
        ]
        cut = sum(step.state is StepState.FAILED for step in model)
        billed = CALL_MICROUSD * sum(step.state is StepState.DONE for step in model)
        worst = cut * (row.finishing + deaths + 1) * round(100_000 * (PRICE.written + PRICE.output))
        # A call that a kill cut before it was sent gives its turn back; a crash charges it, also that of a summary.
        finished = sum(step.state is StepState.DONE and step.call == MODEL_CALL for step in model)
        if not finished <= mine.turns <= finished + cut:
            found.append(f"{row.name} was charged {mine.turns} turns and its journal has {finished}")
        if not billed <= mine.microusd <= billed + worst:
            found.append(f"{row.name} was charged {mine.microusd} microusd, its journal says {billed} and {cut} cut")
    workspace = tx.account_get(WORKSPACE_ACCOUNT)
    if workspace is not None and workspace.used != sum(own.values(), Usage()):
        found.append(f"the workspace was charged {workspace.used}, its agents {sum(own.values(), Usage())}")
    return found


def summaries(tx: Transaction, rows: Sequence[Process], steps: dict[Any, list[Step]]) -> list[str]:
    """Each summary that was paid for has its page, and each page its step."""
    found = []
    for row in rows:
        paid = [step for step in steps[row.pid] if step.call == SUMMARY and step.state is StepState.DONE]
        kept = [page.source for page in tx.page_table(row.pid) if page.kind is PageKind.SUMMARY]
        if sorted(kept) != sorted(f"{SUMMARY}:{row.pid}@{step.number}" for step in paid):
            found.append(f"{row.name} paid for {len(paid)} summaries and has {kept}")
    return found


def difference(whole: Usage, parts: Sequence[Usage]) -> Usage:
    rest = sum(parts, Usage())
    return Usage(**{name: getattr(whole, name) - getattr(rest, name) for name in Usage.__dataclass_fields__})


def evidence(tx: Transaction, rows: Sequence[Process], steps: dict[Any, list[Step]], home: Path) -> list[str]:
    records: list[AuditRecord] = tx.audit_list(after=0, limit=100 * EVERY)
    newest = tx.audit_head()
    heads = [*heads_beside(home), *([newest] if newest is not None else [])]
    public_key = load_key(AUDIT_KEY).public_key()
    verified = verify(records, heads=heads, public_key=public_key, origin="aos-mcp/test")
    found = [] if verified.ok else [f"the audit chain: {verified.why}"]
    if tx.audit_staged(limit=1):
        found.append("audit entries were left unsealed")
    told = Counter((record.entry.call, record.entry.outcome) for record in records)
    ok = [record.entry for record in records if record.entry.outcome == "ok"]
    told_of = Counter((entry.actor if entry.actor.startswith("p_") else entry.pid, entry.call) for entry in ok)
    begun = sum(told[(call, "ok")] for call in ("spawn_agent", "begin", "issue_key", "run_schedule"))
    if begun < len(rows):
        found.append(f"{len(rows)} processes, and {begun} beginnings on the audit log")
    for row in rows:
        made = (s for s in steps[row.pid] if s.state is StepState.DONE and not reconciled(tx, s))
        for call, count in Counter(step.call for step in made).items():
            if told_of[(row.pid, call)] < count:
                found.append(f"{row.name} made {count} {call}, the audit log has {told_of[(row.pid, call)]}")
        ends = sum(record.entry.call == "end" and record.entry.pid == row.pid for record in records)
        if not ends:
            found.append(f"the end of {row.name} is not on the audit log")
    return found


def reconciled(tx: Transaction, step: Step) -> bool:
    """Tell whether a step is done because somebody said so: the log has what that person answered."""
    return tx.approval_get(question_about(step.pid, step.number)) is not None


def heads_beside(home: Path) -> list[AuditHead]:
    """Return the heads kept outside the store; a note that the death cut short is no head."""
    if not (home / "audit.heads").exists():
        return []
    notes = (home / "audit.heads").read_text("utf-8").split("aos-mcp/test\n")[1:]
    found = []
    for text in notes:
        try:
            found.append(parse_head("aos-mcp/test\n" + text)[0])
        except ValueError:
            continue
    return found


def same(came_to: dict[str, Any], undisturbed: dict[str, Any], scenario: Scenario) -> list[str]:
    if came_to == undisturbed:
        return []
    return [f"it came to {came_to}, undisturbed to {undisturbed}"]
