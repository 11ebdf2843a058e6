"""Named SQL: `-- name: process_insert` begins a statement, the next name ends it. Loaded once, never built."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def load_queries(folder: Path) -> Mapping[str, str]:
    """Return every statement of the folder's `.sql` files by its name."""
    queries: dict[str, str] = {}
    for path in sorted(folder.glob("*.sql")):
        before, *pieces = _NAME.split(path.read_text("utf-8"))
        assert not before.strip(), f"{path.name} does not begin with a name"
        for name, text in zip(pieces[::2], pieces[1::2], strict=True):
            assert name not in queries, f"{name} is there twice"
            queries[name] = text.strip()
    return MappingProxyType(queries)
