"""Commands about the store: its size, copies of it while others write, a copy in its place, words taken out."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path

from tests.cli.command import Aos

WRITER = """\
import subprocess, sys
number = 0
while True:
    subprocess.run([sys.executable, "-m", "aos_mcp", "page", "out", f"written during a backup: {number}"], check=True)
    number += 1
"""
"""A host that writes without a pause, and says what was acknowledged: the handle of each page, one a line."""


def same_log(source: Aos, target: Aos) -> None:
    """Give a home the key and the name of another's log, as one does who moves a backup to a new machine."""
    for name in ("audit.key", "audit.pub"):
        shutil.copy(source.home / "aos" / name, target.home / "aos" / name)


def anchor(aos: Aos) -> str:
    """Return the newest head of the log in the form that answers name it: SIZE:ROOT."""
    aos("audit", "verify")  # seals what is staged
    head = json.loads(aos("audit", "export").splitlines()[-1])["head"]
    return f"{head['seq']}:{base64.b64encode(bytes.fromhex(head['root'])).decode()}"


def test_the_size_of_the_store_is_shown_and_grows_with_its_agents(aos: Aos) -> None:
    before = aos.json("store", "stats")
    aos("wait", aos.run("hello"))
    after = aos.json("store", "stats")
    assert after["processes"] == before["processes"] + 1
    assert after["steps"] > before["steps"]
    assert after["file_bytes"] >= after["payload_bytes"] > 0
    assert f"{after['processes']} processes" in aos("store", "stats")


def test_a_backup_taken_while_hosts_write_is_whole_and_has_what_was_acknowledged(aos: Aos, idle: Aos) -> None:
    aos("ps")
    with subprocess.Popen([sys.executable, "-c", WRITER], env=aos.env, stdout=subprocess.PIPE, text=True) as writing:
        assert writing.stdout is not None
        acknowledged = [writing.stdout.readline().strip() for _ in range(3)]
        copies = [idle.home / f"copy-{number}.db" for number in range(3)]
        sizes = [aos.json("store", "backup", str(copy))["size_bytes"] for copy in copies]
        acknowledged_after = writing.stdout.readline().strip()
        writing.kill()
    assert sizes == [copy.stat().st_size for copy in copies]
    assert acknowledged_after, "the backup stopped nobody"
    same_log(aos, idle)
    for copy in copies:
        idle("store", "restore", str(copy))
        try:
            assert idle.json("audit", "verify")["ok"] is True
            assert [idle("page", "in", page)[:7] for page in acknowledged] == ["written"] * 3
        finally:
            idle("stop")


def test_a_backup_is_not_put_back_under_a_running_kernel_and_then_is(idle: Aos) -> None:
    first = idle.run("hello")
    idle("wait", first)
    copy = idle.home / "copy.db"
    assert "MiB" in idle("store", "backup", str(copy))
    second = idle.run("hello")
    idle("wait", second)
    head = anchor(idle)
    assert idle.json("store", "restore", str(copy), code=1)["error"]["code"] == "conflict"
    idle("stop")
    kept = Path(idle.json("store", "restore", str(copy))["kept"])
    assert kept.parent == idle.home / "aos"
    assert [row["pid"] for row in idle.json("ps", "--all")["agents"]] == [first]
    assert idle.json("audit", "verify")["ok"] is True
    assert idle.json("audit", "verify", "--anchor", head, code=1)["ok"] is False, "who kept a head sees the return"
    assert len(list((idle.home / "aos").glob("audit.heads.before-*"))) == 1
    idle("wait", idle.run("hello"))
    idle("stop")
    idle("store", "restore", str(kept))
    assert {row["pid"] for row in idle.json("ps", "--all")["agents"]} == {first, second}
    idle("stop")


def test_what_is_no_backup_changes_nothing_and_is_told_apart(idle: Aos) -> None:
    store = idle.home / "aos" / "kernel.db"
    idle("store", "stats")
    idle("store", "backup", str(idle.home / "copy.db"))
    assert idle.json("store", "backup", str(idle.home / "copy.db"), code=1)["error"]["code"] == "conflict"
    assert idle.json("store", "backup", str(idle.home / "no" / "c.db"), code=6)["error"]["code"] == "unavailable"
    idle("stop")
    before = store.read_bytes()
    damaged = idle.home / "damaged.db"
    damaged.write_bytes((idle.home / "copy.db").read_bytes()[:20_000])
    assert idle.json("store", "restore", str(idle.home / "nothing.db"), code=5)["error"]["code"] == "not_found"
    assert idle.json("store", "restore", str(damaged), code=6)["error"]["code"] == "unavailable"
    assert store.read_bytes() == before
    assert idle.json("store", "stats")["processes"] == 0
    idle("stop")


def test_erased_words_are_gone_from_the_files_after_a_compaction_and_the_log_holds(idle: Aos) -> None:
    pid, slow = idle.run("hello"), idle.run("slow")
    idle("wait", pid)
    assert idle.json("store", "erase", slow, code=1)["error"]["code"] == "conflict"
    assert idle.json("store", "erase", pid)["erased"] > 0
    compacted = idle.json("store", "compact")
    assert compacted["after_bytes"] <= compacted["before_bytes"]
    assert "MiB before" in idle("store", "compact")
    assert b"Hello, world" not in b"".join(file.read_bytes() for file in (idle.home / "aos").glob("kernel.db*"))
    assert idle.json("store", "stats")["erased"] > 0
    assert idle.json("audit", "verify")["ok"] is True
    assert idle.json("wait", idle.run("hello"))["agents"][0]["result"] == "Hello, world."
    idle("signal", slow, "kill")
    idle("stop")
