"""What a machine that died in the middle of a write leaves behind does no harm to the next boot."""

from __future__ import annotations

import os
from pathlib import Path

import anyio

from aos_mcp.abi.capability import Caller, CallerKind
from aos_mcp.abi.settings import Settings
from aos_mcp.boot import boot
from aos_mcp.hardware import local_principal

SETTINGS = Settings.model_validate({"sandbox": {"drivers": []}, "search": {"embedder": "off"}})
HOST = Caller(kind=CallerKind.HOST, principal=local_principal(), host="test")


async def verified(home: Path) -> tuple[bool, str]:
    """Boot in `home`, make a call, and return whether its whole log holds, and the log's public key."""
    with anyio.fail_after(60):
        async with boot(SETTINGS, {}, home) as kernel:
            await kernel.syscall(HOST, "search_tools", {"query": ""})
        async with boot(SETTINGS, {}, home) as kernel:
            checked = await kernel.syscall(HOST, "read_audit", {"verify": True})
    assert checked.verified is not None  # type: ignore[attr-defined]
    return checked.verified.ok, (home / "audit.pub").read_text("utf-8")  # type: ignore[attr-defined]


async def test_files_that_were_never_finished_are_passed_over(tmp_path: Path) -> None:
    whole, name = await verified(tmp_path)
    (tmp_path / "audit.key.4242.part").write_bytes(b"half a k")
    (tmp_path / "audit.pub.4242.part").write_bytes(b"")
    (tmp_path / "daemon.json.new").write_bytes(b'{"pid": 42')
    (tmp_path / "daemon.json").write_bytes(b"")
    (tmp_path / "kernel.sock").write_bytes(b"")
    half = tmp_path / "workspaces" / "w-half"
    half.mkdir(parents=True)
    (half / ".aos-write-0123456789abcdef").write_bytes(b"half a file")
    with (tmp_path / "audit.heads").open("a", encoding="utf-8") as heads:
        heads.write("aos-mcp/here\n17\nhalf a no")
    again, same = await verified(tmp_path)
    assert (whole, again) == (True, True)
    assert same == name, "the log goes on under the key it began with"


async def test_a_key_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "audit.key.1.part").write_bytes(b"half a k")
    assert (await verified(tmp_path))[0]
    assert len((tmp_path / "audit.key").read_bytes()) == 32
    assert sorted(name for name in os.listdir(tmp_path) if "key" in name) == ["audit.key", "audit.key.1.part"]
