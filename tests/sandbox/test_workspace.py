from __future__ import annotations

import ctypes
import hashlib
import os
import socket
import stat
import threading
from pathlib import Path

import pytest

from aos_mcp.abi.errors import AosError, Conflict, Denied, Invalid, LimitExceeded, NotFound
from aos_mcp.abi.handle import Digest
from aos_mcp.abi.limits import WORKSPACE_BYTES_MAX, WORKSPACE_DEPTH_MAX, WORKSPACE_FILES_MAX
from aos_mcp.abi.sandbox import WorkspaceFile
from aos_mcp.sandbox.box import box_uid
from aos_mcp.sandbox.workspace import DirectoryWorkspaces


@pytest.fixture
def workspaces(tmp_path: Path) -> DirectoryWorkspaces:
    return DirectoryWorkspaces(tmp_path / "workspaces")


@pytest.fixture
def root(workspaces: DirectoryWorkspaces) -> Path:
    return Path(workspaces.path("w"))


def digest(body: bytes) -> Digest:
    return Digest(hashlib.sha256(body).hexdigest())


def test_what_is_written_is_read_and_belongs_to_the_sandbox_user(workspaces: DirectoryWorkspaces, root: Path) -> None:
    workspaces.write("w", "a/b/c.txt", b"hello")
    assert workspaces.read("w", "a/b/c.txt", limit=100) == b"hello"
    assert workspaces.read("w", "./a//b/c.txt", limit=2) == b"he"
    assert {path.stat().st_uid for path in (root, root / "a", root / "a/b/c.txt")} == {box_uid()}
    assert stat.S_IMODE(root.stat().st_mode) == 0o700


def test_writing_again_replaces_the_whole_file_and_keeps_its_mode(workspaces: DirectoryWorkspaces, root: Path) -> None:
    workspaces.write("w", "tool", b"a long first text")
    (root / "tool").chmod(0o4755)
    workspaces.write("w", "tool", b"short")
    assert workspaces.read("w", "tool", limit=100) == b"short"
    assert stat.S_IMODE((root / "tool").stat().st_mode) == 0o755
    assert [path.name for path in root.iterdir()] == ["tool"]


@pytest.mark.parametrize(
    "path", ["", "/", ".", "/etc/passwd", "..", "../x", "a/../../x", "a/..", "a\0b", "x" * 256, "a/" * 3_000, "\udcff"]
)
def test_a_path_that_is_not_plainly_inside_is_invalid(workspaces: DirectoryWorkspaces, root: Path, path: str) -> None:
    with pytest.raises(Invalid):
        workspaces.write("w", path, b"x")
    with pytest.raises(Invalid):
        workspaces.read("w", path, limit=1)
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/tmp", "a\0", "x" * 129, "-rf", ".hidden"])
def test_a_name_that_is_not_one_folder_is_invalid(workspaces: DirectoryWorkspaces, name: str) -> None:
    with pytest.raises(Invalid):
        workspaces.path(name)


def test_odd_names_are_only_names(workspaces: DirectoryWorkspaces) -> None:
    for name in ("-rf", "~", "$HOME", "a b", "ä€😀", "...", "a\nb", "x" * 255):
        workspaces.write("w", name, name.encode())
    assert {path: entry.digest for path, entry in workspaces.scan("w", {}).items()} == {
        name: digest(name.encode()) for name in ("-rf", "~", "$HOME", "a b", "ä€😀", "...", "a\nb", "x" * 255)
    }


