"""The command `install`, on files of a scratch home."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from aos_mcp.cli import app

CURSOR = '{\n    "mcpServers": {\n        "git": {"command": "uvx"}\n    }\n}\n'


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AOS_HOME", "XDG_CONFIG_HOME", "CLAUDE_CONFIG_DIR", "CODEX_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def cursor(home: Path) -> Path:
    path = home / ".cursor" / "mcp.json"
    path.parent.mkdir()
    path.write_text(CURSOR, "utf-8")
    return path


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_it_writes_what_starts_this_installation(home: Path, cursor: Path) -> None:
    assert app.main(["install", "cursor"]) == 0
    entry = json.loads(cursor.read_text("utf-8"))["mcpServers"]["aos"]
    beside = Path(sys.executable).parent / "aos-mcp"
    expected = [str(beside)] if beside.exists() else [sys.executable, "-m", "aos_mcp"]
    assert [entry["command"], *entry["args"]] == expected
    assert Path(entry["command"]).is_absolute()


def test_the_file_as_it_was_is_kept_beside_it(cursor: Path) -> None:
    assert app.main(["install", "cursor"]) == 0
    assert cursor.with_name("mcp.json.aos-backup").read_text("utf-8") == CURSOR


def test_installing_twice_changes_nothing_the_second_time(
    home: Path, cursor: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["install", "cursor"]) == 0
    once = cursor.read_bytes()
    capsys.readouterr()
    assert app.main(["install", "cursor", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["changed"], answer["written"], cursor.read_bytes()) == (False, False, once)
    assert files(home) == [".cursor/mcp.json", ".cursor/mcp.json.aos-backup"]


def test_a_dry_run_shows_the_change_and_writes_nothing(
    home: Path, cursor: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["install", "cursor", "--dry-run"]) == 0
    assert '+        "aos": {' in capsys.readouterr().out
    assert cursor.read_text("utf-8") == CURSOR
    assert files(home) == [".cursor/mcp.json"]


def test_undo_gives_every_byte_back_and_takes_the_backup_away(home: Path, cursor: Path) -> None:
    assert app.main(["install", "cursor"]) == 0
    assert app.main(["install", "cursor", "--undo"]) == 0
    assert cursor.read_text("utf-8") == CURSOR
    assert files(home) == [".cursor/mcp.json"]


def test_undo_after_two_installations_of_different_commands_leaves_nothing_of_ours(
    cursor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert app.main(["install", "cursor"]) == 0
    monkeypatch.setenv("AOS_HOME", "/somewhere/else")
    assert app.main(["install", "cursor"]) == 0
    assert app.main(["install", "cursor", "--undo"]) == 0
    assert json.loads(cursor.read_text("utf-8")) == json.loads(CURSOR)


def test_a_file_that_only_we_made_is_taken_away_again(home: Path) -> None:
    assert app.main(["install", "codex"]) == 0
    assert files(home) == [".codex/config.toml"]
    assert app.main(["install", "codex", "--undo"]) == 0
    assert files(home) == []


def test_another_home_is_handed_to_the_host(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AOS_HOME", str(home / "data"))
    assert app.main(["install", "gemini"]) == 0
    entry = json.loads((home / ".gemini" / "settings.json").read_text("utf-8"))["mcpServers"]["aos"]
    assert entry["env"] == {"AOS_HOME": str(home / "data")}


def test_permissions_and_links_are_kept(home: Path, cursor: Path) -> None:
    real = home / "dotfiles.json"
    cursor.rename(real)
    cursor.symlink_to(real)
    real.chmod(0o640)
    assert app.main(["install", "cursor"]) == 0
    assert cursor.is_symlink()
    assert "aos" in json.loads(real.read_text("utf-8"))["mcpServers"]
    assert real.stat().st_mode & 0o777 == 0o640


def test_a_folder_can_have_its_own(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = home / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    assert app.main(["install", "vscode", "--project"]) == 0
    assert files(home) == ["project/.vscode/mcp.json"]
    assert app.main(["install", "claude-desktop", "--project"]) == 2


def test_a_file_that_is_not_understood_is_left_alone(
    home: Path, cursor: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cursor.write_text('{"mcpServers": ', "utf-8")
    assert app.main(["install", "cursor", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "invalid"
    assert cursor.read_text("utf-8") == '{"mcpServers": '


def test_an_unknown_host_is_a_usage_error_that_names_the_known_ones(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["install", "notepad"]) == 2
    assert "claude-desktop" in capsys.readouterr().err


def test_undo_where_nothing_was_installed_changes_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["install", "opencode", "--undo"]) == 0
    assert os.listdir(home) == []
