"""What the calls about an agent's past answer: its journal, its checkpoints, why it did something, what came of it.

Beside `abi.results`, and of the same kind.
"""

from __future__ import annotations

from typing import Literal

from pydantic import JsonValue

from aos_mcp.abi.journal import StepState
from aos_mcp.abi.page import PageKind
from aos_mcp.abi.results import Result


class StepRow(Result):
    """One journal step."""

    number: int
    call: str
    effect: str
    state: str
    request_id: str | None
    intent: str
    result: str | None
    started_at: float
    ended_at: float | None


class JournalResult(Result):
    """A piece of a journal."""

    pid: str
    steps: list[StepRow]


class CheckpointRow(Result):
    """One checkpoint."""

    checkpoint_id: str
    pid: str
    step: int
    label: str
    at: float
    files: int


class ReconcileResult(Result):
    """Answer of `reconcile`: what the step is now; `failed` for one that did not happen."""

    pid: str
    step: int
    state: StepState


class SeenPage(Result):
    """A page that was in the window of a model call. `digest` is the SHA-256 of its bytes."""

    page_id: str
    kind: PageKind
    title: str
    digest: str
    tokens: int


class DrawnBudget(Result):
    """An account that an effect drew on, as it stands now: the agent's own, and so on up to the workspace's.

    A null limit is none.
    """

    account: str
    usd: float
    usd_limit: float | None
    tokens: int
    tokens_limit: int | None
    tool_calls: int
    tool_calls_limit: int | None


class WhyResult(Result):
    """Why a step was made: who decided it on what, what allowed it, and what it drew on.

    `asked_in` is the model call that asked for it, `seen` the pages in that prompt's window, `prompt` its digest.
    `allowed_by` names the rule, right or default; `approval` the question that a person answered, and by whom.
    """

    pid: str
    step: int
    call: str
    tool: str
    arguments: dict[str, JsonValue]
    state: StepState
    effect: str
    idempotency_key: str
    started_at: float
    asked_in: int | None = None
    model: str | None = None
    prompt: str | None = None
    decision: str = ""
    seen: list[SeenPage] = []
    allowed_by: str | None = None
    approval: str | None = None
    answered_by: str | None = None
    note: str = ""
    budget: list[DrawnBudget] = []


class ReplayRow(Result):
    """One step, made again from what the journal holds. `verdict`: same, differs or not_recorded."""

    step: int
    call: str
    verdict: Literal["same", "differs", "not_recorded"]
    why: str = ""


class ReplayResult(Result):
    """A whole journal made again; `first_difference` is the number of the first step that came out otherwise."""

    pid: str
    steps: list[ReplayRow]
    first_difference: int | None = None
