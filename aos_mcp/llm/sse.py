"""Server-sent events: bytes in, (event, data) out. Pure; data stays bytes, which is what a JSON parser wants."""

from __future__ import annotations

from aos_mcp.abi import limits


class EventStream:
    """Splits a byte stream into events; comments and fields other than `event` and `data` are skipped."""

    def __init__(self) -> None:
        self._rest = b""
        self._event = ""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[tuple[str, bytes]]:
        """Return the events that `chunk` completes.

        Raises:
            ValueError: a line is longer than any honest event.
        """
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > limits.LINE_BYTES_MAX:
            raise ValueError("a line of the event stream has no end")
        events: list[tuple[str, bytes]] = []
        for line in lines:
            self._take(line.rstrip(b"\r"), events)
        return events

    def close(self) -> list[tuple[str, bytes]]:
        """Return the event a stream ended with, where it ended without an empty line."""
        events: list[tuple[str, bytes]] = []
        self._take(self._rest.rstrip(b"\r"), events)
        self._take(b"", events)
        self._rest = b""
        return events

    def _take(self, line: bytes, events: list[tuple[str, bytes]]) -> None:
        if not line:
            if self._data:
                events.append((self._event, b"\n".join(self._data)))
            self._event, self._data = "", []
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._event = value.decode("utf-8", "replace")
