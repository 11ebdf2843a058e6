"""Editing one table of a TOML file in place."""

from __future__ import annotations

import tomllib

import pytest

from aos_mcp.cli.toml_table import TomlError, remove_table, set_table

PATH = ("mcp_servers", "aos")
ENTRY = {"command": "/opt/aos/bin/aos-mcp", "args": ["-x", 'a "quoted" one']}

CODEX = """\
# my settings
model = "gpt-5.4"

[mcp_servers.git]   # the team's
command = "uvx"
args = [
  "mcp-server-git",
]

# who may do what
[projects."/home/me/app"]
trust_level = "trusted"
"""


def test_a_table_is_added_and_every_line_stays() -> None:
    edited = set_table(CODEX, PATH, ENTRY)
    assert edited.startswith(CODEX)
    assert tomllib.loads(edited)["mcp_servers"]["aos"] == ENTRY


def test_an_empty_file_gets_the_table() -> None:
    assert tomllib.loads(set_table("", PATH, ENTRY)) == {"mcp_servers": {"aos": ENTRY}}


def test_setting_the_same_again_changes_nothing() -> None:
    once = set_table(CODEX, PATH, ENTRY)
    assert set_table(once, PATH, ENTRY) == once


def test_taking_it_out_gives_the_old_text_back() -> None:
    assert remove_table(set_table(CODEX, PATH, ENTRY), PATH) == CODEX
    assert remove_table(CODEX, PATH) == CODEX


def test_a_table_in_the_middle_is_replaced_where_it_stands_and_user_keys_stay() -> None:
    text = CODEX.replace(
        "# who may",
        '[mcp_servers.aos]\ncommand = "old"\nstartup_timeout_sec = 20\n\n[mcp_servers.aos.env]\nA = "b"\n\n# who may',
    )
    edited = set_table(text, PATH, ENTRY)
    assert tomllib.loads(edited)["mcp_servers"]["aos"] == {**ENTRY, "startup_timeout_sec": 20, "env": {"A": "b"}}
    assert "# who may do what\n[projects" in edited
    assert remove_table(edited, PATH) == CODEX


@pytest.mark.parametrize(
    "text",
    [
        "not toml",
        'mcp_servers = { aos = { command = "x" } }',
        'mcp_servers.aos.command = "x"',
        'text = """\n[mcp_servers.aos]\n"""\n[mcp_servers.aos]\ncommand = "x"\n',
        "mcp_servers = 1",
        "[mcp_servers]\naos = 1",
    ],
)
def test_a_form_that_cannot_be_edited_safely_is_refused(text: str) -> None:
    with pytest.raises(TomlError):
        set_table(text, PATH, ENTRY)
