"""Keys: from a reference to the secret, when it is needed. A key is never logged, stored or put in an error."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from importlib import import_module
from pathlib import Path
from subprocess import DEVNULL

import anyio
import anyio.to_thread

from aos_mcp.abi import limits
from aos_mcp.abi.errors import Invalid, Unavailable
from aos_mcp.llm.providers import Row

AFTER = "A kernel that runs keeps the environment it was started in: `aos stop` it then; the next command starts one."
_SECRET_VARIABLES = frozenset({"AOS_HTTP_TOKEN", "AOS_DATABASE_URL"})


def key_present(row: Row, environ: Mapping[str, str]) -> bool:
    """Tell whether a call could be made: no key is needed, or one seems to be there. Runs nothing."""
    if row.key is not None:
        scheme, _, rest = row.key.partition(":")
        return {"env": bool(environ.get(rest)), "file": Path(rest).expanduser().is_file()}.get(scheme, True)
    return row.keyless or any(environ.get(name) for name in row.key_variables)


def missing_key(row: Row) -> Unavailable:
    """Return the error that says how to give this provider a key."""
    named = " or ".join(row.key_variables)
    want = f"Set {named}" if named else "Give it a key"
    return Unavailable(
        f"Provider {row.name!r} has no key.",
        f'{want}, or write key = "env:NAME" (or file:, keyring:, cmd:) under [providers.{row.name}] in aos.toml. '
        f"{AFTER}",
    )


async def find_key(row: Row, environ: Mapping[str, str], secrets: Collection[str]) -> str:
    """Return the key, or an empty text for a provider that needs none and has none.

    `secrets` names the variables that a `cmd:` reference must not see: all providers' keys.

    Raises:
        Unavailable: there is no key behind the reference.
        Invalid: the reference has no known form.
    """
    if row.key is not None:
        key = await _dereference(row, row.key, environ, secrets)
    else:
        key = next((environ[name].strip() for name in row.key_variables if environ.get(name)), "")
    if not key and not row.keyless:
        raise missing_key(row)
    if not (key.isascii() and key.isprintable()):
        raise _nothing(row, f"The key of provider {row.name!r} has characters that no key has.")
    return key


async def _dereference(row: Row, reference: str, environ: Mapping[str, str], secrets: Collection[str]) -> str:
    scheme, _, rest = reference.partition(":")
    if scheme == "env":
        key = environ.get(rest, "")
    elif scheme == "file":
        key = await _read(row, rest)
    elif scheme == "keyring":
        key = await anyio.to_thread.run_sync(_from_keyring, row, rest)
    elif scheme == "cmd":
        key = await _run(row, rest, {n: v for n, v in environ.items() if n not in {*secrets, *_SECRET_VARIABLES}})
    else:
        # The reference is not shown: whoever pasted a key in its place would find it in a log.
        raise Invalid(
            f"The key of provider {row.name!r} is not a reference.",
            "Write env:NAME, file:PATH, keyring:SERVICE/NAME or cmd:COMMAND, never the key itself.",
        )
    if not key.strip():
        raise _nothing(
            row, f"The {scheme}: reference of provider {row.name!r} gave no key.", AFTER if scheme == "env" else ""
        )
    return key.strip()


async def _read(row: Row, path: str) -> str:
    try:
        return await (await anyio.Path(path).expanduser()).read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise _nothing(row, f"The key file of provider {row.name!r} cannot be read.") from None


def _from_keyring(row: Row, rest: str) -> str:
    service, _, name = rest.partition("/")
    try:
        # Optional, and slow to import: it looks for a desktop's key store.
        keyring, errors = import_module("keyring"), import_module("keyring.errors")
    except ImportError:
        raise Unavailable(
            f"The key of provider {row.name!r} is in a keyring, and the keyring package is not installed.",
            "Install it (pip install keyring), or use env:, file: or cmd:.",
        ) from None
    try:
        return keyring.get_password(service, name) or ""
    except errors.KeyringError:
        raise _nothing(row, f"The keyring did not give the key of provider {row.name!r}.") from None


async def _run(row: Row, command: str, env: Mapping[str, str]) -> str:
    try:
        with anyio.fail_after(limits.KEY_COMMAND_S):
            done = await anyio.run_process(shlex.split(command), check=False, stdin=DEVNULL, stderr=DEVNULL, env=env)
    except TimeoutError:
        raise _nothing(row, f"The key command of provider {row.name!r} did not end in time.") from None
    except (OSError, ValueError):
        raise _nothing(row, f"The key command of provider {row.name!r} cannot be started.") from None
    if done.returncode != 0:
        raise _nothing(row, f"The key command of provider {row.name!r} ended with {done.returncode}.")
    return done.stdout.decode("utf-8", "replace")


def _nothing(row: Row, sentence: str, more: str = "") -> Unavailable:
    return Unavailable(sentence, f"Check key under [providers.{row.name}] in aos.toml. {more}".rstrip())
