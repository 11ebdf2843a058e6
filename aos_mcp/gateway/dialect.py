"""What both dialects have in common: a request that was understood, and how fields are judged.

A field is used, or it is a hint that changes nothing about what a right answer is and may stay unheeded, or it is
refused where it says something other than its default. Fields nobody knows are hints: new ones come every month.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from aos_mcp.abi.errors import AosError, Invalid
from aos_mcp.abi.guest_results import GenerateResult, ModelsResult

Json = dict[str, Any]
Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request in the kernel's form: `arguments` are those of `generate`."""

    arguments: Json
    model: str
    stream: bool = False
    usage_wanted: bool = True
    unheeded: tuple[str, ...] = ()
    """Hints that the kernel does not pass on; the answer's headers name them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """An error on its way out, in the dialect's own form."""

    status: int
    body: Json
    headers: Mapping[str, str]


class EventWriter(Protocol):
    """Writes one streamed answer."""

    def begin(self) -> bytes:
        """Return what comes before all text."""
        ...

    def piece(self, text: str) -> bytes:
        """Return one piece of text."""
        ...

    def ping(self) -> bytes:
        """Return what says only that the call lives."""
        ...

    def end(self, result: GenerateResult) -> bytes:
        """Return what comes after all text: reasoning, tool calls, why it ended, usage."""
        ...

    def error(self, error: AosError) -> bytes:
        """Return the end of an answer that failed on its way."""
        ...


class Dialect(Protocol):
    """One vendor's form of requests, answers, streams and errors."""

    id_prefix: str

    def secret(self, headers: Mapping[str, str]) -> str:
        """Return the key a request carries; empty where it carries none."""
        ...

    def decode(self, body: Fields) -> Asked:
        """Read a request. Raises Invalid for what cannot be done."""
        ...

    def answer(self, identity: str, created: int, result: GenerateResult) -> Json:
        """Return an answer in one piece."""
        ...

    def writer(self, identity: str, created: int, asked: Asked) -> EventWriter:
        """Return what writes a streamed answer."""
        ...

    def models(self, listed: ModelsResult) -> Json:
        """Return a list of models."""
        ...

    def model(self, name: str) -> Json:
        """Return one model."""
        ...

    def fault(self, error: AosError) -> Fault:
        """Return an error in the dialect's shape."""
        ...


def judge(body: Fields, *, used: frozenset[str], defaults: Mapping[str, tuple[object, ...]]) -> tuple[str, ...]:
    """Return the fields that stay unheeded.

    Raises:
        Invalid: a field that would change the answer says something other than its default.
    """
    for name, allowed in defaults.items():
        value = body.get(name)
        if value is not None and value not in allowed:
            raise unsupported(name, "leave it out")
    return tuple(sorted(name for name in body if name not in used and name not in defaults))


def passed_on(body: Fields, *names: str) -> Json:
    """Return the fields that `generate` takes under the same name."""
    return {name: body[name] for name in names if body.get(name) is not None}


def held_to(*, must_call: str | None, one_call: bool, stop: object) -> Json:
    """Return the arguments of `generate` that bind the answer, where the program asks for any."""
    asked = {"must_call": must_call, "one_call": one_call, "stop": stop}
    return {name: value for name, value in asked.items() if value}


def unsupported(what: str, instead: str) -> Invalid:
    """Return the refusal of something that the kernel cannot pass on."""
    return Invalid(f"{what} is not supported by this gateway.", f"Please {instead}.")


def bearer(headers: Mapping[str, str]) -> str:
    """Return the key of an Authorization header, empty where there is none."""
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""


def text_of(value: object, where: str) -> str:
    """Return a value that must be text. Raises Invalid."""
    if not isinstance(value, str):
        raise Invalid(f"{where} is not text.", "See the API's reference for its form.")
    return value


def objects_in(value: object, where: str) -> list[Json]:
    """Return a value that must be a list of objects. Raises Invalid."""
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise Invalid(f"{where} is not a list of objects.", "See the API's reference for its form.")
    return value


def data_of(url: str, where: str) -> str:
    """Return the base64 text in a data URL. Raises Invalid for any other URL: the gateway fetches nothing."""
    head, comma, data = url.partition(",")
    if not (head.startswith("data:") and head.endswith(";base64") and comma):
        raise unsupported(f"{where} by URL", "send a data: URL with base64")
    return data


def event(data: Fields, name: str = "") -> bytes:
    """Return one server-sent event."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()
