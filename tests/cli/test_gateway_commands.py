"""The gateway of a real daemon, from the command line: keys that work, are listed, outlive it and are taken back."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.cli.command import CALL_S, Aos

HELLO = {"model": "any", "messages": [{"role": "user", "content": "Hello."}]}


@contextmanager
def serving(aos: Aos, *options: str) -> Iterator[str]:
    """Run a daemon in the foreground; give the gateway's address."""
    options = options or ("--gateway", "127.0.0.1:0")
    with subprocess.Popen(aos.argv("serve", *options), env=aos.env, cwd=aos.home, stderr=subprocess.DEVNULL) as daemon:
        try:
            deadline = time.monotonic() + CALL_S
            while not (url := listening(aos)):
                assert daemon.poll() is None and time.monotonic() < deadline, "the gateway does not listen"
            yield url
        finally:
            daemon.terminate()
            daemon.wait(CALL_S)


def listening(aos: Aos) -> str:
    """Return the gateway's address; empty while no daemon answers."""
    said = subprocess.run(aos.argv("gateway", "--json"), env=aos.env, capture_output=True, timeout=CALL_S, check=False)
    return str(json.loads(said.stdout)["url"]) if said.returncode == 0 else ""


def ask(url: str, key: str) -> tuple[int, Any]:
    """Make a call as any program would; return its status and body."""
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(HELLO).encode(), {"authorization": f"Bearer {key}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=CALL_S) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)


def test_a_key_works_is_listed_outlives_the_daemon_and_is_taken_back(idle: Aos) -> None:
    with serving(idle) as url:
        issued = idle.json("gateway", "key", "--name", "crew", "--model", "replay/hello", "--budget-usd", "1")
        assert issued["url"] == url
        status, answer = ask(url, issued["key"])
        assert (status, answer["choices"][0]["message"]["content"]) == (200, "Hello, world.")
        assert issued["key"] not in idle("gateway", "keys"), "it is shown once"
        one_more = idle.json("gateway", "key", issued["pid"])
        told = idle("gateway", "key", issued["pid"])
        assert f"ANTHROPIC_BASE_URL={url}" in told and f"OPENAI_BASE_URL={url}/v1" in told
    with serving(idle) as url:
        assert [ask(url, each["key"])[0] for each in (issued, one_more)] == [200, 200], "keys outlive the daemon"
        assert "revoked" in idle("gateway", "revoke", issued["key_id"])
        status, refusal = ask(url, issued["key"])
        assert (status, refusal["error"]["code"]) == (401, "invalid_api_key")
        assert ask(url, one_more["key"])[0] == 200, "the program has another key"
        rows = {row["key_id"]: row for row in idle.json("gateway", "keys")["keys"]}
        assert rows[issued["key_id"]]["revoked_at"] is not None
        idle("signal", issued["pid"], "kill")
        assert ask(url, one_more["key"])[0] == 401, "a key is worth nothing once its process has ended"
        assert ask(url, "sk-aos-guessed")[0] == 401
        assert idle.json("audit", "verify")["ok"] is True


def test_settings_turn_it_on_and_say_where_it_listens(idle: Aos) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = idle.home / "aos" / "aos.toml"
    config.write_text(f"{config.read_text()}\n[gateway]\nenabled = true\nport = {port}\n")
    with serving(idle, "--http", "127.0.0.1:0") as url:
        assert url == f"http://127.0.0.1:{port}"


def test_it_is_off_unless_asked_for_and_says_how_to_turn_it_on(idle: Aos) -> None:
    idle("ps")
    try:
        assert "aos serve --gateway" in idle("gateway")
        assert "The gateway is off" in idle("gateway", "key", "--name", "crew", "--model", "replay/hello")
    finally:
        idle("stop")


@pytest.mark.parametrize("case", ["a port in use", "an address others can reach"])
def test_a_place_where_it_cannot_listen_is_refused_with_what_to_do(idle: Aos, case: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        at = f"127.0.0.1:{taken.getsockname()[1]}" if case == "a port in use" else "0.0.0.0:0"
        refused = subprocess.run(
            idle.argv("serve", "--gateway", at), env=idle.env, cwd=idle.home, capture_output=True, timeout=CALL_S,
            check=False,
        )  # fmt: skip
    assert refused.returncode != 0
    words = refused.stderr.decode()
    assert "Traceback" not in words
    assert ("in use" if case == "a port in use" else "127.0.0.1") in words
