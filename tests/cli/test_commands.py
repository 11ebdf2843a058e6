"""Commands about agents, pages, the sandbox and the kernel: processes of their own, against a real daemon."""

from __future__ import annotations

import json
import signal
import subprocess

import pytest

import aos_mcp
from tests.cli.command import CALL_S, Aos, needs_bwrap

# Agents


def test_the_first_command_starts_a_kernel_and_finds_no_agents(aos: Aos) -> None:
    assert aos.json("ps", "--state", "stopped") == {"agents": []}


def test_an_agent_is_started_waited_for_and_listed(aos: Aos) -> None:
    pid = aos("run", "Say hello.", "--model", "replay/hello", "--name", "greeter").strip()
    waited = aos.json("wait", pid)
    agent = waited["agents"][0]
    assert (agent["exit_code"], agent["result"], agent["replayed"]) == ("done", "Hello, world.", True)
    assert aos("wait", pid[:10]).strip() == "Hello, world."
    rows = aos.json("ps", "--all")["agents"]
    assert {row["pid"]: row["name"] for row in rows}[pid] == "greeter"
    assert pid[:12] in aos("ps", "--all")


def test_the_task_can_come_from_standard_input(aos: Aos) -> None:
    pid = aos.json("run", "-", "--model", "replay/hello", stdin="Say hello, please.\n")["pid"]
    aos("wait", pid)
    assert aos.json("logs", pid)["entries"][0]["text"].strip() == "Say hello, please."


def test_following_an_agent_shows_its_work_and_ends_with_its_code(aos: Aos) -> None:
    lines = aos.lines("run", "Say hello.", "--model", "replay/hello", "--follow")
    assert [line["kind"] for line in lines] == ["task", "reply", "exit"]
    assert lines[-1]["agent"]["result"] == "Hello, world."
    shown = aos("run", "Try it.", "--model", "replay/hopeless", "--follow", code=1)
    assert "It cannot be done." in shown


def test_logs_tell_what_was_said_in_order(aos: Aos) -> None:
    pid = aos.run("hopeless", "Try it.")
    aos("wait", pid, code=1)
    told = aos.json("logs", pid)
    assert told["process"]["pid"] == pid
    assert [entry["kind"] for entry in told["entries"]][:2] == ["task", "reply"]
    assert told["entries"][1]["at"] is not None
    assert "Try it." in aos("logs", pid)
    assert aos.lines("logs", pid, "--follow", code=1)[-1]["kind"] == "exit"


def test_an_agent_that_gives_up_makes_the_waiter_fail(aos: Aos) -> None:
    assert aos.json("wait", aos.run("hopeless"), code=1)["agents"][0]["exit_code"] == "failed"


def test_an_agent_without_budget_left_has_an_exit_code_of_its_own(aos: Aos) -> None:
    pid = aos.json("run", "Say hello.", "--model", "replay/hello", "--budget-tokens", "1")["pid"]
    assert aos.json("wait", pid, code=4)["agents"][0]["exit_code"] == "budget_exhausted"


def test_waiting_can_run_out_of_time_and_a_kill_ends_it(aos: Aos) -> None:
    pid = aos.run("slow")
    assert aos.json("wait", pid, "--timeout", "0.2", code=7)["timed_out"] is True
    assert aos.json("send", pid, "Are you there?")["message_id"].startswith("m_")
    assert pid in {row["pid"] for row in aos.json("ps")["agents"]}
    assert aos.json("signal", pid, "kill", "--reason", "enough")["state"] == "exited"
    assert aos.json("wait", pid, code=1)["agents"][0]["exit_code"] == "killed"
    assert aos.json("send", pid, "Still there?", code=1)["error"]["code"] == "conflict"


def test_waiting_for_any_ends_with_the_first(aos: Aos) -> None:
    slow, quick = aos.run("slow"), aos.run("hello")
    waited = aos.json("wait", slow, quick, "--any")
    assert {agent["pid"]: agent.get("exit_code") for agent in waited["agents"]} == {slow: None, quick: "done"}
    aos("signal", slow, "kill")


