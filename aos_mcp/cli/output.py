"""What a command writes: one JSON document or readable text on stdout, failures and progress on stderr.

Owns the two forms and the way a failure ends a command. Text that an agent or a tool wrote is shown with its control
characters taken out: a terminal obeys them, and they are not the user's.
"""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer

from aos_mcp.cli.client import Json
from aos_mcp.cli.failure import EXIT_OF_ERROR, FAILED, CliError

AsJson = Annotated[bool, typer.Option("--json", help="Write JSON on stdout.")]

_SHOWN_CONTROLS = frozenset("\n\t")
_REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE})
"""What goes wrong with writing, and is nothing of ours."""


def open_streams() -> None:
    """Have both streams take every character, where the environment's encoding has none for it too; none is closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def give_up(error: OSError) -> int:
    """Say that output could not be written; return the exit code. A reader that went away is told nothing."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # what is left in the buffer goes there, or the interpreter would complain once more
    os.close(nowhere)
    if error.errno != errno.EPIPE:
        print(f"aos: The output could not be written: {error.strerror}. Write it elsewhere.", file=sys.stderr)
    return FAILED


@contextmanager
def reporting(as_json: bool) -> Iterator[None]:
    """Turn a `CliError` of the block into its output and exit code."""
    try:
        yield
    except CliError as error:
        if as_json:
            document({"error": {"code": error.code, "message": error.message, "hint": error.hint}})
        else:
            print(f"aos: {plain(str(error))}", file=sys.stderr)
        raise typer.Exit(EXIT_OF_ERROR[error.code]) from None


def show(value: Json, as_json: bool, render: Callable[[Json], str]) -> None:
    """Write `value` once: as JSON, or as what `render` makes of it."""
    if as_json:
        document(value)
    else:
        text(render(value))


def document(value: Mapping[str, object] | Sequence[object]) -> None:
    """Write one JSON document."""
    print(json.dumps(value, ensure_ascii=True, indent=2), flush=True)


def line(value: Mapping[str, object]) -> None:
    """Write one JSON document on one line; for streams."""
    print(json.dumps(value, ensure_ascii=True), flush=True)


def text(value: str) -> None:
    """Write readable text, made safe for a terminal; nothing for an empty one."""
    if value:
        print(plain(value), flush=True)


def note(value: str) -> None:
    """Say something about the work itself: on stderr, and only to a person."""
    if sys.stderr.isatty():
        print(plain(value), file=sys.stderr, flush=True)


def plain(value: str) -> str:
    """Return `value` without characters that a terminal would obey instead of showing."""
    return "".join(c for c in value if c.isprintable() or c in _SHOWN_CONTROLS or _harmless(c))


def _harmless(character: str) -> bool:
    code = ord(character)
    is_control = code < 0x20 or 0x7F <= code < 0xA0
    return not (is_control or character in _REORDERING or 0xD800 <= code < 0xE000)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out rows in columns; one line a row, the headings first."""
    cells = [[plain(cell).replace("\n", " ").replace("\t", " ") for cell in row] for row in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(line.rstrip() for line in lines)


def fields(pairs: Mapping[str, object]) -> str:
    """Lay out names and values, one line a pair."""
    width = max(map(len, pairs))
    return "\n".join(f"{name.ljust(width)}  {plain(str(value))}" for name, value in pairs.items())


def short(handle: object) -> str:
    """Return as much of a handle as tells it apart in practice; the kernel takes such a prefix back."""
    return str(handle or "-")[:12]


def money(usd: object) -> str:
    """Return US dollars, with the digits that small sums need."""
    amount = float(usd) if isinstance(usd, int | float) else 0.0
    return f"${amount:.2f}" if amount == 0 or amount >= 1 else f"${amount:.4f}"


def count(number: object) -> str:
    """Return a number short enough for a column."""
    value = float(number) if isinstance(number, int | float) else 0.0
    for unit in ("", "k", "M", "G"):
        if value < 1_000:
            return f"{value:.0f}{unit}" if unit == "" or value >= 100 else f"{value:.1f}{unit}"
        value /= 1_000
    return f"{value:.0f}T"
