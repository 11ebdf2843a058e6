from hypothesis import given
from hypothesis import strategies as st

from aos_mcp.context.pieces import CHARS_PER_TOKEN, split

LINES = st.lists(
    st.sampled_from(["", "a word", "def f():\n    return 1", "```", "~~~", "\r", "x" * 90, "ein Wörtchen\u2028", "\t"]),
    max_size=60,
)


@given(text=st.one_of(st.text(max_size=600), LINES.map("\n".join)), tokens=st.integers(1, 60))
def test_pieces_joined_are_the_text_and_none_is_too_large(text: str, tokens: int) -> None:
    pieces = split(text, tokens)
    assert "".join(pieces) == text
    assert all(0 < len(piece) <= tokens * CHARS_PER_TOKEN for piece in pieces)


def test_a_text_is_cut_between_paragraphs() -> None:
    first, second = "one two three.\n" * 4 + "\n", "four five six.\n" * 4
    assert split(first + second, 30) == [first, second]


def test_a_code_block_is_not_cut_at_its_blank_lines() -> None:
    prose, code = "Before it.\n" * 3 + "\n", "```\nx = 1\n\ny = 2\n\nz = 3\n```\n"
    assert split(prose + code, 15) == [prose, code]