@needs_bwrap
@pytest.mark.bwrap
def test_a_call_that_was_cut_off_is_settled_from_the_command_line(aos: Aos) -> None:
    with subprocess.Popen(aos.argv("exec", "--", "sleep", "1000"), env=aos.env, cwd=aos.home) as asking:
        while not any(
            row["outcome"] == "intent" and "1000" in row["detail"] for row in aos.json("audit", "tail")["records"]
        ):
            continue
        asking.kill()
    while not (approvals := aos.json("approvals")["approvals"]):
        continue
    assert "sleep" in approvals[0]["question"]
    assert aos.json("approvals", "done", approvals[0]["approval_id"], "--note", "it slept")["state"] == "claimed"
    assert aos.json("approvals")["approvals"] == []
    pid = aos.run("hello")
    aos("wait", pid)
    assert "nothing about it is open" in aos.json("reconcile", pid, "0", "--give-up", code=1)["error"]["message"]
    aos("reconcile", pid, "0", "--redo", "--give-up", code=2)


def test_a_run_that_has_not_ended_is_not_made_again_and_not_waited_for(aos: Aos) -> None:
    pid = aos.run("slow")
    told = aos.json("replay", pid, "--from", "0", code=1)["error"]
    assert (told["code"], told["message"].startswith(f"{pid} has not ended; ")) == ("conflict", True)
    assert f"aos restore {pid}@0" in told["hint"]
    assert [row["pid"] for row in aos.json("ps")["agents"]] == [pid], "nothing was forked"
    aos("signal", pid, "kill")


def test_a_run_is_made_again_and_its_steps_are_explained(aos: Aos) -> None:
    pid = aos.run("hello")
    aos("wait", pid)
    again = aos.json("replay", pid, "--offline")
    assert (again.get("first_difference"), {row["verdict"] for row in again["steps"]}) == (None, {"same"})
    assert "all as on record" in aos("replay", pid, "--offline")
    parted = aos.json("replay", pid, "--from", "0", "--model", "replay/hello")
    assert (parted["parted_at"], [turn["same"] for turn in parted["turns"]]) == (None, [True])
    assert "never part" in aos("replay", pid, "--from", "0")
    why = aos.json("why", pid, "0")
    assert why["model"] == "replay/hello"
    assert [page["kind"] for page in why["seen"]] == ["task"]
    assert "IT SAW" in aos("why", pid, "0")
    aos("why", pid, "99", code=5)
    aos("replay", pid, code=2)
    aos("replay", "--offline", code=2)


def test_a_checkpoint_is_restored_as_a_new_agent(aos: Aos) -> None:
    pid = aos.run("hello")
    aos("wait", pid)
    saved = aos.json("checkpoint", pid, "--label", "after hello")
    restored = aos.json("restore", saved["checkpoint_id"], "--name", "again")
    assert restored["pid"] not in {pid, None}
    assert len(aos.json("restore", saved["checkpoint_id"], "--race", "2")["pids"]) == 2
    assert len(aos("restore", f"{pid}@0", "--count", "3").split()) == 3
    aos("restore", saved["checkpoint_id"], "--count", "2", "--follow", code=2)
    assert aos.json("restore", "cp_" + "a" * 26, code=5)["error"]["code"] == "not_found"


def test_what_is_not_there_and_what_is_malformed_are_told_apart(aos: Aos) -> None:
    assert aos.json("wait", "p_" + "a" * 26, code=5)["error"]["code"] == "not_found"
    assert aos.json("logs", "p_" + "a" * 26, code=5)["error"]["code"] == "not_found"
    assert aos.json("wait", "nonsense!", code=2)["error"]["code"] == "invalid"
    aos("signal", "p_abc", "explode", code=2)
    aos("no-such-command", code=2)


def test_without_any_model_it_says_what_would_give_one(aos: Aos) -> None:
    failure = aos.json("run", "Say hello.", code=6)["error"]
    assert failure["code"] == "unavailable"
    assert "ANTHROPIC_API_KEY" in failure["message"] + failure["hint"]


# Pages, the sandbox, approvals


def test_a_page_comes_back_exactly(aos: Aos) -> None:
    text = "first line\n\tünïcode 中\u202e \x07\r\n end without newline"
    page = aos.json("page", "out", "-", "--title", "odd characters", stdin=text)
    assert aos("page", "in", page["page_id"]) == text
    assert aos.json("page", "in", page["page_id"], "--offset", "6", "--limit", "4")["content"] == "line"


