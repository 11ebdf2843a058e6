"""A downstream of one tool, in plain JSON-RPC: an order is written to the ledger it was given, then answered."""

import json
import sys

TOOLS = [{"name": "order", "description": "Orders.", "inputSchema": {"type": "object"}}]


def answer(method: str, params: dict[str, object], ledger: str) -> dict[str, object] | None:
    if method == "initialize":
        info = {"name": "shop", "version": "1"}
        return {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": info}
    if method == "tools/list":
        return {"tools": TOOLS}
    if method == "tools/call":
        arguments = params["arguments"]
        assert isinstance(arguments, dict)
        with open(ledger, "a", encoding="utf-8") as file:
            file.write(f"shop__order:{arguments['n']}\n")
        return {"content": [{"type": "text", "text": "ordered"}]}
    return None


for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    result = answer(message["method"], message.get("params", {}), sys.argv[1])
    reply = {"result": result} if result is not None else {"error": {"code": -32601, "message": "Method not found"}}
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], **reply}) + "\n")
    sys.stdout.flush()
