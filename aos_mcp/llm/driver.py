"""A model call, whatever the dialect: open the stream, read it under a deadline, translate what goes wrong, settle.

The dialects say how to ask and how to read; this module says when to give up. Nothing is retried here: who waits, and
for how long, is the kernel's decision.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import anyio
import jiter

from aos_mcp.abi import limits
from aos_mcp.abi.budget import Usage
from aos_mcp.abi.completion import Completion, ModelInfo, Prompt, RateLimits
from aos_mcp.abi.errors import ModelError, ModelFault
from aos_mcp.llm.draft import COUNT_MAX, Draft, Echo, estimate_tokens, prompt_chars
from aos_mcp.llm.faults import codes_of, fault_for, model_error, retry_after_s, said_by
from aos_mcp.llm.link import Link
from aos_mcp.llm.prices import PriceTable, microusd
from aos_mcp.llm.providers import Quirks
from aos_mcp.llm.rate_limits import read_limits
from aos_mcp.llm.sse import EventStream
from aos_mcp.ports import Clock, Deliver, Metered

_ESTIMATE_SLACK = 1.35
"""Dense text has this many times the tokens that its characters suggest."""

_ODD = (ValueError, TypeError, AttributeError, KeyError, RecursionError)
"""What reading an answer raises where it is not of the dialect, as a page of a captive portal is not."""

UNABLE = {
    "must_call": "cannot be made to call a tool",
    "one_call": "cannot be held to one tool call",
    "stop": "does not heed stop texts",
    "top_k": "does not know top_k",
}
"""What is said of a model that does not heed one of `HELD_TO`."""

Fields = Mapping[str, Any]
"""A JSON object of a provider, before it is decoded."""


class Decoder(ABC):
    """Reads one dialect's events into a draft."""

    @abstractmethod
    def feed(self, event: str, fields: Fields) -> None:
        """Take one event. Error events never come here."""

    @abstractmethod
    def whole(self, fields: Fields) -> None:
        """Take a body that came in one piece, from a server that does not stream."""

    @abstractmethod
    def close(self) -> None:
        """Take note that nothing more will come."""


