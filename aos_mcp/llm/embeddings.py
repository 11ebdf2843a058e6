"""An embeddings endpoint of a server on the user's own machine, in OpenAI's dialect.

Only local providers are spoken to: embedding goes on in the background, outside of any agent's budget, so it must cost
nothing. It owns no connection; the provider's link does.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import anyio

from aos_mcp.abi.errors import TimedOut, Unavailable
from aos_mcp.abi.limits import EMBED_CALL_S
from aos_mcp.llm.link import Link


class EndpointEmbedder:
    """`ports.Embedder` over `POST …/embeddings`."""

    def __init__(self, model: str, link: Link) -> None:
        """Take the model's name at the provider. Nothing is called yet."""
        self.name = f"{link.row.name}/{model}"
        self._model = model
        self._link = link

    async def embed(self, texts: Sequence[str]) -> Sequence[bytes]:
        """See `ports.Embedder.embed`."""
        client = await self._link.client()
        import openai  # loaded with the client

        try:
            with anyio.fail_after(EMBED_CALL_S):
                answer = await client.embeddings.create(
                    model=self._model, input=[text or " " for text in texts], encoding_format="float"
                )
        except TimeoutError:
            raise TimedOut(
                f"{self.name} did not embed {len(texts)} texts within {EMBED_CALL_S:.0f} s.",
                "Check that the server has loaded the model. Search goes on by words.",
            ) from None
        except openai.APIError as error:
            raise Unavailable(
                f"{self.name} does not embed: {type(error.__cause__ or error).__name__}.",
                "Check that the server runs, and that search.model in aos.toml names one of its embedding models.",
            ) from None
        found = sorted(answer.data, key=lambda each: each.index)
        return [_unit(each.embedding) for each in found]


def _unit(values: Sequence[float]) -> bytes:
    length = sum(value * value for value in values) ** 0.5 or 1.0
    return struct.pack(f"<{len(values)}f", *(value / length for value in values))
