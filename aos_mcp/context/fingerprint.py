"""What tells one prompt from another: a digest over all that a model is sent of a context, and nothing else.

Marks for caches, the bound on the reply and what a cut call had already written are not in it: they differ between two
tries of one turn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from aos_mcp.abi.completion import Prompt


def fingerprint(prompt: Prompt) -> str:
    """Return the SHA-256 of a prompt's system text, tools and turns, in hexadecimal."""
    digest = hashlib.sha256()
    for part in _parts(prompt):
        body = part.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(body))
        digest.update(body)
    return digest.hexdigest()


def _parts(prompt: Prompt) -> Iterator[str]:
    yield prompt.system
    yield prompt.output_schema or ""
    for tool in prompt.tools:
        yield from (tool.name, tool.description, tool.input_schema)
    for turn in prompt.turns:
        yield from (turn.role, turn.text, turn.request_id or "", str(turn.is_error), turn.reasoning)
        for request in turn.requests:
            yield from (request.request_id, request.name, request.arguments)
        for attachment in turn.attachments:
            yield from (attachment.media_type, hashlib.sha256(attachment.data).hexdigest())
