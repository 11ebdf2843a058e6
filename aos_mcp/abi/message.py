"""Messages between agents, and to the host."""

from __future__ import annotations

from dataclasses import dataclass

HOST = "host"
"""The recipient that stands for whoever drives the kernel from outside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message. `sender` and `recipient` are pids or `HOST`; `taken_at` is set once it was delivered."""

    message_id: str
    owner: str
    sender: str
    recipient: str
    text: str
    topic: str = ""
    sent_at: float
    taken_at: float | None = None
