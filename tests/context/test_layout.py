import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aos_mcp.abi.completion import Prompt, Reply, ToolRequest, ToolSpec, Turn
from aos_mcp.abi.page import Page, PageKind
from aos_mcp.context.handle import short_id
from aos_mcp.context.layout import (
    GRID_TOKENS,
    LOOKBACK_BLOCKS,
    NO_RESULT,
    decode_reply,
    encode_reply,
    lay_out,
)
from aos_mcp.context.page_table import in_window, listed
from aos_mcp.llm.anthropic import request_body
from aos_mcp.llm.providers import Quirks
from aos_mcp.testing.prompt_cache import CacheRules, Entries, WireCache, marks_in


def steps_of(requests: Sequence[int], most: int) -> st.SearchStrategy[list[Any]]:
    """Lists of what a context is filled with; its exchanges make as many calls as one of `requests` says."""
    where = st.sampled_from([True, True, False])
    loose = [PageKind.MESSAGE, PageKind.NOTE, PageKind.PLAN, PageKind.SUMMARY, PageKind.DOCUMENT]
    exchange = st.tuples(st.just("exchange"), st.sampled_from(requests), st.integers(1, 9_000), st.booleans(), where)
    page = st.tuples(st.sampled_from(loose), st.just(0), st.integers(1, 9_000), st.just(False), where)
    return st.lists(st.one_of(exchange, page), max_size=most)


STEPS = steps_of([0, 1, 2, 3], 25)
WIDE_STEPS = steps_of([0, 1, 9, 25], 12)


def fill(context: Any, steps: Sequence[Any]) -> list[int]:
    """Fill a context; return how many pages it held after each whole step."""
    context.add(PageKind.TASK, "Find the bug.")
    return grow(context, steps)


def grow(context: Any, steps: Sequence[Any]) -> list[int]:
    sizes = [len(context.pages)]
    for kind, requests, tokens, is_error, resident in steps:
        if kind == "exchange":
            context.exchange(*["read"] * requests, tokens=tokens, is_error=is_error, resident=resident)
        else:
            context.add(kind, f"{kind} {len(context.pages)}", tokens=tokens, resident=resident)
        sizes.append(len(context.pages))
    return sizes


def serialised(prompt: Prompt) -> str:
    """A prompt as bytes in the order in which a provider reads them, without the cache marks."""
    return prompt.system + "".join(
        f"\x02{turn.role}\x03{turn.request_id}\x03{turn.is_error}\x03{turn.requests}\x03{turn.text}"
        for turn in prompt.turns
    )


def marks(prompt: Prompt) -> list[int]:
    return [index for index, turn in enumerate(prompt.turns) if turn.breakpoint]


def assert_valid(turns: Sequence[Turn]) -> None:
    """What every dialect asks: user first, no two user turns in a row, each request answered right behind it."""
    assert turns[0].role == "user"
    open_requests: list[str] = []
    before = ""
    for number, turn in enumerate(turns):
        if turn.role == "tool":
            assert turn.request_id == open_requests.pop(0)
        else:
            assert not open_requests
            assert turn.text or turn.requests
            assert (before, turn.role) != ("user", "user") or number == 1, "only the task stands beside another"
            open_requests = [request.request_id for request in turn.requests]
        before = turn.role
    assert not open_requests


def test_the_system_text_comes_before_the_system_pages(context: Any) -> None:
    context.add(PageKind.SYSTEM, "You are a tester.")
    assert context.prompt().system == "Be brief.\n\nYou are a tester."


def test_the_task_is_the_first_user_turn_wherever_it_stands(new_context: Any) -> None:
    context = new_context()
    context.exchange("read")
    context.add(PageKind.TASK, "Find the bug.")
    assert context.prompt().turns[0].text == "Find the bug."


