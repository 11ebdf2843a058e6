"""Commands about the audit log, against a real daemon and on files alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from aos_mcp.audit.chain import load_key, verifier_text
from tests.cli.command import Aos


def test_the_log_is_shown_and_verified(aos: Aos) -> None:
    aos("page", "out", "something on record")
    aos("audit", "verify")
    records = aos.json("audit", "tail", "-n", "500")["records"]
    assert "page_out" in {record["call"] for record in records}
    assert "page_out" in aos("audit", "tail", "-n", "500")
    assert aos.json("audit", "verify")["ok"] is True


def test_an_export_is_checked_without_a_kernel_and_a_changed_one_is_caught(aos: Aos, idle: Aos) -> None:
    aos("page", "out", "something on record")
    aos("audit", "verify")
    out = idle.home / "audit.jsonl"
    aos("audit", "export", "--out", str(out))
    assert idle.json("audit", "verify", "--file", str(out))["ok"] is True
    lines = out.read_text("utf-8").splitlines()
    changed = [lines[0], lines[1].replace('"outcome": "ok"', '"outcome": "denied"'), *lines[2:]]
    out.write_text("\n".join(changed), "utf-8")
    assert idle.json("audit", "verify", "--file", str(out), code=1)["first_bad"] == 2
    out.write_text("\n".join(lines[:-2] + lines[-1:]), "utf-8")
    assert "missing" in idle.json("audit", "verify", "--file", str(out), code=1)["why"]
    out.write_text("not an export", "utf-8")
    assert idle.json("audit", "verify", "--file", str(out), code=2)["error"]["code"] == "invalid"
    assert aos.json("audit", "export", "--out", str(out), code=1)["error"]["code"] == "conflict"


def verifier(*files: Path) -> str:
    """Run the script that shares no line with this project; return what it says."""
    script = Path(__file__).parents[2] / "examples" / "verify_audit.py"
    done = subprocess.run(
        [sys.executable, "-I", str(script), *map(str, files)], capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout.strip() if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def test_an_independent_script_verifies_an_export_and_finds_what_was_changed(aos: Aos, idle: Aos) -> None:
    aos("page", "out", "something on record")
    aos("audit", "verify")
    out, key = idle.home / "audit.jsonl", aos.home / "aos" / "audit.pub"
    aos("audit", "export", "--out", str(out))
    lines = out.read_text("utf-8").splitlines()
    assert verifier(key, out) == f"all {len(lines) - 1} records fit"
    bad = idle.home / "bad.jsonl"
    bad.write_text("\n".join([lines[0], lines[1].replace('"ok"', '"denied"'), *lines[2:]]), "utf-8")
    assert "record 2 does not fit" in verifier(key, bad)
    bad.write_text("\n".join([*lines[:-2], lines[-1]]), "utf-8")
    assert "not what its head says" in verifier(key, bad)
    other = idle.home / "other.pub"
    other.write_text(verifier_text(load_key(bytes(32)).public_key(), key.read_text("utf-8").partition("+")[0]), "utf-8")
    assert "InvalidSignature" in verifier(other, out)


def test_a_proof_of_one_record_holds_by_the_public_key_alone_and_a_changed_one_does_not(aos: Aos, idle: Aos) -> None:
    aos("page", "out", "something on record")
    aos("page", "out", "something more")
    proof, key = idle.home / "proof.json", aos.home / "aos" / "audit.pub"
    proof.write_text(aos("audit", "prove", "2"), "utf-8")
    assert verifier(key, proof) == "record 2 is in the log"
    assert idle.json("audit", "check-proof", str(proof), "--key", str(key))["ok"] is True
    text = proof.read_text("utf-8")
    for old, new, why in (
        ('"outcome": "ok"', '"outcome": "denied"', "changed"),
        ('"index": 1', '"index": 0', "changed"),
        ("aos-audit-chain/2 1", "aos-audit-chain/2 2", "signed"),
        ('"hashes": [', '"hashes": ["' + "A" * 43 + '=", ', "does not lead"),
    ):
        proof.write_text(text.replace(old, new, 1), "utf-8")
        assert why in idle.json("audit", "check-proof", str(proof), "--key", str(key), code=1)["why"]
    proof.write_text("[]", "utf-8")
    assert idle.json("audit", "check-proof", str(proof), "--key", str(key), code=2)["error"]["code"] == "invalid"
    assert aos.json("audit", "prove", "999999", code=5)["error"]["code"] == "not_found"
