from __future__ import annotations

import base64
import hashlib

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st
from tiktoken_ext import openai_public

from aos_mcp.abi.limits import COUNT_PIECES_KEPT_MAX, COUNT_PORTION_CHARS
from aos_mcp.context import tokens
from aos_mcp.context.classes import estimate
from aos_mcp.context.tokens import CLASSES, O200K, count, counter, vocabulary
from tests.context.known_counts import KNOWN
from tests.tree import python_files

ADDRESS = "https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken"
"""Under which OpenAI's own tokenizer looks its vocabulary up, also in its cache of files."""
SPECIAL_FROM = 199_998


@pytest.fixture(scope="module")
def openais(tmp_path_factory: pytest.TempPathFactory) -> tiktoken.Encoding:
    """OpenAI's own tokenizer on our package's words. It refuses a file whose digest is not the published one's."""
    words = [vocabulary().decode_token_bytes(rank) for rank in range(SPECIAL_FROM)]
    lines = [base64.b64encode(word) + b" " + str(rank).encode() + b"\n" for rank, word in enumerate(words)]
    folder = tmp_path_factory.mktemp("vocabulary")
    (folder / hashlib.sha1(ADDRESS.encode(), usedforsecurity=False).hexdigest()).write_bytes(b"".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
        return tiktoken.Encoding(**openai_public.o200k_base())


@pytest.mark.parametrize("kind", KNOWN)
def test_known_texts_are_counted_exactly(kind: str) -> None:
    text, known = KNOWN[kind]
    assert counter() == O200K
    assert count(text) == known


@given(text=st.text() | st.text(alphabet="aAzZ09 \n\r\t'./-_sSé日\u0301\u200b🙂", max_size=200))
def test_any_text_is_counted_as_openais_own_tokenizer_counts_it(openais: tiktoken.Encoding, text: str) -> None:
    assert count(text) == len(openais.encode_ordinary(text))


def test_long_texts_are_counted_exactly_too_although_in_portions(openais: tiktoken.Encoding) -> None:
    program = "".join(path.read_text("utf-8") for path in python_files()[:120])
    assert len(program) > 4 * COUNT_PORTION_CHARS
    assert count(program) == len(openais.encode_ordinary(program))


def test_what_only_looks_like_a_special_token_is_text(openais: tiktoken.Encoding) -> None:
    assert count("<|endoftext|>") == len(openais.encode_ordinary("<|endoftext|>")) > 1


@given(text=st.text(alphabet=st.characters(codec=None)))
def test_lone_surrogates_are_counted_as_what_a_provider_is_sent_for_them(text: str) -> None:
    assert count(text + "\ud800") == count(
        text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") + "\ufffd"
    )


@pytest.mark.parametrize("sign", ["a", "日", "\n", " ", "!", "🙂"])
def test_a_run_without_a_break_is_off_by_little_and_by_no_more_where_it_is_cut(
    openais: tiktoken.Encoding, sign: str
) -> None:
    run = sign * (2 * COUNT_PORTION_CHARS + 100)
    exact = len(openais.encode_ordinary(run))
    assert exact <= count(run) <= exact + 4


def test_few_of_the_counted_words_are_remembered() -> None:
    for part in range(40):
        count(" ".join(f"{part:x}z{number:x}q" for number in range(2_000)))
        assert vocabulary().cache_len <= COUNT_PIECES_KEPT_MAX


def test_without_the_package_classes_of_characters_count(monkeypatch: pytest.MonkeyPatch) -> None:
    text, known = KNOWN["json"]
    monkeypatch.setattr(tokens, "Tokenizer", None)
    assert counter() == CLASSES
    assert count(text) == estimate(text) != known
    assert count("") == 0
