"""What is shipped: one name at the top, every file the program reads, and commands that run where it is installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from aos_mcp import __version__
from tests.tree import PACKAGE, ROOT, is_ours, project

DATA_SUFFIXES = frozenset({".sql", ".toml", ".jsonl", ".html", ".typed"})

WHOLE_KERNEL = """
import sys, anyio
from pathlib import Path
import aos_mcp
from aos_mcp.testing.kernels import kernel_on
from aos_mcp.testing.model import ScriptedModel, ScriptedModels, says

async def main():
    assert Path(aos_mcp.__file__).is_relative_to(sys.prefix), aos_mcp.__file__
    async with kernel_on(Path(sys.argv[1]), ScriptedModels(ScriptedModel("scripted/one", (says("installed"),)))) as k:
        done = await k.call("spawn_agent", task="x", wait_s=30)
        sys.stdout.write(done.result)

anyio.run(main)
"""


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """Run a program to its end and return what it wrote; without the developer's paths and keys."""
    environ = {name: value for name, value in os.environ.items() if name in {"PATH", "LANG", "HOME", "TMPDIR"}}
    done = subprocess.run(
        command, cwd=cwd, env={**environ, **variables}, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-2_000:]}{done.stderr[-4_000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what belongs to the project: a build must need nothing else and leave nothing behind here."""
    copy = tmp_path_factory.mktemp("source")
    for path in [*PACKAGE.rglob("*"), *ROOT.glob("*")]:
        if path.is_symlink() and path.parent == ROOT:
            (copy / path.name).symlink_to(path.readlink())
        elif path.is_file() and is_ours(path):
            target = copy / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    """The wheel, built by the backend that pyproject.toml names."""
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist", cwd=source)
    [built] = (source / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def contents(wheel: Path) -> frozenset[str]:
    with zipfile.ZipFile(wheel) as archive:
        return frozenset(archive.namelist())


def test_the_only_name_at_the_top_of_the_wheel_is_ours(contents: frozenset[str]) -> None:
    assert {name.partition("/")[0] for name in contents} == {"aos_mcp", f"aos_mcp-{__version__}.dist-info"}


def test_every_file_of_the_package_is_in_the_wheel_and_no_other(contents: frozenset[str]) -> None:
    ours = {
        path.relative_to(ROOT).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and is_ours(path) and (path.suffix == ".py" or path.suffix in DATA_SUFFIXES)
    }
    assert {name for name in contents if name.startswith("aos_mcp/")} == ours


def test_what_the_program_reads_beside_its_code_is_in_the_wheel(contents: frozenset[str]) -> None:
    for needed in (
        "aos_mcp/py.typed",
        "aos_mcp/sandbox/agentd.py",
        "aos_mcp/llm/providers.toml",
        "aos_mcp/storage/migrations/sqlite/0001_schema.sql",
        "aos_mcp/storage/sql/sqlite/process.sql",
        "aos_mcp/dashboard_page.html",
        "aos_mcp/llm/replays/hello.jsonl",
        f"aos_mcp-{__version__}.dist-info/licenses/LICENSE",
    ):
        assert needed in contents


def test_the_source_archive_follows_no_link_at_the_top(source: Path) -> None:
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", "sdist", cwd=source)
    [built] = (source / "sdist").glob("*.tar.gz")
    with tarfile.open(built) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert "aos_mcp/tools/catalog.py" in names
    assert "pyproject.toml" in names
    assert {name.partition("/")[0] for name in names}.isdisjoint({"tools", "resources", "dist", ".cache", ".git"})


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel in it; the dependencies are borrowed from the one the tests run in."""
    home = tmp_path_factory.mktemp("installed")
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if uv is not None:
        run(uv, "pip", "install", "--offline", "--no-deps", "--python", python, wheel, cwd=home)
    else:
        run(sys.executable, "-m", "pip", "--python", str(python), "install", "--no-index", "--no-deps", wheel, cwd=home)
    [packages] = (home / "lib").glob("python*/site-packages")
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", "utf-8")
    return home


@pytest.mark.parametrize("command", [["aos-mcp"], ["aos"], ["python", "-m", "aos_mcp"]], ids=" ".join)
def test_the_installed_commands_answer(installed: Path, command: list[str], tmp_path: Path) -> None:
    shown = run(installed / "bin" / command[0], *command[1:], "--help", cwd=tmp_path, HOME=str(tmp_path))
    assert "Usage" in shown
    assert "serve" in shown
    assert list(tmp_path.iterdir()) == [], "asking for help leaves nothing behind"


def test_a_whole_kernel_runs_from_the_installed_wheel(installed: Path, tmp_path: Path) -> None:
    shown = run(installed / "bin" / "python", "-c", WHOLE_KERNEL, tmp_path, cwd=tmp_path, HOME=str(tmp_path))
    assert shown == "installed"


def test_the_commands_are_the_two_that_are_documented() -> None:
    assert project()["project"]["scripts"] == {"aos-mcp": "aos_mcp.entry:main", "aos": "aos_mcp.entry:main"}


def test_the_example_for_claude_desktop_starts_our_command() -> None:
    example = json.loads((ROOT / "claude_desktop_config.example.json").read_text("utf-8"))
    assert list(example) == ["mcpServers"]
    for server in example["mcpServers"].values():
        command = [server["command"], *server.get("args", [])]
        assert command[0] in {*project()["project"]["scripts"], "uvx"}
        assert "aos-mcp" in command


def test_every_dependency_is_pinned_exactly() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    assert pins
    assert [pin for pin in pins if "==" not in pin or "://" in pin or pin.startswith("-")] == []
    names = {pin.partition("==")[0].partition("[")[0].strip().lower().replace("_", "-") for pin in pins}
    metadata = project()["project"]
    asked = [*metadata["dependencies"], *(one for group in metadata["optional-dependencies"].values() for one in group)]
    wanted = {
        one.split(";")[0].split(">")[0].split("=")[0].split("<")[0].split("[")[0].strip().lower() for one in asked
    }
    assert wanted - names == set()
