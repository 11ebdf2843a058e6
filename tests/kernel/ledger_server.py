"""A downstream server that pays: it notes each payment in a file, and dies in the middle of the first one.

Usage: ledger_server.py LEDGER
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

LEDGER = Path(sys.argv[1])
SCHEMA = {"type": "object", "properties": {"to": {"type": "string"}, "idempotency_key": {"type": "string"}}}
TOOLS = [{"name": "pay", "description": "Pays somebody.", "inputSchema": SCHEMA}]


def answer(number: object, result: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": number, "result": result}) + "\n")
    sys.stdout.flush()


def pay(number: object, params: dict[str, Any]) -> None:
    first = not LEDGER.exists()
    with LEDGER.open("a", encoding="utf-8") as ledger:
        ledger.write(json.dumps({"arguments": params["arguments"], "meta": params.get("_meta", {})}) + "\n")
    if first:
        os._exit(1)
    answer(number, {"content": [{"type": "text", "text": "paid"}]})


for line in sys.stdin:
    message = json.loads(line)
    match message.get("method"):
        case "initialize":
            about = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}}
            answer(message["id"], {**about, "serverInfo": {"name": "ledger", "version": "1"}})
        case "tools/list":
            answer(message["id"], {"tools": TOOLS})
        case "tools/call":
            pay(message["id"], message["params"])
        case _ if "id" in message:
            answer(message["id"], {})
