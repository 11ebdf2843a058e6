"""A page table as a picture: one SVG file without scripts, fonts or links.

Owns the drawing. From top to bottom: tokens in the window and gone at each model call, with compactions; pages read
back; the cost of the prompts beside append-only; and a strip of all pages in order, as wide as they are large.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from aos_mcp.abi.page import PageKind
from aos_mcp.cli.client import Json
from aos_mcp.cli.context_history import Turn

WIDTH, LEFT, RIGHT = 860, 70, 150
PANEL, GAP, TOP = 150, 46, 60
PAGES_DRAWN_MAX = 4_000  # A strip with more would be a file of megabytes; what is drawn is the newest part.
COLOURS = {
    "resident": "#2f6fb2",
    "left": "#c9d3de",
    "pinned": "#d98a1f",
    "summary": "#4f9d69",
    "faults": "#b8382f",
    "line": "#8a949e",
}


def picture(name: str, table: Json, turns: Sequence[Turn]) -> str:
    """Return the SVG text of one page table and its past."""
    height = TOP + 3 * (PANEL + GAP) + 60
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="12" role="img">',
        f"<title>Context of {_visible(name)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="26" font-size="16">Context of {_visible(name)}</text>',
        f'<text x="{LEFT}" y="44" fill="#555">{table["resident_tokens"]:,} of {table["window_tokens"]:,} tokens in the '
        f"window, {table['faults']:,} faults, {sum(turn.compacted for turn in turns)} compactions</text>",
    ]
    drawn += _panel(
        TOP,
        "tokens",
        turns,
        areas=(
            ("left", "left", lambda turn: turn.resident + turn.left),
            ("resident", "resident", lambda turn: turn.resident),
        ),
        lines=(
            ("pinned", "pinned", lambda turn: turn.pinned),
            ("summaries", "summary", lambda turn: turn.summaries),
        ),
    )
    drawn += _panel(
        TOP + PANEL + GAP, "pages read back", turns, lines=(("faults", "faults", lambda turn: turn.faults),)
    )
    drawn += _panel(
        TOP + 2 * (PANEL + GAP),
        "cost of prompts, estimated (tokens of uncached input)",
        turns,
        lines=(
            ("append-only", "line", lambda turn: turn.cost_append_only),
            ("as paged", "resident", lambda turn: turn.cost),
        ),
    )
    drawn += _strip(TOP + 3 * (PANEL + GAP), table["pages"])
    return "\n".join([*drawn, "</svg>", ""])


_Series = tuple[str, str, Callable[[Turn], float]]


def _panel(
    top: int, title: str, turns: Sequence[Turn], *, lines: Sequence[_Series], areas: Sequence[_Series] = ()
) -> list[str]:
    wide, base = WIDTH - LEFT - RIGHT, top + PANEL
    most = max((value(turn) for turn in turns for _, _, value in (*areas, *lines)), default=0.0) or 1.0

    def path(value: Callable[[Turn], float]) -> str:
        step = wide / max(1, len(turns) - 1)
        return " ".join(
            f"{LEFT + step * place:.1f},{base - PANEL * value(turn) / most:.1f}" for place, turn in enumerate(turns)
        )

    drawn = [
        f'<text x="{LEFT}" y="{top - 6}" fill="#555">{escape(title)}</text>',
        f'<path d="M{LEFT} {top}V{base}H{LEFT + wide}" fill="none" stroke="#333"/>',
        f'<text x="{LEFT - 6}" y="{top + 10}" text-anchor="end">{_short(most)}</text>',
        f'<text x="{LEFT - 6}" y="{base}" text-anchor="end">0</text>',
        f'<text x="{LEFT + wide}" y="{base + 15}" text-anchor="end">{len(turns)} model calls</text>',
    ]
    for number, (label, colour, value) in enumerate((*areas, *lines)):
        if turns and number < len(areas):
            points = f"{LEFT},{base} {path(value)} {LEFT + wide},{base}"
            drawn.append(f'<polygon points="{points}" fill="{COLOURS[colour]}" fill-opacity="0.8"/>')
        elif turns:
            drawn.append(f'<polyline points="{path(value)}" fill="none" stroke="{COLOURS[colour]}" stroke-width="2"/>')
        drawn.append(
            f'<rect x="{LEFT + wide + 16}" y="{top + 18 * number}" width="11" height="11" fill="{COLOURS[colour]}"/>'
            f'<text x="{LEFT + wide + 33}" y="{top + 10 + 18 * number}">{escape(label)}</text>'
        )
    return drawn + _cuts(turns, top, wide)


def _cuts(turns: Sequence[Turn], top: int, wide: int) -> list[str]:
    step = wide / max(1, len(turns) - 1)
    return [
        f'<path d="M{LEFT + step * place:.1f} {top}v{PANEL}" stroke="#333" stroke-width="0.6" stroke-dasharray="3 3"/>'
        for place, turn in enumerate(turns)
        if turn.compacted
    ]


def _strip(top: int, pages: Sequence[Json]) -> list[str]:
    shown = pages[-PAGES_DRAWN_MAX:]
    wide = WIDTH - LEFT - RIGHT
    unit = wide / max(1, sum(page["tokens"] for page in shown))
    drawn = [f'<text x="{LEFT}" y="{top - 6}" fill="#555">pages, in order</text>']
    place = float(LEFT)
    for page in shown:
        state = "left" if not page["resident"] else "pinned" if page["pinned"] else "resident"
        if page["resident"] and page["kind"] == PageKind.SUMMARY:
            state = "summary"
        drawn.append(
            f'<rect x="{place:.2f}" y="{top}" width="{max(0.2, unit * page["tokens"]):.2f}" height="26" '
            f'fill="{COLOURS[state]}"><title>{_visible(page["kind"])} {_visible(page["title"])}: '
            f"{page['tokens']:,} tokens, {state}, {page['faults']} faults</title></rect>"
        )
        place += unit * page["tokens"]
    return drawn


def _visible(value: object) -> str:
    """Return text that an agent or a tool wrote, fit for XML: what has no shape may not stand there."""
    return escape("".join(c for c in str(value) if c.isprintable()))


def _short(number: float) -> str:
    for unit in ("", "k", "M"):
        if number < 1_000:
            return f"{number:.0f}{unit}" if unit == "" or number >= 100 else f"{number:.1f}{unit}"
        number /= 1_000
    return f"{number:.0f}G"
