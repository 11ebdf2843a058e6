"""The log: every act and every refusal is on it, and whoever changes it is found out."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import anyio
import pytest

from aos_mcp.abi.audit import AuditEntry
from aos_mcp.abi.capability import Caller, CallerKind
from aos_mcp.abi.errors import AosError, Denied, Invalid, NotFound
from aos_mcp.abi.settings import Rule, Settings
from aos_mcp.testing.devices import RecordingSandbox
from aos_mcp.testing.kernels import OWNER, kernel_on
from aos_mcp.testing.model import calls, says
from tests.kernel.stage import DEADLINE_S, ended, models


async def test_a_refusal_is_on_the_log_with_who_asked_and_why_not(tmp_path: Path) -> None:
    rules = Settings(rules=[Rule(effect="deny", tool="sandbox_exec", reason="no commands here")])
    async with kernel_on(tmp_path, models(says("x")), settings=rules) as k:
        with anyio.fail_after(DEADLINE_S):
            with pytest.raises(Denied):
                await k.call("sandbox_exec", command="id")
            with pytest.raises(Invalid):
                await k.call("page_in", page_id=7)
            with pytest.raises(NotFound):
                await k.call("read_process", pid="p_none")
            log = await k.call("read_audit", verify=True)
    told = {(row.call, row.outcome): row for row in log.records}
    assert {("sandbox_exec", "denied"), ("page_in", "invalid"), ("read_process", "not_found")} <= told.keys()
    assert told["sandbox_exec", "denied"].actor == f"host:{OWNER}"
    assert "no commands here" in told["sandbox_exec", "denied"].detail


async def test_an_unsafe_act_is_on_the_log_before_it_starts(tmp_path: Path) -> None:
    sandbox = RecordingSandbox(gate=anyio.Event())
    async with kernel_on(tmp_path, models(calls(("sandbox_exec", {"command": "pay"}))), sandbox=sandbox) as k:
        with anyio.fail_after(DEADLINE_S):
            pid = (await k.call("spawn_agent", task="x")).pid
            while not sandbox.commands:
                await anyio.lowlevel.checkpoint()
            log = await k.call("read_audit", verify=True, pid=pid)
    assert ("sandbox_exec", "intent") in {(row.call, row.outcome) for row in log.records}
    assert ("sandbox_exec", "ok") not in {(row.call, row.outcome) for row in log.records}


async def test_secrets_are_not_on_the_log(tmp_path: Path) -> None:
    secret = "sk-ant-api03-" + "Zq9" * 20
    async with kernel_on(tmp_path, models(says("x"))) as k:
        with anyio.fail_after(DEADLINE_S):
            await k.call("sandbox_exec", command=f"curl -H 'x-api-key: {secret}' example.org")
            with pytest.raises(AosError):
                await k.call("read_process", pid=f"p_none {secret}")
            log = await k.call("read_audit", verify=True)
    assert secret not in log.model_dump_json()


async def test_every_agent_turn_leaves_its_calls_on_the_log(tmp_path: Path) -> None:
    script = (calls(("page_out", {"content": "x"}), ("search_pages", {"query": "x"})), says("done"))
    async with kernel_on(tmp_path, models(*script)) as k:
        with anyio.fail_after(DEADLINE_S):
            agent = await ended(k, (await k.call("spawn_agent", task="x")).pid)
            log = await k.call("read_audit", verify=True, pid=agent.pid)
    assert {(row.actor, row.call) for row in log.records} >= {
        (agent.pid, "page_out"),
        (agent.pid, "search_pages"),
        (f"host:{OWNER}", "spawn_agent"),
    }


async def test_a_changed_record_is_named(tmp_path: Path) -> None:
    await some_history(tmp_path)
    tamper(tmp_path, "UPDATE audit_record SET detail = detail || ' or so' WHERE seq = 3")
    async with kernel_on(tmp_path, models(says("x"))) as k:
        with anyio.fail_after(DEADLINE_S):
            verified = (await k.call("read_audit", verify=True)).verified
    assert (verified.ok, verified.first_bad) == (False, 3)
    assert "content of record 3 was changed" in verified.why


async def test_a_removed_record_is_named(tmp_path: Path) -> None:
    await some_history(tmp_path)
    tamper(tmp_path, "DELETE FROM audit_record WHERE seq = 2")
    async with kernel_on(tmp_path, models(says("x"))) as k:
        with anyio.fail_after(DEADLINE_S):
            verified = (await k.call("read_audit", verify=True)).verified
    assert (verified.ok, verified.first_bad) == (False, 2)


async def test_a_log_whose_end_was_cut_off_is_found_out_by_the_heads_kept_beside_it(tmp_path: Path) -> None:
    newest = await some_history(tmp_path)
    tamper(
        tmp_path,
        f"DELETE FROM audit_record WHERE seq > {newest - 2}",
        f"DELETE FROM audit_head WHERE seq > {newest - 2}",
        "DELETE FROM audit_stage",
    )
    async with kernel_on(tmp_path, models(says("x"))) as k:
        with anyio.fail_after(DEADLINE_S):
            verified = (await k.call("read_audit", verify=True)).verified
    assert not verified.ok
    assert verified.first_bad is not None


async def test_a_note_torn_by_a_power_cut_hides_no_later_head(tmp_path: Path) -> None:
    await some_history(tmp_path)
    with (tmp_path / "audit.heads").open("a", encoding="utf-8") as file:
        file.write("aos-mcp/test\n12\nhalf a no")
    newest = await some_history(tmp_path)
    newest = await some_history(tmp_path)
    tamper(
        tmp_path,
        f"DELETE FROM audit_record WHERE seq > {newest - 1}",
        f"DELETE FROM audit_head WHERE seq > {newest - 1}",
        "DELETE FROM audit_stage",
    )
    async with kernel_on(tmp_path, models(says("x"))) as k:
        with anyio.fail_after(DEADLINE_S):
            verified = (await k.call("read_audit", verify=True)).verified
    assert not verified.ok


async def some_history(home: Path) -> int:
    """Let a kernel live a little; return the newest record."""
    async with kernel_on(home, models(says("x"))) as k:
        with anyio.fail_after(DEADLINE_S):
            for number in range(4):
                await k.call("page_out", content=f"note {number}")
            log = await k.call("read_audit", verify=True)
            assert log.verified.ok, log.verified.why
            return int(log.head.seq)


def tamper(home: Path, *statements: str) -> None:
    """Change the store as somebody would who has the file; triggers are no hindrance to them."""
    with sqlite3.connect(home / "kernel.db") as file:
        for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            file.execute(f"DROP TRIGGER {json.dumps(name)}")
        for statement in statements:
            file.execute(statement)
    file.close()


async def test_what_devices_observe_is_on_the_log_once_however_often_it_is_sealed(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, models(says("x"))) as k:
        with anyio.fail_after(DEADLINE_S):
            for number in range(5):
                k.machine.observed.append(
                    AuditEntry(
                        at=k.machine.clock.now(),
                        category="execute",
                        actor="kernel",
                        pid="",
                        call="egress",
                        outcome="denied",
                        subject=f"host{number}:443",
                        detail="",
                    )  # fmt: skip
                )

            async def verify() -> None:
                assert (await k.call("read_audit", verify=True)).verified.ok

            async with anyio.create_task_group() as crowd:
                for _ in range(6):
                    crowd.start_soon(verify)
            log = await k.call("read_audit", verify=True, limit=500)
    egress = [row.subject for row in log.records if row.call == "egress"]
    assert sorted(egress) == [f"host{number}:443" for number in range(5)]


async def test_only_the_operator_sees_all_that_a_digest_covers(tmp_path: Path) -> None:
    operator = Caller(kind=CallerKind.OPERATOR, principal=OWNER)
    async with kernel_on(tmp_path, models(says("x"))) as k:
        with anyio.fail_after(DEADLINE_S):
            await k.call("page_out", content="x")
            host = await k.call("read_audit", verify=True)
            whole = await k.call("read_audit", operator, after_seq=0, limit=1)
    assert {row.category for row in host.records} == {None}
    assert whole.records[0].category is not None
