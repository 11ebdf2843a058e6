"""What each syscall takes: JSON comes in here and nowhere else. Field descriptions are what a model reads."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

from aos_mcp.abi import limits
from aos_mcp.abi.capability import IsolationLevel
from aos_mcp.abi.journal import Outcome
from aos_mcp.abi.page import PageKind
from aos_mcp.abi.process import ProcessState, Signal


def _clean(text: str) -> str:
    if "\x00" in text:
        raise ValueError("a NUL character is not allowed")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("a lone surrogate is not allowed") from None
    return text


CLEAN = AfterValidator(_clean)
"""Comes after the bounds of a text: a bound that comes after it counts \"items\", and names functions of ours."""
Handle = Annotated[str, Field(min_length=3, max_length=64, pattern=r"^[a-z]+_[a-z0-9]+$")]
PidOrPrefix = Annotated[str, Field(min_length=3, max_length=64, pattern=r"^p_[a-z0-9]+$")]
Name = Annotated[str, Field(min_length=1, max_length=limits.NAME_CHARS_MAX, pattern=r"^[\w .:/@+-]+$")]
Label = Annotated[str, Field(pattern=r"^[\w][\w.:/-]{0,63}$")]
Namespace = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
ModelName = Annotated[
    str, Field(min_length=3, max_length=512, pattern=r"^[A-Za-z0-9_.-]+/[^\s,]+(\s*,\s*[A-Za-z0-9_.-]+/[^\s,]+)*$")
]
"""`provider/model`, or a chain: each goes on where the one before it cannot answer."""


