"""What the calls of the gateway answer: those of guests, and those about their keys. See `abi.results`."""

from __future__ import annotations

from typing import Literal

from aos_mcp.abi.process import ProcessState
from aos_mcp.abi.results import Result, UsageResult


class RequestRow(Result):
    """A tool call that the model asks for; `arguments` is JSON text as it wrote it."""

    request_id: str
    name: str
    arguments: str


class GenerateResult(Result):
    """Answer of `generate`: the model's turn."""

    text: str
    reasoning: str = ""
    reasoning_signature: str = ""
    requests: list[RequestRow] = []
    stop: Literal["end", "tools", "length", "refused"]
    stop_text: str = ""
    usage: UsageResult
    model: str
    replayed: bool = False


class CountTokensResult(Result):
    """Answer of `count_tokens`: what would be reserved for the prompt, in tokens."""

    tokens: int


class ModelsResult(Result):
    """Answer of `list_models`: `default` is what any other name stands for."""

    default: str
    models: list[str]


class IssueKeyResult(Result):
    """Answer of `issue_key`: `key` is shown here, once, and kept nowhere."""

    pid: str
    key_id: str
    key: str
    name: str
    model: str


class KeyRow(Result):
    """One key of a guest."""

    key_id: str
    pid: str
    name: str
    state: ProcessState
    model: str
    created_at: float
    revoked_at: float | None = None


class KeysResult(Result):
    """Answer of `list_keys`, newest first."""

    keys: list[KeyRow]


class RevokeKeyResult(Result):
    """Answer of `revoke_key`: the guest, and where it stands now."""

    key_id: str
    pid: str
    state: ProcessState
