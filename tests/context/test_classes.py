import pytest
from hypothesis import given
from hypothesis import strategies as st

from aos_mcp.context.classes import JOIN_SLACK, estimate
from tests.context.known_counts import KNOWN


@pytest.mark.parametrize("kind", KNOWN)
def test_an_estimate_is_never_far_below_what_a_tokenizer_counts(kind: str) -> None:
    text, tokens = KNOWN[kind]
    assert 0.95 * tokens <= estimate(text) <= 1.35 * tokens


def test_no_text_has_no_tokens() -> None:
    assert estimate("") == 0


@given(st.text(min_size=1))
def test_any_text_has_at_least_one_token(text: str) -> None:
    assert estimate(text) >= 1


@given(st.text(), st.text())
def test_the_count_of_joined_texts_is_the_sum_within_the_slack(left: str, right: str) -> None:
    assert abs(estimate(left + right) - estimate(left) - estimate(right)) <= JOIN_SLACK


@given(st.text(), st.text(alphabet='aZ0 \n{":é日', max_size=200))
def test_more_text_never_counts_noticeably_less(text: str, more: str) -> None:
    assert estimate(text + more) >= max(estimate(text), estimate(more)) - JOIN_SLACK


@given(st.text(alphabet=st.characters(codec=None)))
def test_lone_surrogates_are_counted_like_any_character(text: str) -> None:
    assert estimate(text + "\ud800") >= 1


@given(st.text(min_size=2_000, max_size=4_000))
def test_no_text_is_counted_as_almost_nothing(text: str) -> None:
    assert estimate(text * 2) >= len(text) // 50
