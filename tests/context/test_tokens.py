import base64
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aos_mcp.context.tokens import JOIN_SLACK, count

RANDOM_BYTES = b"".join(hashlib.sha256(bytes([number])).digest() for number in range(64))
RECORDS = [
    {
        "id": number,
        "user": f"user{number}",
        "active": number % 2 == 0,
        "path": f"/srv/data/{number}.json",
        "score": 0.25,
    }
    for number in range(40)
]
PROSE = (
    "An operating system manages the hardware and software resources of a computer, and offers common services to "
    "the programs that run on it. Time-sharing systems schedule tasks for efficient use of the system. "
)

# How many tokens a tokenizer of 200,000 words takes for these very texts.
KNOWN = {
    "prose": (PROSE * 10, 371),
    "json": (json.dumps(RECORDS, separators=(",", ":")), 1_122),
    "indented json": (json.dumps(RECORDS, indent=2), 1_802),
    "hexadecimal": (RANDOM_BYTES.hex(), 2_320),
    "base64": (base64.b64encode(RANDOM_BYTES).decode(), 1_860),
}


@pytest.mark.parametrize("kind", KNOWN)
def test_an_estimate_is_never_far_below_what_a_tokenizer_counts(kind: str) -> None:
    text, tokens = KNOWN[kind]
    assert 0.95 * tokens <= count(text) <= 1.35 * tokens


def test_no_text_has_no_tokens() -> None:
    assert count("") == 0


@given(st.text(min_size=1))
def test_any_text_has_at_least_one_token(text: str) -> None:
    assert count(text) >= 1


@given(st.text(), st.text())
def test_the_count_of_joined_texts_is_the_sum_within_the_slack(left: str, right: str) -> None:
    assert abs(count(left + right) - count(left) - count(right)) <= JOIN_SLACK


@given(st.text(), st.text(alphabet='aZ0 \n{":é日', max_size=200))
def test_more_text_never_counts_noticeably_less(text: str, more: str) -> None:
    assert count(text + more) >= max(count(text), count(more)) - JOIN_SLACK


@given(st.text(alphabet=st.characters(codec=None)))
def test_lone_surrogates_are_counted_like_any_character(text: str) -> None:
    assert count(text + "\ud800") >= 1


@given(st.text(min_size=2_000, max_size=4_000))
def test_no_text_is_counted_as_almost_nothing(text: str) -> None:
    assert count(text * 2) >= len(text) // 50
