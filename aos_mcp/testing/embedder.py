"""An embedder whose vectors a test can foresee: one dimension for each word it was told of."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import anyio

from aos_mcp.abi.errors import AosError


class WordEmbedder:
    """`ports.Embedder` that counts words. Texts about the same of the given topics are near."""

    def __init__(self, topics: Sequence[Sequence[str]], *, name: str = "words") -> None:
        """Take the words of each topic; words of one topic mean the same."""
        self.name = name
        self.seen: list[str] = []
        self.failure: AosError | None = None
        self._topics = [frozenset(topic) for topic in topics]

    async def embed(self, texts: Sequence[str]) -> Sequence[bytes]:
        """See `ports.Embedder.embed`."""
        await anyio.lowlevel.checkpoint()
        if self.failure is not None:
            raise self.failure
        self.seen += texts
        return [self._vector(text.lower().split()) for text in texts]

    def _vector(self, words: Sequence[str]) -> bytes:
        # The last dimension keeps a text about nothing from having no direction.
        counts = [*(sum(word.strip(".,?!") in topic for word in words) for topic in self._topics), 0.1]
        length = sum(count * count for count in counts) ** 0.5
        return struct.pack(f"<{len(counts)}f", *(count / length for count in counts))
