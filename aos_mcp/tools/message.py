"""The text of messages: to agents, and to models."""

from __future__ import annotations

import json

from pydantic import BaseModel

from aos_mcp.abi.results import CompleteResult, SendResult

CALLS = frozenset({"send_message", "complete"})


def text(result: BaseModel) -> str:
    """Return what a person or a text-only host reads."""
    match result:
        case SendResult():
            return f"Sent {result.message_id}."
        case CompleteResult():
            answer = result.text if result.text is not None else json.dumps(result.object, ensure_ascii=False)
            return answer + ("\n(replayed)" if result.replayed else "")
    raise AssertionError(f"no message call answers {type(result).__name__}")
