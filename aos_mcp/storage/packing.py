"""Payloads as they lie in a store: packed where that saves room. Pure.

Transcripts and tool results shrink to about half. That pays for the search index beside them, so that a store stays
within one and a half times its payloads.
"""

from __future__ import annotations

import zlib

_WORTH_BYTES = 512
"""Below this a row's own overhead outweighs what packing saves."""
_LEVEL = 1
"""A fifth of a millisecond for 5 KB; higher levels take longer for two percent."""


def pack(body: bytes) -> tuple[bool, bytes]:
    """Return whether the body was packed, and the bytes to store."""
    if len(body) < _WORTH_BYTES:
        return False, body
    packed = zlib.compress(body, _LEVEL)
    return (True, packed) if len(packed) * 8 <= len(body) * 7 else (False, body)


def unpack(stored: bytes, *, packed: bool, size_bytes: int) -> bytes | None:
    """Return at most the first `size_bytes` of a body; `stored` may be its beginning only. None for damaged bytes."""
    if not packed:
        return stored[:size_bytes]
    try:
        return zlib.decompressobj().decompress(stored, size_bytes) if size_bytes else b""
    except zlib.error:
        return None
