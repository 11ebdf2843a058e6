"""Token counts: by the vocabulary o200k, and by classes of characters on machines for which its package is not built.

Owns the one counter of pages and prompts. By the vocabulary a count is exact for the models that use it; of others it
is off by a factor that `kernel.counting` learns: it foretells them better than classes do (docs/paging.md has figures).
Promises: 0 for no text, at least 1 for any; time and memory grow with the length of a text, whatever is in it. What a
provider bills comes from the provider's own figures.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

from aos_mcp.abi.characters import whole
from aos_mcp.abi.limits import COUNT_PIECES_KEPT_MAX, COUNT_PORTION_CHARS
from aos_mcp.context.classes import estimate

if TYPE_CHECKING:
    from splintr import AnyTokenizer
try:
    from splintr import Tokenizer
except ImportError:
    Tokenizer = None  # type: ignore[assignment, misc]

O200K = "o200k"
CLASSES = "classes"
SEAM_CHARS = 4_096  # At the end of a portion: where a line is looked for that begins the next one.

_LINE = re.compile(r"\n(?=[ \t]*[^\W_])")


def counter() -> str:
    """Return the name of what counts here: `o200k` or `classes`."""
    return CLASSES if Tokenizer is None else O200K


def count(text: str) -> int:
    """Return how many tokens `text` is."""
    if Tokenizer is None:
        return estimate(text)
    found = 0
    for portion in _portions(text):
        try:
            found += len(vocabulary().encode_ordinary(portion))
        except UnicodeEncodeError:  # half of a surrogate pair: no provider is sent one
            found += len(vocabulary().encode_ordinary(whole(portion)))
    _remember(len(text))
    return found


_counted_chars = 0  # Since the words in memory were last counted: it takes longer than to count a page.


def _remember(chars: int) -> None:
    """Have the vocabulary forget its words when they are too many. No more words than characters are new."""
    global _counted_chars
    _counted_chars += chars
    if _counted_chars > COUNT_PIECES_KEPT_MAX // 2:
        _counted_chars = 0
        if vocabulary().cache_len > COUNT_PIECES_KEPT_MAX // 2:
            vocabulary().clear_cache()


@cache
def vocabulary() -> AnyTokenizer:
    """Return the vocabulary, loaded by the first text that is counted: it takes some 40 ms and 32 MiB."""
    return Tokenizer.from_pretrained("o200k_base")


def _portions(text: str) -> Iterator[str]:
    """Yield a text in portions, cut where no token can lie across: in front of a line that has a letter or digit first.

    Where there is no such line, a portion is cut anywhere, which may add a token or two.
    """
    start = 0
    while len(text) - start > COUNT_PORTION_CHARS:
        end = start + COUNT_PORTION_CHARS
        seams = [line.end() for line in _LINE.finditer(text, end - SEAM_CHARS, end)]
        end = seams[-1] if seams else end
        yield text[start:end]
        start = end
    yield text[start:]
