"""A person is asked at the host, in both eras, and elsewhere when the host cannot ask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp.shared.exceptions import MCPError

from aos_mcp.abi.settings import Rule, Settings
from aos_mcp.server import load_state_key
from tests.surface.conftest import ERAS, MODERN, serving

ASKING = Settings(rules=[Rule(effect="ask", tool="page_out")])


class Person:
    """Answers every form the same way."""

    def __init__(self, action: str, **content: Any) -> None:
        self.result = types.ElicitResult(action=action, content=content or None)  # type: ignore[arg-type]
        self.asked: list[str] = []

    async def __call__(self, context: object, params: types.ElicitRequestParams) -> types.ElicitResult:
        self.asked.append(params.message)
        return self.result


@ERAS
async def test_an_allowed_call_is_made(tmp_path: Path, era: str) -> None:
    person = Person("accept", decision="allow")
    async with serving(tmp_path, settings=ASKING) as served:
        async with served.client(era, elicitation_callback=person) as client:
            with anyio.fail_after(20):
                done = await client.call_tool("page_out", {"content": "with leave"})
    assert done.structured_content["page_id"]
    assert len(person.asked) == 1
    assert "page_out" in person.asked[0]


@ERAS
@pytest.mark.parametrize("person", [Person("accept", decision="deny"), Person("decline")])
async def test_a_denied_call_is_not_made(tmp_path: Path, era: str, person: Person) -> None:
    async with serving(tmp_path, settings=ASKING) as served:
        async with served.client(era, elicitation_callback=person) as client:
            with anyio.fail_after(20):
                done = await client.call_tool("page_out", {"content": "no leave"})
    assert done.is_error
    assert done.structured_content["code"] == "denied"


@ERAS
async def test_a_closed_form_leaves_the_question_open(tmp_path: Path, era: str) -> None:
    person = Person("cancel")
    async with serving(tmp_path, settings=ASKING) as served:
        async with served.client(era, elicitation_callback=person) as client:
            with anyio.fail_after(20):
                done = await client.call_tool("page_out", {"content": "later"})
                approval = done.structured_content["approval_id"]
                answered = await client.call_tool("answer_approval", {"approval_id": approval, "decision": "allow"})
                again = await client.call_tool("page_out", {"content": "later"})
    assert done.structured_content["code"] == "approval_required"
    assert len(person.asked) == 1
    assert answered.structured_content["state"] == "allowed"
    assert again.structured_content["page_id"]


@ERAS
async def test_a_remembered_answer_is_not_asked_for_again(tmp_path: Path, era: str) -> None:
    person = Person("accept", decision="allow", remember=True)
    async with serving(tmp_path, settings=ASKING) as served:
        async with served.client(era, elicitation_callback=person) as client:
            with anyio.fail_after(20):
                for text in ("one", "two"):
                    assert not (await client.call_tool("page_out", {"content": text})).is_error
    assert len(person.asked) == 1


@ERAS
async def test_a_host_that_cannot_ask_is_told_how_it_is_answered(tmp_path: Path, era: str) -> None:
    async with serving(tmp_path, settings=ASKING) as served, served.client(era) as client:
        with anyio.fail_after(20):
            done = await client.call_tool("page_out", {"content": "ask elsewhere"})
    assert done.structured_content["code"] == "approval_required"
    assert done.structured_content["approval_id"] in done.structured_content["hint"]


async def test_what_the_client_carries_cannot_be_forged_or_used_for_another_call(tmp_path: Path) -> None:
    person = Person("accept", decision="allow")
    async with serving(tmp_path, settings=ASKING) as served:
        async with served.client(MODERN, elicitation_callback=person) as client:
            with anyio.fail_after(20):
                first = await client.session.call_tool("page_out", {"content": "a"}, allow_input_required=True)
                assert isinstance(first, types.InputRequiredResult)
                answers: Any = {"approval": types.ElicitResult(action="accept", content={"decision": "allow"})}
                for arguments, state in (({"content": "b"}, first.request_state), ({"content": "a"}, "v1.forged")):
                    with pytest.raises(MCPError) as refused:
                        await client.session.call_tool(
                            "page_out", arguments, input_responses=answers, request_state=state
                        )
                    assert refused.value.error.code == types.INVALID_PARAMS
                done = await client.session.call_tool(
                    "page_out", {"content": "a"}, input_responses=answers, request_state=first.request_state
                )
    assert isinstance(done, types.CallToolResult)
    assert not done.is_error


def test_the_key_that_seals_what_clients_carry_outlives_the_process(tmp_path: Path) -> None:
    first = load_state_key(tmp_path)
    assert load_state_key(tmp_path) == first
    path = tmp_path / "request_state.key"
    assert path.stat().st_mode & 0o077 == 0
    path.write_bytes(b"cut")
    assert len(load_state_key(tmp_path)) == 32
