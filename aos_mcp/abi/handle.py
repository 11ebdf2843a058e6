"""Handles: 128 random bits behind a prefix. Knowing one is not a right to it; ownership is checked at every call."""

from __future__ import annotations

from typing import NewType

Pid = NewType("Pid", str)
"""`p_` and 26 characters of base32."""

PageId = NewType("PageId", str)
"""`pg_` and 26 characters."""

Digest = NewType("Digest", str)
"""SHA-256 of a payload, 64 hexadecimal characters."""


def pid_in(name: str) -> str:
    """Return a name that is a pid; empty for one of something else, as accounts and sandboxes have them."""
    return name if name.startswith("p_") else ""


def workspace_of(pid: Pid) -> str:
    """Return the name of a process's own workspace."""
    return pid.replace("p_", "w-")