def test_links_are_never_followed(workspaces: DirectoryWorkspaces, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (root / "file").symlink_to(outside / "secret")
    (root / "folder").symlink_to(outside)
    (root / "dangling").symlink_to(outside / "new")
    for path in ("file", "folder/secret", "dangling", "folder/new"):
        with pytest.raises(Denied):
            workspaces.write("w", path, b"x")
    for path in ("file", "folder/secret", "dangling"):
        with pytest.raises(Denied):
            workspaces.read("w", path, limit=100)
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_text() == "secret"


def test_what_is_no_file_is_not_read(workspaces: DirectoryWorkspaces, root: Path) -> None:
    os.mkfifo(root / "pipe")
    (root / "folder").mkdir()
    (root / "plain").write_text("x")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(root, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
        for path in ("pipe", "folder", "socket", "plain/below"):
            with pytest.raises(Invalid):
                workspaces.read("w", path, limit=1)
        assert list(workspaces.scan("w", {})) == ["plain"]
    with pytest.raises(NotFound):
        workspaces.read("w", "missing/file", limit=1)
    with pytest.raises(Invalid):
        workspaces.write("w", "folder", b"x")
    with pytest.raises(Invalid):
        workspaces.write("w", "plain/below", b"x")


def test_a_file_its_owner_closed_to_itself_is_still_scanned(workspaces: DirectoryWorkspaces, root: Path) -> None:
    workspaces.write("w", "shut/file", b"x")
    (root / "shut/file").chmod(0)
    (root / "shut").chmod(0)
    assert list(workspaces.scan("w", {})) == ["shut/file"]


def test_a_scan_describes_files_and_links(workspaces: DirectoryWorkspaces, root: Path) -> None:
    workspaces.write("w", "src/a.py", b"print()")
    (root / "src/a.py").chmod(0o6755)
    (root / "link").symlink_to("/etc/passwd")
    found = workspaces.scan("w", {})
    about = (root / "src/a.py").stat()
    assert found["src/a.py"] == WorkspaceFile(
        path="src/a.py", size_bytes=7, mode=0o755, mtime_ns=about.st_mtime_ns, digest=digest(b"print()")
    )
    assert found["link"].link == "/etc/passwd" and found["link"].digest is None and set(found) == {"src/a.py", "link"}


def test_only_changed_files_are_hashed_again(workspaces: DirectoryWorkspaces, root: Path) -> None:
    workspaces.write("w", "same", b"same")
    workspaces.write("w", "changed", b"before")
    known = {
        path: WorkspaceFile(
            path=path, size_bytes=e.size_bytes, mode=e.mode, mtime_ns=e.mtime_ns, digest=Digest("known " + path)
        )
        for path, e in workspaces.scan("w", {}).items()
    }
    (root / "changed").write_bytes(b"after!")
    os.utime(root / "changed", ns=(1, 1))
    found = workspaces.scan("w", known)
    assert found["same"].digest == "known same"
    assert found["changed"].digest == digest(b"after!")


def test_a_workspace_is_restored_as_it_was(workspaces: DirectoryWorkspaces, root: Path) -> None:
    bodies = {digest(body): body for body in (b"", b"one", b"\xff\x00" * 1_000)}
    for number, body in enumerate(bodies.values()):
        workspaces.write("w", f"deep/{number}/file", body)
    (root / "deep/1/file").chmod(0o755)
    (root / "way").symlink_to("deep/1")
    (root / "out").symlink_to("/etc")
    before = workspaces.scan("w", {})
    workspaces.restore("copy", before, bodies.__getitem__)
    after = workspaces.scan("copy", {})
    assert {path for path, entry in before.items() if entry.link is None} == {f"deep/{n}/file" for n in range(3)}
    assert {p: e for p, e in after.items() if e.link is None} == {p: e for p, e in before.items() if e.link is None}
    assert {p: e.link for p, e in after.items() if e.link} == {"way": "deep/1", "out": "/etc"}
    with pytest.raises(Conflict):
        workspaces.restore("copy", before, bodies.__getitem__)


@pytest.mark.parametrize("path", ["/etc/cron.d/x", "../x", "a/../../x", "a\0"])
def test_a_manifest_cannot_write_outside(workspaces: DirectoryWorkspaces, path: str) -> None:
    entry = WorkspaceFile(path=path, size_bytes=1, mode=0o4755, mtime_ns=0, digest=digest(b"x"))
    with pytest.raises(Invalid):
        workspaces.restore("w", {path: entry}, lambda _: b"x")


def test_a_manifest_cannot_write_through_its_own_link(workspaces: DirectoryWorkspaces, tmp_path: Path) -> None:
    link = WorkspaceFile(path="way", size_bytes=0, mode=0o777, mtime_ns=0, digest=None, link=str(tmp_path))
    file = WorkspaceFile(path="way/planted", size_bytes=1, mode=0o644, mtime_ns=0, digest=digest(b"x"))
    with pytest.raises(AosError):
        workspaces.restore("w", {"way": link, "way/planted": file}, lambda _: b"x")
    assert not (tmp_path / "planted").exists()


def test_a_workspace_that_is_too_large_is_refused(workspaces: DirectoryWorkspaces, root: Path) -> None:
    with (root / "sparse").open("wb") as file:
        file.truncate(WORKSPACE_BYTES_MAX + 1)
    with pytest.raises(LimitExceeded):
        workspaces.scan("w", {})
    (root / "sparse").unlink()
    assert workspaces.scan("w", {}) == {}


def test_folders_nested_beyond_the_limit_and_the_longest_path_are_refused(
    workspaces: DirectoryWorkspaces, root: Path
) -> None:
    here = os.open(root, os.O_RDONLY)
    for _ in range(WORKSPACE_DEPTH_MAX + 1):
        os.mkdir("d" * 200, dir_fd=here)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    with pytest.raises(LimitExceeded):
        workspaces.scan("w", {})


def test_too_many_entries_are_refused(workspaces: DirectoryWorkspaces, root: Path) -> None:
    (root / "file").write_bytes(b"")
    here = os.open(root, os.O_RDONLY)
    for number in range(WORKSPACE_FILES_MAX):
        os.symlink("x", str(number), dir_fd=here)
    os.close(here)
    with pytest.raises(LimitExceeded):
        workspaces.scan("w", {})


def test_swapping_a_folder_for_a_link_wins_nothing(workspaces: DirectoryWorkspaces, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("secret")
    workspaces.write("w", "folder/file", b"public")
    (root / "link").symlink_to(outside)
    libc, exchange = ctypes.CDLL(None, use_errno=True), 2
    stop, swaps = threading.Event(), [0]
    names = (os.fsencode(root / "folder"), os.fsencode(root / "link"))

    def swap() -> None:
        while not stop.is_set():
            assert libc.renameat2(-100, names[0], -100, names[1], exchange) == 0
            swaps[0] += 1

    attacker = threading.Thread(target=swap)
    attacker.start()
    seen = {b"public": 0, b"refused": 0}
    try:
        for _ in range(3_000):
            try:
                seen[workspaces.read("w", "folder/file", limit=100)] += 1
                workspaces.write("w", "folder/file", b"public")
            except (Denied, Invalid, NotFound):
                seen[b"refused"] += 1
            assert all(e.digest == digest(b"public") for e in workspaces.scan("w", {}).values() if e.link is None)
    finally:
        stop.set()
        attacker.join()
    assert swaps[0] > 100 and seen[b"public"] > 0 and seen[b"refused"] > 0, (swaps, seen)
    assert (outside / "file").read_text() == "secret" and os.listdir(outside) == ["file"]
