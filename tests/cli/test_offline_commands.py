"""Commands that need no kernel, and start none."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest

import aos_mcp
from tests.cli.command import CALL_S, Aos, needs_bwrap


def test_the_configuration_is_checked_and_shown(idle: Aos) -> None:
    assert idle.json("config", "check")["ok"] is True
    assert idle.json("config", "show")["sandbox"]["drivers"] == ["bwrap"]
    assert 'sandbox.drivers = ["bwrap"]' in idle("config", "show")
    (idle.home / "aos" / "aos.toml").write_text("budgets = 1\n", "utf-8")
    failure = idle.json("config", "check", code=2)["error"]
    assert "'budget'" in failure["hint"]
    assert idle.json("doctor", code=1)["ok"] is False


def test_providers_are_listed_with_their_variables(idle: Aos) -> None:
    rows = {row["provider"]: row for row in idle.json("models", "list")["providers"]}
    assert (rows["anthropic"]["key"], rows["anthropic"]["variables"]) == ("missing", ["ANTHROPIC_API_KEY"])
    idle.env["ANTHROPIC_API_KEY"] = "a-secret-key-of-a-test"
    shown = idle("models", "list", "--json")
    assert {row["provider"]: row for row in json.loads(shown)["providers"]}["anthropic"]["key"] == "set"
    assert "a-secret-key-of-a-test" not in shown


def test_the_models_of_a_provider_are_listed_with_window_and_price(idle: Aos) -> None:
    rows = {row["model"]: row for row in idle.json("models", "list", "anthropic")["models"]}
    haiku = rows["anthropic/claude-haiku-5-5"]
    assert (haiku["context_tokens"], haiku["inputs"], haiku["continues"]) == (
        1_000_000,
        ["text", "image", "file"],
        False,
    )
    assert (haiku["price"]["input"], haiku["price"]["tiers"]) == (0.1, [100_000])
    assert idle.json("models", "list", "nobody", code=5)["error"]["code"] == "not_found"


def test_a_model_is_checked_without_being_called(idle: Aos) -> None:
    checked = idle.json("models", "check", "anthropic/claude-haiku-5-5", code=1)
    found = {check["check"]: check for check in checked["checks"]}
    assert (found["key"]["status"], found["key"]["mend"]) == ("fail", "Set ANTHROPIC_API_KEY.")
    assert found["price"]["status"] == "ok"
    idle.env["ANTHROPIC_API_KEY"] = "a-secret-key-of-a-test"
    assert idle.json("models", "check", "anthropic/claude-haiku-5-5")["ok"]
    unpriced = idle.json("models", "check", "qwen-cn/qwen3.7-plus", code=1)["checks"]
    assert next(check for check in unpriced if check["check"] == "price")["status"] == "warn"


def test_a_model_is_called_only_when_that_is_asked_for_and_then_through_the_kernel(idle: Aos) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve = [sys.executable, "-m", "aos_mcp.testing.providers", "--port", str(port)]
    config = f"""
[providers.mine]
base_url = "http://127.0.0.1:{port}/v1"
[prices."mine/*"]
input = 1
output = 2
"""
    (idle.home / "aos" / "aos.toml").write_text(config, "utf-8")
    with subprocess.Popen(serve, env=idle.env) as server:
        try:
            assert [c["check"] for c in idle.json("models", "check", "mine/m")["checks"]][-1] == "continues"
            live = idle.json("models", "check", "mine/m", "--live")["checks"][-1]
            assert (live["check"], live["status"]) == ("live", "ok")
            assert idle.json("status")["budget"]["usd"] > 0  # the workspace paid for it
        finally:
            idle("stop")
            server.terminate()


def test_agent_definitions_are_listed_and_checked(idle: Aos) -> None:
    folder = idle.home / ".aos" / "agents"
    folder.mkdir(parents=True)
    (folder / "critic.md").write_text("---\nname: critic\ndescription: Finds faults.\n---\nBe strict.\n", "utf-8")
    assert [row["name"] for row in idle.json("agents", "list")["agents"]] == ["critic"]
    assert idle.json("agents", "check")["wrong"] == []
    (folder / "broken.md").write_text("no front matter", "utf-8")
    assert "front matter" in idle.json("agents", "check", code=2)["wrong"][0]["message"]


def test_none_of_them_starts_a_kernel(idle: Aos) -> None:
    for command in (
        ["config", "check"],
        ["models", "list"],
        ["models", "list", "openai"],
        ["replay"],
        ["agents", "list"],
    ):
        idle(*command)
    assert not (idle.home / "aos" / "daemon.log").exists()


def test_the_version_and_the_help_are_told(idle: Aos) -> None:
    assert idle("--version").strip() == f"aos-mcp {aos_mcp.__version__}"
    assert "Exit codes: 0 done, 1 failed" in idle("--help")


def test_a_command_that_talks_to_the_kernel_loads_nothing_heavy(idle: Aos) -> None:
    heavy = "{'mcp', 'openai', 'anthropic', 'docker', 'pydantic', 'rich', 'anyio', 'numpy'}"
    probe = f"import sys, aos_mcp.cli.app; sys.exit(', '.join({heavy} & set(sys.modules)) or None)"
    ran = subprocess.run([sys.executable, "-c", probe], env=idle.env, capture_output=True, timeout=CALL_S, check=False)
    assert (ran.returncode, ran.stderr) == (0, b"")


@needs_bwrap
@pytest.mark.bwrap
def test_doctor_proves_the_sandbox_itself_where_no_kernel_runs(idle: Aos) -> None:
    checks = {check["check"]: check for check in idle.json("doctor")["checks"]}
    assert checks["kernel"]["detail"] == "not running"
    assert (checks["sandbox"]["status"], checks["sandbox"]["detail"][:5]) == ("ok", "bwrap")
    assert not (idle.home / "aos" / "daemon.log").exists()
