"""The home of a user of ours: where the hosts are installed, what a host is given, and what it gives its server.

Knows nothing of any one host. Nothing that starts in such a home reaches another machine: every address but loopback is
behind a proxy that nobody runs.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.surface.conftest import ROOT

PROGRAMS = ROOT / ".cache" / "hosts" / "node_modules" / ".bin"
SERVER = "aos"
SESSION_S = 120
"""The longest one run of a host may take."""

REQUIRED = bool({"CI", "AOS_HOSTS"} & os.environ.keys())
"""`make hosts` installs the hosts and sets AOS_HOSTS: then, as under CI, a host that is missing fails its tests."""

UNREACHABLE = "http://127.0.0.1:9"
"""The discard port, on which nobody listens."""

PATIENT = [
    {"aos_replay": 1, "model": "anthropic/claude"},
    {"reply": {"requests": [{"name": "wait_agent", "arguments": {"pids": [], "timeout_s": 600}}]}},
    {"reply": {"requests": [{"name": "exit", "arguments": {"result": "I heard ${last:the word is ([a-z]+)}."}}]}},
]
"""The model `replay/patient`: an agent that waits for a word, however many hosts come and go."""

LAST_PID = "${last:(p_[a-z2-7]{26})}"
LAST_PAGE = "${last:(pg_[a-z2-7]{26})}"
LAST_APPROVAL = "${last:(ap_[a-z2-7]{26})}"
"""What a scripted model puts where a model would repeat the handle it was last told."""


def needs(name: str) -> pytest.MarkDecorator:
    """Return the mark of tests that start a host."""
    missing = not REQUIRED and not (PROGRAMS / name).exists()
    return pytest.mark.skipif(missing, reason=f"{name} is not installed here: `make hosts` installs it")


def furnish(home: Path, settings: str) -> None:
    """Make the kernel's part of a home."""
    (kernel_home(home) / "replays").mkdir(parents=True)
    (kernel_home(home) / "aos.toml").write_text(settings, "utf-8")
    recording = "\n".join(json.dumps(line) for line in PATIENT)
    (kernel_home(home) / "replays" / "patient.jsonl").write_text(recording, "utf-8")


def kernel_home(home: Path) -> Path:
    """Return the AOS_HOME that a host gives its server."""
    return home / "aos"


def kernel_environment(home: Path) -> dict[str, str]:
    """Return what a host sets for its server, beside its own environment."""
    return {"AOS_HOME": str(kernel_home(home)), "PYTHONPATH": str(ROOT)}


def host_environment(home: Path) -> dict[str, str]:
    """Return what a host is started with: nothing of the developer's own keys or settings."""
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "LANG", "PYTHONPYCACHEPREFIX"}}
    proxy = {"HTTP_PROXY": UNREACHABLE, "HTTPS_PROXY": UNREACHABLE, "NO_PROXY": "127.0.0.1,localhost"}
    return {**kept, **proxy, "HOME": str(home)}


def project(home: Path) -> Path:
    """Return the folder the host stands in."""
    folder = home / "project"
    folder.mkdir(exist_ok=True)
    return folder
