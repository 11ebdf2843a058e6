"""How scores become an order: fused, then lent to neighbours, contexts and writers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aos_mcp.storage.ranking import Place, Weights, best, fuse, settle
from aos_mcp.storage.search import content_words

scores = st.dictionaries(st.integers(1, 50), st.floats(0.001, 100), max_size=20)


def order(found: dict[int, float]) -> list[int]:
    return [serial for serial, _ in best(found, 9)]


def test_words_alone_keep_their_order() -> None:
    assert order(fuse({1: 2.0, 2: 8.0, 3: 4.0}, {}, 0.3)) == [2, 3, 1]


def test_a_page_that_only_the_vectors_find_is_found() -> None:
    fused = fuse({1: 5.0}, {2: 0.9, 3: 0.1}, 0.3)
    assert order(fused) == [1, 2, 3]
    assert fused[2] == 0.3


def test_how_much_better_a_hit_is_counts_and_not_its_place_alone() -> None:
    assert order(fuse({1: 10.0, 2: 9.9, 3: 1.0}, {3: 0.9, 2: 0.8, 1: 0.2}, 0.3))[0] == 2


@given(scores, scores, st.floats(0, 1))
def test_fused_scores_lie_between_nought_and_one(
    lexical: dict[int, float], near: dict[int, float], part: float
) -> None:
    fused = fuse(lexical, near, part)
    assert fused.keys() == lexical.keys() | near.keys()
    assert all(0 <= score <= 1 + 1e-9 for score in fused.values())


def test_a_page_beside_a_match_is_found_behind_it() -> None:
    places = {1: Place("p_1", "host", behind=2), 2: Place("p_1", "agent"), 3: Place("p_2", "agent")}
    settled = settle({1: 1.0}, places, {"owl"}, Weights())
    assert order(settled) == [1, 2]


def test_a_context_with_many_matches_goes_before_one_with_a_single_one() -> None:
    places = {1: Place("p_1", "host"), 2: Place("p_2", "host"), 3: Place("p_2", "host"), 4: Place("p_2", "host")}
    settled = settle({1: 1.0, 2: 0.9, 3: 0.9, 4: 0.9}, places, set(), Weights())
    assert order(settled)[0] == 2
    assert order(settle({1: 1.0, 2: 0.9}, places, set(), Weights(context=0.0)))[0] == 1


def test_pages_outside_of_any_context_keep_their_order() -> None:
    notes = {serial: 1 / serial for serial in range(1, 8)}
    assert order(settle(notes, {serial: Place(None, "host") for serial in notes}, set(), Weights())) == [*notes]


def test_who_is_named_in_the_query_is_heard_first_and_nobody_when_two_are() -> None:
    places = {1: Place("p_1", "Ann"), 2: Place("p_1", "Bob")}
    assert order(settle({1: 0.9, 2: 1.0}, places, {"what", "ann", "said"}, Weights())) == [1, 2]
    assert order(settle({1: 0.9, 2: 1.0}, places, {"ann", "bob"}, Weights())) == [2, 1]


@given(scores, st.integers(1, 9))
def test_no_more_than_the_limit_come_back_and_the_best_of_them(found: dict[int, float], limit: int) -> None:
    top = best(found, limit)
    assert len(top) == min(limit, len(found))
    assert [score for _, score in top] == sorted(found.values(), reverse=True)[:limit]


def test_words_that_only_make_a_question_are_left_out_of_it() -> None:
    assert content_words("When did the owl hunt?") == ["owl", "hunt"]
    assert content_words("Who are you?") == ["who", "are", "you"]
    assert content_words("the owl, an owl and a mouse") == ["owl", "owl", "mouse"]
