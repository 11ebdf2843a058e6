"""The paging benchmark: its traces, its model of provider caches, and that it plays the kernel's own code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aos_mcp.abi.errors import Invalid
from aos_mcp.abi.page import PageKind
from aos_mcp.bench.cache_model import ROWS, PriceRow
from aos_mcp.bench.meaning import meaning_of
from aos_mcp.bench.pagers import PAGERS
from aos_mcp.bench.paging import play, run
from aos_mcp.bench.session import Context, Play, held_or_fetched_bound, known_future_bound
from aos_mcp.bench.traces import RUNS_JOINED, load, short_sessions, synthetic
from aos_mcp.testing.embedder import WordEmbedder
from aos_mcp.testing.prompt_cache import Entries, PrefixCache, Request

BY_MARKS = next(row for row in ROWS if row.entries is Entries.MARKS)
EXACT = next(row for row in ROWS if row.entries is Entries.EXACT)
UNITS = next(row for row in ROWS if row.entries is Entries.UNITS)


def request(*names: str, marks: tuple[int, ...] | None = None) -> Request:
    """A prompt of segments of 2,000 tokens; equal beginnings have equal chains."""
    chain = [hash(names[: place + 1]) for place in range(len(names))]
    ends = [2_000 * (place + 1) for place in range(len(names))]
    return Request(chain, ends, (len(names) - 1,) if marks is None else marks)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_prompt_that_grows_is_read_up_to_the_end_of_the_last_one(row: PriceRow) -> None:
    cache = PrefixCache(row)
    assert cache.read(request("a", "b"), 0.0) == 0
    assert cache.read(request("a", "b", "c"), 10.0) == 4_000


@pytest.mark.parametrize("row", [BY_MARKS, EXACT], ids=lambda row: row.name)
def test_a_prompt_that_parts_from_the_last_one_is_read_only_up_to_a_mark(row: PriceRow) -> None:
    cache = PrefixCache(row)
    cache.read(request("a", "b", "c", "d", marks=(0, 3)), 0.0)
    assert cache.read(request("a", "b", "c", "x", marks=(0, 3)), 1.0) == 2_000


def test_a_mark_finds_an_entry_a_few_blocks_before_it_and_no_further() -> None:
    near, far = ([f"s{place}" for place in range(count)] for count in (20, 40))
    cache = PrefixCache(BY_MARKS)
    cache.read(request("s0"), 0.0)
    assert cache.read(request(*near), 1.0) == 2_000
    cache = PrefixCache(BY_MARKS)
    cache.read(request("s0"), 0.0)
    assert cache.read(request(*far), 1.0) == 0


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_an_entry_expires_and_using_it_keeps_it(row: PriceRow) -> None:
    cache = PrefixCache(row)
    cache.read(request("a"), 0.0)
    assert cache.read(request("a"), 0.9 * row.ttl_s) == 2_000
    assert cache.read(request("a"), 1.8 * row.ttl_s) == 2_000
    assert cache.read(request("a"), 3.0 * row.ttl_s) == 0


def test_a_cache_of_units_also_hits_at_fixed_distances() -> None:
    cache = PrefixCache(UNITS)
    cache.read(request(*"abcdefgh"), 0.0)
    assert cache.read(request(*"abcdeXgh"), 1.0) == 10_000


def test_the_same_seed_gives_the_same_trace() -> None:
    assert synthetic(50, 7) == synthetic(50, 7)
    assert synthetic(50, 7) != synthetic(50, 8)


@pytest.mark.parametrize("steps", [9, 120])
def test_a_trace_uses_only_pages_that_are_there(steps: int) -> None:
    there: set[str] = set()
    for step in synthetic(steps, 3).steps:
        there.update(step.new)
        assert set(step.refs) <= there


def test_a_trace_file_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    rows = [
        {"k": "meta", "v": 1, "name": "mine", "system": 500},
        {"k": "page", "id": "p0", "tok": 40, "kind": "user", "t": 0},
        {"k": "page", "id": "p1", "tok": 900, "kind": "file", "src": "Read:/a.py", "t": 1},
        {"k": "step", "t": 0, "new": ["p0"], "refs": ["p0"], "out": 20, "gap": 3},
        {"k": "step", "t": 1, "new": ["p1"], "refs": ["p0", "p1"], "out": 30},
    ]
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    (trace,) = load(path)
    assert (trace.name, trace.tokens, len(trace.steps)) == ("mine", 1_440, 2)
    assert trace.steps[1].refs == ("p0", "p1")


@pytest.mark.parametrize(
    "text",
    ["no json", '{"k": "step", "new": [], "refs": ["p9"], "out": 1}', '{"k": "page", "id": "p", "kind": "user"}'],
)
def test_a_file_that_is_no_trace_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(text, "utf-8")
    with pytest.raises(Invalid):
        load(path)


def test_a_dialogue_becomes_a_trace_in_which_a_result_is_used_where_its_words_return(tmp_path: Path) -> None:
    messages = [
        {"role": "system", "content": "Help travellers."},
        {"role": "user", "content": "Where is my bag?"},
        {"role": "assistant", "content": None, "tool_calls": [{"name": "find"}]},
        {"role": "tool", "name": "find", "content": "bag BG-77123 is in Oslo"},
        {"role": "assistant", "content": "One moment."},
        {"role": "user", "content": "Well?"},
        {"role": "assistant", "content": "Your bag BG-77123 is in Oslo."},
    ]
    path = tmp_path / "runs.json"
    path.write_text(json.dumps([{"task_id": 0, "traj": messages}]), "utf-8")
    (trace,) = load(path)
    used = [trace.pages[name].kind for name in trace.steps[-1].refs]
    assert used == ["tool_result"]


def shell_run(task: str, answer: str) -> dict[str, object]:
    """A recorded run of a coding agent to which the shell answers as a user."""
    return {
        "messages": [
            {"role": "system", "content": "Mend it."},
            {"role": "user", "content": task},
            {"role": "assistant", "content": "ls"},
            {"role": "user", "content": answer},
            {"role": "assistant", "content": "Done."},
        ]
    }


def test_the_runs_of_a_folder_are_played_in_a_row_or_each_by_itself(tmp_path: Path) -> None:
    for number in range(RUNS_JOINED + 1):
        file = tmp_path / "runs" / f"r{number:02}" / "r.traj.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(shell_run(f"Task {number}.", "setup.py")), "utf-8")
    joined = load(tmp_path / "runs")
    assert [len(trace.steps) for trace in joined] == [2 * RUNS_JOINED, 2]
    assert len(load(tmp_path / "runs", joined=False)) == RUNS_JOINED + 1
    first = [(page.kind, page.title, page.text) for page in joined[0].pages.values()][:3]
    assert first == [
        ("user", "Task 0.", "Task 0."),
        ("assistant", "ls", "ls"),
        ("tool_result", "bash: setup.py", "setup.py"),
    ]


def test_a_folder_without_runs_or_with_a_bad_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid):
        load(tmp_path)
    (tmp_path / "bad.traj.json").write_text('{"messages": 3}', "utf-8")
    with pytest.raises(Invalid):
        load(tmp_path)


def test_a_folder_without_the_model_is_refused_before_anything_is_played(tmp_path: Path) -> None:
    (tmp_path / "a.traj.json").write_text(json.dumps(shell_run("Count every bird.", "an owl")), "utf-8")
    with pytest.raises(Invalid, match="MiniLM"):
        run(tmp_path, str(tmp_path), lambda _: None)


def test_the_meaning_of_a_played_page_is_its_text_and_a_fetched_copy_means_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.traj.json").write_text(json.dumps(shell_run("Count every bird.", "an owl " * 300)), "utf-8")
    (trace,) = load(tmp_path, joined=False)
    meaning = meaning_of(trace, WordEmbedder([["owl", "bird"], ["car"]]), lambda _: None)
    context = Context(trace.system_tokens, BY_MARKS.prices)
    for page in trace.pages.values():
        context.append(page)
    cosines = meaning.cosines(context.pages)
    result = next(page for page in context.pages if page.kind is PageKind.RESULT)
    assert cosines[result.page_id] == pytest.approx(1.0, abs=0.1)
    context.append(trace.pages["p2"], origin=result)
    assert meaning.cosines(context.pages)[context.pages[-1].page_id] == cosines[result.page_id]


def test_what_a_session_costs_beyond_the_bound_is_fetching_rewriting_and_reading_what_is_not_used() -> None:
    trace = synthetic(300, 5)
    for row in ROWS:
        append, ours = (Play(trace, PAGERS[name](trace), row, 50_000).run() for name in ("append", "aos"))
        assert (append.fetching, append.again) == (0.0, 0.0)
        assert ours.fetching > 0 < ours.again
        assert ours.cost - known_future_bound(trace, row) > ours.fetching + ours.again


def test_short_sessions_that_fit_cost_at_most_a_fiftieth_more_than_append_everything() -> None:
    for row in (BY_MARKS, UNITS):
        for seed in (5, 6):
            played = play(row, short_sessions(seed), ("aos", "append"), window_part=None)
            assert played.dollars("aos") <= 1.02 * played.dollars("append")


def test_sorting_by_use_at_every_call_costs_many_times_what_it_is_worth() -> None:
    played = play(BY_MARKS, [synthetic(160, 5)], ("append", "sorted"), window_part=None)
    assert played.dollars("sorted") > 2 * played.dollars("append")


@pytest.mark.parametrize("name", sorted(PAGERS))
def test_no_pager_beats_the_bound_and_all_answer_the_whole_trace(name: str) -> None:
    trace = synthetic(160, 11)
    bill = Play(trace, PAGERS[name](trace), BY_MARKS, (trace.tokens - trace.system_tokens) // 2).run()
    assert bill.cost >= held_or_fetched_bound(trace, BY_MARKS) >= known_future_bound(trace, BY_MARKS)
    assert bill.requests >= len(trace.steps)


def test_ours_costs_less_than_half_of_one_at_a_time_on_a_long_trace() -> None:
    trace = synthetic(300, 5)
    played = play(BY_MARKS, [trace], ("aos", "append", "lru", "age"), window_part=0.5)
    assert played.dollars("aos") < played.dollars("append")
    assert played.dollars("aos") < played.dollars("lru") / 2
    assert played.dollars("aos") < played.dollars("age")
