"""Which embedder a configuration means. Decides by what is there; loads nothing."""

from __future__ import annotations

from aos_mcp.abi.errors import Invalid
from aos_mcp.abi.settings import SearchSettings
from aos_mcp.embed.minilm import NAME, MiniLM, find_files
from aos_mcp.embed.sentences import SentenceTransformers
from aos_mcp.ports import Embedder


def find_embedder(settings: SearchSettings) -> Embedder | None:
    """Return the embedder that runs in this process; None where search goes by words alone.

    Raises:
        Invalid: one is asked for by name that is not there.
    """
    if settings.embedder == "sentence-transformers":
        if not settings.model:
            raise Invalid("search.embedder is sentence-transformers, and no model is named.", "Set search.model.")
        return SentenceTransformers(settings.model)
    if settings.embedder not in {"auto", "minilm"}:
        return None
    folder = find_files(settings.model_path)
    if folder is not None:
        return MiniLM(folder)
    if settings.embedder == "minilm" or settings.model_path:
        where = settings.model_path or "any installed package"
        raise Invalid(
            f"The files of {NAME} are not in {where}.",
            "Set search.model_path to a folder with its model.safetensors and tokenizer.json.",
        )
    return None