def test_pages_become_turns_in_order_of_position(context: Any) -> None:
    context.exchange("read", "list")
    context.add(PageKind.MESSAGE, "One more thing.")
    context.add(PageKind.NOTE, "Noted.")
    turns = context.prompt([*reversed(context.pages)]).turns
    assert [(turn.role, turn.text) for turn in turns] == [
        ("user", "Find the bug."),
        ("assistant", "reply at 1"),
        ("tool", "result of read at 1"),
        ("tool", "result of list at 1"),
        ("user", "One more thing.\n\nNoted."),
    ]
    assert [turn.request_id for turn in turns[2:4]] == ["call_0", "call_1"]


def test_everything_asked_of_the_prompt_reaches_it(context: Any) -> None:
    tool = ToolSpec(name="read", description="Reads.", input_schema="{}")
    prompt = lay_out(
        context.pages,
        context.body,
        system="",
        tools=[tool],
        max_output_tokens=77,
        turn=5,
        output_schema='{"type":"object"}',
    )
    assert (prompt.tools, prompt.max_output_tokens, prompt.turn) == ((tool,), 77, 5)
    assert (prompt.system, prompt.output_schema) == ("", '{"type":"object"}')


def test_pages_that_left_are_listed_where_the_first_of_them_stood(context: Any) -> None:
    reply, _ = context.exchange("read", resident=False, tokens=900)
    context.pages[reply.position] = replace(reply, listed=False)
    note = context.add(PageKind.NOTE, "Also gone.", resident=False)
    context.exchange("write")
    turns = context.prompt().turns
    assert [turn.role for turn in turns] == ["user", "user", "assistant", "tool"]
    assert turns[0].text == "Find the bug.", "what was cached up to its end is found again"
    listed = turns[1].text.split("\n")
    assert [line.split()[2] for line in listed] == ["result", "note", "1"]
    assert short_id(context.pages[2].page_id) in listed[0]
    assert short_id(note.page_id) in listed[1]
    assert "1 more pages" in listed[2]


def test_pages_out_of_the_window_are_listed_or_counted(context: Any) -> None:
    for number in range(500):
        page = context.add(PageKind.DOCUMENT, f"document {number}", resident=False)
        context.pages[-1] = replace(page, listed=number % 100 == 0)
    lines = context.prompt().turns[1].text.split("\n")
    assert [line for line in lines if "page_in" in line][-1].split(" · ")[2] == "document 400"
    assert lines[-1].startswith("[paged out] 495 more pages")


def test_a_request_without_a_result_is_answered_with_an_error(context: Any) -> None:
    context.exchange("read", "write")
    turns = context.prompt(context.pages[:-1]).turns
    assert turns[-1] == Turn(role="tool", text=NO_RESULT, request_id="call_1", is_error=True, breakpoint=True)


def test_a_result_without_its_reply_becomes_a_user_turn(context: Any) -> None:
    context.add(PageKind.RESULT, "orphan", group=99, request_id="call_0")
    context.add(PageKind.MESSAGE, "mail")
    assert [turn.role for turn in context.prompt().turns] == ["user", "user"]
    assert context.prompt().turns[1].text == "orphan\n\nmail"


def test_a_result_that_left_without_its_reply_is_answered_by_its_handle(context: Any) -> None:
    reply, result = context.exchange("read")
    turns = context.prompt([context.pages[0], reply, replace(result, resident=False)]).turns
    assert turns[-1].request_id == "call_0"
    assert turns[-1].text.startswith("[paged out] result")


def test_equal_request_ids_of_two_turns_do_not_mix(context: Any) -> None:
    context.exchange("read")
    context.exchange("read")
    assert [turn.text for turn in context.prompt().turns if turn.role == "tool"] == [
        "result of read at 1",
        "result of read at 3",
    ]


def test_a_message_that_came_during_a_tool_call_stands_behind_the_result(context: Any) -> None:
    request = ToolRequest(request_id="call_0", name="read", arguments="{}")
    context.add(PageKind.REPLY, encode_reply(Reply(requests=(request,), stop="tools")))
    context.add(PageKind.MESSAGE, "Hurry.")
    context.add(PageKind.RESULT, "done", group=1, request_id="call_0")
    turns = context.prompt().turns
    assert [turn.role for turn in turns] == ["user", "assistant", "tool", "user"]


