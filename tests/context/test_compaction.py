"""When pages leave a context that still has room, and what is promised about all that leave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aos_mcp.abi.completion import ModelPrice
from aos_mcp.abi.handle import PageId
from aos_mcp.abi.page import STATIC_KINDS, Page, PageKind
from aos_mcp.context.compaction import (
    LISTED_MAX,
    LISTED_NEW,
    SMALL_LOG_TOKENS,
    THRASH_RAISE,
    THRASH_TURNS,
    TURNS_BETWEEN_CUTS,
    compacted,
    compaction,
    is_cold,
    low_water_mark,
    may_compact,
    needs_compaction,
    thrash,
    worthwhile_victims,
)
from aos_mcp.context.handle import short_id
from aos_mcp.context.hazard import AGES, Hazard
from aos_mcp.context.layout import lay_out
from aos_mcp.context.page_table import PageTable, groups, in_window, listed, resident_tokens
from aos_mcp.context.replacement import CachePrices, cache_prices
from aos_mcp.context.uses import Reading, busiest_first

TURN_S = 15.0
HIGH, LOW = 0.8, 0.4


def session(context: Any, turns: int, tokens: int = 1_000) -> list[Page]:
    """A log of so many turns, each with one result that is never used again."""
    for number in range(turns):
        for page in context.exchange("read", tokens=tokens, used_at=number * TURN_S):
            context.pages[page.position] = replace(page, created_at=number * TURN_S, source="read")
    pages: list[Page] = context.pages
    return pages


def leave(pages: list[Page], victims: tuple[PageId, ...], now: float) -> list[Page]:
    return compacted(pages, victims, now=now)


def test_dead_weight_leaves_a_long_session_that_still_has_room(context: Any) -> None:
    pages = session(context, 120)
    now = 120 * TURN_S
    victims = worthwhile_victims(pages)
    assert resident_tokens(leave(pages, victims, now)) < resident_tokens(pages) / 2


def test_nothing_leaves_a_small_context_even_when_its_cache_is_cold(context: Any) -> None:
    pages = session(context, 120, tokens=SMALL_LOG_TOKENS // 120 - 60)
    assert not may_compact(PageTable(pages))
    assert worthwhile_victims(pages, cold=True) == ()


def test_a_short_session_is_left_alone(context: Any) -> None:
    pages = session(context, 6, tokens=9_000)
    assert worthwhile_victims(pages) == ()


def test_a_context_is_not_cut_again_for_some_turns_unless_its_cache_is_cold(context: Any) -> None:
    pages = session(context, 200)
    cut_at = (200 - TURNS_BETWEEN_CUTS / 2) * TURN_S
    lately = leave(pages, tuple(page.page_id for page in context.pages[1:3]), cut_at)
    assert worthwhile_victims(lately) == ()
    assert worthwhile_victims(lately, cold=True) != ()


def test_a_cold_cache_makes_a_cut_free_that_would_not_pay(context: Any) -> None:
    pages = session(context, 50)
    prices = CachePrices(read=0.001)
    assert worthwhile_victims(pages, prices=prices) == ()
    assert worthwhile_victims(pages, prices=prices, cold=True) != ()


def test_the_dearer_reading_is_the_sooner_a_cut_pays(context: Any) -> None:
    pages = session(context, 240)

    def first_cut(prices: CachePrices) -> int:
        tried = range(40, 240, 10)
        cuts = (worthwhile_victims(pages[: 1 + 2 * turns], prices=prices) for turns in tried)
        return next((turns for turns, victims in zip(tried, cuts, strict=True) if victims), 999)

    assert first_cut(CachePrices(read=0.5)) <= first_cut(CachePrices(read=0.1)) <= first_cut(CachePrices(read=0.025))


def test_a_cut_waits_until_reading_has_cost_what_the_cut_costs_and_no_longer(new_context: Any) -> None:
    cheap = CachePrices(read=0.001)
    assert worthwhile_victims(session(new_context(), 50), prices=CachePrices(read=0.1)) != ()
    assert worthwhile_victims(session(new_context(), 50), prices=cheap) == ()
    assert worthwhile_victims(session(new_context(), 400), prices=cheap) != ()


def test_a_log_of_which_nothing_stays_is_cut_though_it_is_long(context: Any) -> None:
    kept = [context.add(PageKind.NOTE, "kept", tokens=1_000) for _ in range(40)]
    pages = session(context, 40)
    for page in kept:
        pages[page.position] = replace(page, pinned=True)
    behind = worthwhile_victims(pages, prices=CachePrices(read=0.01))
    in_front = worthwhile_victims(
        [*pages[:1], *pages[41:], *(replace(page, position=page.position + 200) for page in pages[1:41])],
        prices=CachePrices(read=0.01),
    )
    assert behind != ()
    assert in_front == (), "what is kept stands behind the hole, and would be written again"


def test_what_is_used_again_and_again_stays_when_its_neighbours_leave(context: Any) -> None:
    pages = session(context, 120)
    wanted = pages[40]
    assert wanted.kind is PageKind.RESULT
    pages[40] = replace(wanted, uses=25, used_at=119 * TURN_S)
    victims = worthwhile_victims(pages)
    assert victims
    assert wanted.page_id not in victims


def test_the_longer_a_page_lies_the_less_likely_it_is_asked_for(context: Any) -> None:
    pages = session(context, 200)
    hazard = Hazard(pages)
    chances = [hazard.within(page, 20.0) for page in pages if page.kind is PageKind.RESULT]
    assert all(0.0 <= chance <= 1.0 for chance in chances)
    assert chances == sorted(chances)
    assert len(AGES) > 2


def test_a_class_of_pages_that_comes_back_is_kept_more_than_one_that_never_does(context: Any) -> None:
    pages = session(context, 100)
    for page in list(pages):
        if page.kind is PageKind.RESULT and page.position % 4 == 0:
            pages[page.position] = replace(page, source="open", uses=6, used_at=page.created_at + 30 * TURN_S)
    hazard = Hazard(pages)
    fresh = [page for page in pages if page.kind is PageKind.RESULT][-4:]
    assert hazard.within(replace(fresh[0], source="open"), 20) > hazard.within(replace(fresh[0], source="read"), 20)


def thrashing(context: Any, faults: int) -> list[Page]:
    pages = session(context, THRASH_TURNS * 3)
    for page in [page for page in pages if page.kind is PageKind.RESULT][:faults]:
        left_at = (THRASH_TURNS * 3 - 5) * TURN_S
        pages[page.position] = replace(page, resident=False, left_at=left_at, faults=1, used_at=left_at + TURN_S)
    return pages


@pytest.mark.parametrize(("faults", "low", "high"), [(0, 0.0, 0.0), (4, 0.0, 0.0), (9, 0.2, 0.8), (19, 1.0, 1.0)])
def test_an_agent_that_keeps_asking_for_what_left_is_seen_to_thrash(
    context: Any, faults: int, low: float, high: float
) -> None:
    assert low <= thrash(thrashing(context, faults)) <= high


def test_thrashing_raises_the_low_water_mark(context: Any) -> None:
    pages = thrashing(context, 12)
    assert LOW < low_water_mark(pages, LOW, HIGH) < LOW + THRASH_RAISE * (HIGH - LOW)


def test_what_is_asked_for_long_after_it_left_is_no_thrashing(context: Any) -> None:
    pages = [page if page.left_at is None else replace(page, left_at=TURN_S) for page in thrashing(context, 19)]
    assert thrash(pages) == 0.0


def test_a_cache_is_cold_after_its_time_and_after_a_change_of_model(context: Any) -> None:
    context.exchange("read")
    context.pages[1] = replace(context.pages[1], source="a/model", created_at=100.0)
    assert not is_cold(context.pages, model="a/model", now=350.0, ttl_s=300.0)
    assert is_cold(context.pages, model="a/model", now=450.0, ttl_s=300.0)
    assert is_cold(context.pages, model="b/model", now=350.0, ttl_s=300.0)
    assert not is_cold(context.pages[:1], model="b/model", now=9e9, ttl_s=300.0), "nothing was ever cached"


def test_prices_are_ratios_and_a_free_model_has_typical_ones() -> None:
    price = ModelPrice(input=4.0, cached=0.2, written=5.0, output=20.0, source="")
    assert cache_prices(price) == CachePrices(0.05, 1.25, 5.0)
    free = ModelPrice(input=0.0, cached=0.0, written=0.0, output=0.0, source="local")
    assert cache_prices(free) == cache_prices(None) == CachePrices()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["exchange", "exchange", "exchange", "note", "message", "back"]),
        st.integers(1, 9_000),
        st.integers(0, 400),
    ),
    max_size=120,
)


def play(new_context: Callable[[], Any], steps: list[Any], window: int) -> tuple[Any, list[str]]:
    """Grow a context, compacted before each turn as the kernel does it; check what holds at every moment."""
    context = new_context()
    context.add(PageKind.TASK, "Find the bug.")
    prompts: list[str] = []
    for number, (what, tokens, pick) in enumerate(steps):
        now = number * TURN_S
        tokens = min(tokens, window // 8)
        if what == "exchange":
            for page in context.exchange("read", tokens=tokens, used_at=now):
                context.pages[page.position] = replace(page, created_at=now)
        elif what == "back":
            page = context.pages[pick % len(context.pages)]
            context.pages[page.position] = replace(page, faults=page.faults + (not in_window(page)), used_at=now)
        else:
            context.add(PageKind.NOTE if what == "note" else PageKind.MESSAGE, f"text {number}", tokens=tokens)
        victims = compaction(context.pages, window_tokens=window, high_water=HIGH, low_water=LOW)
        check(context.pages, victims, window)
        context.pages = leave(context.pages, victims, now)
        turns = lay_out(context.pages, context.body, system="", tools=(), max_output_tokens=1, turn=0).turns
        text = "".join(f"\x02{t.role}\x03{t.request_id}\x03{t.requests}\x03{t.text}" for t in turns)
        assert victims or not prompts or text.startswith(prompts[-1]), "the prefix is stable between compactions"
        prompts.append(text)
    return context, prompts


def check(pages: list[Page], victims: tuple[PageId, ...], window: int) -> None:
    gone = set(victims)
    for group in groups(pages):
        left = [page for page in group if page.page_id in gone]
        assert not left or len(left) == sum(in_window(page) for page in group), "a call and its result are never parted"
        assert not any(page.kind in STATIC_KINDS for page in left)
    after = leave(pages, victims, 1e9)
    assert resident_tokens(after) <= resident_tokens(pages)
    if needs_compaction(resident_tokens(pages), window, HIGH) and not thrash(pages):
        movable = [page for page in after if in_window(page) and page.kind not in STATIC_KINDS]
        newest = sum(page.tokens for group in groups(movable)[-3:] for page in group)
        small = sum(page.tokens for page in movable if page.tokens < 110)
        assert resident_tokens(after) <= max(window * LOW, newest + small + (LISTED_MAX + LISTED_NEW) * 80 + 200)


@given(steps=STEPS, window=st.sampled_from([20_000, 60_000, 400_000]))
def test_the_window_holds_the_prefix_is_stable_and_nothing_is_ever_lost(
    new_context: Any, steps: list[Any], window: int
) -> None:
    context, prompts = play(new_context, steps, window)
    assert all(context.body(page) == context.bodies[page.page_id] for page in context.pages), "each keeps its bytes"
    for page in context.pages:
        if page.page_id in listed(context.pages):
            assert prompts[-1].count(short_id(page.page_id)) == 1, "and its address"


@given(steps=STEPS)
def test_a_fork_diverges_without_touching_its_parent(new_context: Any, steps: list[Any]) -> None:
    context, _ = play(new_context, steps, 20_000)
    before = list(context.pages)
    child = leave(context.pages, compaction(before, window_tokens=5_000, high_water=HIGH, low_water=LOW), 1e6)
    assert context.pages == before
    assert [page.page_id for page in child] == [page.page_id for page in before]


def read(pages: list[Page], said: dict[str, str]) -> list[str]:
    """What the replies used, in order."""
    reading = Reading()
    return [used for page in pages for used in reading.see(page, said.get(page.page_id, ""))]


def test_a_page_whose_words_a_later_reply_repeats_was_used(context: Any) -> None:
    _, first = context.exchange("read")
    _, second = context.exchange("read")
    reply, _ = context.exchange("read")
    said = {first.page_id: "def parse_header_v2(): ...", second.page_id: "order-77123 is late"}
    said[reply.page_id] = "I will mend parse_header_v2 now."
    for page in context.exchange():
        said[page.page_id] = "As parse_header_v2 shows"
    used = read(context.pages, said)
    assert used.count(first.page_id) == 2
    assert second.page_id not in used


def test_that_a_result_is_read_as_it_comes_is_no_reuse(context: Any) -> None:
    _, result = context.exchange("read")
    reply, *_ = context.exchange()
    said = {result.page_id: "config_path=/etc/app.d/7", reply.page_id: "It is /etc/app.d/7."}
    assert read(context.pages, said) == []


def test_after_a_compaction_loose_pages_behind_the_hole_stand_by_use_and_turns_keep_their_order(context: Any) -> None:
    context.exchange("read")
    idle = context.add(PageKind.NOTE, "idle")
    context.exchange("read")
    busy = context.add(PageKind.NOTE, "busy", uses=9)
    moved = busiest_first(context.pages, [context.pages[1].page_id, context.pages[2].page_id])
    assert {page.page_id: page.position for page in moved} == {
        busy.page_id: idle.position,
        idle.page_id: busy.position,
    }
    assert busiest_first(context.pages, []) == []
