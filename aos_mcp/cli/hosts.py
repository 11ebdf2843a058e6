"""The MCP hosts we can be installed in: where each keeps its servers, and in which form. Pure: text in, text out.

`JSON` hosts differ in the key under which servers stand and in the shape of an entry; Codex keeps TOML.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from aos_mcp.cli import jsonc, toml_table

SERVER = "aos"
"""The name under which hosts know us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One host. `user` and `project` are its files, relative to the base named beside; None where it has none."""

    name: str
    title: str
    key: str
    """The object (or table) that holds the servers."""
    shape: str
    """`plain`: command and args; `typed`: the same with a type; `joined`: one list, as opencode has it."""
    form: str = "json"
    user: str
    user_base: str = "home"
    """`home`, `config` (the system's folder for application settings), or the variable that may move it."""
    project: str | None = None


HOSTS: Mapping[str, Host] = MappingProxyType(
    {
        host.name: host
        for host in (
            Host(
                name="claude-desktop", title="Claude Desktop", key="mcpServers", shape="plain",
                user="Claude/claude_desktop_config.json", user_base="config",
            ),
            Host(
                name="claude-code", title="Claude Code", key="mcpServers", shape="typed",
                user=".claude.json", user_base="CLAUDE_CONFIG_DIR", project=".mcp.json",
            ),
            Host(
                name="vscode", title="VS Code", key="servers", shape="typed",
                user="Code/User/mcp.json", user_base="config", project=".vscode/mcp.json",
            ),
            Host(
                name="cursor", title="Cursor", key="mcpServers", shape="plain",
                user=".cursor/mcp.json", project=".cursor/mcp.json",
            ),
            Host(
                name="codex", title="Codex", key="mcp_servers", shape="plain", form="toml",
                user=".codex/config.toml", user_base="CODEX_HOME", project=".codex/config.toml",
            ),
            Host(
                name="gemini", title="Gemini CLI", key="mcpServers", shape="plain",
                user=".gemini/settings.json", project=".gemini/settings.json",
            ),
            Host(
                name="opencode", title="opencode", key="mcp", shape="joined",
                user="opencode/opencode.json", user_base="XDG_CONFIG_HOME", project="opencode.json",
            ),
        )
    }
)  # fmt: skip


def entry(host: Host, command: Sequence[str], env: Mapping[str, str]) -> dict[str, object]:
    """Return the host's entry for a server that `command` starts with `env` added to its environment."""
    if host.shape == "joined":
        joined: dict[str, object] = {"type": "local", "command": list(command), "enabled": True}
        return {**joined, "environment": dict(env)} if env else joined
    typed: dict[str, object] = {"type": "stdio"} if host.shape == "typed" else {}
    plain = {**typed, "command": command[0], "args": list(command[1:])}
    return {**plain, "env": dict(env)} if env else plain


def installed(host: Host, text: str | None, command: Sequence[str], env: Mapping[str, str]) -> str:
    """Return the host's file with our entry in it; `text` is None when there is no file.

    What a user added to our entry stays. Raises ValueError when the file does not decode or cannot be edited safely.
    """
    value = entry(host, command, env)
    edit = toml_table.set_table if host.form == "toml" else jsonc.set_member
    mark, body = _without_mark(text or "")
    return mark + edit(body, (host.key, SERVER), value)


def removed(host: Host, text: str) -> str:
    """Return the host's file without our entry. Raises ValueError as `installed`."""
    edit = toml_table.remove_table if host.form == "toml" else jsonc.remove_member
    mark, body = _without_mark(text)
    return mark + edit(body, (host.key, SERVER))


def holds_entry(host: Host, text: str) -> bool:
    """Return whether our entry is in the host's file. Raises ValueError as `installed`."""
    return removed(host, text) != text


def undone(host: Host, text: str, backup: str | None, command: Sequence[str], env: Mapping[str, str]) -> str | None:
    """Return what the file held before the installation; None when there was no file.

    If nothing but our entry changed since, that is the backup, to the byte. Otherwise only our entry is taken out.
    Raises ValueError as `installed`.
    """
    if not holds_entry(host, text):
        return text
    is_ours_alone = text == installed(host, backup, command, env)
    return backup if is_ours_alone else removed(host, text)


def location(host: Host, *, home: Path, environ: Mapping[str, str], platform: str) -> Path:
    """Return the host's file for this user; `platform` as `sys.platform`."""
    if host.user_base == "config":
        return _application_settings(home, environ, platform) / host.user
    moved = environ.get(host.user_base)
    if host.user_base == "XDG_CONFIG_HOME":
        return (Path(moved) if moved else home / ".config") / host.user
    return Path(moved) / Path(host.user).name if moved else home / host.user


def _application_settings(home: Path, environ: Mapping[str, str], platform: str) -> Path:
    if platform == "darwin":
        return home / "Library" / "Application Support"
    if platform == "win32":
        return Path(environ.get("APPDATA") or home / "AppData" / "Roaming")
    return Path(environ.get("XDG_CONFIG_HOME") or home / ".config")


def _without_mark(text: str) -> tuple[str, str]:
    """Part a byte order mark from the text; it stays at the front of the file."""
    return ("\ufeff", text[1:]) if text.startswith("\ufeff") else ("", text)
