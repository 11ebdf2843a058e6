"""The log: every act and every refusal is on it, and whoever changes it is found out."""

from __future__ import annotations

import base64
import json
import sqlite3
from pathlib import Path

import anyio
import pytest

from aos_mcp.abi.audit import AuditEntry, AuditRecord
from aos_mcp.abi.capability import Caller, CallerKind
from aos_mcp.abi.errors import AosError, Conflict, Denied, Invalid, ModelError, ModelFault, NotFound, Unavailable
from aos_mcp.abi.settings import Rule, Settings
from aos_mcp.audit.chain import load_key, parse_head, sign_head
from aos_mcp.audit.merkle import root_by_proof
from aos_mcp.audit.redact import redactor
from aos_mcp.testing.devices import RecordingMounts, RecordingSandbox, a_tool
from aos_mcp.testing.kernels import AUDIT_KEY, OWNER, kernel_on
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


async def test_a_record_is_proved_by_the_head_and_a_rewritten_log_proves_nothing(tmp_path: Path) -> None:
    operator = Caller(kind=CallerKind.OPERATOR, principal=OWNER)
    await some_history(tmp_path)
    async with kernel_on(tmp_path, models(says("x"))) as k:
        with anyio.fail_after(DEADLINE_S):
            proof = await k.call("prove_audit", operator, seq=3)
            head, _ = parse_head(proof.head)
            hashes = [base64.b64decode(text) for text in proof.hashes]
            assert root_by_proof(bytes.fromhex(proof.record.digest), 2, head.seq, hashes).hex() == head.root
            with pytest.raises(NotFound):
                await k.call("prove_audit", operator, seq=head.seq + 1_000)
    tamper(tmp_path, "UPDATE audit_record SET digest = replace(digest, 'a', 'b') WHERE seq = 2")
    async with kernel_on(tmp_path, models(says("x"))) as k:
        with anyio.fail_after(DEADLINE_S):
            with pytest.raises(Conflict):
                await k.call("prove_audit", operator, seq=3)


async def test_a_store_without_a_tree_grows_one_and_its_old_heads_still_hold(tmp_path: Path) -> None:
    await some_history(tmp_path)
    with sqlite3.connect(tmp_path / "kernel.db") as file:
        (seq, digest) = file.execute("SELECT seq, digest FROM audit_record ORDER BY seq DESC LIMIT 1").fetchone()
        entry = AuditEntry(at=0, category="", actor="", pid="", call="", outcome="", subject="", detail="")
        last = AuditRecord(seq=seq, previous="", digest=digest, entry=entry)
        old = sign_head(load_key(AUDIT_KEY), last, 1.0, "aos-mcp/test")
        file.execute("DELETE FROM fact WHERE name = 'audit_tree'")
        file.execute("DELETE FROM audit_head")
        row = (old.seq, old.digest, old.at, old.key_id, old.signature)
        file.execute("INSERT INTO audit_head (seq, digest, at, key_id, signature) VALUES (?, ?, ?, ?, ?)", row)
    file.close()
    await some_history(tmp_path)


async def test_whoever_kept_an_anchor_finds_a_log_that_was_rewritten_with_all_its_heads(tmp_path: Path) -> None:
    await some_history(tmp_path)
    async with kernel_on(tmp_path, models(says("x"))) as k:
        with anyio.fail_after(DEADLINE_S):
            head = (await k.call("read_audit", verify=True)).head
            root = base64.b64encode(bytes.fromhex(head.root)).decode()
            good = await k.call("read_audit", verify=True, anchor=f"{head.seq}:{root}")
            other = await k.call("read_audit", verify=True, anchor=f"{head.seq}:{'A' * 43}=")
            beyond = await k.call("read_audit", verify=True, anchor=f"999999:{root}")
    assert good.verified.ok
    assert (other.verified.ok, other.verified.first_bad) == (False, head.seq)
    assert "missing" in beyond.verified.why


KEYS = {
    "openai": "sk-proj-" + "aB3" * 16,
    "anthropic": "sk-ant-api03-" + "Zq9" * 20,
    "openrouter": "sk-or-v1-" + "4f" * 32,
    "google": "AIza" + "Sy9" * 12,
    "groq": "gsk_" + "Qw8" * 17,
    "xai": "xai-" + "Er7" * 20,
    "huggingface": "hf_" + "Ty6" * 12,
    "perplexity": "pplx-" + "Ui5" * 16,
    "nvidia": "nvapi-" + "Op4" * 20,
    "together": "tgp_v1_" + "As3" * 14,
    "fireworks": "fw_" + "Df2" * 8,
    "replicate": "r8_" + "Gh1" * 12,
    "cerebras": "csk-" + "Jk0" * 16,
    "github": "ghp_" + "Lz9" * 12,
    "aws": "AKIA" + "ABCDEFGH12345678",
    "zhipu": "0123456789abcdef" * 2 + "." + "Xc8v" * 4,
    "bearer": "Bearer " + "Vb7" * 14,
    "held": "a value with no form at all",
}
"""A key of every provider's form, and one that only the kernel's own environment tells."""


def held_back(text: str) -> str:
    return redactor([KEYS["held"]])(text)


async def test_no_key_of_any_provider_reaches_the_log_its_heads_or_its_export_by_any_path(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    every = " and ".join(KEYS.values())

    def fails(arguments: object) -> str:
        raise Unavailable(f"the downstream says {every}", every)

    mounts = RecordingMounts({a_tool("shop__pay", read_only=True): fails})
    script = (
        calls(("sandbox_exec", {"command": f"curl {every}"}), key="a"),
        calls(("call_tool", {"name": "shop__pay", "arguments": {"with": every}}), key="b"),
        calls(("page_out", {"content": every, "title": every[:150]}), ("page_in", {"page_id": every[:60]}), key="c"),
        calls(("send_message", {"to": "host", "text": every}), key="d"),
        calls(("exit", {"result": every}), key="e"),
    )
    model = models(*script, failures=[ModelError(ModelFault.TRANSPORT, every, every)])
    sandbox = RecordingSandbox(stdout=every.encode())
    rules = Settings(rules=[Rule(effect="allow", tool="*")])
    async with kernel_on(tmp_path, model, sandbox=sandbox, mounts=mounts, settings=rules, redact=held_back) as k:
        with anyio.fail_after(DEADLINE_S):
            await ended(k, (await k.call("spawn_agent", task=every, name="planted")).pid)
            with pytest.raises(AosError):
                await k.call("read_process", pid=every)
            await k.call("read_audit", verify=True)
            log = await k.call("read_audit", Caller(kind=CallerKind.OPERATOR, principal=OWNER), after_seq=0, limit=500)
    with sqlite3.connect(tmp_path / "kernel.db") as file:
        stored = json.dumps(file.execute("SELECT * FROM audit_record").fetchall(), ensure_ascii=False)
        assert file.execute("SELECT count(*) FROM audit_stage").fetchone() == (0,)
    file.close()
    heads = (tmp_path / "audit.heads").read_text("utf-8")
    told = {record.call for record in log.records}
    assert told >= {"sandbox_exec", "call_tool", "page_out", "page_in", "send_message", "exit", "model", "spawn_agent"}
    for text in (stored, heads, log.model_dump_json(), caplog.text):
        assert {name for name, key in KEYS.items() if key.removeprefix("Bearer ") in text} == set()