class Args(BaseModel):
    """Base of all arguments: an unknown argument is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class BudgetArgs(Args):
    """A budget as people write it."""

    usd: Annotated[float, Field(ge=0, le=limits.USD_MAX)] | None = None
    tokens: Annotated[int, Field(ge=0, le=10**12)] | None = None
    turns: Annotated[int, Field(ge=1, le=10**6)] | None = None
    tool_calls: Annotated[int, Field(ge=0, le=10**6)] | None = None
    wall_s: Annotated[float, Field(gt=0, le=31_536_000)] | None = None


class SpawnArgs(Args):
    """Arguments of `spawn_agent`."""

    task: Annotated[str, Field(min_length=1, max_length=limits.TASK_CHARS_MAX), CLEAN]
    name: Name | None = None
    agent: Annotated[Name | None, Field(description="agent definition")] = None
    model: Annotated[ModelName | None, Field(description="provider/model; a,b falls back to b")] = None
    priority: Annotated[int, Field(ge=0, le=100, description="0 first")] = 50
    tools: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=128)]] | None,
        Field(max_length=64, description="name patterns, e.g. git__*"),
    ] = None
    budget: BudgetArgs | None = None
    network: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=256)]] | None,
        Field(max_length=64, description="hosts its commands may reach"),
    ] = None
    idempotency_key: Annotated[str, Field(min_length=1, max_length=128), CLEAN] | None = None
    after: Annotated[
        list[PidOrPrefix], Field(max_length=limits.WAIT_PIDS_MAX, description="starts when these ended; gets results")
    ] = []
    wait_s: Annotated[float, Field(ge=0, le=limits.WAIT_S_MAX)] = 0


class WaitArgs(Args):
    """Arguments of `wait_agent`."""

    pids: Annotated[list[PidOrPrefix], Field(max_length=limits.WAIT_PIDS_MAX, description="none: wait for a message")]
    timeout_s: Annotated[float, Field(ge=0, le=limits.WAIT_S_MAX)] = 20
    mode: Literal["any", "all"] = "all"


class ListArgs(Args):
    """Arguments of `list_agents`."""

    state: ProcessState | Annotated[list[ProcessState], Field(min_length=1, max_length=len(ProcessState))] | None = None
    parent: PidOrPrefix | None = None
    limit: Annotated[int, Field(ge=1, le=limits.LIST_MAX)] = 50
    cursor: Annotated[str, Field(max_length=128)] | None = None


class SignalArgs(Args):
    """Arguments of `signal_agent`."""

    pid: PidOrPrefix
    signal: Annotated[Signal, Field(description="term lets it finish up in one turn")]
    tree: bool = True
    reason: Annotated[str, Field(max_length=2_000), CLEAN] | None = None


class SendArgs(Args):
    """Arguments of `send_message`."""

    to: Annotated[str, Field(pattern=r"^(host|parent|p_[a-z0-9]+)$", description="pid, parent or host")]
    text: Annotated[str, Field(min_length=1, max_length=limits.TEXT_CHARS_MAX), CLEAN]
    topic: Annotated[str, Field(max_length=128), CLEAN] = ""


class PageOutArgs(Args):
    """Arguments of `page_out`."""

    content: Annotated[str, Field(min_length=1, max_length=limits.PAGE_BYTES_MAX), CLEAN]
    title: Annotated[str, Field(max_length=200), CLEAN] | None = None
    importance: Annotated[float, Field(ge=0, le=1)] = 0.5
    pid: PidOrPrefix | None = None
    pinned: bool = False
    labels: Annotated[list[Label], Field(max_length=limits.LABELS_MAX)] = []
    namespace: Annotated[
        Namespace | None, Field(description="makes it a note of long-term memory: shared, private or a name")
    ] = None
    supersedes: Annotated[list[Handle], Field(max_length=limits.NOTE_LINKS_MAX, description="notes it replaces")] = []
    links: Annotated[list[Handle], Field(max_length=limits.NOTE_LINKS_MAX, description="notes it belongs with")] = []


class PageInArgs(Args):
    """Arguments of `page_in`."""

    page_id: Handle
    offset: Annotated[int, Field(ge=0, description="in characters")] = 0
    limit: Annotated[int | None, Field(ge=1, le=limits.PAGE_BYTES_MAX, description="in characters")] = None
    pid: Annotated[PidOrPrefix | None, Field(description="an agent into whose context it is put too")] = None


class SearchPagesArgs(Args):
    """Arguments of `search_pages`."""

    query: Annotated[str, Field(min_length=1, max_length=2_000), CLEAN]
    k: Annotated[int, Field(ge=1, le=limits.SEARCH_MAX)] = 5
    pid: PidOrPrefix | None = None
    kind: PageKind | None = None
    source: Annotated[str, Field(max_length=limits.NAME_CHARS_MAX, description="who wrote it")] | None = None
    since: Annotated[float, Field(description="seconds since the epoch")] | None = None
    until: float | None = None
    namespace: Annotated[Namespace | None, Field(description="of notes")] = None
    label: Annotated[
        Annotated[str, Field(max_length=128), CLEAN] | None, Field(description="made from, e.g. mount:git")
    ] = None


class CheckpointArgs(Args):
    """Arguments of `checkpoint`."""

    pid: PidOrPrefix
    label: Annotated[str, Field(max_length=200), CLEAN] | None = None


class RestoreArgs(Args):
    """Arguments of `restore`."""

    checkpoint_id: Annotated[
        str, Field(max_length=80, pattern=r"^[a-z]+_[a-z0-9]+(@[0-9]{1,9})?$", description="or pid@step")
    ]
    model: ModelName | None = None
    budget: BudgetArgs | None = None
    name: Name | None = None
    count: Annotated[int, Field(ge=1, le=limits.FORKS_MAX)] = 1
    race: Annotated[bool, Field(description="the first that is done ends the others")] = False


class ExecFile(Args):
    """A file to write into the workspace before the command runs."""

    path: Annotated[str, Field(min_length=1, max_length=4_096), CLEAN]
    content: Annotated[str, Field(max_length=limits.FILE_BYTES_MAX), CLEAN]


class ExecArgs(Args):
    """Arguments of `sandbox_exec`."""

    command: Annotated[
        Annotated[str, Field(min_length=1, max_length=100_000), CLEAN]
        | Annotated[list[Annotated[str, Field(max_length=100_000), CLEAN]], Field(min_length=1, max_length=1_000)],
        Field(description="text for sh -c, or argv"),
    ]
    stdin: Annotated[str, Field(max_length=limits.FILE_BYTES_MAX), CLEAN] | None = None
    files: Annotated[list[ExecFile] | None, Field(max_length=limits.FILES_MAX)] = None
    timeout_s: Annotated[float, Field(gt=0, le=limits.EXEC_S_MAX)] = 60
    level: IsolationLevel | None = None
    workspace: Annotated[str | None, Field(pattern=r"^[a-z0-9_-]{1,64}$", description="kept between calls")] = None


class ContentPart(Args):
    """A part of a message: exactly one of the four."""

    text: Annotated[str, Field(max_length=limits.TEXT_CHARS_MAX), CLEAN] | None = None
    data: Annotated[
        str | None, Field(max_length=limits.ATTACHMENT_BYTES_MAX * 4 // 3 + 4, description="base64: image, PDF, text")
    ] = None
    page_id: str | None = None
    file: Annotated[str | None, Field(min_length=1, max_length=4_096, description="in the agent's workspace")] = None


class ChatMessage(Args):
    """One message of `complete`."""

    role: Literal["user", "assistant"]
    content: (
        Annotated[str, Field(min_length=1, max_length=limits.TEXT_CHARS_MAX), CLEAN]
        | Annotated[list[ContentPart], Field(min_length=1, max_length=100)]
    )


class CompleteArgs(Args):
    """Arguments of `complete`: `prompt` or `messages`, not both."""

    prompt: Annotated[str, Field(min_length=1, max_length=limits.TEXT_CHARS_MAX), CLEAN] | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=1_000)] | None = None
    model: ModelName | None = None
    system: Annotated[str, Field(max_length=limits.TASK_CHARS_MAX), CLEAN] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    schema_: Annotated[dict[str, JsonValue] | None, Field(alias="schema", description="JSON Schema of the answer")] = (
        None
    )
    priority: Annotated[int, Field(ge=0, le=100)] = 50


class GivenAttachment(Args):
    """An image or a file of a turn: its bytes in base64. What it is, is seen in them."""

    data: Annotated[str, Field(max_length=limits.LINE_BYTES_MAX)]
    name: Annotated[str, Field(max_length=256), CLEAN] = ""


class GivenRequest(Args):
    """A tool call that the model made; `arguments` is JSON text as it wrote it."""

    request_id: Annotated[str, Field(min_length=1, max_length=256), CLEAN]
    name: Annotated[str, Field(min_length=1, max_length=256), CLEAN]
    arguments: Annotated[str, Field(max_length=limits.LINE_BYTES_MAX), CLEAN]


class GivenTurn(Args):
    """One element of a conversation, as `abi.completion.Turn`."""

    role: Literal["user", "assistant", "tool"]
    text: Annotated[str, Field(max_length=limits.LINE_BYTES_MAX), CLEAN] = ""
    requests: Annotated[list[GivenRequest], Field(max_length=limits.GUEST_TOOLS_MAX)] = []
    request_id: Annotated[str, Field(max_length=256), CLEAN] | None = None
    is_error: bool = False
    reasoning: Annotated[str, Field(max_length=limits.LINE_BYTES_MAX), CLEAN] = ""
    reasoning_signature: Annotated[str, Field(max_length=limits.LINE_BYTES_MAX), CLEAN] = ""
    breakpoint: bool = False
    attachments: Annotated[list[GivenAttachment], Field(max_length=limits.ATTACHMENTS_MAX)] = []


class GivenTool(Args):
    """A function that a program offers to the model."""

    name: Annotated[str, Field(min_length=1, max_length=256), CLEAN]
    description: Annotated[str, Field(max_length=limits.TASK_CHARS_MAX), CLEAN] = ""
    input_schema: dict[str, JsonValue] = {"type": "object"}


class GivenPrompt(Args):
    """A whole conversation, which the program keeps."""

    system: Annotated[str, Field(max_length=limits.LINE_BYTES_MAX), CLEAN] = ""
    turns: Annotated[list[GivenTurn], Field(min_length=1, max_length=limits.GUEST_TURNS_MAX)]
    tools: Annotated[list[GivenTool], Field(max_length=limits.GUEST_TOOLS_MAX)] = []


GuestModelName = Annotated[str, Field(min_length=1, max_length=256), CLEAN]


class GenerateArgs(Args):
    """Arguments of `generate`."""

    model: Annotated[GuestModelName, Field(description="provider/model, an alias, or any other name")]
    prompt: GivenPrompt
    max_tokens: Annotated[int | None, Field(ge=1, le=1_000_000)] = None
    schema_: Annotated[dict[str, JsonValue] | None, Field(alias="schema", description="JSON Schema of the answer")] = (
        None
    )
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_p: Annotated[float | None, Field(ge=0, le=1)] = None
    top_k: Annotated[int | None, Field(ge=1, le=1_000_000)] = None
    stop: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=256), CLEAN]], Field(max_length=limits.GUEST_STOPS_MAX)
    ] = []
    must_call: Annotated[
        Annotated[str, Field(max_length=256), CLEAN] | None,
        Field(description="the tool that the model has to call; * is any of them"),
    ] = None
    one_call: Annotated[bool, Field(description="no more than one tool call in this turn")] = False


class CountTokensArgs(Args):
    """Arguments of `count_tokens`."""

    model: GuestModelName
    prompt: GivenPrompt


class IssueKeyArgs(Args):
    """Arguments of `issue_key`: a guest's pid alone for one more key of it; else a new guest, under `pid` if given."""

    pid: PidOrPrefix | None = None
    name: Name | None = None
    model: Annotated[ModelName | None, Field(description="what a foreign model name stands for")] = None
    priority: Annotated[int, Field(ge=0, le=100, description="0 first")] | None = None
    budget: BudgetArgs | None = None


