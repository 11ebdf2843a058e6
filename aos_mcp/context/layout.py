"""The layout of a prompt: pages in, turns out.

Owns the order of a prompt and the places worth caching. Promises: the prompt is one every dialect accepts (each tool
request is answered, each answer follows its request), and while pages are only appended every prompt is a prefix of
the next, so a provider's prefix cache keeps hitting. Does not know providers, prices, or when to compact.

Order: system text · task · then by position. A run of pages that are out of the window is one list of handles, where
the first of the run stood. Neighbouring user turns are merged, but not with the task: what follows it leaves, and what
was cached up to its end must be found again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from aos_mcp.abi.characters import whole
from aos_mcp.abi.completion import Prompt, Reply, ToolRequest, ToolSpec, Turn
from aos_mcp.abi.handle import PageId
from aos_mcp.abi.page import Page, PageKind
from aos_mcp.context.handle import COLLAPSED_TOKENS, collapsed_line, handle_line, handle_tokens
from aos_mcp.context.page_table import group_key, in_order, in_window, listed

Body = Callable[[Page], bytes]
"""Returns a page's payload. It is also asked for pages that are out of the window: their handles show a first line."""

GRID_TOKENS = 8_192  # Distance of the sticky cache marks.
LOOKBACK_BLOCKS = 20  # A mark finds what was cached at most so many blocks before it, in the dialect that looks back.
NO_RESULT = "[no result recorded]"
NO_TEXT = "[no text]"
BLANK_LINE = "\n\n"


@dataclass(slots=True)
class Drawn:
    """What was laid out before, kept so that the next prompt of the same context need not read and decode it again."""

    texts: dict[PageId, str] = field(default_factory=dict)
    replies: dict[PageId, Reply] = field(default_factory=dict)
    handles: dict[PageId, str] = field(default_factory=dict)

    def forget(self, page_ids: Collection[PageId]) -> None:
        """Drop pages that left the window."""
        for page_id in page_ids:
            self.texts.pop(page_id, None)
            self.replies.pop(page_id, None)


@dataclass(frozen=True, slots=True)
class _Desk:
    """Where pieces are made: bodies are read once, and what is known is taken as it is."""

    body: Body
    drawn: Drawn

    def text(self, page: Page) -> str:
        text = self.drawn.texts.get(page.page_id)
        if text is None:
            text = self.drawn.texts[page.page_id] = self.body(page).decode("utf-8", "replace")
        return text

    def reply(self, page: Page) -> Reply:
        reply = self.drawn.replies.get(page.page_id)
        if reply is None:
            reply = self.drawn.replies[page.page_id] = decode_reply(self.body(page))
        return reply

    def handle(self, page: Page) -> str:
        line = self.drawn.handles.get(page.page_id)
        if line is None:
            line = self.drawn.handles[page.page_id] = handle_line(page, first_line(page, self.body(page)))
        return line


@dataclass(frozen=True, slots=True)
class _Piece:
    """A turn and about how many tokens it takes."""

    turn: Turn
    tokens: int
    left_at: float | None = None
    """Of handles: when the newest of their pages left."""


def lay_out(
    pages: Sequence[Page],
    body: Body,
    *,
    system: str,
    tools: Sequence[ToolSpec],
    max_output_tokens: int,
    turn: int,
    output_schema: str | None = None,
    drawn: Drawn | None = None,
) -> Prompt:
    """Return the prompt for a context.

    Args:
        pages: the whole page table of one process, in any order.
        body: returns a page's payload; called at most once for each page.
        system: text before the SYSTEM pages' own.
        tools: offered tools, in the order in which they are sent.
        max_output_tokens: the bound of the reply.
        turn: how many model turns the process has made before.
        output_schema: JSON Schema as JSON text, for a structured reply.
        drawn: what was laid out of this context before; what is new is added to it.
    """
    desk = _Desk(body, Drawn() if drawn is None else drawn)
    ordered = in_order(pages)
    texts = [system, *(desk.text(page) for page in ordered if page.kind is PageKind.SYSTEM)]
    tasks = [page for page in ordered if page.kind is PageKind.TASK]
    rest = [page for page in ordered if page.kind not in {PageKind.SYSTEM, PageKind.TASK}]
    pieces = _merged([_user(desk.text(page), page.tokens) for page in tasks])
    pieces += _merged(_dynamic(rest, desk))
    return Prompt(
        system=BLANK_LINE.join(text for text in texts if text),
        turns=_marked(pieces),
        tools=tuple(tools),
        max_output_tokens=max_output_tokens,
        output_schema=output_schema,
        turn=turn,
    )


