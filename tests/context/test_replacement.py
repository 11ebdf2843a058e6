from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aos_mcp.abi.errors import Invalid
from aos_mcp.abi.handle import PageId
from aos_mcp.abi.page import STATIC_KINDS, Page, PageKind
from aos_mcp.context.compaction import compacted, needs_compaction
from aos_mcp.context.handle import handle_tokens
from aos_mcp.context.nearness import nearness
from aos_mcp.context.page_table import groups, resident_tokens
from aos_mcp.context.replacement import POLICIES, choose_victims

NAMES = sorted(POLICIES)
policies = pytest.mark.parametrize("policy", NAMES)

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [PageKind.REPLY, PageKind.REPLY, PageKind.NOTE, PageKind.PLAN, PageKind.DOCUMENT, PageKind.SYSTEM]
        ),
        st.integers(1, 5_000),
        st.booleans(),
        st.sampled_from([False, False, False, True]),
        st.floats(0, 1),
        st.floats(0, 10_000),
    ),
    max_size=20,
)


def filled(context: Any, steps: list[Any]) -> list[Page]:
    context.add(PageKind.TASK, "Find the bug.")
    for kind, tokens, is_error, pinned, importance, used_at in steps:
        if kind is PageKind.REPLY:
            context.exchange("read", tokens=tokens, is_error=is_error, importance=importance, used_at=used_at)
        else:
            context.add(kind, "text", tokens=tokens, pinned=pinned, importance=importance, used_at=used_at)
    pages: list[Page] = context.pages
    return pages


def after(pages: list[Page], victims: tuple[PageId, ...]) -> list[Page]:
    return compacted(pages, victims, now=1e6)


def test_compaction_starts_above_the_high_water_mark() -> None:
    assert not needs_compaction(800, 1_000, 0.8)
    assert needs_compaction(801, 1_000, 0.8)


@policies
def test_nothing_leaves_a_context_that_is_small_enough(context: Any, policy: str) -> None:
    context.exchange("read", tokens=500)
    assert choose_victims(context.pages, target_tokens=10_000, policy=policy) == ()


@policies
def test_one_batch_brings_the_context_down_to_the_target(context: Any, policy: str) -> None:
    for _ in range(30):
        context.exchange("read", tokens=1_000)
    victims = choose_victims(context.pages, target_tokens=12_000, policy=policy)
    left = resident_tokens(after(context.pages, victims))
    assert 12_000 - 1_050 < left <= 12_000


@policies
@given(steps=STEPS, target=st.integers(0, 60_000))
def test_victims_are_whole_groups_and_never_what_must_stay(
    new_context: Any, policy: str, steps: list[Any], target: int
) -> None:
    pages = filled(new_context(), steps)
    victims = choose_victims(pages, target_tokens=target, policy=policy)
    gone = set(victims)
    assert len(gone) == len(victims)
    for group in groups(pages):
        left = [page for page in group if page.page_id in gone]
        assert not left or len(left) == len(group)
        assert not any(page.kind in STATIC_KINDS or page.pinned for page in left)
    working = [group for group in groups(pages) if group[0].kind not in STATIC_KINDS]
    assert not any(page.page_id in gone for group in working[-2:] for page in group)
    assert not any(
        member.page_id in gone for group in working[-3:] if any(p.is_error for p in group) for member in group
    )
    plans = [page for page in pages if page.kind is PageKind.PLAN]
    assert not plans or plans[-1].page_id not in gone


@policies
@given(steps=STEPS, target=st.integers(0, 60_000))
def test_a_batch_never_makes_the_context_larger_and_goes_no_further_than_needed(
    new_context: Any, policy: str, steps: list[Any], target: int
) -> None:
    pages = filled(new_context(), steps)
    victims = choose_victims(pages, target_tokens=target, policy=policy)
    left = resident_tokens(after(pages, victims))
    assert left <= resident_tokens(pages)
    everything = choose_victims(pages, target_tokens=0, policy=policy)
    assert left <= target or set(victims) == set(everything)


@policies
@given(steps=STEPS, target=st.integers(0, 60_000), order=st.randoms())
def test_the_same_pages_give_the_same_victims_in_any_order(
    new_context: Any, policy: str, steps: list[Any], target: int, order: Any
) -> None:
    pages = filled(new_context(), steps)
    shuffled = list(pages)
    order.shuffle(shuffled)
    one, other = (choose_victims(rows, target_tokens=target, policy=policy) for rows in (pages, shuffled))
    assert one == other


