"""The basis of a model call: system text and tools, as a payload that all turns of an agent share.

With it and the page table at a step's stamp, the very prompt of that step can be laid out again at any time.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache

from aos_mcp.abi.completion import ToolSpec


@lru_cache(maxsize=256)
def encode_basis(system: str, tools: tuple[ToolSpec, ...]) -> bytes:
    """Return the payload. Cached: an agent's basis is the same from turn to turn."""
    told = {"system": system, "tools": [[tool.name, tool.description, tool.input_schema] for tool in tools]}
    text = json.dumps(told, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")


def decode_basis(body: bytes) -> tuple[str, tuple[ToolSpec, ...]]:
    """Return the system text and the tools."""
    told = json.loads(body.decode("utf-8", "surrogatepass"))
    tools = tuple(ToolSpec(name=name, description=said, input_schema=schema) for name, said, schema in told["tools"])
    return told["system"], tools


@lru_cache(maxsize=256)
def tools_digest(tools: tuple[ToolSpec, ...]) -> str:
    """Return what tells one tool list from another. A model call's intent holds it; turn after turn it is the same."""
    told = json.dumps([[tool.name, tool.description, tool.input_schema] for tool in tools])
    return hashlib.sha256(told.encode()).hexdigest()[:16]
