"""The scheduling benchmark: its workloads, the forms of public traces, and that it plays the kernel's own code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aos_mcp.abi.errors import Invalid
from aos_mcp.bench import workloads
from aos_mcp.bench.schedule import CALL_FIFO, CONTESTANTS, play
from aos_mcp.testing.simulation import Provider

PROVIDER = Provider()


def test_a_seed_gives_the_same_agents_of_both_kinds() -> None:
    jobs = workloads.mixed(3)
    assert jobs == workloads.mixed(3) != workloads.mixed(4)
    assert len(jobs) == 400
    assert 0.5 < sum(job.kind == workloads.SHORT for job in jobs) / len(jobs) < 0.7
    assert all(1 <= len(job.acts) <= workloads.LONG_CALLS_MAX for job in jobs)
    assert max(len(job.acts) for job in jobs if job.kind == workloads.SHORT) == workloads.SHORT_CALLS_MAX


def test_an_azure_trace_is_calls_of_one_with_its_lengths(tmp_path: Path) -> None:
    path = tmp_path / "conv.csv"
    path.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.6805900,374,44\n"
        "2023-11-16 18:15:50.9951690,396,909\n"
        "2023-11-16 18:15:51.2224670,879,55\n"
    )
    jobs = workloads.load(path, PROVIDER)
    assert [(job.context_tokens, job.acts[0].output_tokens) for job in jobs] == [(374, 44), (396, 909), (879, 55)]
    assert [job.kind for job in jobs] == ["short", "long", "short"]
    ratio = (jobs[1].created_at - jobs[0].created_at) / (jobs[2].created_at - jobs[0].created_at)
    assert ratio == pytest.approx(4.314579 / 4.541877, rel=1e-6)


def test_arrivals_of_a_trace_keep_the_provider_busy_for_the_stated_part(tmp_path: Path) -> None:
    path = tmp_path / "mooncake.jsonl"
    rows = [
        {"timestamp": 1_000 * n, "input_length": 2_000 + n, "output_length": 10 * n, "hash_ids": [n]} for n in range(50)
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    jobs = workloads.load(path, PROVIDER)
    work_s = sum(workloads.alone_s(job, PROVIDER) for job in jobs)
    assert work_s / (PROVIDER.slots * jobs[-1].created_at) == pytest.approx(workloads.LOAD)


def test_a_recorded_dialogue_is_one_agent_with_its_calls_and_results(tmp_path: Path) -> None:
    path = tmp_path / "tau.json"
    run = {
        "traj": [
            {"role": "system", "content": "You help with flights."},
            {"role": "user", "content": "Cancel my booking, please."},
            {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "find", "arguments": "{}"}}]},
            {"role": "tool", "content": '{"booking": "QX7"}'},
            {"role": "assistant", "content": "It is cancelled."},
        ]
    }
    path.write_text(json.dumps([run, run]))
    first, _ = workloads.load(path, PROVIDER)
    assert len(first.acts) == 2
    assert first.acts[0].result_tokens > 0 == first.acts[1].result_tokens
    assert first.context_tokens > 8


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.json", "x.txt"])
def test_a_file_that_is_no_trace_is_refused_with_the_forms_there_are(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("nothing of the kind")
    with pytest.raises(Invalid, match="no trace of calls") as refused:
        workloads.load(tmp_path / name, PROVIDER)
    assert "Mooncake" in refused.value.hint


def test_all_contestants_finish_the_same_agents_and_none_beats_the_clairvoyant_by_much() -> None:
    played = play({0: workloads.mixed(0, agents=60)}, PROVIDER)
    assert played.keys() == CONTESTANTS.keys() and CALL_FIFO in played
    assert all(len(run.of_kind()) == 60 for runs in played.values() for run in runs)
    bound = played["clairvoyant"][0].mean_s()
    assert all(run.mean_s() >= 0.95 * bound for runs in played.values() for run in runs)


def test_a_crowd_is_not_done_before_its_limit_allows() -> None:
    jobs = workloads.crowd(0, agents=8)
    paced = Provider(slots=64, requests_per_min=60)
    assert workloads.soonest_s(jobs, paced) == pytest.approx(100.0)  # 160 calls, the first 60 at once
    alone = sum(workloads.alone_s(job, Provider(slots=1)) for job in jobs)
    assert workloads.soonest_s(jobs, Provider(slots=1)) == pytest.approx(alone)