@policies
def test_a_page_as_small_as_its_handle_stays(context: Any, policy: str) -> None:
    small = [context.add(PageKind.NOTE, "ok", tokens=handle_tokens(context.pages[0])) for _ in range(10)]
    large = context.add(PageKind.DOCUMENT, "long", tokens=5_000)
    context.exchange("read")
    context.exchange("read")
    assert choose_victims(context.pages, target_tokens=0, policy=policy) == (large.page_id,)
    assert all(page.resident for page in small)


def test_an_older_plan_may_leave_but_not_the_current_one(context: Any) -> None:
    old = context.add(PageKind.PLAN, "first plan", tokens=1_000)
    context.add(PageKind.PLAN, "second plan", tokens=1_000)
    context.exchange("read")
    context.exchange("read")
    assert choose_victims(context.pages, target_tokens=0) == (old.page_id,)


def test_lru_takes_what_was_not_used_for_longest(context: Any) -> None:
    ages = [5.0, 1.0, 9.0, 3.0, 50.0, 60.0]
    made = [context.exchange("read", tokens=1_000, used_at=age) for age in ages]
    target = resident_tokens(context.pages) - 1_500
    victims = choose_victims(context.pages, target_tokens=target, policy="lru")
    assert set(victims) == {page.page_id for place in (1, 3) for page in made[place]}


def test_fifo_takes_what_stands_first(context: Any) -> None:
    made = [context.exchange("read", tokens=1_000, used_at=100.0 - place) for place in range(6)]
    target = resident_tokens(context.pages) - 1_500
    victims = choose_victims(context.pages, target_tokens=target, policy="fifo")
    assert set(victims) == {page.page_id for place in (0, 1) for page in made[place]}


def test_importance_takes_what_matters_least(context: Any) -> None:
    made = [context.exchange("read", tokens=1_000, importance=value) for value in (0.9, 0.1, 0.8, 0.2, 0.5, 0.5)]
    target = resident_tokens(context.pages) - 1_500
    victims = choose_victims(context.pages, target_tokens=target, policy="importance")
    assert set(victims) == {page.page_id for place in (1, 3) for page in made[place]}


def test_cost_cuts_near_the_tail_so_that_the_cached_prefix_stays_long(context: Any) -> None:
    made = [context.exchange("read", tokens=1_000) for _ in range(40)]
    target = resident_tokens(context.pages) - 5_000
    victims = choose_victims(context.pages, target_tokens=target, policy="cost")
    first_hole = next(place for place, group in enumerate(made) if group[0].page_id in victims)
    assert first_hole >= 30


def test_cost_keeps_what_matters_among_pages_of_one_place(context: Any) -> None:
    context.add(PageKind.DOCUMENT, "long", tokens=20_000, importance=0.0)
    titles = ["parser notes", "weather report", "parser tests", "cake recipe"]
    made = {title: context.exchange("read", tokens=2_000, title=title) for title in titles}
    context.exchange("read")
    context.exchange("read")
    target = resident_tokens(context.pages) - 19_000 - 3_900
    context.add(PageKind.PLAN, "…", title="notes and tests of the parser")
    near = nearness(context.pages)
    victims = choose_victims(context.pages, target_tokens=target, near=near, policy="cost", measured=True)
    gone = {title for title, group in made.items() if group[0].page_id in victims}
    assert gone == {"weather report", "cake recipe"}


def test_cost_keeps_what_was_asked_for_again(context: Any) -> None:
    context.add(PageKind.DOCUMENT, "long", tokens=20_000, importance=0.0)
    wanted = context.add(PageKind.DOCUMENT, "wanted", tokens=3_000)
    context.pages[-1] = replace(wanted, faults=3, uses=5)
    other = context.add(PageKind.DOCUMENT, "other", tokens=3_000)
    context.exchange("read")
    context.exchange("read")
    target = resident_tokens(context.pages) - 22_000
    victims = choose_victims(context.pages, target_tokens=target, policy="cost")
    assert other.page_id in victims
    assert wanted.page_id not in victims


def test_pages_that_left_already_are_not_chosen_again(context: Any) -> None:
    for _ in range(10):
        context.exchange("read", tokens=1_000)
    first = choose_victims(context.pages, target_tokens=5_000)
    pages = after(context.pages, first)
    assert not set(choose_victims(pages, target_tokens=0)) & set(first)


def test_an_unknown_policy_is_refused_by_name(context: Any) -> None:
    with pytest.raises(Invalid, match="clairvoyant"):
        choose_victims(context.pages, target_tokens=0, policy="clairvoyant")
