"""Vectors: what an embedder makes of a text, as it crosses floors and lies in a store."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Vector:
    """One text as a direction. Vectors of two models are never compared."""

    model: str
    """The embedder that made it."""
    values: bytes
    """Of length 1; little-endian 32-bit floats, as many as the model has dimensions."""