class ListKeysArgs(Args):
    """Arguments of `list_keys`."""

    pid: PidOrPrefix | None = None


class RevokeKeyArgs(Args):
    """Arguments of `revoke_key`."""

    key_id: Handle


class SearchToolsArgs(Args):
    """Arguments of `search_tools`."""

    query: Annotated[str, Field(max_length=500), CLEAN]
    k: Annotated[int, Field(ge=1, le=limits.SEARCH_MAX)] = 8


class CallToolArgs(Args):
    """Arguments of `call_tool`."""

    name: Annotated[str, Field(min_length=3, max_length=128, pattern=r"^[A-Za-z0-9_.-]+$", description="server__tool")]
    arguments: dict[str, JsonValue] = Field(default_factory=dict)


class AnswerArgs(Args):
    """Arguments of `answer_approval`."""

    approval_id: Handle
    decision: Annotated[Literal["allow", "deny", "done"], Field(description="done: a cut call did happen, see note")]
    remember: bool = False
    note: Annotated[str, Field(max_length=2_000), CLEAN] | None = None


class ReconcileArgs(Args):
    """Arguments of `reconcile`."""

    step: Annotated[int, Field(ge=0, description="as the unknown_outcome error names it")]
    outcome: Annotated[Outcome, Field(description="done: it happened; redo: it did not; give_up: cannot be found out")]
    note: Annotated[str, Field(max_length=20_000, description="its result, or why"), CLEAN] | None = None
    pid: PidOrPrefix | None = None


