"""Characters that no encoding has: halves of a surrogate pair, as some providers send them."""

from __future__ import annotations


def whole(text: str) -> str:
    """Return a text with halves that stand side by side joined; a half alone becomes U+FFFD."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
