"""The tree keeps the conventions of its makers: sizes, names, reach, and what may stand where."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import grimp
import pytest

from aos_mcp import __version__
from tests.tree import (
    PACKAGE,
    ROOT,
    body_lines,
    functions,
    is_ours,
    name_of,
    project,
    python_files,
    strings,
    syntax,
    text_files,
)

FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
MEANINGLESS = re.compile(
    r"^(utils?|helpers?|managers?|common|misc|stuff|base)$|_(v\d+|utils?|helpers?|enhanced|new|old)$"
)

ROOTS = ("aos_mcp.__main__", "aos_mcp.entry")
"""Where programs begin. `aos_mcp.testing` is public, so all of it is a beginning too."""

CATCH_ALL = frozenset(
    {
        "aos_mcp/kernel/gate.py",  # our bug in one call does not end the kernel
        "aos_mcp/kernel/quantum.py",  # our bug in one turn ends that process alone
        "aos_mcp/daemon.py",  # the last word of a program goes to its log
        "aos_mcp/entry.py",
        "aos_mcp/cli/app.py",
    }
)

ATTACKER = "aos_mcp/cli/demo_play.py"
"""Shows that tampering is found, and so must do it behind the store's back."""

SQL = re.compile(
    r"^\s*(SELECT\b.+\bFROM|INSERT\s+(OR \w+ )?INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM|PRAGMA)\b"
    r"|^\s*(CREATE|DROP|ALTER)\s+(TABLE|INDEX|VIEW|TRIGGER|VIRTUAL)\b",
    re.DOTALL,
)

HEAVY = ("openai", "anthropic", "docker", "numpy", "torch", "genai_prices", "tokenizers", "sentence_transformers")
"""What takes longer to import than a host waits for the list of tools."""

MACHINE_PATH = re.compile(r"(?<![\w.~}])/(?:root|work)/\S+|(?<![\w.~}])/home/(?!me\b|user\b|you\b)[a-z]\S*")
REGISTRY = re.compile(r"https?://\S+/simple\b|https?://[^\s/]*(?:artifactory|nexus|devpi|mirror)[^\s/]*/")
EXAMPLE_PATHS = frozenset(
    {
        ("aos_mcp/testing/sandbox_escapes.py", "/root/.ssh/id_rsa"),  # must not be readable from a sandbox
        ("aos_mcp/testing/sandbox_escapes.py", "/root/.bashrc"),
    }
)


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    long = {name_of(p): n for p in python_files() if (n := len(p.read_text("utf-8").splitlines())) > FILE_LINES_MAX}
    assert not long


def test_no_function_is_longer_than_a_screen() -> None:
    long = {
        f"{name_of(path)}:{function.lineno} {function.name}": body_lines(function)
        for path in python_files()
        for function in functions(path)
        if body_lines(function) > FUNCTION_LINES_MAX
    }
    assert not long


def test_every_module_is_named_for_what_it_holds() -> None:
    named = [p for p in python_files() if p.is_relative_to(PACKAGE)]
    parts = {part for path in named for part in path.relative_to(PACKAGE).with_suffix("").parts}
    assert [part for part in sorted(parts) if MEANINGLESS.search(part)] == []


def test_every_module_is_reached_from_an_entry_point() -> None:
    graph = grimp.build_graph("aos_mcp", cache_dir=None)
    testing = graph.find_descendants("aos_mcp.testing") | {"aos_mcp.testing"}
    reached: set[str] = set()
    waiting = [*ROOTS, *testing]
    while waiting:
        module = waiting.pop()
        if module in reached:
            continue
        reached.add(module)
        waiting += graph.find_modules_directly_imported_by(module)
        waiting += run_by_name(module, graph.modules)
        waiting += [module.rpartition(".")[0]] if "." in module else []
    assert sorted(graph.modules - reached) == []


def run_by_name(module: str, modules: frozenset[str] | set[str]) -> list[str]:
    """Return the modules that this one starts as programs of their own: by file name, or by `python -m`."""
    said = {text for _, text in strings(file_of(module))}
    return [other for other in modules if other in said or file_of(other).name in said - {"__init__.py"}]


@cache
def file_of(module: str) -> Path:
    path = ROOT / Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def test_every_module_says_what_it_owns() -> None:
    silent = [
        name_of(path)
        for path in python_files()
        if path.is_relative_to(PACKAGE) and path.stat().st_size and ast.get_docstring(syntax(path)) is None
    ]
    assert silent == []


def test_sql_stands_in_sql_files_only() -> None:
    loose = [
        f"{name_of(path)}:{line}"
        for path in python_files()
        if path.is_relative_to(PACKAGE) and name_of(path) != ATTACKER
        for line, text in strings(path)
        if SQL.match(text)
    ]
    assert loose == []


def test_every_query_has_a_name_and_every_name_is_used() -> None:
    used = {text for path in (PACKAGE / "storage").glob("*.py") for _, text in strings(path)}
    written = {
        found
        for path in (PACKAGE / "storage" / "sql" / "sqlite").glob("*.sql")
        for found in re.findall(r"^-- name: (\w+)", path.read_text("utf-8"), re.MULTILINE)
    }
    assert written, "the queries are where the store looks for them"
    assert written - used == set()


