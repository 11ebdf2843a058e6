"""From a mount's settings to what is started or dialled: variables expanded, references followed, at each start.

Owns the forms a value may have. `${NAME}` and `${NAME:-default}` are replaced anywhere; an environment value or a
header that is a whole reference (`env:NAME`, `file:/path`, `keyring:SERVICE/NAME`, `cmd:COMMAND`) becomes the secret
behind it. Secrets live in the target only, and `censor` takes them out of whatever is shown.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Literal
from urllib.parse import urlsplit

import anyio
import anyio.to_thread

from aos_mcp.abi import limits
from aos_mcp.abi.errors import Invalid, Unavailable
from aos_mcp.abi.settings import MountSettings

Transport = Literal["stdio", "http", "sse"]

_VARIABLE = re.compile(r"\$\{([^}:]+(?::(?!-)[^}:]*)*)(?::-([^}]*))?\}")
_REFERENCE = re.compile(r"(?s)env:[A-Za-z_]\w*|file:(?=~|/(?!/)).+|keyring:[^/]+/.+|cmd:.+")
"""`file:` wants an absolute path: `file:./x.db` and `file:///x.db` are values that programs really take."""
_INHERITED = ("HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER")
_SECRET_CHARS_MIN = 8  # Shorter values are words such as `true`, and censoring them would eat the message.


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One downstream, ready to be started (`argv`, `env`, `cwd`) or dialled (`url`, `headers`)."""

    transport: Transport
    argv: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: str | None = None
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    proxy: str | None = field(default=None, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def censor(self, text: str) -> str:
        """Return `text` with every configured value of environment and headers blotted out."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


def transport_of(settings: MountSettings, server: str) -> Transport:
    """Return how a server is reached.

    Raises:
        Invalid: it has both a command and a URL, or neither, or a transport that does not fit.
    """
    if (settings.command is None) == (settings.url is None):
        raise Invalid(f"Server {server!r} needs a command or a url, and not both.", "Keep one of the two.")
    if settings.command is not None:
        if settings.transport not in {None, "stdio"}:
            raise Invalid(f"Server {server!r} has a command and transport {settings.transport!r}.", "Use stdio.")
        return "stdio"
    if settings.transport == "stdio":
        raise Invalid(f"Server {server!r} has a url and transport 'stdio'.", "Use http or sse.")
    return settings.transport or "http"


def expand(text: str, environ: Mapping[str, str]) -> str:
    """Replace `${NAME}` and `${NAME:-default}`; an empty variable takes the default, as in a shell.

    Raises:
        Unavailable: a variable without a default is not set; the sentence names it.
    """

    def value(match: re.Match[str]) -> str:
        name, default = match[1], match[2]
        found = environ.get(name)
        if default is not None:
            return found or default
        if found is None:
            raise Unavailable(f"The variable {name} is not set.", f"Set {name}, or write ${{{name}:-default}}.")
        return found

    return _VARIABLE.sub(value, text)


async def resolve(settings: MountSettings, server: str, environ: Mapping[str, str]) -> Target:
    """Return the target as the environment stands now.

    Raises:
        Invalid: the settings contradict themselves.
        Unavailable: a variable or a secret is not there; the sentence names it, never its value.
    """
    transport = transport_of(settings, server)
    values = settings.env if transport == "stdio" else settings.headers
    secrets = {name: await _secret(name, value, environ) for name, value in values.items()}
    hidden = tuple(sorted({s for s in secrets.values() if len(s) >= _SECRET_CHARS_MIN}, key=len, reverse=True))
    if transport == "stdio":
        assert settings.command is not None
        return Target(
            transport=transport,
            argv=(expand(settings.command, environ), *(expand(arg, environ) for arg in settings.args)),
            env={name: environ[name] for name in _INHERITED if name in environ} | secrets,
            cwd=None if settings.cwd is None else str(await anyio.Path(expand(settings.cwd, environ)).expanduser()),
            secrets=hidden,
        )
    assert settings.url is not None
    url = expand(settings.url, environ)
    if urlsplit(url).scheme not in {"http", "https"}:
        raise Invalid(f"The url of server {server!r} is neither http nor https.", "Mend it in the configuration.")
    return Target(transport=transport, url=url, headers=secrets, proxy=proxy_for(url, environ), secrets=hidden)


def proxy_for(url: str, environ: Mapping[str, str]) -> str | None:
    """Return the proxy that the usual variables name for `url`; this machine itself is never asked through one."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    listed = (environ.get("no_proxy") or environ.get("NO_PROXY") or "").split(",")
    excepted = ["localhost", "127.0.0.1", "::1", *(entry.strip().lstrip(".") for entry in listed if entry.strip())]
    if any(entry in {"*", host} or host.endswith(f".{entry}") for entry in excepted):
        return None
    variable = f"{parts.scheme}_proxy"
    return environ.get(variable) or environ.get(variable.upper()) or None


async def _secret(name: str, value: str, environ: Mapping[str, str]) -> str:
    """Return what `value` stands for; `name` is the variable or header it is for."""
    if not _REFERENCE.fullmatch(value):
        return expand(value, environ)
    scheme, _, rest = value.partition(":")
    match scheme:
        case "env":
            found = environ.get(rest)
            if found is None:
                raise Unavailable(f"{name} refers to the variable {rest}, which is not set.", f"Set {rest}.")
            return found
        case "file":
            return await _from_file(name, rest)
        case "keyring":
            return await anyio.to_thread.run_sync(_from_keyring, name, rest)
        case _:
            return await _from_command(name, rest, environ)


async def _from_file(name: str, path: str) -> str:
    try:
        return (await (await anyio.Path(path).expanduser()).read_text("utf-8")).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Unavailable(
            f"{name} refers to the file {path}, which cannot be read: {type(error).__name__}.",
            "Check the path and its permissions.",
        ) from None


def _from_keyring(name: str, rest: str) -> str:
    service, _, user = rest.partition("/")
    try:
        # Optional, and slow to load: it looks for the desktop's key store.
        keyring = import_module("keyring")
    except ImportError:
        raise Unavailable(
            f"{name} refers to a keyring, and the keyring package is not installed.",
            "Install it (pip install keyring), or use env:, file: or cmd:.",
        ) from None
    try:
        found = keyring.get_password(service, user)
    except keyring.errors.KeyringError:
        found = None
    if found is None:
        raise Unavailable(f"The keyring has no {rest} for {name}.", "Store it there, or mend the reference.")
    return str(found)


def _helper_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what a secret helper needs: the usual six, and the way to the user's session bus and agents."""
    return {k: v for k, v in environ.items() if k in _INHERITED or k.startswith(("XDG_", "DBUS_"))}


async def _from_command(name: str, command: str, environ: Mapping[str, str]) -> str:
    hint = "Run the command by hand; it must print the secret and end with 0."
    try:
        with anyio.fail_after(limits.KEY_COMMAND_S):
            done = await anyio.run_process(
                shlex.split(command), check=False, stderr=subprocess.DEVNULL, env=_helper_environ(environ)
            )
    except TimeoutError:
        raise Unavailable(f"The command behind {name} did not end in time.", hint) from None
    except (OSError, ValueError):
        raise Unavailable(f"The command behind {name} cannot be started.", hint) from None
    if done.returncode != 0:
        raise Unavailable(f"The command behind {name} ended with {done.returncode}.", hint)
    return done.stdout.decode("utf-8", "replace").strip()