class Driver(ABC):
    """One model at one provider over HTTP (see `ports.LanguageModel`)."""

    def __init__(self, model: str, link: Link, prices: PriceTable, clock: Clock) -> None:
        self.name = f"{link.row.name}/{model}"
        self._model = model
        self._link = link
        self._row = link.row
        self._prices = prices
        self._clock = clock
        self._inputs = link.row.inputs(model)
        self._heeds = link.row.heeds()
        self._continues = link.row.continues(model)
        self._vocabulary = link.row.vocabulary(model)
        self._quirks = tuple(name for name, value in link.row.quirks.model_dump().items() if value is True)

    @property
    def key_present(self) -> bool:
        """Whether a call could be made."""
        return self._link.key_present

    async def describe(self) -> ModelInfo:
        """See `ports.LanguageModel.describe`."""
        await self._prices.load()
        row = self._row
        return ModelInfo(
            name=self.name,
            dialect=row.dialect,
            context_tokens=self._prices.context_tokens(row, self._model) or row.context_tokens,
            output_tokens_max=row.output_tokens_max,
            price=self._prices.quote(row, self._model, self._clock.now()),
            key_present=self._link.key_present,
            quirks=self._quirks,
            continues=self._continues,
            inputs=self._inputs,
            heeds=self._heeds,
            vocabulary=self._vocabulary,
        )

    async def complete(self, prompt: Prompt, deliver: Deliver) -> Completion:
        """See `ports.LanguageModel.complete`."""
        self._admit(prompt)
        await self._prices.load()
        client = await self._link.client(self._row.quirks.prefix_base_url if prompt.continuing else None)
        counts = self._row.quirks.progress != "none"
        echo, holds = Echo(self._repeated(prompt)), self._answers_by_tool(prompt)
        draft = Draft(prompt, deliver, echo, counts_as_it_goes=counts, holds=holds)
        started_at, whole, refused = self._clock.now(), False, False
        try:
            with anyio.fail_after(limits.MODEL_CALL_S):
                await self._stream(client, draft)
            whole = True
        except TimeoutError:
            raise self._broken(draft, f"no end after {limits.MODEL_CALL_S:.0f} seconds") from None
        except ModelError:
            refused = not draft.begun  # nobody bills for what they did not begin
            raise
        finally:
            if not (whole or refused) and isinstance(deliver, Metered) and (draft.begun or draft.usage is not None):
                deliver.used(self._spent(draft, started_at))
        return self._settle(draft, started_at)

    def _spent(self, draft: Draft, at: float) -> Usage:
        """Return what a call used that did not come to its end."""
        used = replace(draft.usage or Usage(), output_tokens=draft.output_tokens)
        if not used.prompt_tokens:
            return used  # the prompt is not counted yet, so neither is the cost
        return replace(used, microusd=min(self._prices.cost(self._row, self._model, used, at) or 0, COUNT_MAX))

    @abstractmethod
    def _open(self, client: Any, prompt: Prompt) -> AbstractAsyncContextManager[Any]:
        """Return the request, to be sent on entry and closed on exit."""

    @abstractmethod
    def _decoder(self, draft: Draft) -> Decoder:
        """Return a reader for this dialect's events."""

    @abstractmethod
    def _answers_by_tool(self, prompt: Prompt) -> bool:
        """Tell whether a schema is asked for by the answer tool."""

    def _repeated(self, prompt: Prompt) -> str:
        """Return what the answer may repeat of the beginning it is given."""
        return prompt.continuing if self._row.quirks.prefix_echo else ""

    def _admit(self, prompt: Prompt) -> None:
        """Refuse what this model does not take, before anything is sent and paid for."""
        if prompt.continuing and not self._continues:
            raise model_error(self._row, ModelFault.BAD_REQUEST, f"{self._model} does not go on from a beginning")
        for field, unable in UNABLE.items():
            if getattr(prompt, field) and field not in self._heeds:
                raise ModelError(
                    ModelFault.BAD_REQUEST,
                    f"{self.name} {unable}.",
                    "Leave it out, or use a model that can; quirks in aos.toml can say that this one does.",
                )
        for attachment in prompt.attachments:
            if attachment.kind not in self._inputs:
                raise ModelError(
                    ModelFault.BAD_REQUEST,
                    f"{self.name} does not take {attachment.kind}s ({attachment.name or attachment.media_type}).",
                    f"Use a model that does, or name it under quirks.{attachment.kind}s in aos.toml if it does.",
                )

    @property
    @abstractmethod
    def _sdk(self) -> Any:
        """The SDK module, for its errors."""

    async def _stream(self, client: Any, draft: Draft) -> None:
        import httpx2  # loaded with the SDK by now

        sdk = self._sdk
        try:
            async with self._open(client, draft.prompt) as response:
                await self._read(response, draft)
        except sdk.APIStatusError as error:
            raise self._refused(error, draft) from None
        except sdk.APIError as error:
            raise self._broken(draft, _cause(error)) from None
        except (httpx2.TransportError, httpx2.StreamError, httpx2.DecodingError) as error:
            raise self._broken(draft, type(error).__name__) from None

    async def _read(self, response: Any, draft: Draft) -> None:
        draft.limits = self._limits(response.headers)
        try:
            await self._decode(response, self._decoder(draft), draft)
        except _ODD:
            raise self._broken(draft, "the answer is not in the dialect's form") from None

    async def _decode(self, response: Any, decoder: Decoder, draft: Draft) -> None:
        if "event-stream" in response.headers.get("content-type", "event-stream"):
            events = EventStream()
            async for chunk in response.iter_bytes():
                self._feed(decoder, events.feed(chunk), draft)
            self._feed(decoder, events.close(), draft)
        else:
            body = _parse(await response.read())
            self._check("", body, draft)
            decoder.whole(body)
        if not draft.finished:
            raise self._broken(draft, "it ended before the answer did")
        draft.close()
        decoder.close()
        draft.release()

    def _feed(self, decoder: Decoder, events: list[tuple[str, bytes]], draft: Draft) -> None:
        for event, data in events:
            if data == b"[DONE]":
                draft.finished = draft.finished is not False  # some give no reason; an odd one is no end
                continue
            fields = _parse(data)
            self._check(event, fields, draft)
            decoder.feed(event, fields)

    def _check(self, event: str, fields: Fields, draft: Draft) -> None:
        """Raise for an error inside an answer that began well."""
        base = fields.get("base_resp") or {}
        if not isinstance(base, dict):
            raise TypeError("base_resp is no object")
        status = base.get("status_code", 0)
        if event != "error" and not fields.get("error") and fields.get("type") != "error" and not status:
            return
        fault = fault_for(None, codes_of(fields))
        if fault is None:
            fault = ModelFault.CUT_STREAM if draft.begun else ModelFault.TRANSPORT
        raise self._error(fault, said_by(fields), draft)

    def _refused(self, error: Any, draft: Draft) -> ModelError:
        codes = codes_of(error.body)
        fault = fault_for(error.status_code, codes) or ModelFault.TRANSPORT
        if fault is ModelFault.BAD_REQUEST and self._fills_the_window(draft.prompt):
            # Most providers answer an oversized prompt with a bare 400 whose reason is only in the wording.
            fault = ModelFault.CONTEXT_TOO_LONG
        if fault is ModelFault.AUTH:
            self._link.forget()
        wait_s = retry_after_s(error.response.headers, self._clock.now())
        draft.limits = self._limits(error.response.headers)
        said = f"HTTP {error.status_code} {said_by(error.body)}".strip()
        return self._error(fault, said, draft, wait_s)

    def _limits(self, headers: Mapping[str, str]) -> RateLimits | None:
        return read_limits(headers, self._row.quirks.limits, self._clock.now())

    def _fills_the_window(self, prompt: Prompt) -> bool:
        window = self._prices.context_tokens(self._row, self._model) or self._row.context_tokens
        return estimate_tokens(prompt_chars(prompt)) * _ESTIMATE_SLACK + prompt.max_output_tokens > window

    def _broken(self, draft: Draft, what: str) -> ModelError:
        return self._error(ModelFault.CUT_STREAM if draft.begun else ModelFault.TRANSPORT, what, draft)

    def _error(self, fault: ModelFault, said: str, draft: Draft, wait_s: float | None = None) -> ModelError:
        return model_error(
            self._row,
            fault,
            self._link.redact(said),
            retry_after_s=wait_s,
            partial_text=draft.partial_text,
            output_tokens=draft.output_tokens,
            limits=draft.limits,
        )

    def _settle(self, draft: Draft, at: float) -> Completion:
        usage = draft.settled_usage()
        if draft.cost_usd is not None:
            cost: int | None = microusd(draft.cost_usd)
        else:
            cost = self._prices.cost(self._row, self._model, usage, at)
        return Completion(
            model=self.name,
            reply=draft.reply(),
            usage=replace(usage, microusd=min(cost or 0, COUNT_MAX)),
            priced=cost is not None,
            limits=draft.limits,
        )


def extra_body(prompt: Prompt, quirks: Quirks) -> dict[str, Any]:
    """Return the fields of a request that the dialect does not know: the row's own, and those of this prompt."""
    more: dict[str, Any] = dict(quirks.extra_body)
    if prompt.continuing:
        more |= quirks.prefix_body
    if quirks.progress == "timings":
        more["timings_per_token"] = True
    if prompt.top_k is not None:
        more["top_k"] = prompt.top_k
    if quirks.priority_field is not None and prompt.native_priority is not None:
        more[quirks.priority_field] = prompt.native_priority
    return more


def _parse(data: bytes) -> Fields:
    try:
        fields = jiter.from_json(data)
    except ValueError:
        fields = json.loads(data.decode("utf-8", "replace"))  # half of a surrogate pair, or no UTF-8: odd, not wrong
    if not isinstance(fields, dict):
        raise ValueError("not an object")
    return fields


def _cause(error: BaseException) -> str:
    return type(error.__cause__ or error).__name__
