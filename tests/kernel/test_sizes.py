"""How large a process is taken to be: learned from its like, bounded by its budget."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aos_mcp.abi.scheduling import SizeHint, Work
from aos_mcp.kernel.sizes import NEWS, TURN_UNITS_UNKNOWN, TURNS_UNKNOWN, expected, learned

NEW = Work(
    turns=0,
    input_tokens=0,
    output_tokens=0,
    turns_left=None,
    tokens_left=None,
    usual_turns=None,
    usual_turn_units=None,
)
numbers = st.integers(0, 10**6)
works = st.builds(
    Work,
    turns=st.integers(0, 500),
    input_tokens=numbers,
    output_tokens=numbers,
    turns_left=st.none() | st.integers(-5, 500),
    tokens_left=st.none() | st.integers(-5, 10**6),
    usual_turns=st.none() | st.floats(1, 500),
    usual_turn_units=st.none() | st.floats(1, 10**6),
)


def of(work: Work, **changes: object) -> Work:
    return Work(**{name: changes.get(name, getattr(work, name)) for name in Work.__dataclass_fields__})  # type: ignore[arg-type]


def test_what_was_never_seen_is_taken_for_modest() -> None:
    assert expected(NEW) == (TURN_UNITS_UNKNOWN, TURN_UNITS_UNKNOWN * TURNS_UNKNOWN)


def test_what_its_like_took_is_expected_of_it() -> None:
    like = of(NEW, usual_turns=30.0, usual_turn_units=500.0)
    assert expected(like) == (500.0, 15_000.0)
    assert expected(of(like, turns=10, input_tokens=5_000)) == (500.0, 10_000.0)


def test_one_that_outlives_its_like_is_not_taken_for_nearly_done() -> None:
    old = of(NEW, usual_turns=4.0, usual_turn_units=500.0, turns=100, input_tokens=50_000)
    assert expected(old) == (500.0, 1_000.0)


@given(work=works)
def test_a_budget_bounds_the_guess(work: Work) -> None:
    turn, left = expected(work)
    assert turn >= 0
    assert left >= 0
    if work.turns_left is not None:
        assert left <= turn * max(0, work.turns_left)
    if work.tokens_left is not None:
        assert left <= 2 * max(0, work.tokens_left)


@given(lives=st.lists(works, min_size=1, max_size=30))
def test_what_is_learned_lies_between_what_was_seen(lives: list[Work]) -> None:
    hint: SizeHint | None = None
    for life in lives:
        hint = learned(hint, "a", "m/x", life)
    assert hint is not None
    assert hint.runs == len(lives)
    turns = [life.turns for life in lives]
    assert min(turns) - 1e-6 <= hint.turns <= max(turns) + 1e-6


def test_the_first_few_lives_count_the_same_and_later_ones_are_forgotten_slowly() -> None:
    hint: SizeHint | None = None
    for turns in (10, 20, 30):
        hint = learned(hint, "a", "m/x", of(NEW, turns=turns))
    assert hint is not None
    assert hint.turns == 20.0
    for _ in range(100):
        hint = learned(hint, "a", "m/x", of(NEW, turns=50))
    assert abs(hint.turns - 50) < 30 * (1 - NEWS) ** 90
