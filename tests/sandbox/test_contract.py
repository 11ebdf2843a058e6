from __future__ import annotations

import anyio
import pytest

from aos_mcp.ports import Sandbox, Workspaces
from aos_mcp.testing.sandbox_checks import CONTRACT_CHECKS, Check
from aos_mcp.testing.sandbox_escapes import ESCAPE_CHECKS


@pytest.mark.parametrize("check", CONTRACT_CHECKS, ids=lambda check: check.__name__)
async def test_the_contract_holds(check: Check, sandbox: Sandbox, workspaces: Workspaces) -> None:
    with anyio.fail_after(60):
        await check(sandbox, workspaces)


@pytest.mark.parametrize("check", ESCAPE_CHECKS, ids=lambda check: check.__name__)
async def test_the_way_out_is_closed(check: Check, sandbox: Sandbox, workspaces: Workspaces) -> None:
    with anyio.fail_after(60):
        await check(sandbox, workspaces)
