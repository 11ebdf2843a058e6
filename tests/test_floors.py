"""The floors hold: who may import whom, checked by import-linter, and that its contracts say what the design says."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import pairwise

import pytest

from tests.tree import PACKAGE, ROOT, imported, name_of, project, python_files

FLOORS = (
    ("cli",),
    ("daemon",),
    ("web", "gateway"),
    ("server", "testing", "endpoint"),
    ("boot",),
    ("tools", "resources"),
    ("kernel", "storage", "llm", "sandbox", "proxy"),
    ("context", "security", "audit"),
    ("ports",),
    ("metrics",),
    ("abi",),
)
"""From top to bottom, those of one line blind to each other. More may stand between them, never across them."""

THIRD_PARTIES = {
    "sqlite3": {"storage"},
    "aiosqlite": {"storage"},
    "psycopg": {"storage"},
    "pgvector": {"storage"},
    "openai": {"llm"},
    "anthropic": {"llm"},
    "genai_prices": {"llm"},
    "docker": {"sandbox"},
    "pyseccomp": {"sandbox"},
    "tokenizers": {"embed"},
    "sentence_transformers": {"embed"},
    "mcp": {"server", "web", "daemon", "transport", "tools", "resources", "proxy", "testing", "cli", "bench"},
    "mcp_types": {"server", "web", "daemon", "transport", "tools", "resources", "proxy", "testing", "cli", "bench"},
    "typer": {"cli"},
    "rich": {"cli"},
    "starlette": {"web", "gateway", "dashboard", "endpoint", "testing"},
    "uvicorn": {"endpoint", "testing"},
    "prometheus_client": {"metrics"},
    "cryptography": {"audit", "cli"},
    "jsonschema": {"kernel"},
    "referencing": {"kernel"},
    "cronsim": {"kernel"},
    "splintr": {"context"},
}
"""Each foreign package, and the only parts of the tree that may know it."""

STANDING_FOR_A_THIEF = ("aos_mcp/cli/demo_play.py", "sqlite3")
"""The demonstration tampers with a copy of the log as somebody would who has the file, so not through the store."""


def layers() -> list[set[str]]:
    contract = next(c for c in project()["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    return [{name.strip(" ()") for name in line.split("|")} for line in contract["layers"]]


def test_import_linter_keeps_every_contract() -> None:
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", program, "--no-cache", "--config", str(ROOT / "pyproject.toml")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


def test_the_contract_has_the_floors_of_the_design_in_their_order() -> None:
    level = {name: number for number, line in enumerate(layers()) for name in line}
    for floor in FLOORS:
        assert len({level[name] for name in floor}) == 1, f"{floor} are neighbours"
    for upper, lower in pairwise(FLOORS):
        assert level[upper[0]] < level[lower[0]], f"{upper} stand above {lower}"


def test_the_contract_is_exhaustive_and_looks_at_foreign_packages() -> None:
    settings = project()["tool"]["importlinter"]
    assert settings["include_external_packages"] is True
    assert next(c for c in settings["contracts"] if c["type"] == "layers")["exhaustive"] is True


@pytest.mark.parametrize("package", sorted(THIRD_PARTIES))
def test_a_foreign_package_is_known_only_where_it_belongs(package: str) -> None:
    strangers = [
        f"{name_of(path)}:{line}"
        for path in python_files()
        if path.is_relative_to(PACKAGE) and (name_of(path), package) != STANDING_FOR_A_THIEF
        for line, name in imported(path)
        if name.partition(".")[0] == package
        and path.relative_to(PACKAGE).with_suffix("").parts[0] not in THIRD_PARTIES[package]
    ]
    assert strangers == []


def test_the_kernel_and_the_pure_floors_know_no_foreign_package_but_these() -> None:
    known = {"aos_mcp", "anyio", "pydantic", "jsonschema", "referencing", "cronsim", "splintr"}
    allowed = known | sys.stdlib_module_names
    for floor in ("abi", "ports", "context", "security", "kernel"):
        files = [path for path in python_files() if path.is_relative_to(PACKAGE / floor)]
        assert files, floor
        assert {name for path in files for _, name in imported(path) if name.partition(".")[0] not in allowed} == set()


def test_only_boot_names_concrete_drivers() -> None:
    drivers = ("aos_mcp.storage", "aos_mcp.llm", "aos_mcp.sandbox", "aos_mcp.proxy")
    allowed = {"boot", "storage", "llm", "sandbox", "proxy", "testing", "cli", "bench"}
    found = {
        name_of(path)
        for path in python_files()
        if path.is_relative_to(PACKAGE) and path.relative_to(PACKAGE).with_suffix("").parts[0] not in allowed
        for _, name in imported(path)
        if name.startswith(drivers)
    }
    assert found == set()


def test_the_architecture_draws_every_floor() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    drawing = text.partition("```")[2].partition("```")[0]
    drawn = set(re.findall(r"[a-z_]+", "\n".join(line[:60] for line in drawing.splitlines())))
    told = {
        name for line in layers() for name in line if (PACKAGE / name).exists() or (PACKAGE / f"{name}.py").exists()
    }
    assert told - drawn - {"__main__"} == set()