def test_a_long_page_is_read_to_its_end(aos: Aos) -> None:
    text = "".join(f"line {n}\n" for n in range(20_000))
    page = aos("page", "out", "-", stdin=text).strip()
    assert aos("page", "in", page) == text


def test_pages_are_found_by_words(aos: Aos) -> None:
    page = aos("page", "out", "The zeppelin lands at noon.").strip()
    assert aos.json("page", "search", "zeppelin")["hits"][0]["page_id"] == page
    assert page in aos("page", "search", "zeppelin")
    assert aos.json("page", "in", "pg_" + "a" * 26, code=5)["error"]["code"] == "not_found"


def test_notes_are_written_superseded_listed_and_undone(aos: Aos) -> None:
    old = aos("page", "out", "-n", "garage", "The car is red.").strip()
    new = aos("page", "out", "--supersedes", old, "The car is blue.").strip()
    assert aos.json("page", "search", "-n", "garage", "car")["hits"][0]["page_id"] == new
    assert [n["page_id"] for n in aos.json("notes", "list", "-n", "garage", "--all")["notes"]] == [new, old]
    assert f"until {new}" in aos("notes", "list", "--all")
    assert aos.json("page", "out", "--supersedes", old, "The car is green.", code=1)["error"]["code"] == "conflict"
    assert "changes undone" in aos("notes", "undo", "host")
    assert aos.json("notes", "list")["notes"] == []
    assert aos.json("notes", "undo", "host", code=5)["error"]["code"] == "not_found"


@needs_bwrap
@pytest.mark.bwrap
def test_a_command_runs_in_the_sandbox_with_the_given_input(aos: Aos) -> None:
    ran = aos.json("exec", "--stdin", "--workspace", "w1", "-c", "cat; echo oops >&2; exit 3", stdin="hi", code=1)
    assert (ran["stdout"], ran["stderr"], ran["exit_code"]) == ("hi", "oops\n", 3)
    assert aos("exec", "--workspace", "w1", "--", "echo", "-n", "a  b") == "a  b"


@needs_bwrap
@pytest.mark.bwrap
def test_a_command_that_takes_too_long_ends_with_a_code_of_its_own(aos: Aos) -> None:
    assert aos.json("exec", "--timeout", "0.5", "-c", "sleep 60", code=7)["timed_out"] is True


def test_exec_wants_one_of_a_command_and_a_text(aos: Aos) -> None:
    aos("exec", code=2)
    aos("exec", "-c", "true", "--", "true", code=2)


def test_what_a_rule_forbids_is_denied(aos: Aos) -> None:
    assert aos.json("exec", "-c", "echo forbidden", code=3)["error"]["code"] == "denied"


def question(aos: Aos, pid: str) -> str:
    """Wait until an agent asks something and return the approval's id."""
    while True:
        waiting = [row for row in aos.json("approvals")["approvals"] if row["pid"] == pid]
        if waiting:
            assert waiting[0]["tool"] == "sandbox_exec"
            return str(waiting[0]["approval_id"])


def test_what_an_agent_asks_for_is_done_once_it_was_allowed(aos: Aos) -> None:
    pid = aos.run("asker")
    approval = question(aos, pid)
    assert approval in aos("approvals")
    assert aos.json("approvals", "allow", approval)["state"] == "allowed"
    assert aos.json("wait", pid)["agents"][0]["result"] == "I asked."
    assert aos("approvals").strip() == "Nothing waits for you."


def test_a_denial_reaches_the_agent(aos: Aos) -> None:
    pid = aos.run("asker")
    assert aos.json("approvals", "deny", question(aos, pid), "--note", "not today")["state"] == "denied"
    aos("wait", pid)
    assert "denied" in aos("logs", pid)


# The kernel


def test_status_top_and_mounts_show_the_kernel(aos: Aos) -> None:
    aos("ps")
    status = aos.json("status")
    assert status["version"] == aos_mcp.__version__
    assert {"agents", "providers", "mounts", "sandbox", "budget", "approvals"} <= set(status)
    assert "sandbox" in aos("status")
    picture = aos.json("top", "--once")
    assert set(picture) == {"status", "agents"}
    assert "PID" in aos("top", "--once")
    assert "WAIT S" in aos("top", "--once", "--sort", "wait")
    assert aos.json("mounts") == {"mounts": []}


