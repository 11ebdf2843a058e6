"""The dashboard: one static page, and the JSON it polls. Everything it shows and does goes through the gate.

Promises that the page runs no script but its own, loads nothing from elsewhere, and that an approval can be answered
here only where a token proves who asks.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from pathlib import Path

from pydantic import BaseModel, JsonValue
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from aos_mcp.abi.errors import AosError, ErrorCode

Act = Callable[[str, Mapping[str, object]], Awaitable[BaseModel]]
"""Makes one syscall on behalf of the operator."""

AGENTS_SHOWN = 100
RECORDS_SHOWN = 20

PARTS: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "status": ("kernel_status", {}),
    "agents": ("list_agents", {"limit": AGENTS_SHOWN}),
    "approvals": ("list_approvals", {}),
    "audit": ("read_audit", {"limit": RECORDS_SHOWN}),
}

HTTP_STATUS: Mapping[ErrorCode, HTTPStatus] = {
    ErrorCode.INVALID: HTTPStatus.BAD_REQUEST,
    ErrorCode.DENIED: HTTPStatus.FORBIDDEN,
    ErrorCode.NOT_FOUND: HTTPStatus.NOT_FOUND,
    ErrorCode.CONFLICT: HTTPStatus.CONFLICT,
    ErrorCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
}


def routes(act: Act, *, may_answer: bool) -> list[Route]:
    """Return the page at `/`, its data at `/api/status`, and where answers go, if they may be given here."""
    desk = _Desk(act, may_answer)
    shown = [Route("/", desk.page, methods=["GET"]), Route("/api/status", desk.status, methods=["GET"])]
    if may_answer:
        shown.append(Route("/api/approvals/{approval_id}", desk.answer, methods=["POST"]))
    return shown


class _Desk:
    def __init__(self, act: Act, may_answer: bool) -> None:
        self._act = act
        self._may_answer = may_answer
        self._page = Path(__file__).with_name("dashboard_page.html").read_text("utf-8")

    async def page(self, request: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        headers = {
            "Content-Security-Policy": policy,
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        return HTMLResponse(self._page.replace("NONCE", nonce), headers=headers)

    async def status(self, request: Request) -> Response:
        parts: dict[str, JsonValue] = {"may_answer": self._may_answer}
        try:
            for part, (call, arguments) in PARTS.items():
                parts[part] = (await self._act(call, arguments)).model_dump(mode="json")
        except AosError as error:
            return _failed(error)
        return JSONResponse(parts, headers={"Cache-Control": "no-store"})

    async def answer(self, request: Request) -> Response:
        # A page of another origin cannot send this type without asking first, and it is never told yes.
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return JSONResponse({"message": "Send JSON."}, status_code=HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        try:
            given: object = await request.json()
        except ValueError:
            given = None
        if not isinstance(given, dict):
            return JSONResponse({"message": "The body is no JSON object."}, status_code=HTTPStatus.BAD_REQUEST)
        arguments = {
            "approval_id": request.path_params["approval_id"],
            "decision": given.get("decision"),
            "remember": given.get("remember", False),
        }
        try:
            result = await self._act("answer_approval", arguments)
        except AosError as error:
            return _failed(error)
        return JSONResponse(result.model_dump(mode="json"))


def _failed(error: AosError) -> Response:
    body = {"code": str(error.code), "message": error.message, "hint": error.hint}
    return JSONResponse(body, status_code=HTTP_STATUS.get(error.code, HTTPStatus.INTERNAL_SERVER_ERROR))
