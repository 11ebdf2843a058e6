"""A host as small as it can be: JSON-RPC lines to a child's stdin and back, in the stateless revision of MCP."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "aos-bench", "version": "1"},
}
END_S = 10.0


class Wire:
    """One child that speaks MCP on its stdin and stdout."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self.child = child
        self._last_id = 0

    def ask(self, method: str, params: Mapping[str, object]) -> Mapping[str, object]:
        """Send one request and return its result. Raises RuntimeError when it was refused or the child is gone."""
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self._last_id += 1
        request = {"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": {**params, "_meta": META}}
        self.child.stdin.write(json.dumps(request).encode() + b"\n")
        self.child.stdin.flush()
        while line := self.child.stdout.readline():
            message = json.loads(line)
            if message.get("id") != self._last_id:
                continue
            if "error" in message:
                raise RuntimeError(f"{method}: {message['error']}")
            result: Mapping[str, object] = message["result"]
            return result
        raise RuntimeError(f"{method}: the server went away")


@contextmanager
def wired(argv: Sequence[str], environ: Mapping[str, str]) -> Iterator[Wire]:
    """Start a server as a host does, and end it as a host does: by closing its stdin."""
    with subprocess.Popen(
        list(argv), env=dict(environ), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        try:
            yield Wire(child)
        finally:
            assert child.stdin is not None
            child.stdin.close()
            try:
                child.wait(END_S)
            except subprocess.TimeoutExpired:
                child.kill()
