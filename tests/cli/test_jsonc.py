"""Editing JSON in place."""

from __future__ import annotations

import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from aos_mcp.cli.jsonc import JsonError, decode, remove_member, set_member

ENTRY = {"command": "/opt/aos/bin/aos-mcp", "args": []}
PATH = ("mcpServers", "aos")

COMMENTED = """\
{
  // servers of the team
  "mcpServers": {
    "git": {
      "command": "uvx", /* pinned */
      "args": ["mcp-server-git"],
    },
  },
  "theme": "dark" // mine
}
"""


def test_a_blank_file_becomes_one_with_the_member() -> None:
    assert json.loads(set_member("", PATH, ENTRY)) == {"mcpServers": {"aos": ENTRY}}


def test_comments_trailing_commas_and_order_stay() -> None:
    edited = set_member(COMMENTED, PATH, ENTRY)
    assert [line for line in COMMENTED.splitlines() if line not in edited.splitlines()] == []
    assert list(decode(edited)["mcpServers"]) == ["git", "aos"]
    assert '    "aos": {\n      "command": "/opt/aos/bin/aos-mcp",' in edited


def test_setting_the_same_again_changes_nothing() -> None:
    once = set_member(COMMENTED, PATH, ENTRY)
    assert set_member(once, PATH, ENTRY) == once


def test_taking_it_out_gives_the_old_text_back() -> None:
    assert remove_member(set_member(COMMENTED, PATH, ENTRY), PATH) == COMMENTED


def test_taking_out_the_last_member_takes_the_comma_before_it() -> None:
    text = '{\n  "mcpServers": {\n    "git": {},\n    "aos": {}\n  }\n}\n'
    assert remove_member(text, PATH) == '{\n  "mcpServers": {\n    "git": {}\n  }\n}\n'


def test_taking_out_the_first_member_keeps_those_behind_it() -> None:
    text = '{"mcpServers": {"aos": {}, "git": {"command": "x"}}}'
    assert json.loads(remove_member(text, PATH)) == {"mcpServers": {"git": {"command": "x"}}}


def test_taking_out_what_is_not_there_changes_nothing() -> None:
    assert remove_member(COMMENTED, PATH) == COMMENTED
    assert remove_member("", PATH) == ""


def test_what_a_user_added_to_the_entry_is_kept() -> None:
    text = '{\n\t"mcpServers": {\n\t\t"aos": {"command": "old", "timeout": 9}\n\t}\n}'
    assert decode(set_member(text, PATH, ENTRY))["mcpServers"]["aos"] == {**ENTRY, "timeout": 9}


def test_a_comment_behind_the_last_member_stays_with_it() -> None:
    text = '{\n  "mcpServers": {\n    "git": {} // the team\'s\n  }\n}\n'
    edited = set_member(text, PATH, ENTRY)
    assert '"git": {}, // the team\'s\n    "aos"' in edited
    assert remove_member(edited, PATH) == text


def test_tabs_and_windows_line_ends_are_kept() -> None:
    text = '{\r\n\t"mcpServers": {\r\n\t\t"git": {}\r\n\t}\r\n}\r\n'
    edited = set_member(text, PATH, ENTRY)
    assert edited.count("\n") == edited.count("\r\n")
    assert '\r\n\t\t"aos": {\r\n\t\t\t"command"' in edited
    assert remove_member(edited, PATH) == text


@pytest.mark.parametrize("text", ["{", "[1 2]", '{"a" 1}', '{"a": 1} x', "{'a': 1}", '{"mcpServers": []}', "[]", "1"])
def test_what_is_not_json_or_has_another_shape_is_refused(text: str) -> None:
    with pytest.raises(JsonError):
        set_member(text, PATH, ENTRY)


def test_a_file_nested_without_end_is_refused() -> None:
    with pytest.raises(JsonError):
        decode("[" * 100_000)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(
    root=st.dictionaries(st.text(max_size=5), JSON, max_size=4),
    servers=st.dictionaries(st.text(max_size=5), JSON, max_size=3),
    indent=st.sampled_from([None, 2, 4, "\t"]),
)
def test_any_json_is_edited_without_losing_anything(
    root: dict[str, object], servers: dict[str, object], indent: int | str | None
) -> None:
    assume("aos" not in servers)
    before: dict[str, object] = {**root, "mcpServers": servers}
    text = json.dumps(before, indent=indent)
    edited = set_member(text, PATH, ENTRY)
    assert json.loads(edited) == {**before, "mcpServers": {**servers, "aos": ENTRY}}
    assert json.loads(remove_member(edited, PATH)) == before