def test_an_error_is_marked_as_one(context: Any) -> None:
    context.exchange("read", is_error=True)
    assert context.prompt().turns[-1].is_error


def test_what_the_model_thought_travels_with_its_turn(context: Any) -> None:
    context.add(PageKind.REPLY, encode_reply(Reply(text="Yes.", reasoning="Hm.", reasoning_signature="s")))
    turn = context.prompt().turns[-1]
    assert (turn.reasoning, turn.reasoning_signature) == ("Hm.", "s")


def test_a_body_that_is_not_utf8_still_makes_a_prompt(context: Any) -> None:
    context.add(PageKind.MESSAGE, b"\xff\xfe")
    assert "�" in context.prompt().turns[-1].text


def test_the_marks_are_the_task_the_newest_line_of_the_grid_and_the_end(context: Any) -> None:
    for _ in range(40):
        context.exchange("read", tokens=GRID_TOKENS // 4)
    last = len(context.prompt().turns) - 1
    task, line, end = marks(context.prompt())
    assert (task, end) == (0, last)
    assert last - 2 * 4 <= line < last, "a line is passed in every fourth exchange"


def test_after_a_cut_the_last_line_before_the_hole_is_marked_in_place_of_the_task(context: Any) -> None:
    for number in range(40):
        context.exchange("read", tokens=GRID_TOKENS // 4, resident=not 20 <= number < 30)
    anchor, line, end = marks(context.prompt())
    hole = next(index for index, turn in enumerate(context.prompt().turns) if "[paged out]" in turn.text)
    assert hole - 2 * 4 <= anchor < hole < line < end


def test_the_end_of_the_request_before_is_marked_where_a_mark_at_the_end_does_not_look_back_so_far(
    context: Any,
) -> None:
    context.exchange("read")
    before = len(context.prompt().turns) - 1
    for number in range(LOOKBACK_BLOCKS + 5):
        one = len(context.pages)
        context.exchange(*["read"] * number)
        blocks = 1 + 2 * number  # its text, its calls and their results
        assert (before in marks(context.prompt())) == (blocks >= LOOKBACK_BLOCKS), number
        del context.pages[one:]


@given(steps=STEPS)
def test_every_context_makes_a_prompt_that_all_dialects_accept(new_context: Any, steps: list[Any]) -> None:
    context = new_context()
    fill(context, steps)
    assert_valid(context.prompt().turns)
    assert len(marks(context.prompt())) <= 3


@given(steps=STEPS, missing=st.sets(st.integers(1, 60)))
def test_a_context_with_pages_missing_anywhere_makes_a_valid_prompt(
    new_context: Any, steps: list[Any], missing: set[int]
) -> None:
    context = new_context()
    fill(context, steps)
    assert_valid(context.prompt([page for page in context.pages if page.position not in missing]).turns)


@given(steps=STEPS, missing=st.sets(st.integers(1, 60)))
def test_every_resident_page_is_in_the_prompt_once(new_context: Any, steps: list[Any], missing: set[int]) -> None:
    context = new_context()
    fill(context, steps)
    pages = [page for page in context.pages if page.position not in missing]
    text = "\n".join(turn.text for turn in context.prompt(pages).turns) + "\n"
    for page in pages:
        body = context.body(page).decode()
        needle = f"{decode_reply(body.encode()).text}\n" if page.kind is PageKind.REPLY else f"{body}\n"
        if page.resident and page.kind is not PageKind.RESULT:
            assert text.count(needle) == 1
        if page.page_id in listed(pages):
            assert text.count(short_id(page.page_id)) == 1
    absent = sum(not in_window(page) for page in pages)
    counted = sum(int(number.replace(",", "")) for number in re.findall(r"\[paged out\] ([\d,]+) more pages", text))
    assert counted + len(listed(pages)) == absent, "what has no handle is counted"


@given(steps=STEPS, later=STEPS)
def test_while_pages_are_appended_each_prompt_is_a_prefix_of_the_next(
    new_context: Any, steps: list[Any], later: list[Any]
) -> None:
    """Whatever a compaction has left behind: what comes after it is in the window until the next one."""
    context = new_context()
    fill(context, steps)
    sizes = grow(context, [(*step[:-1], True) for step in later])
    texts = [serialised(context.prompt(context.pages[:size])) for size in sizes]
    for shorter, longer in zip(texts, texts[1:], strict=False):
        assert longer.startswith(shorter)


@given(steps=STEPS, later=STEPS)
def test_marks_before_the_last_turn_stay_while_pages_are_appended(
    new_context: Any, steps: list[Any], later: list[Any]
) -> None:
    """A mark of the longer prompt stands in what is new, or was one before; none appears in between."""
    context = new_context()
    fill(context, steps)
    sizes = grow(context, [(*step[:-1], True) for step in later])
    seen: set[int] = set()
    turn = 0
    for prompt in [context.prompt(context.pages[:size]) for size in sizes]:
        assert not seen or {index for index in marks(prompt) if index < turn} <= seen
        seen |= set(marks(prompt))
        turn = max((index for index, each in enumerate(prompt.turns) if each.role == "assistant"), default=0)


def asked_again(steps: Sequence[Any]) -> list[Any]:
    """Make each step one after which a request is sent: a reply, and what it is answered with."""
    silent, heard = ("exchange", 0, 50, False, True), (PageKind.MESSAGE, 0, 100, False, True)
    return [[silent, step] if step[0] != "exchange" else [step] if step[1] else [step, heard] for step in steps]


@given(later=WIDE_STEPS, tokens_min=st.sampled_from([0, 4_000]))
def test_what_was_sent_before_is_read_from_the_cache_whole_by_the_next_request(
    new_context: Any, later: list[Any], tokens_min: int
) -> None:
    context, cache = new_context(), WireCache(CacheRules(entries=Entries.MARKS, tokens_min=tokens_min, ttl_s=300.0))
    context.add(PageKind.TASK, "Find the bug. " * 2_000)
    sent = 0
    for steps in asked_again(later):
        body = request_body("m", context.prompt(), Quirks(cache_breakpoints=4))
        assert marks_in(body) <= 4
        total, cached, _ = cache.read(body, 0.0)
        assert cached == sent
        sent = total
        grow(context, [(*step[:-1], True) for step in steps])


@given(steps=STEPS, order=st.randoms())
def test_the_prompt_does_not_depend_on_the_order_of_the_rows(new_context: Any, steps: list[Any], order: Any) -> None:
    context = new_context()
    fill(context, steps)
    shuffled: list[Page] = list(context.pages)
    order.shuffle(shuffled)
    assert context.prompt(shuffled) == context.prompt()


TEXT = st.text(st.characters(codec="utf-8"))
REPLIES = st.builds(
    Reply,
    text=TEXT,
    requests=st.lists(st.builds(ToolRequest, request_id=TEXT, name=TEXT, arguments=TEXT)).map(tuple),
    reasoning=TEXT,
    reasoning_signature=TEXT,
    stop=st.sampled_from(["end", "tools", "length", "refused"]),
)


@given(REPLIES)
def test_a_reply_survives_its_page(reply: Reply) -> None:
    assert decode_reply(encode_reply(reply)) == reply


def test_a_lone_surrogate_in_a_reply_does_not_stop_the_page() -> None:
    assert decode_reply(encode_reply(Reply(text="a\ud800b"))).text == "a\ufffdb"


@pytest.mark.parametrize("body", [b"", b"{}", b"plain text"])
def test_bytes_that_are_no_reply_are_an_error(body: bytes) -> None:
    with pytest.raises((ValueError, KeyError)):
        decode_reply(body)
