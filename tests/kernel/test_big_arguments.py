"""What a call carries does not decide what its audit record costs."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from aos_mcp.abi.errors import AosError, Invalid
from aos_mcp.kernel.call import brief
from aos_mcp.testing.kernels import kernel_on
from aos_mcp.testing.model import ScriptedModel, ScriptedModels, says


async def test_ten_megabytes_of_wrong_arguments_are_refused_and_the_kernel_goes_on(tmp_path: Path) -> None:
    huge = "x" * 10_000_000
    async with kernel_on(tmp_path, ScriptedModels(ScriptedModel("scripted/one", (says("x"),)))) as k:
        with anyio.fail_after(20):
            for name, arguments in (
                ("page_out", {"content": huge}),
                ("spawn_agent", {"task": huge}),
                ("search_pages", {"query": huge}),
                ("call_tool", {"name": "a__b", "arguments": {"deep": [huge]}, "more": 1}),
                ("list_agents", {huge: 1}),
            ):
                with pytest.raises(AosError) as refused:
                    await k.call(name, **arguments)
                assert isinstance(refused.value, Invalid), name
            assert (await k.call("kernel_status")).version == "test"
            records = (await k.call("read_audit", verify=True)).records
    assert all(len(record.detail) <= 2_000 for record in records)


def test_a_secret_that_a_cut_goes_through_is_not_shown_in_half() -> None:
    key = "sk-ant-api03-" + "a" * 90
    shown = brief({"text": "y" * (2_000 - 40) + key + "z" * 5_000}, lambda text: text.replace(key, "[redacted]"))
    assert "sk-ant" not in shown
