from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from aos_mcp.abi.errors import Unavailable, UnknownOutcome
from aos_mcp.ports import Workspaces
from aos_mcp.sandbox.cgroup import kernel_mark, mark_is_alive, process_birth
from aos_mcp.sandbox.drivers import ProvenSandbox
from aos_mcp.testing.sandbox_checks import alone, command, sh, until
from tests.sandbox.conftest import DRIVERS, make_sandbox

PROBES = {
    "no_capabilities", "unprivileged_user", "no_new_privileges", "seccomp_filter", "no_nested_namespaces", "no_network",
    "no_host_files", "no_host_processes", "clean_environment", "system_read_only", "workspace_writable",
    "workspace_read_only", "process_limit", "timeout_kills_all", "memory_limit",
}  # fmt: skip


async def test_a_driver_passes_every_probe(sandbox: ProvenSandbox, driver: str) -> None:
    proof = sandbox.proven()
    assert proof is not None and proof.driver == driver and proof.passed and proof.reason == ""
    assert {probe.name for probe in proof.probes} == PROBES and all(probe.passed for probe in proof.probes)
    assert proof.memory_limit == ("total" if os.geteuid() == 0 or driver != "bwrap" else proof.memory_limit)


async def test_without_a_proven_driver_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    monkeypatch.setenv("PATH", str(tmp_path))
    async with make_sandbox(tmp_path, "docker+runsc", "docker+runc", "bwrap") as sandbox:
        assert sandbox.proven() is None
        with pytest.raises(Unavailable) as caught:
            await sandbox.execute(command("touch", str(tmp_path / "ran")))
        proofs = await sandbox.prove()
    assert [(proof.driver, proof.passed, proof.memory_limit) for proof in proofs] == [
        ("docker+runsc", False, "none"), ("docker+runc", False, "none"), ("bwrap", False, "none"),
    ]  # fmt: skip
    assert all(proof.reason and proof.repair for proof in proofs)
    assert "bubblewrap is not installed" in caught.value.message and "Install" in caught.value.hint
    assert not (tmp_path / "ran").exists()


