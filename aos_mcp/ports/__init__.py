"""What the kernel asks of the world. Every driver keeps one of these, and so does its fake in `aos_mcp.testing`.

Drivers translate foreign errors into `abi.errors` by code; nothing foreign crosses this line. Payloads that cross it
are `abi` dataclasses. A driver knows nothing of rights, budgets or audit: by the time it is asked, the gate has said
yes.
"""

from aos_mcp.ports.device import (
    Clock,
    Deliver,
    Embedder,
    Entropy,
    LanguageModel,
    Metered,
    Models,
    Mounts,
    Progress,
    Sandbox,
    Workspaces,
)
from aos_mcp.ports.store import Store, StoreFile, Transaction

__all__ = [
    "Clock",
    "Deliver",
    "Embedder",
    "Entropy",
    "LanguageModel",
    "Metered",
    "Models",
    "Mounts",
    "Progress",
    "Sandbox",
    "Store",
    "StoreFile",
    "Transaction",
    "Workspaces",
]
