"""The server lists of MCP hosts, read as they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aos_mcp.abi.errors import Invalid
from aos_mcp.abi.settings import MountSettings
from aos_mcp.proxy.host_config import import_mounts, is_ourselves


def read(path: Path, config: object) -> dict[str, MountSettings]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(config if isinstance(config, str) else json.dumps(config), "utf-8")
    return import_mounts([str(path)], {}, path.parent)


def test_the_form_of_most_hosts_is_read(tmp_path: Path) -> None:
    found = read(
        tmp_path / "claude_desktop_config.json",
        {
            "mcpServers": {
                "files": {"command": "npx", "args": ["-y", "pkg", "/data"], "env": {"A": "${B:-1}"}},
                "far": {"type": "http", "url": "https://x.example/mcp", "headers": {"Authorization": "Bearer ${T}"}},
                "old": {"type": "sse", "url": "https://x.example/sse", "disabled": True},
                "gemini": {"httpUrl": "https://g.example/mcp", "trust": True},
            },
            "theme": "dark",
        },
    )
    assert found["files"] == MountSettings(
        command="npx", args=["-y", "pkg", "/data"], env={"A": "${B:-1}"}, transport="stdio"
    )
    assert found["far"].headers == {"Authorization": "Bearer ${T}"}
    assert (found["old"].transport, found["old"].disabled) == ("sse", True)
    assert found["gemini"].url == "https://g.example/mcp"


def test_the_form_of_vs_code_is_read_with_comments_and_its_variables(tmp_path: Path) -> None:
    text = """
    {
      // the servers of this project
      "servers": {
        "lint": {
          "type": "stdio", "command": "${workspaceFolder}/lint", /* here */
          "args": ["--url", "http://x//y", "${env:HOME}", "a,]"],
          "env": {"KEY": "${input:key}",},
        },
      },
      "inputs": [],
    }
    """
    found = read(tmp_path / ".vscode" / "mcp.json", text)
    assert found["lint"].command == f"{tmp_path}/lint"
    assert found["lint"].args == ["--url", "http://x//y", "${HOME}", "a,]"]
    assert found["lint"].env == {"KEY": "${input:key}"}
    assert found["lint"].cwd == str(tmp_path)


def test_servers_of_a_project_start_in_it(tmp_path: Path) -> None:
    config = {"mcpServers": {"a": {"command": "x"}, "b": {"command": "x", "cwd": "/else"}}}
    found = read(tmp_path / ".mcp.json", config)
    assert (found["a"].cwd, found["b"].cwd) == (str(tmp_path), "/else")


def test_of_two_servers_with_one_name_the_first_stays(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"mcpServers": {"my srv": {"command": name}}}), "utf-8")
    found = import_mounts(["one.json", "${HERE}/two.json"], {"HERE": str(tmp_path)}, tmp_path)
    assert {name: mount.command for name, mount in found.items()} == {"my-srv": "one"}


@pytest.mark.parametrize(
    "entry",
    [
        {"command": "aos-mcp"},
        {"command": "/home/me/.local/bin/aos-mcp", "args": ["serve"]},
        {"command": "uvx", "args": ["aos-mcp@latest"]},
        {"command": "uvx", "args": ["--from", "aos-mcp[otel]==1.0", "aos"]},
        {"command": "uv", "args": ["--directory", "/src", "run", "aos-mcp"]},
        {"command": "python3.12", "args": ["-m", "aos_mcp.entry"]},
        {"command": "docker", "args": ["run", "-i", "registry.example/me/aos-mcp:1"]},
    ],
)
def test_aos_mcp_does_not_mount_itself(tmp_path: Path, entry: dict[str, object]) -> None:
    assert is_ourselves(entry)
    assert not read(tmp_path / "x.json", {"mcpServers": {"kernel": entry}})


@pytest.mark.parametrize(
    "entry",
    [
        {"command": "npx", "args": ["-y", "server-filesystem", "/srv/aos-mcp"]},
        {"command": "mcp-server-git", "args": ["--repository", "aos-mcp"]},
        {"url": "http://aos-mcp.example/mcp"},
    ],
)
def test_a_server_that_only_works_on_our_folder_is_mounted(entry: dict[str, object]) -> None:
    assert not is_ourselves(entry)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("{", "not valid JSON"),
        ("[]", "no mcpServers"),
        ({"mcpServers": {"a": 1}}, "'a' is not an object"),
        ({"mcpServers": {"a": {}}}, "'a' needs a command or a url"),
        ({"mcpServers": {"a": {"command": "x", "url": "http://x"}}}, "'a' needs a command or a url"),
        ({"mcpServers": {"a": {"type": "carrier pigeon", "url": "http://x"}}}, "carrier pigeon"),
        ({"mcpServers": {"a": {"command": "x", "args": "y"}}}, "args is not a list"),
        ({"mcpServers": {"a": {"command": "x", "env": ["A=1"]}}}, "env and headers"),
        ({"mcpServers": {"a": {"command": "x", "env": {"A": None}}}}, "None is not a text"),
    ],
)
def test_what_makes_no_sense_is_named(tmp_path: Path, config: object, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        read(tmp_path / "x.json", config)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"gone\.json cannot be read"):
        import_mounts(["gone.json"], {}, tmp_path)
