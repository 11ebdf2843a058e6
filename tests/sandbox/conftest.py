from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from aos_mcp.abi.settings import SandboxSettings
from aos_mcp.sandbox.drivers import ProvenSandbox
from aos_mcp.sandbox.egress import OnDecision
from aos_mcp.sandbox.workspace import DirectoryWorkspaces

CI = bool(os.environ.get("CI"))


class SystemClock:
    def now(self) -> float:
        return time.clock_gettime(time.CLOCK_REALTIME)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep_until(self, when: float) -> None:
        await anyio.sleep(max(0.0, when - self.now()))


class SystemEntropy:
    def handle(self, prefix: str) -> str:
        return prefix + secrets.token_hex(13)

    def random(self) -> float:
        return 0.5


def _docker_answers() -> bool:
    return os.path.exists("/var/run/docker.sock") or "DOCKER_HOST" in os.environ


DRIVERS = [
    pytest.param(
        "bwrap",
        marks=[
            pytest.mark.bwrap,
            pytest.mark.skipif(not CI and shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
        ],
    ),
    pytest.param(
        "docker+runc",
        marks=[
            pytest.mark.docker,
            pytest.mark.skipif(not CI and not _docker_answers(), reason="there is no Docker engine"),
        ],
    ),
]


@pytest.fixture(scope="package")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="package", params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make_sandbox(
    folder: Path, *drivers: str, image: str = "", on_egress: OnDecision = lambda *_: None
) -> ProvenSandbox:
    settings = SandboxSettings.model_validate({"drivers": drivers, "image": image})
    return ProvenSandbox(
        settings, folder / "workspaces", folder / "run", SystemClock(), SystemEntropy(), "tests", on_egress=on_egress
    )


@pytest.fixture(scope="package")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sandbox")


@pytest.fixture(scope="package")
def workspaces(place: Path) -> DirectoryWorkspaces:
    return DirectoryWorkspaces(place / "workspaces")


@pytest.fixture(scope="package")
async def sandbox(driver: str, place: Path) -> AsyncIterator[ProvenSandbox]:
    async with make_sandbox(place, driver) as made:
        proofs = await made.prove()
        assert made.proven(), proofs
        yield made
