"""Lines as they come off a wire."""

from __future__ import annotations

import anyio
import mcp_types as types
import pytest
from anyio.abc import ByteStream
from hypothesis import given
from hypothesis import strategies as st

from aos_mcp.shim import _peek
from aos_mcp.transport import EDGE_BYTES, Lines, Refusal, TooLong, decode, id_at_edges
from tests.apart import apart


class Pieces(ByteStream):
    """A stream that hands out bytes in given pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = [piece for piece in pieces if piece]

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        await anyio.lowlevel.checkpoint()
        if not self._pieces:
            raise anyio.EndOfStream
        return self._pieces.pop(0)

    async def send(self, item: bytes) -> None:
        raise AssertionError("nothing is sent")

    async def send_eof(self) -> None:
        raise AssertionError("nothing is sent")

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()


async def read_all(pieces: list[bytes], limit: int) -> list[bytes | TooLong]:
    lines, found = Lines(Pieces(pieces), limit), []
    while (line := await lines.next()) is not None:
        found.append(line)
    return found


@given(st.lists(st.binary(max_size=40), max_size=12), st.integers(0, 60))
def test_lines_are_the_same_however_the_bytes_arrive(pieces: list[bytes], limit: int) -> None:
    whole = b"".join(pieces)
    expected = whole.split(b"\n")
    if expected[-1] == b"":
        expected.pop()
    found = apart(lambda: anyio.run(read_all, pieces, limit))
    assert [line.size if isinstance(line, TooLong) else line for line in found] == [
        line if len(line) <= limit else len(line) for line in expected
    ]


async def test_a_line_that_is_too_long_keeps_both_of_its_ends() -> None:
    head, tail = b'{"id": 1, "x": "', b'", "id": 2}'
    long = head + b"x" * 100_000 + tail
    found = await read_all([long[i : i + 7_000] for i in range(0, len(long), 7_000)] + [b"\nnext\n"], 10_000)
    assert isinstance(found[0], TooLong)
    assert found[0].head == long[:EDGE_BYTES]
    assert found[0].tail == long[-EDGE_BYTES:]
    assert found[0].size == len(long)
    assert found[1] == b"next"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"jsonrpc":"2.0","id":7,"method":"x"', 7),
        (b'{"id":"a-b", "method":"x"', "a-b"),
        (b'{"method":"x","params":{},"jsonrpc":"2.0","id":-3}', -3),
        (b'{"method":"x","params":{"id":5}}', None),
        (b'{"params":{"id":5},"method":"x"', None),
        (b'{"method":"x","params":{"a":"\\"id\\":5}"}}', None),
    ],
)
def test_an_id_is_read_off_the_ends_only_where_it_must_be_the_messages_own(
    line: bytes, expected: str | int | None
) -> None:
    assert id_at_edges(line[:EDGE_BYTES], line[-EDGE_BYTES:]) == expected


def test_a_lone_surrogate_is_read_leniently_and_left_to_the_gate() -> None:
    message = decode(
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","arguments":{"a":"\\ud800"}}}'
    )
    assert isinstance(message, types.JSONRPCRequest)
    assert message.params == {"name": "x", "arguments": {"a": "\ud800"}}


@pytest.mark.parametrize(
    "line", [b"", b"{", b"\xff", b"[1]", b'"x"', b"NaN", b'{"jsonrpc":"2.0","id":true,"method":5}']
)
def test_what_is_no_message_is_refused(line: bytes) -> None:
    assert isinstance(decode(line), Refusal)


def test_the_shim_sees_of_a_long_line_what_it_sees_of_a_short_one() -> None:
    filler = "y" * 100_000
    for line, request_id, method, is_answer in (
        (f'{{"jsonrpc":"2.0","id":4,"method":"tools/call","params":{{"a":"{filler}"}}}}', 4, "tools/call", False),
        (f'{{"method":"tools/call","params":{{"a":"{filler}"}},"jsonrpc":"2.0","id":5}}', 5, "tools/call", False),
        (f'{{"jsonrpc":"2.0","id":6,"result":{{"method":"x","a":"{filler}"}}}}', 6, None, True),
        (f'{{"result":{{"method":"x","id":1,"a":"{filler}"}},"jsonrpc":"2.0","id":7}}', 7, None, True),
        (f'{{"params":{{"id":1,"a":"{filler}"}},"id":8,"method":"ping","jsonrpc":"2.0"}}', 8, "ping", False),
    ):
        peek = _peek(line.encode())
        assert (peek.id, peek.method, peek.is_answer) == (request_id, method, is_answer)
