"""The forward pass of a small BERT sentence encoder in numpy: token ids in, unit vectors out.

It owns the arithmetic and nothing else: no files, no tokens, no threads. What it computes is what
sentence-transformers computes with torch for the same weights, to 1e-6 in the cosine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]
Whole: TypeAlias = npt.NDArray[np.int64]

NORM_EPSILON = np.float32(1e-12)
MASKED = np.float32(-1e9)
"""Added to the attention paid to padding: its weight becomes nought."""


class Encoder:
    """A BERT encoder with mean pooling, as all-MiniLM-L6-v2 is one."""

    def __init__(self, weights: Mapping[str, Floats], *, layers: int, heads: int) -> None:
        """Lay out the weights for the pass: matrices transposed once, query, key and value in one."""
        self._words = weights["embeddings.word_embeddings.weight"]
        kinds = weights["embeddings.token_type_embeddings.weight"][0]
        self._places = weights["embeddings.position_embeddings.weight"] + kinds
        self._norm = (weights["embeddings.LayerNorm.weight"], weights["embeddings.LayerNorm.bias"])
        self._layers = [_Layer(weights, f"encoder.layer.{number}.", heads) for number in range(layers)]

    def encode(self, ids: Sequence[Sequence[int]]) -> Floats:
        """Return one unit vector for each sequence of token ids, padded here to the longest: shape (n, width)."""
        longest = max(len(row) for row in ids)
        padded = np.zeros((len(ids), longest), dtype=np.int64)
        present = np.zeros((len(ids), longest), dtype=np.float32)
        for number, row in enumerate(ids):
            padded[number, : len(row)] = row
            present[number, : len(row)] = 1
        hidden = _normed(self._words[padded] + self._places[:longest], *self._norm)
        bias = ((1 - present) * MASKED)[:, None, None, :]
        for layer in self._layers:
            hidden = layer.apply(hidden, bias)
        summed: Floats = (hidden * present[:, :, None]).sum(axis=1)
        pooled: Floats = summed / present.sum(axis=1, keepdims=True)
        lengths: Floats = np.sqrt((pooled * pooled).sum(axis=1, keepdims=True))
        pooled /= np.maximum(lengths, NORM_EPSILON)
        return pooled


class _Layer:
    """One block: attention, then the two dense layers, each added to its input and normalised."""

    def __init__(self, weights: Mapping[str, Floats], prefix: str, heads: int) -> None:
        def dense(name: str) -> tuple[Floats, Floats]:
            matrix = np.ascontiguousarray(weights[f"{prefix}{name}.weight"].T)
            return matrix, weights[f"{prefix}{name}.bias"]

        def norm(name: str) -> tuple[Floats, Floats]:
            return weights[f"{prefix}{name}.weight"], weights[f"{prefix}{name}.bias"]

        parts = [dense(f"attention.self.{name}") for name in ("query", "key", "value")]
        self._mixed = (np.concatenate([m for m, _ in parts], axis=1), np.concatenate([b for _, b in parts]))
        self._out, self._out_norm = dense("attention.output.dense"), norm("attention.output.LayerNorm")
        self._up, self._down = dense("intermediate.dense"), dense("output.dense")
        self._down_norm = norm("output.LayerNorm")
        self._heads = heads

    def apply(self, hidden: Floats, bias: Floats) -> Floats:
        """Return the block's output for (batch, tokens, width)."""
        attended = self._attend(hidden, bias)
        hidden = _normed(hidden + _dense(attended, *self._out), *self._out_norm)
        return _normed(hidden + _dense(_gelu(_dense(hidden, *self._up)), *self._down), *self._down_norm)

    def _attend(self, hidden: Floats, bias: Floats) -> Floats:
        batch, tokens, width = hidden.shape
        mixed = _dense(hidden, *self._mixed).reshape(batch, tokens, 3, self._heads, width // self._heads)
        query, key, value = mixed.transpose(2, 0, 3, 1, 4)
        scores = query @ key.transpose(0, 1, 3, 2)
        scores *= np.float32(1 / np.sqrt(width // self._heads))
        scores += bias
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=-1, keepdims=True)
        attended: Floats = (scores @ value).transpose(0, 2, 1, 3).reshape(batch, tokens, width)
        return attended


def _dense(hidden: Floats, matrix: Floats, bias: Floats) -> Floats:
    # One product of two matrices is several times faster than one for each sequence of the batch.
    flat: Floats = hidden.reshape(-1, hidden.shape[-1]) @ matrix
    flat += bias
    return flat.reshape(*hidden.shape[:-1], matrix.shape[1])


def _normed(hidden: Floats, scale: Floats, shift: Floats) -> Floats:
    centred: Floats = hidden - hidden.mean(axis=-1, keepdims=True)
    spread: Floats = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + NORM_EPSILON)
    centred /= spread
    centred *= scale
    centred += shift
    return centred


def _gelu(x: Floats) -> Floats:
    """Return x · Φ(x). The error function is Abramowitz and Stegun's 7.1.26: wrong by less than 1.5e-7."""
    z: Floats = np.abs(x) * np.float32(1 / np.sqrt(2))
    t: Floats = np.float32(1) / (np.float32(1) + np.float32(0.3275911) * z)
    series: Floats = np.full_like(t, 1.061405429)
    for factor in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series *= t
        series += np.float32(factor)
    erf: Floats = np.float32(1) - series * t * np.exp(-z * z)
    half: Floats = np.float32(0.5) * x
    return half + half * np.copysign(erf, x)
