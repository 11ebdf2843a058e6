"""The timeline as a picture: one SVG file without scripts, fonts or links; a bar for each agent."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from aos_mcp.cli.spans import BLOCKED, KINDS, MODEL, RUNNING, TOOL, WAITING, Life, Span, bounds

WIDTH, LEFT, RIGHT, TOP, ROW = 1_100, 190, 20, 86, 22
AGENTS_DRAWN_MAX = 400  # A taller picture is not looked at; what is drawn are the newest.
TICKS = 8
COLOURS = {WAITING: "#e8c468", RUNNING: "#c9d3de", MODEL: "#2f6fb2", TOOL: "#4f9d69", BLOCKED: "#b9a3c9"}
INSET = {WAITING: 4, RUNNING: 1, MODEL: 3, TOOL: 3, BLOCKED: 3}
"""How much narrower than its row a span is drawn: what a turn did lies on the turn."""


def picture(found: Sequence[Life]) -> str:
    """Return the SVG text of these lives, the oldest on top."""
    shown = [life for life in found if life.spans][-AGENTS_DRAWN_MAX:]
    start, end = bounds(shown)
    height = TOP + ROW * max(1, len(shown)) + 30
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="12" role="img">',
        "<title>Who ran when, and why</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="26" font-size="16">Who ran when, and why</text>',
        f'<text x="{LEFT}" y="44" fill="#555">{len(shown)} agents, {end - start:.1f} seconds</text>',
        *_legend(),
        *_ticks(end - start, height),
    ]
    for place, life in enumerate(shown):
        drawn += _row(life, TOP + ROW * place, start, end)
    return "\n".join([*drawn, "</svg>", ""])


def _legend() -> list[str]:
    return [
        f'<rect x="{LEFT + 100 * place}" y="54" width="11" height="11" fill="{COLOURS[kind]}"/>'
        f'<text x="{LEFT + 100 * place + 16}" y="64">{kind}</text>'
        for place, kind in enumerate(KINDS)
    ]


def _ticks(lasted_s: float, height: int) -> list[str]:
    wide = WIDTH - LEFT - RIGHT
    drawn = []
    for number in range(TICKS + 1):
        x = LEFT + wide * number / TICKS
        anchor = "end" if number == TICKS else "middle"
        drawn.append(f'<path d="M{x:.1f} {TOP - 4}V{height - 24}" stroke="#ddd"/>')
        drawn.append(
            f'<text x="{x:.1f}" y="{height - 8}" text-anchor="{anchor}" fill="#555">'
            f"{lasted_s * number / TICKS:.4g} s</text>"
        )
    return drawn


def _row(life: Life, top: int, start: float, end: float) -> list[str]:
    scale = (WIDTH - LEFT - RIGHT) / (end - start)
    label = _visible(life.name)[:26]
    drawn = [f'<text x="{LEFT - 8}" y="{top + 15}" text-anchor="end">{label}</text>']
    for span in sorted(life.spans, key=lambda each: KINDS.index(each.kind)):
        inset = INSET[span.kind]
        drawn.append(
            f'<rect x="{LEFT + (span.start - start) * scale:.2f}" y="{top + inset}" '
            f'width="{max(0.5, span.lasted_s * scale):.2f}" height="{ROW - 2 * inset}" fill="{COLOURS[span.kind]}">'
            f"<title>{_visible(_told(life, span))}</title></rect>"
        )
    return drawn


def _told(life: Life, span: Span) -> str:
    why = f": {span.why}" if span.why else ""
    return f"{life.name} ({life.pid}) {span.kind} {span.lasted_s:.3f} s{why}"


def _visible(value: str) -> str:
    """Return text that an agent or a tool wrote, fit for XML: what has no shape may not stand there."""
    return escape("".join(c for c in value if c.isprintable()))
