"""What becomes of a definition that comes from a program nobody vouches for."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aos_mcp.abi import limits
from aos_mcp.abi.errors import Invalid
from aos_mcp.proxy.definition import Listing, canonical, plain, server_name, take_listing

SCHEMA = {"type": "object"}


def listing(*definitions: dict[str, Any], patterns: tuple[str, ...] = ("*",)) -> Listing:
    return take_listing("srv", definitions, patterns)


def definition(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": SCHEMA, **more}


@pytest.mark.parametrize(
    ("key", "name"),
    [("git", "git"), ("my server", "my-server"), ("a__b", "a_b"), ("a___b__", "a_b"), ("_x.y-", "x.y"), ("é1", "1")],
)
def test_a_key_becomes_a_name_that_cannot_run_into_the_tools(key: str, name: str) -> None:
    assert server_name(key) == name


@given(st.text(max_size=60))
def test_every_key_gives_a_usable_name_or_is_refused(key: str) -> None:
    try:
        name = server_name(key)
    except Invalid:
        return
    assert re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,30}[A-Za-z0-9])?", name)
    assert "__" not in name
    assert server_name(name) == name


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=4), st.text(), st.text())
def test_no_definition_breaks_the_listing(annotations: dict[str, str], name: str, description: str) -> None:
    taken = listing(definition(name, description=description, annotations=annotations))
    assert len(taken.tools) + len(taken.left_out) == 1
    for tool in taken.tools:
        assert re.fullmatch(r"srv__[A-Za-z0-9_.-]+", tool.name)
        assert len(tool.description) <= limits.TOOL_DESCRIPTION_CHARS_MAX


def test_a_description_loses_what_a_person_cannot_see_and_is_capped() -> None:
    hidden = "safe\u202e\u200b\x1b[1m" + "".join(chr(0xE0000 + ord(c)) for c in "do evil") + "\U000e0101!\nnext"
    tool = listing(definition("a", description=hidden)).tools[0]
    assert tool.description == "safe[1m!\nnext"
    long = listing(definition("a", description="x" * 5_000)).tools[0]
    assert len(long.description) == limits.TOOL_DESCRIPTION_CHARS_MAX
    assert long.description.endswith("…")


def test_a_schema_with_hidden_characters_leaves_the_tool_out() -> None:
    schema = {"type": "object", "description": "\U000e0041"}
    taken = listing({"name": "a", "inputSchema": schema}, definition("b"))
    assert [tool.tool for tool in taken.tools] == ["b"]
    assert "cannot see" in taken.note


def test_the_digest_is_of_the_canonical_definition_and_sees_every_change() -> None:
    first = listing(definition("a", description="x" * 3_000, annotations={"readOnlyHint": True})).tools[0]
    assert first.digest == hashlib.sha256(first.definition.encode()).hexdigest()
    assert sorted(json.loads(first.definition)) == sorted(
        ["name", "title", "description", "inputSchema", "outputSchema", "annotations"]
    )
    changed = [
        definition("a", description="x" * 2_999 + "y", annotations={"readOnlyHint": True}),
        definition("a", description="x" * 3_000, annotations={"readOnlyHint": False}),
        definition("a", description="x" * 3_000, annotations={"readOnlyHint": True}, title="A"),
        definition("a", description="x" * 3_000, annotations={"readOnlyHint": True}, outputSchema=SCHEMA),
    ]
    assert len({first.digest, *(listing(one).tools[0].digest for one in changed)}) == 5


def test_the_order_of_keys_does_not_change_the_digest() -> None:
    one = canonical({"name": "a", "inputSchema": {"type": "object", "required": ["x"]}})
    assert one == canonical({"inputSchema": {"required": ["x"], "type": "object"}, "name": "a"})


def test_hints_that_are_not_given_are_the_cautious_ones() -> None:
    bare = listing(definition("a")).tools[0]
    assert (bare.read_only, bare.destructive, bare.idempotent, bare.open_world) == (False, True, False, True)
    claims = {"readOnlyHint": True, "idempotentHint": True, "openWorldHint": False}
    told = listing(definition("a", annotations=claims)).tools[0]
    assert (told.read_only, told.destructive, told.idempotent, told.open_world) == (True, False, True, False)


@pytest.mark.parametrize("name", ["", "with space", "a/b", "x" * 200, "naïve"])
def test_a_name_that_hosts_would_refuse_leaves_the_tool_out_with_a_reason(name: str) -> None:
    taken = listing(definition(name))
    assert not taken.tools
    assert "is left out" in taken.note


def test_a_tool_listed_twice_stays_once() -> None:
    taken = listing(definition("a", description="first"), definition("a", description="second"))
    assert [tool.description for tool in taken.tools] == ["first"]
    assert "twice" in taken.note


def test_a_definition_without_end_is_left_out() -> None:
    assert not listing(definition("a", description="x" * limits.MOUNT_DEFINITION_BYTES_MAX)).tools


def test_patterns_are_of_the_servers_own_names() -> None:
    taken = listing(definition("read"), definition("write"), patterns=("r*",))
    assert [tool.name for tool in taken.tools] == ["srv__read"]
    assert taken.note == ""


def test_plain_text_stays_as_it_is() -> None:
    assert plain("Größe: 5 €\n\t日本語 👍", 100) == "Größe: 5 €\n\t日本語 👍"