def test_the_timeline_tells_who_ran_when_and_why(aos: Aos) -> None:
    aos("run", "say hello", "--model", "replay/hello", "--name", "greeter", "--follow")
    pid = aos.json("ps", "--all")["agents"][0]["pid"]
    assert "normal, alone" in aos("timeline", pid[:10])
    assert [pick["pid"] for pick in aos.json("timeline", pid)["picks"]] == [pid]
    drawn = aos.home / "when.svg"
    aos("timeline", "--svg", str(drawn))
    assert drawn.read_text("utf-8").startswith("<svg")
    aos("timeline", "--svg", str(aos.home / "nowhere" / "when.svg"), code=2)


def test_the_policy_is_switched(aos: Aos) -> None:
    assert aos("sched", "rr").startswith("rr (aos.toml: default)")
    assert aos.json("sched", "configured")["policy"] == aos("sched").strip() == "default"


def test_schedules_are_added_listed_paused_run_and_removed(aos: Aos) -> None:
    common = ("--model", "replay/hello", "--budget-tokens", "50000", "--total-usd", "1")
    added = aos.json(
        "schedule", "add", "greet", "say hello", "--cron", "0 9 * * 1-5", "--zone", "Europe/Berlin", *common
    )
    assert (added["form"], added["zone"], added["missed"]) == ("cron 0 9 * * 1-5", "Europe/Berlin", "once")
    assert added["next_at"] > added["runs"] == 0
    ran = aos.json("schedule", "run", "greet")
    assert aos("wait", ran["last_pid"]).strip() == "Hello, world."
    assert aos("schedule", "list").splitlines()[1].endswith("done")
    assert "paused" in aos("schedule", "pause", "greet")
    assert "next 2" in aos("schedule", "resume", "greet")
    aos("schedule", "add", "never", "x", "--cron", "61 * * * *", code=2)
    aos("schedule", "add", "both", "x", "--cron", "0 9 * * *", "--every", "15m", code=2)
    assert "after 1 runs" in aos("schedule", "remove", "greet")


def test_recordings_are_listed_with_what_is_wrong_with_them(aos: Aos) -> None:
    (aos.home / "aos" / "replays" / "broken.jsonl").write_text("{", "utf-8")
    rows = {row["name"]: row for row in aos.json("replay")["recordings"]}
    assert (rows["hello"]["turns"], rows["hello"]["model"]) == (1, "anthropic/claude-test")
    assert rows["broken"]["error"]
    assert "replay/hello" in aos("replay")


def test_doctor_finds_this_installation_sound(aos: Aos) -> None:
    aos("ps")
    ran = subprocess.run(aos.argv("doctor", "--json"), env=aos.env, capture_output=True, timeout=CALL_S, check=False)
    report = json.loads(ran.stdout)
    checks = {check["check"]: check for check in report["checks"]}
    assert {"python", "home", "disk", "docker", "bwrap", "node", "config", "models", "kernel", "sandbox"} <= set(checks)
    assert [checks[name]["status"] for name in ("python", "home", "config", "kernel")] == ["ok"] * 4
    assert all(check["mend"] for check in report["checks"] if check["status"] != "ok")
    assert ran.returncode == (0 if report["ok"] else 1)


def test_a_kernel_in_the_foreground_ends_at_a_signal_and_is_alone(idle: Aos) -> None:
    assert idle.json("status", code=6)["error"]["code"] == "unavailable"
    with subprocess.Popen(idle.argv("serve"), env=idle.env, stderr=subprocess.DEVNULL) as served:
        while subprocess.run(idle.argv("status"), env=idle.env, capture_output=True, check=False).returncode != 0:
            assert served.poll() is None
        idle("serve", code=1)
        served.send_signal(signal.SIGTERM)
        assert served.wait(CALL_S) == 0
    assert idle.json("status", code=6)["error"]["code"] == "unavailable"


def test_stop_ends_the_kernel_and_says_when_there_was_none(idle: Aos) -> None:
    idle("ps")
    assert idle.json("stop") == {"stopped": True, "was_running": True}
    assert idle.json("stop") == {"stopped": False, "was_running": False}
    assert not (idle.home / "aos" / "kernel.sock").exists()
