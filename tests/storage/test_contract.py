"""The SQLite driver passes the contract of every store."""

from __future__ import annotations

import anyio
import pytest

from aos_mcp.testing.store_checks import CHECKS, DEADLINE_S
from aos_mcp.testing.store_record_checks import Check, OpenStore


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_a_store_keeps_the_contract(check: Check, open_store: OpenStore) -> None:
    with anyio.fail_after(DEADLINE_S):
        await check(open_store)
