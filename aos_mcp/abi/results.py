"""What each syscall answers: JSON goes out here and nowhere else."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, JsonValue, WithJsonSchema

from aos_mcp.abi.approval import ApprovalState
from aos_mcp.abi.journal import StepState
from aos_mcp.abi.mount import MountState
from aos_mcp.abi.page import PageKind
from aos_mcp.abi.process import ExitCode, ProcessState
from aos_mcp.abi.scheduling import Missed


class Result(BaseModel):
    """Base of all results."""

    model_config = ConfigDict(frozen=True)


class UsageResult(Result):
    """What was spent. Tokens by kind; `usd` is exact to the micro-dollar."""

    input_tokens: int = 0
    cached_tokens: int = 0
    written_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0
    turns: int = 0
    tool_calls: int = 0


class TimesResult(Result):
    """Where an agent's time went, in seconds, up to now; `attained` is its service in units: input + 2 x output."""

    waiting_s: float = 0.0
    running_s: float = 0.0
    blocked_s: float = 0.0
    attained: int = 0
    preempted: int = 0
    wasted_tokens: int = 0


class SpawnResult(Result):
    """Answer of `spawn_agent`; `result` where it ended within `wait_s`, or before the call was sent again."""

    pid: str
    state: ProcessState
    uri: str
    result: str | None = None
    exit_code: ExitCode | None = None


class RestoreResult(SpawnResult):
    """Answer of `restore`; `pid` is the first of `pids`.

    `files_step`: the step that their files are from, the last one saved before. None: there were none.
    """

    pids: list[str] = []
    files_step: int | None = None


class MessageResult(Result):
    """One message."""

    message_id: str
    sender: str
    topic: str
    text: str


class AgentResult(Result):
    """One agent as `wait_agent` reports it. A long `result` is cut; `result_page` has all of it.

    `unknown_steps`: of its calls, those that may have happened or not; see the open approvals.
    """

    pid: str
    name: str
    state: ProcessState
    model: str = ""
    exit_code: ExitCode | None = None
    reason: str | None = None
    result: str | None = None
    result_page: str | None = None
    waiting_for: str | None = None
    usage: UsageResult = UsageResult()
    replayed: bool = False
    unknown_steps: list[int] = []


class WaitResult(Result):
    """Answer of `wait_agent`."""

    agents: list[AgentResult]
    timed_out: bool
    messages: list[MessageResult] = []


class AgentRow(Result):
    """One row of `list_agents`."""

    pid: str
    name: str
    state: ProcessState
    model: str
    priority: int
    parent: str | None = None
    waiting_for: str | None = None
    exit_code: ExitCode | None = None
    usage: UsageResult = UsageResult()
    times: TimesResult = TimesResult()
    unknown_steps: list[int] = []


class ListResult(Result):
    """Answer of `list_agents`."""

    agents: list[AgentRow]
    next_cursor: str | None = None


class SignalResult(Result):
    """Answer of `signal_agent`: the state after, of the process and of every descendant signalled."""

    pid: str
    state: ProcessState
    signalled: int


class SendResult(Result):
    """Answer of `send_message`."""

    message_id: str


class PageOutResult(Result):
    """Answer of `page_out`."""

    page_id: str
    tokens: int


class PageInResult(Result):
    """Answer of `page_in`: the exact characters from `offset`; `next_offset` where more follows."""

    content: str
    tokens: int
    next_offset: int | None = None
    superseded_by: str | None = None
    links: list[str] = []


class HitResult(Result):
    """One hit of `search_pages`."""

    page_id: str
    title: str
    excerpt: str
    score: float
    links: list[str] = []


class SearchPagesResult(Result):
    """Answer of `search_pages`."""

    hits: list[HitResult]


class NoteRow(Result):
    """One note of `list_notes`. Times in seconds since the epoch; `valid_until` where it no longer holds."""

    page_id: str
    namespace: str
    title: str
    tokens: int
    writer: str
    valid_from: float
    valid_until: float | None = None
    superseded_by: str | None = None
    links: list[str] = []


