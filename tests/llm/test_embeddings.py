"""An embeddings endpoint on the user's own machine, over a real socket."""

from __future__ import annotations

import struct

import pytest

from aos_mcp.abi.errors import Invalid, Unavailable
from aos_mcp.abi.settings import ProviderSettings, Settings
from aos_mcp.llm.catalogue import Catalogue
from aos_mcp.ports import Clock
from aos_mcp.testing.providers import ProviderServer


async def test_a_local_server_gives_unit_vectors_in_the_order_of_the_texts(
    server: ProviderServer, clock: Clock
) -> None:
    settings = Settings(providers={"ollama": ProviderSettings(base_url=f"{server.url}/v1")})
    async with Catalogue(settings, {}, clock) as catalogue:
        embedder = catalogue.embedder("ollama/letters")
        assert embedder.name == "ollama/letters"
        first, second, empty = await embedder.embed(["aaab", "b", ""])
    one, other = struct.unpack("<26f", first), struct.unpack("<26f", second)
    assert one[0] == pytest.approx(0.9487, abs=1e-4)
    assert other[1] == 1.0
    assert set(struct.unpack("<26f", empty)) == {0.0}


async def test_a_server_that_is_not_there_is_unavailable(clock: Clock) -> None:
    settings = Settings(providers={"ollama": ProviderSettings(base_url="http://127.0.0.1:9/v1")})
    async with Catalogue(settings, {}, clock) as catalogue:
        with pytest.raises(Unavailable, match="does not embed"):
            await catalogue.embedder("ollama/letters").embed(["owl"])


@pytest.mark.parametrize("name", ["openai/text-embedding-3-small", "anthropic/x", "nobody/x", "ollama", ""])
async def test_what_could_cost_money_or_is_not_known_is_refused(catalogue: Catalogue, name: str) -> None:
    with pytest.raises(Invalid):
        catalogue.embedder(name)
