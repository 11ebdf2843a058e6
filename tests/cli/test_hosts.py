"""The forms of the hosts' configuration files."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from aos_mcp.cli import jsonc
from aos_mcp.cli.hosts import HOSTS, installed, location, removed, undone

COMMAND = ["/opt/aos/bin/aos-mcp"]
MODULE = ["/opt/aos/bin/python", "-m", "aos_mcp"]

FILES = {
    "claude-desktop": '{\n  "globalShortcut": "",\n  "mcpServers": {\n    "git": {"command": "uvx"}\n  }\n}\n',
    "claude-code": '{"numStartups": 7, "mcpServers": {}, "projects": {"/p": {"mcpServers": {}}}}',
    "vscode": '{\n\t// asked once\n\t"inputs": [],\n\t"servers": {\n\t\t"x": {"url": "https://x.example/mcp"},\n\t},\n}\n',
    "cursor": '{\n  "mcpServers": {\n    "git": {\n      "command": "uvx"\n    }\n  }\n}',
    "codex": 'model = "gpt-5.4"\n\n[mcp_servers.git]\ncommand = "uvx"\n',
    "gemini": '{\n  "theme": "Default", // mine\n  "selectedAuthType": "oauth"\n}\n',
    "opencode": '{\n  "$schema": "https://opencode.ai/config.json",\n  "mcp": {\n  }\n}\n',
}


def decoded(host: str, text: str) -> dict[str, object]:
    value = tomllib.loads(text) if HOSTS[host].form == "toml" else jsonc.decode(text)
    assert isinstance(value, dict)
    return value


def test_every_host_has_a_file_to_be_tried_on() -> None:
    assert set(FILES) == set(HOSTS)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("command", [COMMAND, MODULE])
def test_only_our_entry_is_added(host: str, command: list[str]) -> None:
    row = HOSTS[host]
    before = decoded(host, FILES[host])
    after = decoded(host, installed(row, FILES[host], command, {}))
    servers = after[row.key]
    assert isinstance(servers, dict)
    del servers["aos"]
    assert after == {**before, row.key: before.get(row.key, {})}


@pytest.mark.parametrize("host", HOSTS)
def test_installing_twice_is_installing_once(host: str) -> None:
    once = installed(HOSTS[host], FILES[host], COMMAND, {})
    assert installed(HOSTS[host], once, COMMAND, {}) == once


@pytest.mark.parametrize("host", HOSTS)
def test_undo_restores_the_file_to_the_byte(host: str) -> None:
    once = installed(HOSTS[host], FILES[host], COMMAND, {})
    assert undone(HOSTS[host], once, FILES[host], COMMAND, {}) == FILES[host]


@pytest.mark.parametrize("host", HOSTS)
def test_undo_removes_a_file_that_only_we_needed(host: str) -> None:
    assert undone(HOSTS[host], installed(HOSTS[host], None, COMMAND, {}), None, COMMAND, {}) is None


@pytest.mark.parametrize("host", HOSTS)
def test_undo_takes_only_our_entry_from_a_file_that_changed_since(host: str) -> None:
    row = HOSTS[host]
    other = decoded(host, FILES[host])
    text = installed(row, FILES[host], COMMAND, {})
    text = "zz = 1\n" + text if row.form == "toml" else text.replace("{", '{"zz": 1,', 1)
    after = undone(row, text, FILES[host], COMMAND, {})
    assert after is not None
    left = decoded(host, after)
    assert left.pop("zz") == 1
    assert {k: v for k, v in left.items() if v != {}} == {k: v for k, v in other.items() if v != {}}


@pytest.mark.parametrize("host", HOSTS)
def test_undo_without_our_entry_changes_nothing(host: str) -> None:
    assert undone(HOSTS[host], FILES[host], None, COMMAND, {}) == FILES[host]
    assert removed(HOSTS[host], FILES[host]) == FILES[host]


def test_each_host_gets_the_shape_it_reads() -> None:
    env = {"AOS_HOME": "/data/aos"}
    plain = {"command": MODULE[0], "args": MODULE[1:], "env": env}
    joined = {"type": "local", "command": MODULE, "enabled": True, "environment": env}
    shapes = {
        "claude-desktop": ("mcpServers", plain),
        "claude-code": ("mcpServers", {"type": "stdio", **plain}),
        "vscode": ("servers", {"type": "stdio", **plain}),
        "cursor": ("mcpServers", plain),
        "codex": ("mcp_servers", plain),
        "gemini": ("mcpServers", plain),
        "opencode": ("mcp", joined),
    }
    for host, (key, entry) in shapes.items():
        assert decoded(host, installed(HOSTS[host], None, MODULE, env)) == {key: {"aos": entry}}


def test_a_byte_order_mark_stays_at_the_front() -> None:
    text = installed(HOSTS["cursor"], "\ufeff{}", COMMAND, {})
    assert text.startswith("\ufeff{")
    assert json.loads(text[1:])["mcpServers"]["aos"]["command"] == COMMAND[0]


def test_files_are_where_each_system_keeps_them() -> None:
    home = Path("/home/me")

    def where(host: str, platform: str, **environ: str) -> str:
        return str(location(HOSTS[host], home=home, environ=environ, platform=platform))

    desktop = "claude_desktop_config.json"
    assert where("claude-desktop", "linux") == f"/home/me/.config/Claude/{desktop}"
    assert where("claude-desktop", "darwin") == f"/home/me/Library/Application Support/Claude/{desktop}"
    assert where("claude-desktop", "win32", APPDATA="/app") == f"/app/Claude/{desktop}"
    assert where("vscode", "linux", XDG_CONFIG_HOME="/conf") == "/conf/Code/User/mcp.json"
    assert where("claude-code", "linux") == "/home/me/.claude.json"
    assert where("claude-code", "linux", CLAUDE_CONFIG_DIR="/c") == "/c/.claude.json"
    assert where("codex", "linux", CODEX_HOME="/codex") == "/codex/config.toml"
    assert where("cursor", "darwin") == "/home/me/.cursor/mcp.json"
    assert where("gemini", "linux") == "/home/me/.gemini/settings.json"
    assert where("opencode", "linux") == "/home/me/.config/opencode/opencode.json"
