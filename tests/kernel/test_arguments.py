"""What a caller is told of arguments that do not fit: which one, and why, in words of its own."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aos_mcp.abi import arguments as a
from aos_mcp.abi.calls import ROWS
from aos_mcp.abi.errors import Invalid
from aos_mcp.abi.limits import TASK_CHARS_MAX
from aos_mcp.kernel.gate import decode

BY_NAME = {row.name: row for row in ROWS}


@pytest.mark.parametrize(
    ("call", "arguments", "told"),
    [
        ("sandbox_exec", {"command": ""}, "command: String should have at least 1 character"),
        ("sandbox_exec", {"command": []}, "command: List should have at least 1 item"),
        ("sandbox_exec", {"command": ["ls", 5]}, "command.1: Input should be a valid string"),
        ("sandbox_exec", {}, "command: Field required"),
        ("sandbox_exec", {"command": "ls", "files": [{"path": "", "content": ""}]}, "files.0.path: String should"),
        ("sandbox_exec", {"command": "ls", "files": [{"path": "a"}]}, "files.0.content: Field required"),
        ("spawn_agent", {"task": ""}, "task: String should have at least 1 character"),
        ("spawn_agent", {"task": "x" * (TASK_CHARS_MAX + 1)}, f"task: String should have at most {TASK_CHARS_MAX} ch"),
        ("spawn_agent", {"task": "a\x00b"}, "task: Value error, a NUL character is not allowed"),
        ("spawn_agent", {"task": "x", "idempotency_key": ""}, "idempotency_key: String should have at least 1 char"),
        ("spawn_agent", {"task": "x", "no such": 1}, "no such: Extra inputs"),
        ("search_pages", {"query": "x", "label": "x" * 129}, "label: String should have at most 128 characters"),
        ("list_agents", {"state": "asleep"}, "state: Input should be 'ready'"),
        ("list_agents", {"state": ["ready", "asleep"]}, "state.1: Input should be 'ready'"),
        ("complete", {"messages": [{"role": "user", "content": ""}]}, "messages.0.content: String should have at"),
        ("complete", {"messages": [{"role": "user", "content": {"text": "x"}}]}, "messages.0.content: Input should"),
        ("complete", {"messages": [{"role": "user", "content": [{"text": 5}]}]}, "messages.0.content.0.text: Input"),
    ],
)
def test_an_argument_that_does_not_fit_is_named_as_the_caller_named_it(
    call: str, arguments: dict[str, Any], told: str
) -> None:
    with pytest.raises(Invalid) as refused:
        decode(BY_NAME[call], arguments)
    assert refused.value.message.startswith(f"{call}: {told}")


def test_no_text_has_bounds_that_count_items() -> None:
    """A bound after the cleaning is a function of pydantic's, which counts items and tells its address."""
    for row in ROWS:
        assert "_length_validator" not in repr(row.args.__pydantic_core_schema__), row.name


def test_what_may_be_left_out_may_be_null() -> None:
    assert a.SearchPagesArgs.model_validate_json(json.dumps({"query": "x", "label": None}), strict=True).label is None
