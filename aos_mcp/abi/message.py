"""Messages between agents, and to the host."""

from __future__ import annotations

from dataclasses import dataclass

HOST = "host"
"""The recipient that stands for whoever drives the kernel from outside."""

KERNEL = "kernel"
"""The sender of what the kernel itself has to tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message. `sender` is a pid, `HOST` or `KERNEL`, `recipient` a pid or `HOST`; `taken_at`: delivered."""

    message_id: str
    owner: str
    sender: str
    recipient: str
    text: str
    topic: str = ""
    sent_at: float
    taken_at: float | None = None
