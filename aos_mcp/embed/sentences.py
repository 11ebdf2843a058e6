"""Any model of sentence-transformers, where that package is installed: an option for whoever wants another language.

It owns one model on one worker thread. The package brings torch, which takes seconds to import; it is loaded at the
first text and never before.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import anyio

from aos_mcp.abi.errors import Unavailable
from aos_mcp.abi.limits import EMBED_BATCH
from aos_mcp.embed.worker import embedded


class SentenceTransformers:
    """`ports.Embedder` over `sentence_transformers.SentenceTransformer`."""

    def __init__(self, model: str) -> None:
        """Take the model's name or folder. Nothing is loaded yet."""
        self.name = f"sentence-transformers/{model}"
        self._model = model
        self._loading = threading.Lock()
        self._loaded: Any = None
        self._threads = anyio.CapacityLimiter(1)

    async def embed(self, texts: Sequence[str]) -> Sequence[bytes]:
        """See `ports.Embedder.embed`."""
        hint = "Its first use may download the model: try again in a moment. Search goes on by words."
        return await embedded(self.name, self._embed, texts, self._threads, hint)

    def _embed(self, texts: list[str]) -> list[bytes]:
        with self._loading:
            if self._loaded is None:
                self._loaded = self._load()
        found = self._loaded.encode(
            texts, batch_size=EMBED_BATCH, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
        )
        return [vector.astype("<f4").tobytes() for vector in found]

    def _load(self) -> Any:
        try:
            import sentence_transformers  # seconds, and an option
            import torch
        except ImportError:
            raise Unavailable(
                "The package sentence-transformers is not installed.",
                "Install it beside aos-mcp, or set search.embedder to auto.",
            ) from None
        torch.set_num_threads(1)  # two threads on a small machine take ten times as long for one query as one
        try:
            return sentence_transformers.SentenceTransformer(self._model, device="cpu")
        except (OSError, ValueError) as error:
            raise Unavailable(
                f"The model {self._model} cannot be loaded: {str(error).rstrip('.')}.",
                "Check search.model in aos.toml, and whether the model can be downloaded from here.",
            ) from error