def encode_reply(reply: Reply) -> bytes:
    """Return the payload of a REPLY page: JSON with sorted keys, UTF-8. A lone surrogate becomes U+FFFD."""
    fields = {
        "text": reply.text,
        "requests": [
            {"request_id": request.request_id, "name": request.name, "arguments": request.arguments}
            for request in reply.requests
        ],
        "reasoning": reply.reasoning,
        "reasoning_signature": reply.reasoning_signature,
        "stop": reply.stop,
    }
    text = json.dumps(fields, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return whole(text).encode()


def decode_reply(body: bytes) -> Reply:
    """Return the reply that `encode_reply` wrote. Raises ValueError or KeyError for anything else."""
    fields = json.loads(body)
    return Reply(
        text=fields["text"],
        requests=tuple(ToolRequest(**request) for request in fields["requests"]),
        reasoning=fields["reasoning"],
        reasoning_signature=fields["reasoning_signature"],
        stop=fields["stop"],
    )


def _dynamic(pages: Sequence[Page], desk: _Desk) -> list[_Piece]:
    """Return what follows the task. A result moves up to its reply; its own place is skipped then."""
    answers, shown = _answers(pages), listed(pages)
    pieces: list[_Piece] = []
    taken: set[str] = set()
    absent: list[Page] = []
    for page in pages:
        if page.page_id in taken:
            continue
        if not in_window(page):
            absent.append(page)
            continue
        pieces += _handles(absent, shown, desk)
        absent = []
        if page.kind is PageKind.REPLY:
            pieces += _reply(page, desk, answers, taken)
        else:
            pieces.append(_user(desk.text(page), page.tokens))
    return pieces + _handles(absent, shown, desk)


def _answers(pages: Sequence[Page]) -> dict[tuple[int, str], list[Page]]:
    """Return results by group and request: some models use the same request id in every turn."""
    found: dict[tuple[int, str], list[Page]] = {}
    for page in pages:
        if page.kind is PageKind.RESULT and page.group is not None and page.request_id is not None:
            found.setdefault((page.group, page.request_id), []).append(page)
    return found


def _reply(page: Page, desk: _Desk, answers: dict[tuple[int, str], list[Page]], taken: set[str]) -> list[_Piece]:
    """Return an assistant turn and one tool turn for each of its requests, in the order of the requests."""
    reply = desk.reply(page)
    group = group_key(page)
    assert group is not None
    pieces = [
        _Piece(
            Turn(
                role="assistant",
                text=reply.text if reply.text or reply.requests else NO_TEXT,
                requests=reply.requests,
                reasoning=reply.reasoning,
                reasoning_signature=reply.reasoning_signature,
            ),
            page.tokens,
        )
    ]
    for request in reply.requests:
        waiting = answers.get((group, request.request_id))
        answer = waiting.pop(0) if waiting else None
        if answer is not None:
            taken.add(answer.page_id)
        pieces.append(_tool(request.request_id, answer, desk))
    return pieces


def _tool(request_id: str, answer: Page | None, desk: _Desk) -> _Piece:
    if answer is None:  # The kernel died between request and result; the model is told instead of the call repeated.
        return _Piece(Turn(role="tool", text=NO_RESULT, request_id=request_id, is_error=True), len(NO_RESULT))
    if in_window(answer):
        text, tokens = desk.text(answer), answer.tokens
    else:
        text, tokens = desk.handle(answer), handle_tokens(answer)
    return _Piece(Turn(role="tool", text=text, request_id=request_id, is_error=answer.is_error), tokens)


def _handles(absent: Sequence[Page], shown: Collection[PageId], desk: _Desk) -> list[_Piece]:
    """Return one user turn that lists the handles of a run, and how many pages of it have none."""
    if not absent:
        return []
    named = [page for page in absent if page.page_id in shown]
    lines = [desk.handle(page) for page in named]
    tokens = sum(handle_tokens(page) for page in named)
    if len(named) < len(absent):
        lines.append(collapsed_line(len(absent) - len(named)))
        tokens += COLLAPSED_TOKENS
    text = Turn(role="user", text="\n".join(lines))
    return [_Piece(text, tokens, max(page.left_at or 0.0 for page in absent))]


def first_line(page: Page, payload: bytes) -> str:
    """Return how a page begins, for its handle: of a reply its text, or else the tools it asked for."""
    if page.kind is not PageKind.REPLY:
        return payload[:2_048].decode("utf-8", "replace")
    reply = decode_reply(payload)
    return reply.text or ", ".join(request.name for request in reply.requests)


def _user(text: str, tokens: int) -> _Piece:
    return _Piece(Turn(role="user", text=text), tokens)


def _merged(pieces: Sequence[_Piece]) -> list[_Piece]:
    """Join neighbouring user turns."""
    joined: list[list[_Piece]] = []
    for piece in pieces:
        if joined and joined[-1][0].turn.role == piece.turn.role == "user":
            joined[-1].append(piece)
        else:
            joined.append([piece])
    return [run[0] if len(run) == 1 else _joined(run) for run in joined]


def _joined(run: Sequence[_Piece]) -> _Piece:
    text = Turn(role="user", text=BLANK_LINE.join(piece.turn.text for piece in run))
    left_at = max((piece.left_at for piece in run if piece.left_at is not None), default=None)
    return _Piece(text, sum(piece.tokens for piece in run), left_at)


def _marked(pieces: Sequence[_Piece]) -> tuple[Turn, ...]:
    if not pieces:
        return ()
    newest = max((piece.left_at for piece in pieces if piece.left_at is not None), default=None)
    hole = None if newest is None else next(i for i, piece in enumerate(pieces) if piece.left_at == newest)
    marks = cache_marks(
        [piece.tokens for piece in pieces],
        [_may_mark(piece.turn.role) for piece in pieces],
        hole,
        [_blocks(piece.turn) for piece in pieces],
    )
    return tuple(
        replace(piece.turn, breakpoint=True) if index in marks else piece.turn for index, piece in enumerate(pieces)
    )


def cache_marks(
    tokens: Sequence[int], may_mark: Sequence[bool], hole: int | None, blocks: Sequence[int] = ()
) -> frozenset[int]:
    """Return the pieces at whose ends a prompt is worth caching: three at most, a fourth is the system text's.

    They are an anchor, the newest line of the grid, and the end. A grid mark is the first piece that may be marked and
    ends beyond a multiple of GRID_TOKENS: it follows from what stands before it alone, so it does not move when pieces
    are appended. The newest one serves the next cut. The anchor is the last of them before the newest hole, where what
    outlived the last cut ends, or else the task: as each request marks it, its entry is still there at the next cut.

    Where the last turn made so many calls that a mark at the end does not look back beyond it, its beginning, where
    the request before ended, is marked in place of the newest line.

    Args:
        tokens: of each piece, in order.
        may_mark: whether a mark may stand behind the piece; it may behind all but the model's own.
        hole: the first piece that the last compaction changed.
        blocks: of how many blocks each piece is; none: of one.
    """
    if not tokens:
        return frozenset()
    grid: list[int] = []
    total, line, last = 0, 0, len(tokens) - 1
    for index, (weight, allowed) in enumerate(zip(tokens, may_mark, strict=True)):
        total += weight
        if allowed and total // GRID_TOKENS > line:
            line = total // GRID_TOKENS
            grid.append(index)
    anchor = max((index for index in grid if hole is not None and index < hole), default=0)
    before = _end_before(may_mark, blocks or [1] * len(tokens))
    newest = [index for index in grid if index != last][-1:] if before is None else [before]
    return frozenset({anchor, *newest, last})


def _end_before(may_mark: Sequence[bool], blocks: Sequence[int]) -> int | None:
    """Return where the request before this one ended, where the end of this one does not look back so far."""
    said = next((index for index in reversed(range(len(blocks))) if not may_mark[index]), 0)
    far = said > 0 and may_mark[said - 1] and sum(blocks[said:]) >= LOOKBACK_BLOCKS
    return said - 1 if far else None


def _blocks(turn: Turn) -> int:
    """Return how many blocks a turn is at most in the dialect that counts them."""
    thought = bool(turn.reasoning or turn.reasoning_signature)
    return max(1, thought + bool(turn.text) + len(turn.requests) + len(turn.attachments))


def _may_mark(role: Literal["user", "assistant", "tool"]) -> bool:
    return role != "assistant"
