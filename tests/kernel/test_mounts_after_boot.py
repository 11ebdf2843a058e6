"""After a boot, agents run at once and their downstream servers are still starting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import anyio

from aos_mcp.abi.mount import MountedTool
from aos_mcp.testing.devices import RecordingMounts, a_tool
from aos_mcp.testing.kernels import kernel_on
from aos_mcp.testing.model import ScriptedModel, ScriptedModels, calls, says


class StartingMounts(RecordingMounts):
    """Servers that have no tools until somebody waited for them."""

    def __init__(self) -> None:
        super().__init__({a_tool("s__read", read_only=True): lambda arguments: "read"})
        self._up = False

    def tools(self) -> Sequence[MountedTool]:
        return super().tools() if self._up else []

    def tool(self, name: str) -> MountedTool | None:
        return super().tool(name) if self._up else None

    async def settled(self, timeout_s: float) -> None:
        await anyio.lowlevel.checkpoint()
        self._up = True


async def test_an_agent_that_was_given_tools_by_name_waits_for_their_servers(tmp_path: Path) -> None:
    mounts = StartingMounts()
    model = ScriptedModel("scripted/one", (calls(("s__read", {}), key="a"), says("done")))
    async with kernel_on(tmp_path, ScriptedModels(model), mounts=mounts) as k:
        with anyio.fail_after(10):
            done = await k.call("spawn_agent", task="x", tools=["s__*"], wait_s=8)
    assert done.exit_code == "done"
    assert [name for name, _ in mounts.calls] == ["s__read"]
    assert [tool.name for tool in model.prompts[0].tools][-1] == "s__read"
