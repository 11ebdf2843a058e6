"""How near pages are to what an agent is working on, and what that is worth when pages leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aos_mcp.abi.handle import PageId
from aos_mcp.abi.page import Page, PageKind
from aos_mcp.context.compaction import compacted
from aos_mcp.context.hazard import Hazard
from aos_mcp.context.nearness import focus, nearness
from aos_mcp.context.page_table import listed, resident_tokens
from aos_mcp.context.replacement import POLICIES, CachePrices, choose_victims

TURNS = 40
UNCACHED = CachePrices(read=1.0, write=1.0, output=200.0)
"""A cut rewrites nothing, and fetching back is dear: only what must leave does, the least likely first."""


def reading(context: Any, titles: Sequence[str] = ("a", "b")) -> list[Page]:
    """Equal results, one a turn, under titles that take turns."""
    for number in range(TURNS):
        for page in context.exchange("read", tokens=1_000, title=titles[number % len(titles)]):
            context.pages[page.position] = replace(page, created_at=0.0, used_at=0.0)
    pages: list[Page] = context.pages
    return pages


def results(pages: Sequence[Page]) -> list[Page]:
    return [page for page in pages if page.kind is PageKind.RESULT]


def leaving(pages: list[Page], cosines: dict[PageId, float], policy: str = "cost") -> frozenset[PageId]:
    """What leaves for a quarter of the context to be free."""
    target = resident_tokens(pages) * 3 // 4
    near = nearness(pages, cosines)
    return frozenset(choose_victims(pages, target_tokens=target, near=near, prices=UNCACHED, policy=policy))


def test_of_equal_pages_the_nearer_to_the_task_stay(context: Any) -> None:
    pages = reading(context)
    even, odd = (results(pages)[first::2] for first in (0, 1))
    for near, far in ((even, odd), (odd, even)):
        cosines = {page.page_id: 0.8 for page in near} | {page.page_id: 0.1 for page in far}
        gone = leaving(pages, cosines)
        assert gone & {page.page_id for page in far}
        assert not gone & {page.page_id for page in near}


def test_of_equal_pages_those_stay_whose_titles_share_words_with_the_task(context: Any) -> None:
    context.pages[0] = replace(context.pages[0], title="Close the ledger of March")
    pages = reading(context, ("the ledger", "a letter"))
    gone = leaving(pages, {})
    assert {page.title for page in results(pages) if page.page_id in gone} == {"a letter"}


def test_vectors_that_are_not_there_change_nothing(context: Any) -> None:
    context.pages[0] = replace(context.pages[0], title="Close the ledger of March")
    pages = reading(context, ("the ledger", "a letter"))
    assert nearness(pages, {}) == nearness(pages)
    known = results(pages)[0]
    near = nearness(pages, {known.page_id: 0.9})
    assert {key: value for key, value in near.items() if key != known.page_id} == {
        key: value for key, value in nearness(pages).items() if key != known.page_id
    }


def test_what_tells_nothing_of_any_page_changes_nothing(context: Any) -> None:
    pages = reading(context)
    alike = {page.page_id: 0.7 for page in results(pages)}
    assert leaving(pages, alike) == leaving(pages, {})


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=30), st.floats(0.01, 10), st.floats(-5, 5))
def test_cosines_count_by_their_order_alone(values: list[float], stretch: float, shift: float) -> None:
    cosines = {PageId(f"pg_{number}"): round(value, 3) for number, value in enumerate(values)}
    near = nearness([], cosines)
    assert all(-1 < value < 1 for value in near.values())
    assert nearness([], {key: stretch * value + shift for key, value in cosines.items()}) == pytest.approx(near)
    for one in cosines:
        for other in cosines:
            assert (cosines[one] < cosines[other]) == (near[one] < near[other])


@pytest.mark.parametrize("policy", sorted(POLICIES))
@given(
    cosines=st.lists(st.floats(-1, 1), min_size=TURNS, max_size=TURNS),
    embedded=st.integers(0, TURNS),
    order=st.randoms(),
)
def test_the_same_pages_and_vectors_give_the_same_victims(
    new_context: Any, policy: str, cosines: list[float], embedded: int, order: Any
) -> None:
    pages = reading(new_context())
    near = {page.page_id: cosine for page, cosine in zip(results(pages)[:embedded], cosines, strict=False)}
    shuffled = list(near.items())
    order.shuffle(shuffled)
    assert leaving(pages, near, policy) == leaving(pages, dict(shuffled), policy)


def test_the_handles_of_what_is_nearer_to_the_task_are_listed(context: Any) -> None:
    pages = reading(context)
    near, far = (results(pages)[first : TURNS - 2 : 2] for first in (0, 1))
    cosines = {page.page_id: 0.8 for page in near} | {page.page_id: 0.1 for page in far}
    gone = [page.page_id for page in pages[1:-4]]
    shown = listed(compacted(pages, gone, now=1e6, near=nearness(pages, cosines)))
    assert shown
    assert shown <= {page.page_id for page in near}


def test_a_nearer_page_is_thought_a_little_likelier_to_be_asked_for_and_never_much(context: Any) -> None:
    pages = reading(context)
    page = results(pages)[0]
    unlike, unknown, like = (Hazard(pages, {page.page_id: value}).within(page, 20.0) for value in (-1.0, 0.0, 1.0))
    assert unlike < unknown < like < 2 * unlike
    assert unknown == Hazard(pages).within(page, 20.0)


def test_what_an_agent_works_on_is_its_task_its_newest_plan_and_the_newest_message(context: Any) -> None:
    task = context.pages[0]
    context.add(PageKind.PLAN, "first plan")
    context.add(PageKind.MESSAGE, "first message")
    plan = context.add(PageKind.PLAN, "second plan")
    message = context.add(PageKind.MESSAGE, "second message")
    context.exchange("read")
    assert focus(context.pages) == [task, plan, message]
    assert focus(context.pages[:1]) == [task]
    assert focus([]) == []