class StepArgs(Args):
    """Arguments of the calls about one step of a journal."""

    pid: PidOrPrefix
    step: Annotated[int, Field(ge=0)]


class ReadAuditArgs(Args):
    """Arguments of `read_audit`."""

    pid: PidOrPrefix | None = None
    after_seq: Annotated[int, Field(ge=0)] | None = None
    limit: Annotated[int, Field(ge=1, le=limits.AUDIT_LIST_MAX)] = 50
    verify: bool = False
    anchor: Annotated[
        str | None, Field(pattern=r"^[0-9]{1,15}:[0-9A-Za-z+/]{43}=$", description="size:root of an answer's _meta")
    ] = None


class BackupArgs(Args):
    """Arguments of `backup_store`."""

    path: Annotated[str, Field(min_length=1, max_length=4_096), CLEAN]


class EraseArgs(Args):
    """Arguments of `erase_payloads`."""

    target: Annotated[str, Field(pattern=r"^(p|pg)_[a-z0-9]{1,64}$", description="an ended agent, or one page of it")]


class ForgetArgs(Args):
    """Arguments of `forget_ended`."""

    before: Annotated[float, Field(description="when they ended, in seconds since the epoch")]
    limit: Annotated[int, Field(ge=1, le=limits.FORGET_MAX, description="of agents, the oldest")] = limits.FORGET_MAX


