"""Named SQL: `-- name: process_insert` begins a statement, the next name ends it. Loaded once, never built of values.

`-- part: within_bounds` begins what several statements share; `{within_bounds}` in a statement stands for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

_HEAD = re.compile(r"^-- (name|part): (\w+)$", re.MULTILINE)
_USE = re.compile(r"\{(\w+)\}")


def load_queries(folder: Path) -> Mapping[str, str]:
    """Return every statement of the folder's `.sql` files by its name."""
    found: dict[str, dict[str, str]] = {"name": {}, "part": {}}
    for path in sorted(folder.glob("*.sql")):
        before, *pieces = _HEAD.split(path.read_text("utf-8"))
        assert not before.strip(), f"{path.name} does not begin with a name"
        for kind, name, text in zip(pieces[::3], pieces[1::3], pieces[2::3], strict=True):
            assert name not in found[kind], f"{name} is there twice"
            found[kind][name] = text.strip()

    def whole(text: str) -> str:
        return _USE.sub(lambda use: whole(found["part"][use[1]]), text)

    return MappingProxyType({name: whole(text) for name, text in found["name"].items()})
