"""Commands whose numbers, streams or locale are not as usual: they say so, and end with a code that is documented."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cli.command import CALL_S, Aos


def ran(aos: Aos, *arguments: str | bytes, redirected: str = "", **env: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command by a shell, with what it redirects."""
    argv = ["sh", "-c", f'exec "$@" {redirected}', "sh", *aos.argv(), *arguments]
    return subprocess.run(
        argv, env={**aos.env, **env}, cwd=aos.home, stdin=subprocess.DEVNULL, capture_output=True, timeout=CALL_S,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize("number", ["inf", "nan", "1e300"])
@pytest.mark.parametrize(
    "words",
    [
        ("run", "x", "--budget-usd"),
        ("restore", "ck_x", "--budget-usd"),
        ("gateway", "key", "--name", "x", "--budget-usd"),
        ("schedule", "add", "x", "y", "--every", "1h", "--budget-usd"),
        ("schedule", "add", "x", "y", "--every", "1h", "--total-usd"),
        ("exec", "--shell", "true", "--timeout"),
        ("top", "--json", "--interval"),
    ],
)
def test_a_number_without_end_is_wrong_usage(idle: Aos, words: tuple[str, ...], number: str) -> None:
    told = ran(idle, *words, number)
    assert (told.returncode, told.stdout) == (2, b"")
    assert f"Invalid value for '{words[-1]}'" in told.stderr.decode()


def test_a_key_of_nobody_is_refused_with_a_sentence(idle: Aos) -> None:
    assert idle.json("gateway", "key", code=2)["error"]["message"] == "A key is of a program."


@pytest.mark.parametrize("words", [("run", "-"), ("schedule", "add", "x", "-", "--every", "1h"), ("exec", "-i", "cat")])
def test_a_closed_standard_input_is_said(aos: Aos, words: tuple[str, ...]) -> None:
    told = ran(aos, *words, redirected="<&-")
    assert (told.returncode, told.stderr.decode()[:43]) == (2, "aos: invalid: Standard input is closed. Giv")


@pytest.mark.parametrize("words", [("ps", "-a"), ("ps", "-a", "--json"), ("tools",), ("--version",), ("--help",)])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_output_that_finds_no_room_is_said(aos: Aos, words: tuple[str, ...]) -> None:
    told = ran(aos, *words, redirected=">/dev/full")
    assert (told.returncode, told.stderr.decode()) == (
        1, "aos: The output could not be written: No space left on device. Write it elsewhere.\n",
    )  # fmt: skip


def test_a_reader_that_went_away_is_told_nothing(aos: Aos) -> None:
    with subprocess.Popen(aos.argv("tools"), env=aos.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as command:
        assert command.stdout is not None
        assert command.stderr is not None
        command.stdout.close()
        assert command.stderr.read() == b""


def test_a_command_without_streams_does_its_work(aos: Aos) -> None:
    assert ran(aos, "ps", redirected=">&- 2>&-").returncode == 0


def test_a_locale_without_a_character_shows_its_number_and_sends_it_whole(aos: Aos) -> None:
    ascii_only = {"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    begun = ran(aos, "run", "x", "--model", "replay/hello", "--name", "na\u00efve", **ascii_only)
    assert begun.returncode == 0, begun.stderr
    pid = begun.stdout.decode().strip()
    aos("wait", pid)
    assert {row["pid"]: row["name"] for row in aos.json("ps", "-a")["agents"]}[pid] == "na\u00efve"
    shown = ran(aos, "ps", "-a", **ascii_only)
    assert (shown.returncode, b"na\\xefve" in shown.stdout) == (0, True)


def test_an_argument_that_is_not_utf8_is_refused_by_name_of_the_fault(aos: Aos) -> None:
    told = ran(aos, "run", b"t\xe4", "--model", "replay/hello")
    assert (told.returncode, told.stderr.decode()) == (
        2, "aos: invalid: An argument is not UTF-8 text. Encode it as UTF-8.\n",
    )  # fmt: skip
