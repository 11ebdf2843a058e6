"""Token counts without a vocabulary: an estimate by classes of characters, for machines that can load none.

Promises: never zero for text; JSON, hexadecimal and base64, which `bytes / 4` undercounts by a third to a half, are not
undercounted by more than a few percent; the count of two texts joined is the sum of theirs within `JOIN_SLACK`. It
leans to the high side for a modern tokenizer of about 200,000 words, since it is held against windows and budgets.

How: the text becomes one class letter for each character, and tokens are counted where classes meet and in pieces of
long runs. Both are searches for fixed byte strings, so a count takes a few passes at the speed of memory.
"""

from __future__ import annotations

JOIN_SLACK = 8

# The weights are tokens. They were fitted on prose, program text, JSON, logs, tables, hexadecimal, base64 and eight
# languages against a tokenizer of 200,000 words, with undercounting held six times as bad as overcounting.
WORD = 1.1  # Where letters begin.
HUMP = 1.2  # Where a capital follows a small letter: camelCase, base64.
CAPITALS = 0.5  # Each two capitals: few words are known in capitals.
LONG = 0.4  # Each eight letters of one word.
UNPRONOUNCEABLE = 1.0  # Each three consonants or four vowels in a row: not a word of a vocabulary.
DIGITS = 1.35  # Each one to three digits.
MARK = 0.65  # Where punctuation begins; half of it goes into a neighbouring token.
MARKS = 0.35  # Each three marks.
LINE = 0.8  # Where line ends begin.
LINES = 0.2  # Each four line ends.
INDENT = 0.8  # Where two or more spaces begin; a single one belongs to the word behind it.
SPACES = 0.2  # Each sixteen spaces.
TAB = 0.4
TWO_BYTES = 0.5  # Accented Latin, Cyrillic, Greek, Arabic, Hebrew.
THREE_BYTES = 1.0  # Chinese, Japanese, Korean, Indic.
FOUR_BYTES = 2.7  # Emoji, rare signs.


def _class(byte: int) -> str:
    """Return the class of a byte of UTF-8: of a character beyond ASCII the first byte says how many there are."""
    character = chr(byte)
    if byte >= 0x80:
        return "4" if byte >= 0xF0 else "3" if byte >= 0xE0 else "2"
    if character.isalpha():
        return "A" if character.isupper() else "v" if character in "aeiouy" else "c"
    named = {" ": "_", "\n": "n", "\r": "n", "\t": "t"}
    return named.get(character, "0" if character.isdigit() else "p")


def _only(classes: bytes, as_one: bytes) -> bytes:
    """Return a table that turns `classes` into `as_one` and everything else into a dot."""
    return bytes(as_one[0] if byte in classes else ord(".") for byte in range(256))


_CLASSES = "".join(_class(byte) for byte in range(256)).encode("ascii")
_CONTINUATION = bytes(range(0x80, 0xC0))
_LETTERS = _only(b"Avc", b"a")
_MARKS = _only(b"p", b"p")
_SPACES = _only(b"_", b"_")
_LINES = _only(b"n", b"n")
_SMALL = bytes(ord("a") if byte in b"vc" else byte for byte in range(256))


def estimate(text: str) -> int:
    """Return about how many tokens a language model takes for `text`: 0 for none, at least 1 for any."""
    if not text:
        return 0
    # The dot in front stands for whatever comes before the text: a run begins at the first character too.
    classes = b"." + text.encode("utf-8", "surrogatepass").translate(_CLASSES, _CONTINUATION)
    letters = classes.translate(_LETTERS)
    marks = classes.translate(_MARKS)
    spaces = classes.translate(_SPACES)
    lines = classes.translate(_LINES)
    small = classes.translate(_SMALL)
    digits = classes.replace(b"000", b"#").replace(b"00", b"#")
    tokens = (
        WORD * letters.count(b".a")
        + LONG * letters.count(b"aaaaaaaa")
        + HUMP * small.count(b"aA")
        + CAPITALS * classes.count(b"AA")
        + UNPRONOUNCEABLE * (classes.count(b"ccc") + classes.count(b"vvvv"))
        + DIGITS * (digits.count(b"#") + digits.count(b"0"))
        + MARK * marks.count(b".p")
        + MARKS * marks.count(b"ppp")
        + LINE * lines.count(b".n")
        + LINES * lines.count(b"nnnn")
        + INDENT * spaces.count(b".__")
        + SPACES * spaces.count(b"_" * 16)
        + TAB * classes.count(b"t")
        + TWO_BYTES * classes.count(b"2")
        + THREE_BYTES * classes.count(b"3")
        + FOUR_BYTES * classes.count(b"4")
    )
    return max(1, round(tokens))
