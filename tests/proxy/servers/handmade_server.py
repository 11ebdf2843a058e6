"""A downstream written by hand over stdio, in the older revisions' handshake: it can misbehave as no SDK would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

TOOLS: dict[str, dict[str, Any]] = {
    name: {"name": name, "description": f"Does {name}.", "inputSchema": {"type": "object"}}
    for name in (
        "echo",
        "hang",
        "flood",
        "ask",
        "progress",
        "refuse",
        "unknown",
        "fail",
        "grow",
        "environment",
        "odd",
        "cancelled",
    )
}
EXTRA = int(os.environ.get("EXTRA_TOOLS", "0"))
PAGE = 5
cancelled: list[object] = []


def send(**message: object) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def text(number: object, body: str, **more: object) -> None:
    send(id=number, result={"content": [{"type": "text", "text": body}], **more})


def call(number: object, params: dict[str, Any]) -> None:
    arguments = params.get("arguments", {})
    match params["name"]:
        case "echo":
            text(number, json.dumps({"arguments": arguments, "meta": params.get("_meta", {})}), vendorField=[None, 1])
        case "hang":
            pass
        case "flood":
            text(number, "x" * int(arguments["bytes"]))
        case "progress":
            token = params["_meta"]["progressToken"]
            for n in range(1, 201):
                send(method="notifications/progress", params={"progressToken": token, "progress": n, "total": 200})
            text(number, "done")
        case "grow":
            TOOLS["late"] = {"name": "late", "inputSchema": {"type": "object"}}
            send(method="notifications/tools/list_changed")
            text(number, "grown")
        case "environment":
            text(number, json.dumps(dict(os.environ)))
        case "cancelled":
            text(number, json.dumps(cancelled))
        case other:
            misbehave(number, other)


def misbehave(number: object, name: str) -> None:
    match name:
        case "ask":
            asked = {"message": "Sure?", "requestedSchema": {"type": "object", "properties": {}}}
            send(id="q1", method="elicitation/create", params=asked)
            answer = json.loads(sys.stdin.readline())
            text(number, json.dumps(answer.get("error")), isError=True)
        case "refuse":
            send(id=number, error={"code": -32602, "message": "b must be a number"})
        case "unknown":
            send(id=number, error={"code": -32601, "message": "what?"})
        case "fail":
            send(id=number, error={"code": -32603, "message": "the disk\u202e is full"})
        case "odd":
            send(id=number, result={"content": "not a list"})


def list_tools(number: object, params: dict[str, Any]) -> None:
    extra = [{"name": f"extra{n}", "inputSchema": {"type": "object"}} for n in range(EXTRA)]
    tools = [*TOOLS.values(), *extra]
    start = int(params.get("cursor", 0))
    more = {"nextCursor": str(start + PAGE)} if start + PAGE < len(tools) else {}
    send(id=number, result={"tools": tools[start : start + PAGE], **more})


def serve() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        number, params = message.get("id"), message.get("params", {})
        match message.get("method"):
            case "initialize":
                info = {"name": "raw", "version": "1"}
                capabilities = {"tools": {"listChanged": True}}
                send(
                    id=number,
                    result={"protocolVersion": "2025-06-18", "capabilities": capabilities, "serverInfo": info},
                )
            case "tools/list":
                list_tools(number, params)
            case "tools/call":
                call(number, params)
            case "notifications/cancelled":
                cancelled.append(params.get("requestId"))
            case _ if number is not None:
                if "CHOKE" in os.environ:
                    sys.exit("what is that?")
                send(id=number, error={"code": -32601, "message": "Method not found"})


def main() -> None:
    match sys.argv[1:]:
        case ["exit"]:
            sys.exit(f"the configuration is missing, token {os.environ.get('TOKEN')}")
        case ["silent"]:
            sys.stdin.read()
        case ["noise"]:
            print("Welcome to the noisy server!\n\n\x1b[1m{broken json", flush=True)
            serve()
        case ["babble"]:
            while True:
                print("not a message", flush=True)
        case ["stubborn"]:
            # Outlives end of input and SIGTERM, and has a child of its own that does too.
            script = "import signal,time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(600)"
            child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
            assert child.stdout is not None
            child.stdout.readline()
            sys.stderr.write(f"child={child.pid}\n")
            sys.stderr.flush()
            with open(os.environ["PID_FILE"], "w", encoding="utf-8") as file:
                file.write(f"{os.getpid()} {child.pid}")
            serve()
            time.sleep(600)
        case _:
            serve()


main()
