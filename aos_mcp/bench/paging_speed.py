"""How long the pure part of paging takes: text counted, pages put into a table, victims chosen, a prompt laid out.

Owns the contexts that are timed. Times are processor time, the least of several runs: the machine may be busy.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import process_time

import aos_mcp
from aos_mcp.abi.completion import Reply, ToolRequest
from aos_mcp.abi.handle import Digest, PageId
from aos_mcp.abi.page import Page, PageKind
from aos_mcp.bench.figures import Figure
from aos_mcp.context.classes import estimate
from aos_mcp.context.compaction import compacted
from aos_mcp.context.layout import Drawn, encode_reply, lay_out
from aos_mcp.context.page_table import PageTable, resident_tokens
from aos_mcp.context.replacement import choose_victims
from aos_mcp.context.tokens import count

PAGES = 10_000
PROMPT_PAGES = 2_000
RUNS = 7
TURNS = 50  # Put in at once, so that one turn is not below the clock's grain.


def run() -> list[Figure]:
    """Time a turn's update, the choice at a compaction, and a layout, cold and warm."""
    table = PageTable(_pages(PAGES))
    started = PAGES // 2
    update = _least(lambda: _grow(table, started)) / TURNS
    pages = _pages(PAGES)
    half = resident_tokens(pages) // 2
    paged = [replace(page, resident=False, listed=False, left_at=1.0) for page in pages[: PAGES * 9 // 10]]
    paged += pages[len(paged) :]
    down = resident_tokens(paged) // 3
    choose = _least(lambda: choose_victims(pages, target_tokens=half))
    whole = _least(lambda: compacted(pages, choose_victims(pages, target_tokens=half), now=1e6))
    usual = _least(lambda: compacted(paged, choose_victims(paged, target_tokens=down), now=1e6))
    prompt, drawn = _pages(PROMPT_PAGES), Drawn()
    cold = _least(lambda: _lay_out(prompt, Drawn()))
    _lay_out(prompt, drawn)
    warm = _least(lambda: _lay_out(prompt, drawn))
    return [
        _figure(f"page table of {PAGES:,}: the pages of one turn put in", update, "< 2 ms"),
        _figure(f"page table of {PAGES:,}, all in the window: victims chosen", choose, "-"),
        _figure(f"page table of {PAGES:,}, all in the window: compacted", whole, "-"),
        _figure(f"page table of {PAGES:,}, a tenth of it in the window: compacted", usual, "-"),
        _figure(f"layout of {PROMPT_PAGES:,} pages, for the first time", cold, "-"),
        _figure(f"layout of {PROMPT_PAGES:,} pages, in the next turn", warm, "< 10 ms"),
        _counting(),
    ]


def _counting() -> Figure:
    """Time the count of our own program by the vocabulary, which knows most of its words by then, and by classes."""
    text = "".join(path.read_text("utf-8") for path in sorted(Path(aos_mcp.__file__).parent.rglob("*.py")))
    mega = len(text) / 1e6
    return Figure(
        name=f"tokens counted: {mega:.1f} MB of program text",
        value=_least(lambda: count(text)) * 1_000 / mega,
        unit="ms/MB",
        target="<= 1 x",
        baseline="by classes of characters",
        baseline_value=_least(lambda: estimate(text)) * 1_000 / mega,
    )


def _figure(name: str, seconds: float, target: str) -> Figure:
    return Figure(name=name, value=seconds * 1_000, unit="ms", target=target)


def _least(work: Callable[[], object]) -> float:
    times: list[float] = []
    for _ in range(RUNS):
        before = process_time()
        work()
        times.append(process_time() - before)
    return min(times)


def _grow(table: PageTable, turn: int) -> None:
    """Put in what some turns bring: a reply and its result each, one page used, one fetched back; and ask how it is."""
    first = len(table.rows)
    for number in range(TURNS):
        for page in _exchange(first + 2 * number, turn + number):
            table.put(page)
        old = table.pages[(first * 7 + number) % first]
        table.put(replace(old, uses=old.uses + 1, used_at=float(turn + number)))
        assert table.resident_tokens > 0


def _pages(count: int) -> list[Page]:
    chance = random.Random(3)
    task = _page(0, PageKind.TASK, 0, tokens=200)
    made = [task, *(page for turn in range(count // 2) for page in _exchange(1 + 2 * turn, turn, chance))]
    return made[:count]


def _exchange(position: int, turn: int, chance: random.Random | None = None) -> tuple[Page, Page]:
    tokens = 300 if chance is None else chance.randint(50, 2_000)
    uses = 0 if chance is None else chance.choice((0, 0, 0, 1, 4))
    reply = _page(position, PageKind.REPLY, turn, tokens=80, group=position)
    return reply, _page(position + 1, PageKind.RESULT, turn, tokens=tokens, group=position, uses=uses)


def _page(position: int, kind: PageKind, turn: int, *, tokens: int, group: int | None = None, uses: int = 0) -> Page:
    return Page(
        page_id=PageId(f"pg_{position:08d}"),
        pid=None,
        owner="",
        kind=kind,
        title=f"read: src/module_{position}.py",
        digest=Digest(""),
        tokens=tokens,
        size_bytes=0,
        position=position,
        group=group,
        request_id=f"call_{turn}" if kind is PageKind.RESULT else None,
        source="read" if kind is PageKind.RESULT else "",
        created_at=float(turn),
        used_at=float(turn + uses),
        uses=uses,
    )


def _lay_out(pages: list[Page], drawn: Drawn) -> None:
    lay_out(pages, _body, system="", tools=(), max_output_tokens=1, turn=0, drawn=drawn)


def _body(page: Page) -> bytes:
    if page.kind is not PageKind.REPLY:
        return b"text " * page.tokens
    request = ToolRequest(request_id=f"call_{int(page.created_at)}", name="read", arguments='{"path": "src/a.py"}')
    return encode_reply(Reply(text="I look at it.", requests=(request,), stop="tools"))
