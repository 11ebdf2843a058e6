"""Which of this machine's own files a sandbox shows, all of them read-only.

The programs (`/usr`) and the few public files of `/etc` that programs cannot do without; never a secret, never
anything a user wrote. Account files are stubs, so that the names of this machine's users stay here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from aos_mcp.abi.errors import Unavailable
from aos_mcp.sandbox.box import box_gid, box_uid

_TOP = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_ETC_SHOWN = (
    "/etc/ld.so.cache",
    "/etc/alternatives",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
    "/etc/crypto-policies/back-ends",
    "/etc/localtime",
)
_PYTHONS = ("/usr/bin/python3", "/usr/local/bin/python3")


@dataclass(frozen=True, slots=True, kw_only=True)
class Userland:
    """What to show: read-only binds (same path in and out), symbolic links and stub files by path inside."""

    binds: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    stubs: tuple[tuple[str, bytes], ...]
    python: str


def host_userland() -> Userland:
    """Look at this machine.

    Raises Unavailable when there is no Python under /usr: without one the supervisor cannot start.
    """
    python = next((path for path in _PYTHONS if os.access(path, os.X_OK)), None)
    if python is None or not os.path.realpath(python).startswith("/usr/"):
        raise Unavailable(
            "There is no Python 3 under /usr, and the sandbox supervisor needs one.",
            "Install the distribution's python3, or set sandbox.image to a Docker image that holds Python 3.",
        )
    tops = [Path("/", name) for name in _TOP]
    shown = [str(path) for path in tops if path.is_dir() and not path.is_symlink()]
    return Userland(
        binds=("/usr", *shown, *(path for path in _ETC_SHOWN if os.path.exists(path))),
        links=tuple((str(path), str(path.readlink())) for path in tops if path.is_symlink()),
        stubs=stub_files(),
        python=python,
    )


def stub_files() -> tuple[tuple[str, bytes], ...]:
    """Return the account and name files of a box."""
    uid, gid = box_uid(), box_gid()
    passwd = f"root:x:0:0:root:/:/bin/false\nagent:x:{uid}:{gid}:agent:/tmp:/bin/sh\n"
    return (
        ("/etc/passwd", passwd.encode()),
        ("/etc/group", f"root:x:0:\nagent:x:{gid}:\n".encode()),
        ("/etc/hosts", b"127.0.0.1 localhost\n::1 localhost\n"),
        ("/etc/nsswitch.conf", b"passwd: files\ngroup: files\nhosts: files\n"),
    )
