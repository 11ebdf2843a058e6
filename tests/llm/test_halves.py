"""Characters that come in two pieces: a stream may be cut anywhere."""

from __future__ import annotations

import pytest

from aos_mcp.abi.completion import Prompt
from aos_mcp.llm.draft import Draft

PROMPT = Prompt(system="", turns=(), max_output_tokens=10)


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        (("Hi \ud83d", "\ude00 there"), "Hi 😀 there"),
        (("Hi \ud83d", " there"), "Hi \ufffd there"),
        (("Hi \ude00", "\ud83d"), "Hi \ufffd\ufffd"),
        (("plain", " text"), "plain text"),
    ],
)
def test_halves_of_a_character_are_joined_and_a_half_alone_is_replaced(pieces: tuple[str, ...], shown: str) -> None:
    delivered: list[str] = []
    draft = Draft(prompt=PROMPT, deliver=delivered.append)
    for piece in pieces:
        draft.say(piece)
        "".join(delivered).encode()
    draft.close()
    assert draft.reply().text == "".join(delivered) == shown


def test_arguments_and_thoughts_are_made_whole_as_well() -> None:
    draft = Draft(prompt=PROMPT, deliver=lambda _: None)
    draft.think("so \ud83d")
    draft.think("\ude00")
    request = draft.request("r1", "f")
    draft.argue(request, '{"a": "\ud83d')
    draft.argue(request, '"}')
    reply = draft.reply()
    assert (reply.reasoning, reply.requests[0].arguments) == ("so 😀", '{"a": "\ufffd"}')