class NotesResult(Result):
    """Answer of `list_notes`."""

    notes: list[NoteRow]


class UndoNotesResult(Result):
    """Answer of `undo_notes`: how many changes were taken back."""

    undone: int


class CheckpointResult(Result):
    """Answer of `checkpoint`; `at` in seconds since the epoch."""

    checkpoint_id: str
    step: int
    at: float


class ExecResult(Result):
    """Answer of `sandbox_exec`. `isolation` is the driver that ran it, as proven; `changed` the files it touched."""

    exit_code: int
    stdout: str
    stderr: str
    truncated: bool
    timed_out: bool
    isolation: str
    workspace: str
    changed: list[str] = []
    output_page: str | None = None


ANY_JSON = {"type": ["object", "array", "string", "number", "boolean"]}
"""What an answer to a schema may be. Said in full: some readers take a schema without a type for a mistake."""


class CompleteResult(Result):
    """Answer of `complete`: `text`, or `object` where a schema was given."""

    text: str | None = None
    object: Annotated[JsonValue | None, WithJsonSchema(ANY_JSON)] = None
    usage: UsageResult
    model: str
    replayed: bool = False


class ToolRow(Result):
    """One downstream tool."""

    name: str
    description: str
    input_schema: dict[str, JsonValue]
    read_only: bool


class SearchToolsResult(Result):
    """Answer of `search_tools`."""

    tools: list[ToolRow]
    total: int


class CallToolResult(Result):
    """Answer of `call_tool`: the downstream's CallToolResult unchanged, or the page that holds a large one."""

    result: dict[str, JsonValue]
    is_error: bool = False
    page_id: str | None = None


class AnswerResult(Result):
    """Answer of `answer_approval`."""

    approval_id: str
    state: ApprovalState


class AuditRow(Result):
    """One audit record; `at` in seconds since the epoch.

    `category`, `pid` and `payload` only for the operator: with them a copy of the log can be checked without a kernel.
    """

    seq: int
    at: float
    actor: str
    call: str
    subject: str
    outcome: str
    detail: str
    digest: str
    category: str | None = None
    pid: str | None = None
    payload: str | None = None


class AuditHeadResult(Result):
    """A signed head; `at` in seconds since the epoch."""

    seq: int
    digest: str
    signature: str
    at: float | None = None
    key_id: str | None = None
    root: str = ""


class ProofResult(Result):
    """One record, and the proof that it is in the tree of a signed head.

    `hashes` (base64, lowest first) lead from the record's digest, leaf `index` of `size`, to the root that `head`, a
    signed note, names.
    """

    record: AuditRow
    previous: str
    index: int
    size: int
    hashes: list[str]
    head: str


class VerificationResult(Result):
    """Outcome of a verification; `first_bad` names the first record that does not fit."""

    ok: bool
    records: int
    first_bad: int | None = None
    why: str = ""


class ReadAuditResult(Result):
    """Answer of `read_audit`."""

    records: list[AuditRow]
    head: AuditHeadResult | None
    verified: VerificationResult | None = None


class MountRow(Result):
    """One downstream server."""

    server: str
    transport: str
    state: MountState
    tools: int
    restarts: int
    quarantined: list[str] = []
    error: str = ""


class ProviderRow(Result):
    """One provider. `lane` says in words how wide it is and who waits, once it was used."""

    name: str
    ready: bool
    lane: str | None = None


class SandboxStatus(Result):
    """What was proven of the sandbox."""

    driver: str | None
    memory_limit: str = "none"
    reason: str = ""
    repair: str = ""


class BudgetRow(Result):
    """One budget: spent and limit; a null limit is none."""

    account: str
    usd: float
    usd_limit: float | None
    tokens: int
    tokens_limit: int | None


class ApprovalRow(Result):
    """One question that waits for a person: may it be done; or, where it names a `step`, whether that has happened."""

    approval_id: str
    pid: str | None
    tool: str
    question: str
    state: ApprovalState
    asked_at: float
    expires_at: float
    step: int | None = None