def test_only_the_command_line_prints() -> None:
    prints = [
        f"{name_of(path)}:{node.lineno}"
        for path in python_files()
        if path.is_relative_to(PACKAGE) and not name_of(path).startswith(("aos_mcp/cli/", "aos_mcp/testing/"))
        for node in ast.walk(syntax(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert prints == []


def test_only_the_gate_the_turn_and_the_programs_catch_everything() -> None:
    loose = [
        f"{name_of(path)}:{node.lineno}"
        for path in python_files()
        if path.is_relative_to(PACKAGE) and name_of(path) not in CATCH_ALL
        for node in ast.walk(syntax(path))
        if isinstance(node, ast.ExceptHandler) and catches_everything(node) and not raises_again(node)
    ]
    assert loose == []


def catches_everything(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(
        kind is None or (isinstance(kind, ast.Name) and kind.id in {"Exception", "BaseException"}) for kind in kinds
    )


def raises_again(handler: ast.ExceptHandler) -> bool:
    """Tell whether a handler only cleans up: its last word is a bare `raise`."""
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def test_nothing_is_left_undone_in_silence() -> None:
    marker = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b|NotImplemented" + r"Error")
    undone = [
        f"{name_of(path)}:{number}"
        for path in python_files()
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if marker.search(line)
    ]
    assert undone == []


def package_text(*, without: Path) -> str:
    return "\n".join(p.read_text("utf-8") for p in python_files() if p.is_relative_to(PACKAGE) and p != without)


def test_every_limit_is_kept_somewhere() -> None:
    limits = PACKAGE / "abi" / "limits.py"
    assigned = [target for node in syntax(limits).body if isinstance(node, ast.Assign) for target in node.targets]
    names = [target.id for target in assigned if isinstance(target, ast.Name)]
    text = package_text(without=limits)
    assert [name for name in names if not re.search(rf"\b{name}\b", text)] == []


def test_every_setting_is_read_somewhere() -> None:
    settings = PACKAGE / "abi" / "settings.py"
    text = package_text(without=settings)
    unread = []
    for section in (node for node in syntax(settings).body if isinstance(node, ast.ClassDef)):
        reader = r"settings\." if section.name == "Settings" else r"\."
        fields = [f.target.id for f in section.body if isinstance(f, ast.AnnAssign) and isinstance(f.target, ast.Name)]
        unread += [f"{section.name}.{field}" for field in fields if not re.search(rf"{reader}{field}\b", text)]
    assert unread == []


def modules_after(statement: str) -> set[str]:
    """Return the top names that a statement brings into a fresh interpreter."""
    program = (
        "import sys; before = set(sys.modules)\n"
        f"{statement}\n"
        "sys.stdout.write(' '.join({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    return set(done.stdout.split())


def test_the_shim_needs_the_standard_library_only() -> None:
    assert modules_after("import aos_mcp.shim") - set(sys.stdlib_module_names) == {"aos_mcp"}


@pytest.mark.parametrize("module", ["boot", "server", "daemon", "kernel.kernel", "testing.kernels", "cli.app"])
def test_nothing_heavy_is_imported_before_it_is_needed(module: str) -> None:
    assert modules_after(f"import aos_mcp.{module}").isdisjoint(HEAVY)


def test_the_command_line_answers_without_the_surface_or_the_kernel() -> None:
    assert modules_after("import aos_mcp.cli.app").isdisjoint({"mcp", "mcp_types", "rich", "starlette", "uvicorn"})


def test_no_path_of_a_machine_and_no_registry_is_written_down() -> None:
    told = []
    for path in text_files():
        if path == Path(__file__):
            continue
        for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), start=1):
            found = [m.group().rstrip("\"'`,;:)]}\\") for m in MACHINE_PATH.finditer(line)]
            found = [text for text in found if (name_of(path), text) not in EXAMPLE_PATHS]
            if found or REGISTRY.search(line):
                told.append(f"{name_of(path)}:{number}: {line.strip()[:120]}")
    assert told == []


def test_the_exceptions_of_this_file_still_stand_for_something() -> None:
    assert [name for name in (*CATCH_ALL, ATTACKER) if not (ROOT / name).exists()] == []
    gone = [(name, text) for name, text in EXAMPLE_PATHS if text not in (ROOT / name).read_text("utf-8")]
    assert gone == []


def test_the_links_at_the_top_lead_to_the_tools_and_resources() -> None:
    for name in ("tools", "resources"):
        link = ROOT / name
        assert link.is_symlink()
        assert link.resolve() == PACKAGE / name
        assert not is_ours(link / "catalog.py"), "a file is looked at once"


RELEASE = re.compile(r"^## \[(?P<version>[^\]]+)\](?: - (?P<date>\d{4}-\d{2}-\d{2}))?$", re.MULTILINE)
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_changelog_has_the_form_of_keep_a_changelog() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert text.startswith("# Changelog\n")
    releases = [(m["version"], m["date"]) for m in RELEASE.finditer(text)]
    assert releases[0] == ("Unreleased", None), "what is not released yet stands on top"
    assert all(date for _, date in releases[1:]), "a release has a date"
    assert [date for _, date in releases[1:]] == sorted((d for _, d in releases[1:] if d), reverse=True)
    assert len(re.findall(r"^## ", text, re.MULTILINE)) == len(releases), "a second-level heading is a release"
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= KINDS


def test_the_version_is_the_same_wherever_it_is_told() -> None:
    assert project()["project"]["version"] == __version__
    newest = [m["version"] for m in RELEASE.finditer((ROOT / "CHANGELOG.md").read_text("utf-8"))]
    assert newest[1:2] in ([], [__version__]), "the newest release of the changelog"
