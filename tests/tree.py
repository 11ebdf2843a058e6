"""The tree as its guards see it: files, their syntax, and what imports what. Reads; runs nothing of the project."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "aos_mcp"
PROGRAM_FOLDERS = ("aos_mcp", "tests", "examples", "bench")
TEXT_SUFFIXES = frozenset(
    {".py", ".md", ".toml", ".sql", ".json", ".jsonl", ".html", ".txt", ".yml", ".yaml", ".sh", ".cfg", ""}
)
NOT_OURS = frozenset({"__pycache__", "node_modules", "dist", "build"})


def is_ours(path: Path) -> bool:
    """Tell whether a file is part of the project: no cache, no build product, not reached over a link."""
    parts = path.relative_to(ROOT).parts
    hidden = [part for part in parts if part.startswith(".") and part not in {".ci", ".gitignore", ".github"}]
    linked = any((ROOT / Path(*parts[: depth + 1])).is_symlink() for depth in range(len(parts)))
    return not hidden and not linked and NOT_OURS.isdisjoint(parts)


@cache
def python_files() -> tuple[Path, ...]:
    """Return every Python file of the project."""
    found = [path for folder in PROGRAM_FOLDERS for path in (ROOT / folder).rglob("*.py")]
    return tuple(sorted(path for path in found if is_ours(path)))


@cache
def text_files() -> tuple[Path, ...]:
    """Return every file of the project that people read."""
    folders = [*PROGRAM_FOLDERS, "docs", ".ci"]
    found = [path for folder in folders for path in (ROOT / folder).rglob("*")] + list(ROOT.glob("*"))
    return tuple(sorted(p for p in found if p.is_file() and p.suffix in TEXT_SUFFIXES and is_ours(p)))


@cache
def syntax(path: Path) -> ast.Module:
    """Return the syntax tree of a Python file."""
    return ast.parse(path.read_text("utf-8"), str(path))


def name_of(path: Path) -> str:
    """Return a path as the project speaks of it."""
    return path.relative_to(ROOT).as_posix()


def project() -> dict[str, Any]:
    """Return pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> Iterator[Function]:
    """Yield every function of a file, inner ones too."""
    for node in ast.walk(syntax(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def body_lines(function: Function) -> int:
    """Return how many lines a function takes from its `def`, its docstring not counted."""
    assert function.end_lineno is not None
    first = function.body[0]
    docstring = 0
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        assert first.end_lineno is not None
        docstring = first.end_lineno - first.lineno + 1
    return function.end_lineno - function.lineno + 1 - docstring


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the text constants of a file with their lines, the fixed parts of f-strings among them."""
    for node in ast.walk(syntax(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Yield what a file imports, by full name, with the line; imports inside functions too."""
    for node in ast.walk(syntax(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.lineno, node.module


@cache
def known_tests() -> frozenset[str]:
    """Return the id of every test there is, as pytest names it, without parameters."""
    found = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        if not is_ours(path):
            continue
        for node in syntax(path).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                found.add(f"{name_of(path)}::{node.name}")
            elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
                found |= {
                    f"{name_of(path)}::{node.name}::{inner.name}"
                    for inner in node.body
                    if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) and inner.name.startswith("test_")
                }
    return frozenset(found)
