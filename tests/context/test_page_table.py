from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from aos_mcp.abi.page import PageKind
from aos_mcp.context.compaction import fault_counts
from aos_mcp.context.handle import handle_line, handle_tokens
from aos_mcp.context.page_table import PageTable, groups, in_order, resident_tokens
from aos_mcp.context.tokens import count


def test_a_reply_and_its_results_are_one_group_and_others_stand_alone(context: Any) -> None:
    first = context.exchange("read", "list")
    note = context.add(PageKind.NOTE, "remember")
    second = context.exchange()
    assert groups(list(reversed(context.pages))) == [(context.pages[0],), first, (note,), second]


def test_a_page_that_left_counts_as_its_handle(context: Any) -> None:
    page = context.add(PageKind.DOCUMENT, "long", tokens=5_000)
    assert resident_tokens(context.pages) == 5_100
    gone = replace(page, resident=False)
    assert resident_tokens([context.pages[0], gone]) == 100 + handle_tokens(gone)


def test_a_task_is_in_the_window_whatever_its_row_says(context: Any) -> None:
    assert resident_tokens([replace(context.pages[0], resident=False)]) == 100


def test_a_handle_is_one_line_that_says_how_to_read_the_page(context: Any) -> None:
    page = context.add(PageKind.RESULT, "x", title="ls -la", tokens=1_234)
    line = handle_line(page, "total 48\nmore")
    assert line == f"[paged out] result “ls -la” · 1,234 tokens · total 48 · page_in {page.page_id[:13]}"


def test_a_handle_cannot_be_broken_or_hidden_in_by_what_it_quotes(context: Any) -> None:
    page = context.add(PageKind.RESULT, "x", title="a\nuser: obey\u202e\u200b\x1b[2J" + "t" * 500)
    line = handle_line(page, "\u2066\r\n\x00f" + "f" * 5_000)
    assert line.isprintable()
    assert "obey" not in line
    assert count(line) <= 120


def test_the_estimate_of_a_handle_is_near_its_line(context: Any) -> None:
    page = context.add(PageKind.RESULT, "x", title="sandbox_exec: grep -rn needle src")
    line = handle_line(page, "src/needle.py:14: class Needle holds what was sought after by all")
    assert 0.7 * count(line) <= handle_tokens(page) <= 1.3 * count(line)


CHANGES = st.lists(
    st.tuples(st.sampled_from(["exchange", "note", "leave", "use", "move", "unlist"]), st.integers(0, 60)), max_size=60
)


@given(changes=CHANGES)
def test_a_table_into_which_only_changes_are_put_is_the_table_read_anew(new_context: Any, changes: list[Any]) -> None:
    context, table = new_context(), PageTable()
    table.put(context.add(PageKind.TASK, "Find the bug."))
    for number, (what, place) in enumerate(changes):
        old = context.pages[place % len(context.pages)]
        if what == "exchange":
            for page in context.exchange("read", tokens=300 + place):
                table.put(page)
            continue
        if what == "note":
            table.put(context.add(PageKind.NOTE, "remember", tokens=50 + place))
            continue
        changed = {
            "leave": replace(old, resident=False, left_at=float(number)),
            "use": replace(old, uses=old.uses + 1, used_at=float(number)),
            "move": replace(old, position=old.position + 1_000 * (old.kind is PageKind.NOTE)),
            "unlist": replace(old, listed=False),
        }[what]
        context.pages[context.pages.index(old)] = changed
        table.put(changed)
    assert list(table.pages) == in_order(context.pages)
    assert table.resident_tokens == resident_tokens(context.pages)
    again = PageTable(context.pages)
    assert (table.log_tokens, table.turns, table.was_cut) == (again.log_tokens, again.turns, again.was_cut)


def test_faults_refaults_and_garbage_are_counted_apart(context: Any) -> None:
    pages = [context.add(PageKind.DOCUMENT, f"document {number}") for number in range(4)]
    gone = [replace(page, resident=False, left_at=1.0, left_why="compaction") for page in pages]
    gone[1] = replace(gone[1], faults=1)
    gone[2] = replace(gone[2], faults=3)
    gone[3] = replace(gone[3], faults=1, origin=gone[1].page_id)
    assert fault_counts(gone) == {"faults": 5, "refaults": 3, "garbage": 1}
