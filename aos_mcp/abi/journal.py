"""The journal: the process itself is its steps. Intent, then effect, then result."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from aos_mcp.abi.handle import Digest, Pid


class EffectClass(StrEnum):
    """What may be done about an act of which only the intent is on record."""

    PURE = "pure"
    """Re-run."""
    IDEMPOTENT = "idempotent"
    """Re-run with the same key."""
    UNSAFE = "unsafe"
    """Never re-run: the step becomes `unknown` until somebody reconciles it."""
    LLM = "llm"
    """Re-run, and paid for again."""


class StepState(StrEnum):
    """Where a step stands."""

    INTENT = "intent"
    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Outcome(StrEnum):
    """What somebody found out about a step of unknown outcome."""

    DONE = "done"
    """It happened."""
    REDO = "redo"
    """It did not, and is to be done."""
    GIVE_UP = "give_up"
    """Nobody will find out; it is left as it is."""


HOST_JOURNAL = "host:"
"""`Step.pid` of a host's act is this and the person it works for."""
MODEL_CALL = "model"
"""`Step.call` of a model turn; every other step names a syscall."""
SUMMARY = "summary"
"""`Step.call` of a model's summary of pages that leave; where none was written, why not."""

FALLBACK = "fallback"
"""`Step.call` of a move to the next model of a chain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of one process. Payloads are stored once, by digest."""

    pid: Pid
    number: int
    call: str
    effect: EffectClass
    state: StepState
    intent: Digest
    result: Digest | None = None
    request_id: str | None = None
    """The model's tool request this answers, where it does."""
    idempotency_key: str = ""
    fence: int
    started_at: float
    ended_at: float | None = None
    basis: Digest | None = None
    """Of a model call: the payload with the system text and the tools it was made with."""
    stamp: int = 0
    """The state of the page table that it began with, see `ports.Transaction.page_table`. Given by the store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A position in a journal, with the page table and the workspace as they were there."""

    checkpoint_id: str
    pid: Pid
    owner: str
    step: int
    label: str
    at: float
    snapshot: Digest
    """Payload: JSON of the process row, of what its budget had left, and of the stamp of its page table."""
    manifest: Digest | None
    """Payload: JSON of the workspace's files, each by digest."""