class StatusResult(Result):
    """Answer of `kernel_status`."""

    version: str
    node: str
    uptime_s: float
    agents: dict[str, int]
    policy: str
    """The scheduler's."""
    default_model: str | None
    providers: list[ProviderRow]
    mounts: list[MountRow]
    sandbox: SandboxStatus
    budget: BudgetRow
    approvals: list[ApprovalRow]
    audit_head: AuditHeadResult | None


class ExitResult(Result):
    """Answer of `exit`; nobody reads it."""

    ok: Literal[True] = True


class ProcessResult(AgentResult):
    """Everything about one process."""

    priority: int
    sched_class: str
    """Its own, without what is lent to it."""
    times: TimesResult
    parent: str | None
    children: list[str]
    program: str
    agent: str | None
    depth: int
    tools: list[list[str]]
    workspace: str
    step: int
    budget: dict[str, float | int | None]
    created_at: float
    ended_at: float | None
    forked_from: str | None = None
    checkpoints: list[str] = []


class PageRow(Result):
    """One row of a page table."""

    page_id: str
    kind: PageKind
    title: str
    tokens: int
    resident: bool
    pinned: bool
    importance: float
    uses: int
    faults: int
    left_at: float | None
    left_why: str | None
    source: str
    """Who wrote it: `host`, a pid, or the call it came from."""
    labels: list[str]
    origin: str | None
    """The page it is a copy or a piece of."""
    created_at: float
    summarizes: list[str]
    """Of a summary: the pages it was made from."""


class ContextResult(Result):
    """The page table of one process."""

    pid: str
    resident_tokens: int
    window_tokens: int
    counted_by: str
    """What counts its tokens: `o200k`, the model's own vocabulary; `o200k x 1.08`, corrected by what its provider bills
    (likewise for `classes` of characters)."""
    faults: int
    """How often a page that had left was asked for;"""
    refaults: int
    """of these, how often not for the first time;"""
    garbage: int
    """pages that left and were not asked for since."""
    thrash: float
    """How much of what left is asked for again at once, lately: 0 is ordinary; above it less leaves."""
    low_water: float
    """The part of the window that a compaction comes down to now: more while the agent thrashes."""
    hit_rate: float | None
    """The part of all prompt tokens that was billed as read from the provider's cache; None before the first bill."""
    pages: list[PageRow]


class MountsResult(Result):
    """All downstream servers."""

    mounts: list[MountRow]


class ApprovalsResult(Result):
    """All questions that wait."""

    approvals: list[ApprovalRow]


class MetricsResult(Result):
    """Metrics in the Prometheus text form."""

    text: str


class PolicyResult(Result):
    """Answer of `set_policy`: what holds now, and what aos.toml says."""

    policy: str
    configured: str


class PickRow(Result):
    """One decision of the scheduler: in the queue from `since`, chosen `at`, and why."""

    pid: str
    since: float
    at: float
    why: str


class TimelineStep(Result):
    """One step of a journal, without what it said."""

    call: str
    state: StepState
    started_at: float
    ended_at: float | None = None


class TimelineAgent(Result):
    """One agent on the timeline; `since` is when its present state began."""

    pid: str
    name: str
    state: ProcessState
    exit_code: ExitCode | None = None
    since: float
    created_at: float
    ended_at: float | None = None
    steps: list[TimelineStep] = []


class TimelineResult(Result):
    """Answer of `read_timeline`: agents by age, turns by time."""

    now: float
    agents: list[TimelineAgent]
    picks: list[PickRow]


class ScheduleRow(Result):
    """One schedule; times in seconds since the epoch, `next_at` None: never again. `usage` is of all its runs."""

    schedule_id: str
    name: str
    form: str
    zone: str
    task: str
    missed: Missed
    paused: bool
    next_at: float | None = None
    last_at: float | None = None
    last_pid: str | None = None
    last_outcome: str
    runs: int
    usage: UsageResult
    total_usd: float | None = None
    total_tokens: int | None = None


class SchedulesResult(Result):
    """Answer of `list_schedules`."""

    schedules: list[ScheduleRow]
