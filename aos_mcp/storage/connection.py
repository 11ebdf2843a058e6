"""The adapter a database driver gives to `storage.store`: named statements in, rows out.

It owns nothing. Statements are known by the names they have in the `.sql` files; no Python above this line sees SQL.
An adapter translates its database's errors into `abi.errors` by code: a key that exists is `Conflict`, a device that
failed is `DeviceFailed`, a statement that cannot be right is `Internal`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from aos_mcp.abi.errors import Unavailable

Value = str | int | float | bytes | None


class Row(Protocol):
    """One row; columns by name."""

    def __getitem__(self, key: str, /) -> Any:
        """Return a column's value."""
        ...


class Connection(Protocol):
    """One connection inside one transaction."""

    def execute(self, name: str, values: Mapping[str, Value]) -> int:
        """Run a statement that writes; return how many rows it touched."""
        ...

    def one(self, name: str, values: Mapping[str, Value]) -> Row | None:
        """Run a statement; return its first row, if it has one."""
        ...

    def all(self, name: str, values: Mapping[str, Value]) -> list[Row]:
        """Run a statement; return its rows."""
        ...


class DeviceFailed(Unavailable):
    """The database or the disk below it failed, and with it everything in the transaction under way."""

    def again(self) -> DeviceFailed:
        """Return a fresh copy, for one more caller that the same failure met."""
        return DeviceFailed(self.message, self.hint)
