"""The syscall table and everything that comes from it: each row has its handler, its surface, its tests, its page."""

from __future__ import annotations

import re
from functools import cache

import pytest

from aos_mcp.abi.calls import ROWS, TABLE
from aos_mcp.abi.errors import AosError, ErrorCode
from aos_mcp.abi.journal import EffectClass
from aos_mcp.abi.syscall import Audience, Reach, Syscall
from aos_mcp.kernel.calls.handlers import HANDLERS
from aos_mcp.resources.catalog import FORMS
from aos_mcp.tools.catalog import ROWS_BY_TOOL, tools
from tests.tree import ROOT, python_files

EVERY_ROW = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)

TOOLS_OF_THE_CONTRACT = (
    "spawn_agent wait_agent list_agents signal_agent send_message page_out page_in search_pages checkpoint restore "
    "sandbox_exec complete search_tools call_tool answer_approval read_audit kernel_status"
).split()

RESOURCES_OF_THE_CONTRACT = (
    "aos://proc aos://proc/{pid} aos://proc/{pid}/context aos://proc/{pid}/journal aos://page/{page_id} aos://audit "
    "aos://audit/{seq} aos://checkpoint/{id} aos://mounts aos://approvals aos://metrics"
).split()

CODES_OF_THE_CONTRACT = (
    "denied approval_required not_found invalid conflict limit_exceeded budget_exhausted timed_out unavailable "
    "unknown_outcome cancelled internal"
).split()

ALWAYS_POSSIBLE = {ErrorCode.DENIED, ErrorCode.INVALID, ErrorCode.NOT_FOUND, ErrorCode.INTERNAL}


def test_every_row_has_a_handler_and_every_handler_a_row() -> None:
    assert HANDLERS.keys() == TABLE.keys()


def test_the_tools_are_the_seventeen_of_the_contract_in_their_order() -> None:
    assert [row.name for row in ROWS if row.tool] == TOOLS_OF_THE_CONTRACT
    assert [tool.name for tool in tools()] == TOOLS_OF_THE_CONTRACT
    assert list(ROWS_BY_TOOL) == TOOLS_OF_THE_CONTRACT


@EVERY_ROW
def test_a_tool_says_what_its_row_says(row: Syscall) -> None:
    tool = next((tool for tool in tools() if tool.name == row.name), None)
    assert (tool is not None) == row.tool
    if tool is None:
        return
    assert tool.description == row.summary
    assert tool.title == row.title
    wanted = {field.alias or name for name, field in row.args.model_fields.items()}
    assert set(tool.input_schema.get("properties", {})) == wanted
    assert tool.annotations is not None
    assert bool(tool.annotations.read_only_hint) == (row.effect is EffectClass.PURE)


def test_the_resources_are_those_of_the_contract() -> None:
    def shape(uri: str) -> str:
        return re.sub(r"\{\w+\}", "{}", uri)

    forms = {shape(form.uri) for form in FORMS}
    assert {shape(uri) for uri in RESOURCES_OF_THE_CONTRACT} <= forms
    further = {"aos://proc/{}/journal/{}", "aos://proc/{}/why/{}"}  # its later pieces, and one of its steps explained
    assert forms - {shape(uri) for uri in RESOURCES_OF_THE_CONTRACT} == further


@EVERY_ROW
def test_a_row_that_names_a_resource_is_what_reads_it(row: Syscall) -> None:
    if row.resource is None:
        return
    assert row.name in {form.call for form in FORMS if form.uri == row.resource}


def test_every_resource_is_read_by_a_row_that_changes_nothing() -> None:
    for form in FORMS:
        assert TABLE[form.call].effect is EffectClass.PURE
        assert TABLE[form.call].audience is not Audience.AGENTS


def test_the_error_codes_are_those_of_the_contract_and_each_has_its_error() -> None:
    assert [code.value for code in ErrorCode] == CODES_OF_THE_CONTRACT
    assert {kind.code for kind in AosError.__subclasses__()} == set(ErrorCode)


@EVERY_ROW
def test_a_row_is_complete(row: Syscall) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)?", row.name), "verb, or verb_noun"
    assert row.summary.endswith(".")
    assert row.category in {
        "process", "memory", "message", "execute", "mount", "model", "policy", "audit", "kernel",
    }  # fmt: skip
    assert set(row.errors) <= set(ErrorCode) - ALWAYS_POSSIBLE, "these may be answered by every call"
    assert len(set(row.errors)) == len(row.errors)
    if row.reach is Reach.READ:
        assert row.effect is EffectClass.PURE, "a read can be done again"
    if row.effect is EffectClass.UNSAFE:
        assert row.reach is Reach.EXTERNAL, "only an act on the world can be of unknown outcome"
        assert ErrorCode.UNKNOWN_OUTCOME in row.errors


@EVERY_ROW
def test_every_argument_and_result_has_a_bound_or_a_shape(row: Syscall) -> None:
    assert row.args.model_config.get("extra") == "forbid", "an unknown argument is an error"
    assert row.args.model_config.get("frozen") is True
    assert row.result.model_config.get("frozen") is True
    assert row.args.__doc__
    assert row.result.__doc__


@cache
def texts_of_tests() -> str:
    return "\n".join(
        path.read_text("utf-8")
        for path in python_files()
        if path.is_relative_to(ROOT / "tests")
        and path.name.startswith("test_")
        and path.name != "test_syscall_table.py"
    )


@EVERY_ROW
def test_a_row_is_called_by_a_test(row: Syscall) -> None:
    assert re.search(rf"[\"']{row.name}[\"']", texts_of_tests()), f"no test calls {row.name}"


@EVERY_ROW
def test_a_row_has_its_part_of_the_reference(row: Syscall) -> None:
    reference = (ROOT / "docs" / "tools.md").read_text("utf-8")
    if row.tool:
        assert f"### `{row.name}`\n\n{row.summary}\n" in reference
        for argument in (field.alias or name for name, field in row.args.model_fields.items()):
            assert f"| `{argument}` |" in reference
    for code in row.errors:
        assert code.value in reference
