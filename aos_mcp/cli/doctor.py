"""The command `doctor`: what works, what does not, and how to mend it.

Owns the checks that need no kernel; what only a kernel can prove is asked of it where one runs. Starts nothing.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from aos_mcp.cli import config, models, output, session
from aos_mcp.cli.client import Client, Json
from aos_mcp.cli.failure import FAILED, CliError
from aos_mcp.cli.output import AsJson

if TYPE_CHECKING:
    from aos_mcp.abi.sandbox import SandboxProof

PROOF_S = 300.0  # A cold Docker daemon pulls an image first.
DISK_WARN_BYTES = 2**30
DISK_FAIL_BYTES = 2**26
PYTHON_MIN = (3, 11)
MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check. `mend` says what to do unless it is ok."""

    check: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    mend: str = ""


def doctor(as_json: AsJson = False) -> None:
    """Check this installation. Exits 1 if anything fails; each line says how to mend it."""
    with output.reporting(as_json):
        home = session.home()
        client = session.running_kernel()
        try:
            findings = [*_machine(home), *_settings(), *_kernel(home, client)]
        finally:
            if client is not None:
                client.close()
    answer: Json = {"ok": all(f.status != "fail" for f in findings), "checks": [asdict(f) for f in findings]}
    output.show(answer, as_json, _report)
    if not answer["ok"]:
        raise typer.Exit(FAILED)


def _report(answer: Json) -> str:
    lines = []
    for finding in answer["checks"]:
        lines.append(f"{MARKS[finding['status']]}  {finding['check']}: {finding['detail']}")
        if finding["mend"]:
            lines.append(f"      {finding['mend']}")
    return "\n".join(lines)


def _machine(home: Path) -> list[Finding]:
    return [_python(), _home(home), _disk(home), *_programs()]


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < PYTHON_MIN:
        return Finding("python", "fail", version, "Install Python 3.11 or newer.")
    return Finding("python", "ok", f"{version} at {sys.executable}")


def _home(home: Path) -> Finding:
    try:
        facts = home.stat()
    except FileNotFoundError:
        return Finding("home", "ok", f"{home} is made at the first start")
    except OSError as error:
        return Finding("home", "fail", str(error), "Check the path in AOS_HOME.")
    if not stat.S_ISDIR(facts.st_mode):
        return Finding("home", "fail", f"{home} is not a directory", "Move it away, or set AOS_HOME.")
    if facts.st_uid != os.getuid():
        return Finding("home", "fail", f"{home} belongs to somebody else", "Set AOS_HOME to a directory of yours.")
    if not os.access(home, os.W_OK | os.X_OK):
        return Finding("home", "fail", f"{home} cannot be written", f"chmod u+rwx {home}")
    if facts.st_mode & 0o077:
        return Finding("home", "warn", f"{home} can be read by others", f"chmod 700 {home}")
    return Finding("home", "ok", str(home))


def _disk(home: Path) -> Finding:
    place = next(p for p in (home, *home.parents) if p.exists())
    free = shutil.disk_usage(place).free
    detail = f"{free / 2**30:.1f} GiB free at {place}"
    if free < DISK_FAIL_BYTES:
        return Finding("disk", "fail", detail, "Free some space: the kernel refuses work when it cannot write.")
    if free < DISK_WARN_BYTES:
        return Finding("disk", "warn", detail, "Workspaces and the journal may need more.")
    return Finding("disk", "ok", detail)


def _programs() -> list[Finding]:
    wanted = {
        "docker": "Install Docker for the strongest sandbox; bubblewrap is enough otherwise.",
        "bwrap": "Install bubblewrap (package `bubblewrap`) to run commands without Docker.",
        "node": "Install Node.js if you mount servers that are started by npx.",
    }
    findings = []
    for name, mend in wanted.items():
        found = shutil.which(name)
        findings.append(Finding(name, "ok", found) if found else Finding(name, "warn", "not found", mend))
    if not (shutil.which("docker") or shutil.which("bwrap")):
        findings.append(
            Finding("isolation", "fail", "neither docker nor bwrap is there", "Install one: nothing runs unsandboxed.")
        )
    return findings


