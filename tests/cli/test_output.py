"""What commands write, and the codes they end with."""

from __future__ import annotations

import json

import pytest
import typer

from aos_mcp.abi.errors import ErrorCode
from aos_mcp.abi.process import ExitCode
from aos_mcp.cli import output
from aos_mcp.cli.failure import EXIT_OF_AGENT, EXIT_OF_ERROR, CliError


def test_every_error_code_and_every_end_of_an_agent_has_an_exit_code() -> None:
    assert set(EXIT_OF_ERROR) == set(ErrorCode)
    assert set(EXIT_OF_AGENT) == set(ExitCode)


def test_the_exit_codes_are_the_promised_ones() -> None:
    promised = {
        "denied": 3, "approval_required": 3, "not_found": 5, "invalid": 2, "conflict": 1, "limit_exceeded": 1,
        "budget_exhausted": 4, "timed_out": 7, "unavailable": 6, "unknown_outcome": 1, "cancelled": 1, "internal": 1,
    }  # fmt: skip
    assert {str(code): exit_code for code, exit_code in EXIT_OF_ERROR.items()} == promised
    assert EXIT_OF_AGENT[ExitCode.DONE] == 0
    assert EXIT_OF_AGENT[ExitCode.BUDGET] == 4


def test_a_failure_is_one_json_document_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended, output.reporting(as_json=True):
        raise CliError(ErrorCode.NOT_FOUND, "There is none.", "Look again.")
    assert ended.value.exit_code == 5
    written = capsys.readouterr()
    assert json.loads(written.out) == {
        "error": {"code": "not_found", "message": "There is none.", "hint": "Look again."}
    }
    assert written.err == ""


def test_a_failure_is_a_sentence_on_stderr_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), output.reporting(as_json=False):
        raise CliError(ErrorCode.DENIED, "A rule forbids it.", "Ask.")
    written = capsys.readouterr()
    assert (written.out, written.err) == ("", "aos: denied: A rule forbids it. Ask.\n")


def test_progress_is_silent_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    output.note("working")
    assert capsys.readouterr() == ("", "")


def test_text_of_others_cannot_steer_the_terminal() -> None:
    evil = "a\x1b[2Jb\x07\r\x9b31m\u202egnp.exe\ud800 ünï 中\n\tend"
    assert output.plain(evil) == "a[2Jb31mgnp.exe ünï 中\n\tend"


def test_a_table_has_one_line_a_row_even_for_cells_with_line_ends() -> None:
    assert output.table(("A", "B"), [("one\ntwo", "x"), ("3", "")]) == "A        B\none two  x\n3"


@pytest.mark.parametrize(
    ("number", "shown"), [(0, "0"), (999, "999"), (1_000, "1.0k"), (123_456, "123k"), (2_500_000, "2.5M"), (None, "0")]
)
def test_numbers_are_short(number: int | None, shown: str) -> None:
    assert output.count(number) == shown


@pytest.mark.parametrize(("usd", "shown"), [(0, "$0.00"), (0.00012, "$0.0001"), (0.5, "$0.5000"), (12.345, "$12.35")])
def test_small_sums_keep_their_digits(usd: float, shown: str) -> None:
    assert output.money(usd) == shown