@pytest.mark.bwrap
@pytest.mark.parametrize("driver", DRIVERS[:1])
async def test_the_first_driver_that_passes_is_used(
    tmp_path: Path, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    async with make_sandbox(tmp_path, "docker+runc", driver) as sandbox:
        outcome = await sh(sandbox, "true")
        assert outcome.isolation == driver
        assert [proof.passed for proof in await sandbox.prove()] == [False, True]


@pytest.mark.parametrize("_driver", DRIVERS[1:])
async def test_a_runtime_that_is_missing_or_old_is_refused(tmp_path: Path, _driver: str) -> None:
    async with make_sandbox(tmp_path, "docker+runsc") as sandbox:
        (proof,) = await sandbox.prove()
    assert proof.passed or "runsc" in proof.reason and "gVisor" in proof.repair


@pytest.mark.parametrize("driver", DRIVERS[1:])
async def test_an_image_that_is_not_here_is_never_pulled(tmp_path: Path, driver: str) -> None:
    async with make_sandbox(tmp_path, driver, image="aos-mcp/no-such-image:1") as sandbox:
        (proof,) = await sandbox.prove()
    assert not proof.passed and "image is not on this machine" in proof.reason and "docker pull" in proof.repair


async def test_a_filter_that_cannot_be_built_fails_the_proof(
    tmp_path: Path, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aos_mcp.sandbox.seccomp import deny_filter

    monkeypatch.setitem(sys.modules, "pyseccomp", None)
    deny_filter.cache_clear()
    try:
        async with make_sandbox(tmp_path, driver) as sandbox:
            (proof,) = await sandbox.prove()
    finally:
        deny_filter.cache_clear()
    assert not proof.passed and "filter" in proof.reason and "libseccomp" in proof.repair


def container_of(session: str) -> str:
    listed = subprocess.run(
        ["docker", "ps", "-q", "--filter", f"label=aos.session={session}", "--filter", "label=aos.node=tests"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return listed.stdout.strip()


def boxes_of(session: str, driver: str, workspace: Path) -> list[str]:
    """Find what still runs for a session: containers by label, processes by their working directory."""
    if driver != "bwrap":
        return container_of(session).split()
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.stat(entry / "cwd").st_ino == workspace.stat().st_ino:
                found.append(entry.name)
        except OSError:
            continue
    return found


def kill_box(session: str, driver: str, workspace: Path) -> None:
    """End a box from outside: the container, or the supervisor, which is the parent of the command."""
    if driver != "bwrap":
        subprocess.run(["docker", "kill", container_of(session)], check=True, capture_output=True, timeout=60)
        return
    parents = {Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[1]: pid
               for pid in boxes_of(session, driver, workspace)}  # fmt: skip
    os.kill(int(min(parents, key=int)), signal.SIGKILL)


def groups() -> set[str]:
    return {path.name for path in Path("/sys/fs/cgroup").glob(f"**/aos-{kernel_mark()}-*")}


def left_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_a_box_that_dies_under_a_command_leaves_its_outcome_unknown(
    sandbox: ProvenSandbox, driver: str, workspaces: Workspaces
) -> None:
    folder = Path(workspaces.path("dies"))
    (folder / "up").unlink(missing_ok=True)
    caught: list[UnknownOutcome] = []

    async def run() -> None:
        try:
            await sh(sandbox, "touch up; sleep 60", session="dies", workspace="dies")
        except UnknownOutcome as error:
            caught.append(error)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await until((folder / "up").exists)
            await anyio.to_thread.run_sync(kill_box, "dies", driver, folder)
        assert caught
        outcome = await sh(sandbox, "ls", session="dies", workspace="dies")
    assert outcome.stdout == b"up\n"
    await alone(sandbox, session="dies", workspace="dies")


async def test_closing_a_session_ends_what_runs_in_it(
    sandbox: ProvenSandbox, driver: str, workspaces: Workspaces
) -> None:
    folder = Path(workspaces.path("closed"))
    (folder / "up").unlink(missing_ok=True)

    async def run() -> None:
        with pytest.raises(UnknownOutcome):
            await sh(sandbox, "touch up; sleep 60", session="closed", workspace="closed")

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await until((folder / "up").exists)
            await sandbox.close("closed")
    assert boxes_of("closed", driver, folder) == []


async def test_shutting_down_leaves_nothing_behind(tmp_path: Path, driver: str) -> None:
    before = groups()
    async with make_sandbox(tmp_path, driver) as sandbox:
        for session in ("a", "b"):
            assert (await sh(sandbox, "true", session=session)).exit_code == 0
        used = groups() - before
        limited = driver == "bwrap" and os.geteuid() == 0
        assert bool(used) == limited, "the control failed: there is something to leave behind"
    assert left_in(tmp_path / "run") in ([], ["agentd.py"])
    assert driver == "bwrap" or container_of("a") == container_of("b") == ""
    assert not groups() & used


def start(argv: list[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(argv, env=env)


async def test_a_killed_kernel_leaves_no_orphan(tmp_path: Path, driver: str) -> None:
    script = Path(__file__).with_name("kernel_process.py")
    path = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    kernel = start([sys.executable, str(script), driver, str(tmp_path)], {**os.environ, "PYTHONPATH": path})
    heart = tmp_path / "workspaces" / "doomed" / "heart"
    try:
        await until(lambda: kernel.poll() is not None or heart.exists() and heart.stat().st_size >= 10)
        assert boxes_of("doomed", driver, heart.parent), "the control failed: nothing was found while it ran"
        mark = f"{kernel.pid}-{process_birth(kernel.pid)}"
        assert mark_is_alive(mark)
        kernel.kill()
        kernel.wait()
        assert not mark_is_alive(mark)
        await until(lambda: not boxes_of("doomed", driver, heart.parent))
        size = heart.stat().st_size
        async with make_sandbox(tmp_path, driver) as sandbox:  # Sweeps what the dead kernel left, and takes a while.
            assert (await sh(sandbox, "true", workspace="doomed", session="after")).exit_code == 0
        assert heart.stat().st_size == size
    finally:
        kernel.kill()
        kernel.wait()
