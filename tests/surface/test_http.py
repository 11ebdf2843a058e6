"""The daemon over HTTP: both eras, SSE, the guard, the dashboard."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from starlette.datastructures import Headers

from aos_mcp.abi.errors import Invalid
from aos_mcp.daemon import read_status
from aos_mcp.endpoint import Endpoint, admit, refuse
from tests.surface.conftest import COMMAND, ERAS, end_daemon

TOKEN = "a-token-of-some-length"


@asynccontextmanager
async def served(environment: dict[str, str], home: Path, token: str | None = None) -> AsyncIterator[str]:
    """Run the daemon with HTTP; give its URL."""
    env = environment if token is None else {**environment, "AOS_HTTP_TOKEN": token}
    async with await anyio.open_process([*COMMAND, "serve", "--http", "127.0.0.1:0"], env=env, stderr=None) as process:
        try:
            with anyio.fail_after(60):
                while (status := read_status(home)) is None or not await _answers(status.http):
                    await anyio.lowlevel.checkpoint()
                yield status.http
        finally:
            end_daemon(home)
            assert await process.wait() == 0


async def _answers(url: str) -> bool:
    try:
        async with httpx2.AsyncClient() as web:
            return bool((await web.get(f"{url}/health")).json()["status"] == "ok")
    except (httpx2.TransportError, httpx2.InvalidURL):
        return False


@ERAS
async def test_a_host_is_served_over_streamable_http(environment: dict[str, str], home: Path, era: str) -> None:
    async with served(environment, home) as url, Client(f"{url}/mcp", mode=era) as client:
        assert len((await client.list_tools()).tools) == 17
        kept = await client.call_tool("page_out", {"content": "over HTTP"})
        back = await client.call_tool("page_in", {"page_id": kept.structured_content["page_id"]})
        assert back.structured_content["content"] == "over HTTP"


@ERAS
async def test_a_host_is_served_over_sse(environment: dict[str, str], home: Path, era: str) -> None:
    async with served(environment, home) as url, Client(sse_client(f"{url}/sse"), mode=era) as client:
        assert not (await client.call_tool("kernel_status", {})).is_error


async def test_one_kernel_is_behind_every_transport(environment: dict[str, str], home: Path) -> None:
    async with served(environment, home) as url:
        async with Client(f"{url}/mcp") as first:
            kept = await first.call_tool("page_out", {"content": "shared"})
        async with Client(sse_client(f"{url}/sse"), mode="legacy") as second:
            read = await second.read_resource(f"aos://page/{kept.structured_content['page_id']}")
        assert read.contents[0].text == "shared"  # type: ignore[union-attr]


async def test_without_a_token_the_dashboard_shows_and_changes_nothing(environment: dict[str, str], home: Path) -> None:
    async with served(environment, home) as url, httpx2.AsyncClient(base_url=url) as web:
        page = await web.get("/")
        assert page.status_code == 200
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "NONCE" not in page.text
        state = (await web.get("/api/status")).json()
        assert state["status"]["version"]
        assert state["may_answer"] is False
        assert (await web.post("/api/approvals/ap_x", json={"decision": "allow"})).status_code in {404, 405}
        metrics = await web.get("/metrics")
        assert "aos_syscalls_total" in metrics.text


async def test_a_token_is_asked_for_everywhere_but_at_health(environment: dict[str, str], home: Path) -> None:
    async with served(environment, home, TOKEN) as url, httpx2.AsyncClient(base_url=url) as web:
        assert (await web.get("/health")).status_code == 200
        for path in ("/", "/mcp", "/sse", "/metrics", "/api/status"):
            refused = await web.get(path)
            assert refused.status_code == 401, path
            assert "www-authenticate" in refused.headers
        wrong = await web.get("/metrics", headers={"Authorization": "Bearer wrong"})
        assert wrong.status_code == 401
        right = await web.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        assert right.status_code == 200
        basic = base64.b64encode(f"me:{TOKEN}".encode()).decode()
        assert (await web.get("/", headers={"Authorization": f"Basic {basic}"})).status_code == 200


async def test_an_approval_is_answered_on_the_dashboard(environment: dict[str, str], home: Path) -> None:
    rule = '[[rules]]\neffect = "ask"\ntool = "page_out"\n[sandbox]\ndrivers = []\n'
    (home / "aos.toml").write_text(rule, "utf-8")
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with served(environment, home, TOKEN) as url, httpx2.AsyncClient(base_url=url, headers=headers) as web:
        async with Client(streamable_http_client(f"{url}/mcp", http_client=web)) as client:
            asked = await client.call_tool("page_out", {"content": "may I?"})
            assert asked.structured_content["code"] == "approval_required"
            approval = asked.structured_content["approval_id"]
            shown = (await web.get("/api/status")).json()["approvals"]["approvals"]
            assert [row["approval_id"] for row in shown] == [approval]
            plain = await web.post(f"/api/approvals/{approval}", content=json.dumps({"decision": "allow"}))
            assert plain.status_code == 415
            done = await web.post(f"/api/approvals/{approval}", json={"decision": "allow"})
            assert done.json()["state"] == "allowed"
            again = await client.call_tool("page_out", {"content": "may I?"})
            assert again.structured_content["page_id"]


async def test_an_address_others_can_reach_needs_a_token(environment: dict[str, str]) -> None:
    with anyio.fail_after(30):
        refused = await anyio.run_process([*COMMAND, "serve", "--http", "0.0.0.0:0"], env=environment, check=False)
    assert refused.returncode != 0
    assert b"AOS_HTTP_TOKEN" in refused.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "::", "example.org"])
def test_only_loopback_is_served_without_a_token(host: str) -> None:
    with pytest.raises(Invalid):
        admit(host, 8787, None)
    assert not admit(host, 8787, TOKEN).loopback


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "127.0.0.1:8787"}, None),
        ({"host": "localhost"}, None),
        ({"host": "[::1]:8787"}, None),
        ({"host": "evil.example"}, 421),
        ({"host": "127.0.0.1.evil.example:8787"}, 421),
        ({}, 421),
        ({"host": "localhost:8787", "origin": "http://localhost:6274"}, None),
        ({"host": "localhost:8787", "origin": "https://evil.example"}, 403),
        ({"host": "localhost:8787", "origin": "null"}, 403),
        ({"host": "localhost:8787", "origin": "http://localhost.evil.example"}, 403),
        ({"host": "localhost:8787", "origin": "http://["}, 403),
    ],
)
def test_a_forged_host_or_a_foreign_page_is_refused(headers: dict[str, str], status: int | None) -> None:
    endpoint = Endpoint(host="127.0.0.1", port=8787, token=None)
    answer = refuse(endpoint, "/mcp", Headers(headers))
    assert (answer.status_code if answer is not None else None) == status


def test_elsewhere_only_the_very_address_asked_for_is_our_own_page() -> None:
    endpoint = Endpoint(host="0.0.0.0", port=8787, token=TOKEN)
    bearer = {"authorization": f"Bearer {TOKEN}", "host": "aos.example:8787"}

    def status(**more: Any) -> int | None:
        answer = refuse(endpoint, "/", Headers({**bearer, **more}))
        return answer.status_code if answer is not None else None

    assert status() is None
    assert status(origin="https://aos.example:8787") is None
    assert status(origin="https://other.example") == 403
    assert status(authorization="Bearer other") == 401
