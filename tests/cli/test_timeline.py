"""The timeline: spans from picks and steps, as text and as a picture."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

from aos_mcp.cli.spans import BLOCKED, MODEL, RUNNING, TOOL, WAITING, Span, bounds, lives
from aos_mcp.cli.timeline_picture import picture
from aos_mcp.cli.top import KEYS, Order, ordered


def an_agent(pid: str, **changes: Any) -> dict[str, Any]:
    plain = {"pid": pid, "name": pid, "state": "exited", "since": 9.0, "created_at": 0.0, "ended_at": 9.0, "steps": []}
    return {**plain, **changes}


def a_step(call: str, started_at: float, ended_at: float | None) -> dict[str, Any]:
    return {"call": call, "state": "done", "started_at": started_at, "ended_at": ended_at}


def a_pick(pid: str, since: float, at: float, why: str = "normal, alone") -> dict[str, Any]:
    return {"pid": pid, "since": since, "at": at, "why": why}


ANSWER = {
    "now": 12.0,
    "agents": [
        an_agent("p_a", steps=[a_step("model", 2.0, 3.0), a_step("sandbox_exec", 3.0, 3.5), a_step("model", 6.0, 9.0)]),
        an_agent("p_b", state="blocked", since=5.0, ended_at=None, steps=[a_step("wait_agent", 5.0, None)]),
        an_agent("p_c", state="ready", since=10.0, ended_at=None, created_at=10.0),
    ],
    "picks": [a_pick("p_a", 0.0, 1.5, "normal, shortest"), a_pick("p_b", 4.0, 4.5), a_pick("p_a", 4.0, 5.0)],
}


def test_a_turn_lasts_until_its_process_is_in_the_queue_again() -> None:
    spans = lives(ANSWER)[0].spans
    assert [span for span in spans if span.kind in {WAITING, RUNNING}] == [
        Span(WAITING, 0.0, 1.5, "normal, shortest"),
        Span(RUNNING, 1.5, 4.0, "normal, shortest"),
        Span(WAITING, 4.0, 5.0, "normal, alone"),
        Span(RUNNING, 5.0, 9.0, "normal, alone"),
    ]


def test_what_a_turn_did_lies_in_it_by_kind() -> None:
    life = lives(ANSWER)[0]
    assert [span.kind for span in life.spans if span.why in {"model", "sandbox_exec"}] == [MODEL, TOOL, MODEL]
    assert (life.total_s(WAITING), life.total_s(MODEL), life.total_s(TOOL)) == (2.5, 4.0, 0.5)
    assert life.total_s(RUNNING) == 2.0, "the kernel's own part"


def test_what_goes_on_is_shown_until_now() -> None:
    _, blocked, ready = lives(ANSWER)
    assert blocked.spans[0] == Span(BLOCKED, 0.0, 4.0), "it had yet to start"
    assert Span(BLOCKED, 5.0, 12.0, "wait_agent") in blocked.spans
    assert ready.spans == (Span(WAITING, 10.0, 12.0),)


def a_life(steps: list[dict[str, Any]], picks: list[dict[str, Any]], **changes: Any) -> list[Span]:
    (life,) = lives({"now": 100.0, "agents": [an_agent("p_a", steps=steps, **changes)], "picks": picks})
    return [span for span in life.spans if span.kind in {RUNNING, BLOCKED}]


def test_an_agent_that_was_stopped_after_its_turn_did_not_run_until_it_went_on() -> None:
    steps = [a_step("model", 1.0, 3.0), a_step("model", 61.0, 63.0)]
    picks = [a_pick("p_a", 0.0, 1.0), a_pick("p_a", 60.0, 61.0)]
    ran = [Span(RUNNING, 1.0, 3.0, "normal, alone"), Span(RUNNING, 61.0, 63.0, "normal, alone")]
    assert a_life(steps, picks, ended_at=63.0) == ran
    assert a_life(steps, picks, ended_at=90.0) == ran, "it was stopped, then killed"
    assert a_life(steps, picks, state="stopped", since=63.0, ended_at=None) == ran
    assert a_life([], picks[:1], ended_at=63.0) == [Span(RUNNING, 1.0, 63.0, "normal, alone")], "nothing tells"


def test_an_agent_that_runs_still_is_shown_to_run_though_its_last_step_is_over() -> None:
    found = a_life([a_step("model", 1.0, 3.0)], [a_pick("p_a", 0.0, 1.0)], state="running", since=1.0, ended_at=None)
    assert found == [Span(RUNNING, 1.0, 100.0, "normal, alone")]


def test_an_agent_that_is_blocked_between_two_steps_does_not_run() -> None:
    blocked = {"state": "blocked", "since": 4.0, "ended_at": None}
    found = a_life([a_step("model", 1.0, 3.9)], [a_pick("p_a", 0.0, 1.0)], **blocked)
    assert found == [Span(RUNNING, 1.0, 4.0, "normal, alone"), Span(BLOCKED, 4.0, 100.0)]


def test_a_wait_is_counted_once() -> None:
    _, blocked, _ = lives(ANSWER)
    assert (blocked.total_s(BLOCKED), blocked.total_s(RUNNING)) == (11.0, 0.5), "4 s before its turn, 7 s in it"


def test_no_picks_are_no_spans() -> None:
    assert lives({"now": 1.0, "agents": [an_agent("p_a")], "picks": []})[0].spans == ()
    assert bounds([]) == (0.0, 0.001)


def test_the_picture_is_xml_and_tells_who_when_and_why() -> None:
    hostile = {**ANSWER, "agents": [an_agent("p_a", name="<script>alert(1)</script>\x00")]}
    root = ET.fromstring(picture(lives(hostile)))
    told = [node.text or "" for node in root.iter("{http://www.w3.org/2000/svg}title")]
    assert any("waiting 1.500 s: normal, shortest" in text for text in told)
    assert not list(root.iter("{http://www.w3.org/2000/svg}script"))
    ET.fromstring(picture([]))


def test_top_sorts_by_each_of_its_orders() -> None:
    def row(pid: str, size: int) -> dict[str, Any]:
        times = {"attained": size, "waiting_s": size, "running_s": size}
        usage = {"usd": size, "input_tokens": size, "output_tokens": 0, "turns": size}
        return {"pid": pid, "times": times, "usage": usage, "priority": 100 - size}

    rows = [row("p_small", 1), row("p_large", 3), row("p_middle", 2)]
    assert set(KEYS) == set(Order) - {Order.STATE}
    assert [r["pid"] for r in ordered(rows, Order.STATE)] == ["p_small", "p_large", "p_middle"]
    for order in KEYS:
        assert [r["pid"] for r in ordered(rows, order)] == ["p_large", "p_middle", "p_small"], order
