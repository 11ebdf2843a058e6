"""The tree over the log: RFC 6962's own vectors, growth by a frontier, proofs that hold for one leaf in one tree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aos_mcp.audit.merkle import EMPTY_ROOT, Frontier, frontier_of, inclusion, node_hash, root_by_proof, root_of

LEAVES = [bytes.fromhex(text) for text in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
)]  # fmt: skip
ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
"""The roots over the first one to eight of those leaves, as Certificate Transparency's test vectors have them."""


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_are_those_of_certificate_transparency(size: int) -> None:
    assert root_of(LEAVES[:size]).hex() == ROOTS[size - 1]


def test_a_tree_without_leaves_has_the_root_of_the_standard() -> None:
    assert Frontier().root() == EMPTY_ROOT


@given(st.integers(0, 200), st.integers(0, 200))
def test_a_frontier_goes_on_where_its_text_left_it(first: int, more: int) -> None:
    leaves = [bytes([n & 255, n >> 8]) for n in range(first + more)]
    frontier = Frontier()
    for leaf in leaves[:first]:
        frontier.add(leaf)
    again = frontier_of(frontier.text())
    for leaf in leaves[first:]:
        again.add(leaf)
    assert (again.size, again.root()) == (len(leaves), root_of(leaves))


@given(st.integers(1, 130), st.data())
def test_a_proof_leads_from_its_leaf_to_the_root_and_from_no_other(size: int, data: st.DataObject) -> None:
    leaves = [n.to_bytes(2, "big") for n in range(size)]
    index = data.draw(st.integers(0, size - 1))
    proof, root = inclusion(leaves, index), root_of(leaves)
    assert root_by_proof(leaves[index], index, size, proof) == root
    assert len(proof) <= (size - 1).bit_length()
    assert root_by_proof(b"another", index, size, proof) != root
    for at in range(len(proof)):
        bent = [*proof[:at], node_hash(proof[at], b""), *proof[at + 1 :]]
        assert root_by_proof(leaves[index], index, size, bent) != root
    with pytest.raises(ValueError, match="too long"):
        root_by_proof(leaves[index], index, size, [*proof, b"x" * 32])
    if proof:
        with pytest.raises(ValueError, match="too short"):
            root_by_proof(leaves[index], index, size, proof[:-1])


@pytest.mark.parametrize("text", ["", "1:", "0:" + "00" * 32, "3:" + "00" * 32, "1:" + "00" * 31, "x:", "1:zz"])
def test_text_that_is_no_frontier_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        frontier_of(text)