class ProveAuditArgs(Args):
    """Arguments of `prove_audit`."""

    seq: Annotated[int, Field(ge=1)]


class ListNotesArgs(Args):
    """Arguments of `list_notes`. `former`: also those that no longer hold."""

    namespace: Annotated[str, Field(max_length=64, description="private ones begin with ~")] | None = None
    former: bool = False
    limit: Annotated[int, Field(ge=1, le=limits.LIST_MAX)] = 50


class UndoNotesArgs(Args):
    """Arguments of `undo_notes`."""

    writer: Annotated[str, Field(min_length=1, max_length=64, description="a pid, host or kernel")]


class NoArgs(Args):
    """No arguments."""


class ExitArgs(Args):
    """Arguments of `exit`."""

    result: Annotated[
        str, Field(max_length=limits.TEXT_CHARS_MAX, description="your answer to whoever spawned you"), CLEAN
    ]
    failed: Annotated[bool, Field(description="true if the task could not be done")] = False


class PidArgs(Args):
    """Arguments of the calls that read one process."""

    pid: PidOrPrefix


class ReadJournalArgs(Args):
    """Arguments of `read_journal`."""

    pid: PidOrPrefix
    after: Annotated[int, Field(ge=-1)] = -1
    limit: Annotated[int, Field(ge=1, le=limits.LIST_MAX)] = 100


class ReadCheckpointArgs(Args):
    """Arguments of `read_checkpoint`."""

    checkpoint_id: Handle


class SetPolicyArgs(Args):
    """Arguments of `set_policy`."""

    policy: Annotated[
        Literal["default", "fifo", "rr", "priority"] | None, Field(description="none: back to the configured one")
    ] = None


class ReadTimelineArgs(Args):
    """Arguments of `read_timeline`."""

    pids: Annotated[
        list[PidOrPrefix], Field(max_length=limits.WAIT_PIDS_MAX, description="none: all that had turns")
    ] = []
    limit: Annotated[int, Field(ge=1, le=limits.PICKS_SHOWN_MAX, description="of turns, the newest")] = 500
    steps: Annotated[int, Field(ge=0, le=limits.LIST_MAX, description="of each journal, the newest")] = 100


class AddScheduleArgs(Args):
    """Arguments of `add_schedule`; budgets in `spawn` are of one run, the totals of all."""

    name: Name
    form: Annotated[
        str,
        Field(max_length=256, description="`cron M H D M W`, `every 15m` (s, m, h, d) or `at 2026-12-01T09:00`"),
    ]
    zone: Annotated[str, Field(min_length=1, max_length=64, description="time zone of the form")] = "UTC"
    missed: Literal["skip", "once", "all"] = "once"
    spawn: SpawnArgs
    total_usd: Annotated[float, Field(gt=0, le=limits.USD_MAX)] | None = None
    total_tokens: Annotated[int, Field(gt=0, le=10**12)] | None = None


class ScheduleArgs(Args):
    """Arguments of the calls about one schedule, by its name or id."""

    schedule: Name


class PauseScheduleArgs(ScheduleArgs):
    """Arguments of `pause_schedule`."""

    paused: bool = True


class RunScheduleArgs(ScheduleArgs):
    """Arguments of `run_schedule`."""

    due_at: Annotated[float | None, Field(description="the occurrence, as the kernel gives it; none: out of turn")] = (
        None
    )
