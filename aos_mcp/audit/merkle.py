"""The Merkle tree over the chain's records, as RFC 6962 has it: a head that commits to every record, and proofs.

Owns the hashing of leaves and nodes. A leaf's data is a record's digest, 32 bytes. The tree is never stored: a frontier
(the roots of its perfect subtrees, twenty for a million records) is enough to grow it and to know its root; a proof is
worked out from all digests when one is asked for. Pure; knows no store and no record.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

EMPTY_ROOT = sha256(b"").digest()
HASH_BYTES = 32


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node over its two children."""
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """What has to be remembered of a tree to add leaves at its end: roots of perfect subtrees, the largest first."""

    __slots__ = ("nodes", "size")

    def __init__(self, size: int = 0, nodes: Sequence[bytes] = ()) -> None:
        """Go on from a tree of `size` leaves. Raises ValueError where the nodes are not that many's."""
        if size.bit_count() != len(nodes) or any(len(node) != HASH_BYTES for node in nodes):
            raise ValueError(f"{len(nodes)} nodes are no frontier of {size} leaves")
        self.size = size
        self.nodes = list(nodes)

    def add(self, data: bytes) -> None:
        """Add a leaf."""
        node, size, nodes = sha256(b"\x00" + data).digest(), self.size, self.nodes
        while size & 1:
            node = sha256(b"\x01" + nodes.pop() + node).digest()
            size >>= 1
        nodes.append(node)
        self.size += 1

    def root(self) -> bytes:
        """Return the root of the tree."""
        if not self.nodes:
            return EMPTY_ROOT
        *rest, root = self.nodes
        for node in reversed(rest):
            root = node_hash(node, root)
        return root

    def text(self) -> str:
        """Return the frontier as one line, for `frontier_of`."""
        return f"{self.size}:{b''.join(self.nodes).hex()}"


def frontier_of(text: str) -> Frontier:
    """Return the frontier that `Frontier.text` wrote. Raises ValueError for anything else."""
    size, _, encoded = text.partition(":")
    raw = bytes.fromhex(encoded)
    return Frontier(int(size), [raw[at : at + HASH_BYTES] for at in range(0, len(raw), HASH_BYTES)])


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Return the root of the tree over these leaves' data."""
    frontier = Frontier()
    for leaf in leaves:
        frontier.add(leaf)
    return frontier.root()


def inclusion(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Return the proof that leaf `index`, from 0, is in the tree over these leaves: its siblings, lowest first."""
    assert 0 <= index < len(leaves), (index, len(leaves))
    proof: list[bytes] = []
    start, end = 0, len(leaves)
    while end - start > 1:
        cut = start + _largest_power_below(end - start)
        if index < cut:
            proof.append(root_of(leaves[cut:end]))
            end = cut
        else:
            proof.append(root_of(leaves[start:cut]))
            start = cut
    return proof[::-1]


def root_by_proof(data: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """Return the root that a proof leads to: the leaf is in the tree where that is the root of a head.

    Raises:
        ValueError: the proof does not have the length of one for this place in a tree of this size.
    """
    if not 0 <= index < size:
        raise ValueError(f"there is no leaf {index} in a tree of {size}")
    node, at, last = leaf_hash(data), index, size - 1
    for sibling in proof:
        if last == 0:
            raise ValueError("the proof is too long")
        if at & 1 or at == last:
            node = node_hash(sibling, node)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        at, last = at >> 1, last >> 1
    if last != 0:
        raise ValueError("the proof is too short")
    return node


def _largest_power_below(count: int) -> int:
    return 1 << (count - 1).bit_length() - 1