def _settings() -> list[Finding]:
    return [_guarded("config", _config), _guarded("models", _models)]


def _guarded(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except CliError as error:
        return Finding(name, "fail", error.message, error.hint)


def _config() -> Finding:
    config.load()
    return Finding("config", "ok", str(config.path()) if config.path().exists() else "defaults")


def _models() -> Finding:
    rows = models.rows()
    ready = [row["provider"] for row in rows if row["key"] == "set"]
    local = [row["provider"] for row in rows if row["key"] == "none needed"]
    if ready:
        return Finding("models", "ok", f"keys for {', '.join(ready)}")
    variables = [row["variables"][0] for row in rows if row["variables"]]
    return Finding(
        "models",
        "warn",
        "no provider has a key",
        f"Set one of {', '.join(variables[:4])}, …, or run a local server ({', '.join(local)}).",
    )


def _kernel(home: Path, client: Client | None) -> list[Finding]:
    if client is None:
        socket_path = home / "kernel.sock"
        detail = f"not running; {socket_path} is left over" if socket_path.exists() else "not running"
        kernel = Finding("kernel", "warn", detail, "The next command starts it; `aos serve` shows what goes wrong.")
        return [kernel, _guarded("sandbox", _proof)]
    try:
        status = client.call("kernel_status", {})
    except CliError as error:
        return [Finding("kernel", "fail", error.message, error.hint)]
    return [
        Finding("kernel", "ok", f"version {status['version']}, up {status['uptime_s']:.0f} s"),
        _sandbox(status["sandbox"]),
        *map(_mount, status["mounts"]),
    ]


def _sandbox(proof: Json) -> Finding:
    if proof.get("driver"):
        return Finding("sandbox", "ok", f"{proof['driver']}, memory limit: {proof['memory_limit']}")
    if not proof["repair"]:
        return Finding("sandbox", "warn", proof["reason"], "Ask again in a moment.")
    return Finding("sandbox", "fail", proof["reason"], proof["repair"])


def _proof() -> Finding:
    """Try the drivers as a kernel would."""
    # pydantic, anyio and the drivers: half a second that only this check needs.
    import anyio

    from aos_mcp.abi.settings import SandboxSettings
    from aos_mcp.hardware import SystemClock, SystemEntropy
    from aos_mcp.sandbox.drivers import ProvenSandbox

    settings = SandboxSettings.model_validate(config.load()["sandbox"])

    async def prove(scratch: Path) -> Sequence[SandboxProof]:
        runtime = scratch / "run"
        runtime.mkdir()
        sandbox = ProvenSandbox(settings, scratch / "workspaces", runtime, SystemClock(), SystemEntropy(), scratch.name)
        with anyio.fail_after(PROOF_S):
            async with sandbox:
                return await sandbox.prove()

    try:
        with tempfile.TemporaryDirectory(prefix="aos-doctor-") as scratch:
            proofs = anyio.run(prove, Path(scratch))
    except TimeoutError:
        return Finding(
            "sandbox", "fail", f"the drivers were not proven within {PROOF_S:g} s", "Look at the machine's load."
        )
    passed = next((proof for proof in proofs if proof.passed), None)
    if passed is not None:
        return Finding("sandbox", "ok", f"{passed.driver}, memory limit: {passed.memory_limit}")
    reasons = "; ".join(f"{proof.driver}: {proof.reason}" for proof in proofs)
    return Finding("sandbox", "fail", reasons, " ".join(proof.repair for proof in proofs))


def _mount(row: Json) -> Finding:
    name = f"mount {row['server']}"
    if row.get("quarantined"):
        changed = ", ".join(row["quarantined"])
        return Finding(name, "warn", f"changed tools wait for you: {changed}", "See `aos approvals`.")
    if row["state"] == "down":
        return Finding(name, "warn", row["error"] or "down", "Check its command in aos.toml.")
    return Finding(name, "ok", f"{row['state']}, {row['tools']} tools")
