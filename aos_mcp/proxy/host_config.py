"""Reads the server lists of MCP hosts as they are: `mcpServers` of most, `servers` of VS Code.

Owns what the forms of the various hosts mean. Promises that nothing is started or resolved here: variables stay
variables until the server is. What hosts keep beside a server for themselves (approvals, galleries) is passed over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from aos_mcp.abi import limits
from aos_mcp.abi.errors import Invalid
from aos_mcp.abi.settings import MountSettings
from aos_mcp.proxy.definition import server_name
from aos_mcp.proxy.target import Transport, expand

_TRANSPORTS: Mapping[str, Transport] = {
    "stdio": "stdio",
    "http": "http",
    "streamable-http": "http",
    "streamable_http": "http",
    "streamableHttp": "http",
    "sse": "sse",
}
_URL_KEYS = ("httpUrl", "url", "serverUrl")
_PROJECT_FOLDERS = frozenset({".vscode", ".cursor", ".gemini", ".roo", ".kiro"})
_PROJECT_FILE = ".mcp.json"
_CONTAINERS = frozenset({"docker", "podman", "nerdctl"})
_RUNNERS = re.compile(r"docker|podman|nerdctl|uvx?|pipx|python[0-9.]*")
_OURSELVES = re.compile(r"aos-mcp([\[@=:<>~].*)?|aos_mcp(\..*)?")
_STRING = r'"(?:[^"\\]|\\.)*"'
_COMMENT = re.compile(rf"({_STRING})|//[^\n]*|/\*.*?\*/", re.DOTALL)
_TRAILING_COMMA = re.compile(rf"({_STRING})|,(?=\s*[}}\]])", re.DOTALL)


def import_mounts(paths: Sequence[str], environ: Mapping[str, str], home: Path) -> dict[str, MountSettings]:
    """Return the servers of the named files, by the name that goes before their tools.

    `~` and variables in a path are expanded; a relative path starts from `home`. Of two servers with one name the one
    named first stays, as the hosts themselves do it with their scopes. Entries that would start aos-mcp are skipped.

    Raises:
        Invalid: a file is missing or is not such a file, or an entry of it makes no sense; the sentence names it.
    """
    found: dict[str, MountSettings] = {}
    for named in paths:
        path = home / Path(expand(named, environ)).expanduser()
        for key, entry in _entries(path).items():
            where = f"{path}: server {key!r}"
            if not isinstance(entry, dict):
                raise Invalid(f"{where} is not an object.", "Mend the file, or take it out of import.")
            if not is_ourselves(entry):
                found.setdefault(server_name(key), _settings(entry, where, _workspace(path)))
    return found


def is_ourselves(entry: Mapping[str, object]) -> bool:
    """Tell whether this entry starts aos-mcp, which must not mount itself."""
    arguments = entry.get("args")
    program = PurePath(str(entry.get("command", ""))).name
    if program in {"aos", "aos-mcp"}:
        return True
    words = [str(word) for word in arguments] if isinstance(arguments, list) else []
    if program in _CONTAINERS:
        words = [PurePath(word).name for word in words]
    return bool(_RUNNERS.fullmatch(program)) and any(_OURSELVES.fullmatch(word) for word in words)


def _entries(path: Path) -> Mapping[str, object]:
    try:
        with path.open("rb") as file:
            body = file.read(limits.MOUNT_CONFIG_BYTES_MAX + 1)
        if len(body) > limits.MOUNT_CONFIG_BYTES_MAX:
            raise Invalid(f"{path} is longer than {limits.MOUNT_CONFIG_BYTES_MAX} bytes.", "Is it the right file?")
        config = json.loads(_without_comments(body.decode("utf-8-sig")))
    except OSError as error:
        raise Invalid(f"{path} cannot be read: {error.strerror}.", "Mend import in aos.toml.") from None
    except ValueError as error:
        raise Invalid(f"{path} is not valid JSON: {error}.", "Mend the place it names.") from None
    for key in ("mcpServers", "servers"):
        if isinstance(config, dict) and isinstance(config.get(key), dict):
            return dict(config[key])
    raise Invalid(f"{path} has no mcpServers and no servers.", "Name a file in which an MCP host keeps its servers.")


def _settings(entry: Mapping[str, object], where: str, workspace: Path | None) -> MountSettings:
    folder = None if workspace is None else str(workspace)
    command: object = entry.get("command")
    url: object = next((entry[key] for key in _URL_KEYS if key in entry), None)
    arguments: object = entry.get("args") or []
    if (command is None) == (url is None):
        raise Invalid(f"{where} needs a command or a url, and not both.", "Mend the entry.")
    said = entry.get("type", entry.get("transport"))
    if said is not None and said not in _TRANSPORTS:
        raise Invalid(f"{where} has the unknown type {said!r}.", f"Known are {', '.join(sorted(_TRANSPORTS))}.")
    if not isinstance(arguments, list):
        raise Invalid(f"{where}: args is not a list.", "Mend the entry.")
    cwd = entry.get("cwd", folder if command is not None else None)
    return MountSettings(
        command=None if command is None else _ours(command, folder, where),
        args=[_ours(argument, folder, where) for argument in arguments],
        env=_table(entry.get("env"), folder, where),
        cwd=None if cwd is None else _ours(cwd, folder, where),
        url=None if url is None else _ours(url, folder, where),
        transport="stdio" if url is None else _TRANSPORTS[str(said)] if said is not None else None,
        headers=_table(entry.get("headers"), folder, where),
        disabled=entry.get("disabled") is True,
    )


def _table(value: object, folder: str | None, where: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Invalid(f"{where}: env and headers are objects of texts.", "Mend the entry.")
    return {str(key): _ours(item, folder, where) for key, item in value.items()}


def _ours(value: object, folder: str | None, where: str) -> str:
    """Return a text with the variables of other hosts in our form."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise Invalid(f"{where}: {value!r} is not a text.", "Put it in quotes, or mend the entry.")
    text = str(value).replace("${env:", "${").replace("${userHome}", "${HOME}")
    return text if folder is None else text.replace("${workspaceFolder}", folder)


def _workspace(path: Path) -> Path | None:
    """Return the project a file belongs to, which is where its servers start; None for a person's own file."""
    if path.parent.name in _PROJECT_FOLDERS:
        return path.parent.parent
    return path.parent if path.name == _PROJECT_FILE else None


def _without_comments(text: str) -> str:
    bare = _COMMENT.sub(lambda match: match[1] or " ", text)
    return _TRAILING_COMMA.sub(lambda match: match[1] or "", bare)
