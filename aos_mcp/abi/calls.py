"""The syscall table: every act there is. The gate refuses what is not here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from aos_mcp.abi import arguments as a
from aos_mcp.abi import guest_results as g
from aos_mcp.abi import history as h
from aos_mcp.abi import results as r
from aos_mcp.abi.errors import ErrorCode as E
from aos_mcp.abi.journal import EffectClass
from aos_mcp.abi.syscall import Audience, Reach, Syscall

PURE, IDEMPOTENT, UNSAFE = EffectClass.PURE, EffectClass.IDEMPOTENT, EffectClass.UNSAFE

ROWS: tuple[Syscall, ...] = (
    Syscall(
        name="spawn_agent",
        title="Spawn an agent",
        summary="Start an agent on a task. It runs on its own, outlives this host, and stops at its budget.",
        args=a.SpawnArgs, result=r.SpawnResult, reach=Reach.WRITE, effect=IDEMPOTENT, category="process",
        errors=(E.BUDGET_EXHAUSTED, E.LIMIT_EXCEEDED, E.UNAVAILABLE, E.CONFLICT),
    ),
    Syscall(
        name="wait_agent",
        title="Wait for agents",
        summary="Wait until agents end (any or all) or the timeout passes; also collects messages sent to you.",
        args=a.WaitArgs, result=r.WaitResult, reach=Reach.EXTERNAL, effect=PURE, category="process", blocking=True,
    ),
    Syscall(
        name="list_agents",
        title="List agents",
        summary="List agents, newest first.",
        args=a.ListArgs, result=r.ListResult, reach=Reach.READ, effect=PURE, category="process",
        resource="aos://proc",
    ),
    Syscall(
        name="signal_agent",
        title="Signal an agent",
        summary="Stop, continue, gracefully end (term) or kill an agent and its children.",
        args=a.SignalArgs, result=r.SignalResult, reach=Reach.WRITE, effect=IDEMPOTENT, category="process",
        destructive=True, errors=(E.CONFLICT,),
    ),
    Syscall(
        name="send_message",
        title="Send a message",
        summary="Send text to an agent, your parent or the host. An agent reads it before its next turn.",
        args=a.SendArgs, result=r.SendResult, reach=Reach.WRITE, effect=IDEMPOTENT, category="message",
        errors=(E.CONFLICT,),
    ),
    Syscall(
        name="page_out",
        title="Page out",
        summary="Keep text outside the window under a page id; nothing is lost.",
        args=a.PageOutArgs, result=r.PageOutResult, reach=Reach.WRITE, effect=IDEMPOTENT, category="memory",
        errors=(E.LIMIT_EXCEEDED,),
    ),
    Syscall(
        name="page_in",
        title="Page in",
        summary="Read a page back, exactly as it was; large pages in pieces.",
        args=a.PageInArgs, result=r.PageInResult, reach=Reach.WRITE, effect=PURE, category="memory",
        resource="aos://page/{page_id}",
    ),
    Syscall(
        name="search_pages",
        title="Search pages",
        summary="Search pages, paged out or not, by words and meaning.",
        args=a.SearchPagesArgs, result=r.SearchPagesResult, reach=Reach.READ, effect=PURE, category="memory",
    ),
    Syscall(
        name="checkpoint",
        title="Checkpoint an agent",
        summary="Save an agent's context, journal position and files.",
        args=a.CheckpointArgs, result=r.CheckpointResult, reach=Reach.EXTERNAL, effect=IDEMPOTENT, category="process",
        errors=(E.LIMIT_EXCEEDED,),
    ),
    Syscall(
        name="restore",
        title="Restore a checkpoint",
        summary="Start a new agent from a checkpoint or a step: a fork of the past, optionally on another model.",
        args=a.RestoreArgs, result=r.RestoreResult, reach=Reach.EXTERNAL, effect=IDEMPOTENT, category="process",
        errors=(E.BUDGET_EXHAUSTED, E.LIMIT_EXCEEDED, E.UNAVAILABLE),
    ),
    Syscall(
        name="sandbox_exec",
        title="Run a command",
        summary="Run a command in an isolated sandbox with a workspace of its own.",
        args=a.ExecArgs, result=r.ExecResult, reach=Reach.EXTERNAL, effect=UNSAFE, category="execute",
        errors=(E.UNAVAILABLE, E.TIMED_OUT, E.UNKNOWN_OUTCOME, E.APPROVAL_REQUIRED, E.LIMIT_EXCEEDED),
    ),
    Syscall(
        name="complete",
        title="One model call",
        summary="Make one scheduled, budgeted model call, optionally with structured output.",
        args=a.CompleteArgs, result=r.CompleteResult, reach=Reach.EXTERNAL, effect=EffectClass.LLM, category="model",
        open_world=True, errors=(E.UNAVAILABLE, E.BUDGET_EXHAUSTED, E.TIMED_OUT),
    ),
    Syscall(
        name="generate",
        title="One model turn of a guest",
        summary="Make one scheduled, budgeted model turn on a conversation that the caller keeps.",
        args=a.GenerateArgs, result=g.GenerateResult, reach=Reach.EXTERNAL, effect=EffectClass.LLM, category="model",
        audience=Audience.GUESTS, tool=False, open_world=True, digested=frozenset({"prompt"}),
        errors=(E.UNAVAILABLE, E.BUDGET_EXHAUSTED, E.TIMED_OUT, E.LIMIT_EXCEEDED),
    ),
    Syscall(
        name="count_tokens",
        title="Count a prompt",
        summary="Count the tokens of a conversation as they would be reserved.",
        args=a.CountTokensArgs, result=g.CountTokensResult, reach=Reach.READ, effect=PURE, category="model",
        audience=Audience.GUESTS, tool=False, digested=frozenset({"prompt"}),
    ),
    Syscall(
        name="list_models",
        title="List a guest's models",
        summary="List the model names that a guest may use.",
        args=a.NoArgs, result=g.ModelsResult, reach=Reach.READ, effect=PURE, category="model",
        audience=Audience.GUESTS, tool=False,
    ),
    Syscall(
        name="search_tools",
        title="Find downstream tools",
        summary="Find tools of the mounted MCP servers by words; an empty query lists them.",
        args=a.SearchToolsArgs, result=r.SearchToolsResult, reach=Reach.READ, effect=PURE, category="mount",
    ),
    Syscall(
        name="call_tool",
        title="Call a downstream tool",
        summary="Call a tool of a mounted MCP server by its name (server__tool).",
        args=a.CallToolArgs, result=r.CallToolResult, reach=Reach.EXTERNAL, effect=UNSAFE, category="mount",
        open_world=True,
        errors=(E.APPROVAL_REQUIRED, E.UNAVAILABLE, E.TIMED_OUT, E.UNKNOWN_OUTCOME, E.CONFLICT),
    ),
    Syscall(
        name="answer_approval",
        title="Answer an approval",
        summary="Allow or deny what an agent asks for. Only on behalf of the person.",
        args=a.AnswerArgs, result=r.AnswerResult, reach=Reach.WRITE, effect=IDEMPOTENT, category="policy",
        audience=Audience.HOSTS, errors=(E.CONFLICT,),
    ),
    Syscall(
        name="read_audit",
        title="Read the audit log",
        summary="Read the tamper-evident log, and verify it.",
        args=a.ReadAuditArgs, result=r.ReadAuditResult, reach=Reach.READ, effect=PURE, category="audit",
        audience=Audience.HOSTS, resource="aos://audit",
    ),
    Syscall(
        name="kernel_status",
        title="Kernel status",
        summary="Version, agents, providers, mounts, sandbox, budgets, open approvals.",
        args=a.NoArgs, result=r.StatusResult, reach=Reach.READ, effect=PURE, category="kernel",
        audience=Audience.HOSTS,
    ),
    Syscall(
        name="reconcile",
        title="Reconcile a step",
        summary="Say what became of a call that ended in unknown_outcome, once you have looked.",
        args=a.ReconcileArgs, result=h.ReconcileResult, reach=Reach.WRITE, effect=IDEMPOTENT, category="process",
        tool=False, function=True, errors=(E.CONFLICT,),
    ),
    Syscall(
        name="exit",
        title="Exit",
        summary="End yourself with a result. Call it when the task is done or cannot be done.",
        args=a.ExitArgs, result=r.ExitResult, reach=Reach.WRITE, effect=IDEMPOTENT, category="process",
        audience=Audience.AGENTS, tool=False,
    ),
    Syscall(
        name="read_process",
        title="Read a process",
        summary="Everything about one process.",
        args=a.PidArgs, result=r.ProcessResult, reach=Reach.READ, effect=PURE, category="process",
        audience=Audience.HOSTS, tool=False, resource="aos://proc/{pid}",
    ),
    Syscall(
        name="read_context",
        title="Read a page table",
        summary="What is resident, what left, when and why.",
        args=a.PidArgs, result=r.ContextResult, reach=Reach.READ, effect=PURE, category="memory",
        audience=Audience.HOSTS, tool=False, resource="aos://proc/{pid}/context",
    ),
    Syscall(
        name="read_journal",
        title="Read a journal",
        summary="The steps of one process.",
        args=a.ReadJournalArgs, result=h.JournalResult, reach=Reach.READ, effect=PURE, category="process",
        audience=Audience.HOSTS, tool=False, resource="aos://proc/{pid}/journal",
    ),
    Syscall(
        name="explain_step",
        title="Explain a step",
        summary="Why a step was made: the pages the model saw, what allowed it, the budget it drew on.",
        args=a.StepArgs, result=h.WhyResult, reach=Reach.READ, effect=PURE, category="audit",
        audience=Audience.HOSTS, tool=False, resource="aos://proc/{pid}/why/{step}",
    ),
    Syscall(
        name="replay_journal",
        title="Replay a journal",
        summary="Make an agent's run again from its journal, without any call, and compare each step.",
        args=a.PidArgs, result=h.ReplayResult, reach=Reach.READ, effect=PURE, category="audit",
        audience=Audience.OPERATORS, tool=False,
    ),
    Syscall(
        name="read_checkpoint",
        title="Read a checkpoint",
        summary="One checkpoint.",
        args=a.ReadCheckpointArgs, result=h.CheckpointRow, reach=Reach.READ, effect=PURE, category="process",
        audience=Audience.HOSTS, tool=False, resource="aos://checkpoint/{checkpoint_id}",
    ),
    Syscall(
        name="list_notes",
        title="List notes",
        summary="The notes of long-term memory, newest first.",
        args=a.ListNotesArgs, result=r.NotesResult, reach=Reach.READ, effect=PURE, category="memory",
        audience=Audience.OPERATORS, tool=False,
    ),
    Syscall(
        name="undo_notes",
        title="Undo a writer's notes",
        summary="Take back all that one writer did to long-term memory.",
        args=a.UndoNotesArgs, result=r.UndoNotesResult, reach=Reach.WRITE, effect=IDEMPOTENT, category="memory",
        audience=Audience.OPERATORS, tool=False, errors=(E.CONFLICT,),
    ),
    Syscall(
        name="consolidate_notes",
        title="Consolidate notes",
        summary="Spawn the agent that puts the shared notes in order.",
        args=a.NoArgs, result=r.SpawnResult, reach=Reach.WRITE, effect=IDEMPOTENT, category="memory",
        audience=Audience.OPERATORS, tool=False, errors=(E.BUDGET_EXHAUSTED, E.UNAVAILABLE),
    ),
    Syscall(
        name="list_mounts",
        title="List mounts",
        summary="The downstream MCP servers and their state.",
        args=a.NoArgs, result=r.MountsResult, reach=Reach.READ, effect=PURE, category="mount",
        audience=Audience.HOSTS, tool=False, resource="aos://mounts",
    ),
    Syscall(
        name="list_approvals",
        title="List approvals",
        summary="The questions that wait for a person.",
        args=a.NoArgs, result=r.ApprovalsResult, reach=Reach.READ, effect=PURE, category="policy",
        audience=Audience.HOSTS, tool=False, resource="aos://approvals",
    ),
    Syscall(
        name="issue_key",
        title="Issue a gateway key",
        summary="Make a key with which a program runs its model calls through the kernel, as a process under a budget.",
        args=a.IssueKeyArgs, result=g.IssueKeyResult, reach=Reach.WRITE, effect=IDEMPOTENT, category="policy",
        audience=Audience.OPERATORS, tool=False,
        errors=(E.BUDGET_EXHAUSTED, E.LIMIT_EXCEEDED, E.UNAVAILABLE, E.CONFLICT),
    ),
    Syscall(
        name="list_keys",
        title="List gateway keys",
        summary="List the keys of programs outside the kernel.",
        args=a.ListKeysArgs, result=g.KeysResult, reach=Reach.READ, effect=PURE, category="policy",
        audience=Audience.OPERATORS, tool=False,
    ),
    Syscall(
        name="revoke_key",
        title="Revoke a gateway key",
        summary="Revoke a key; a program's process ends with its last one.",
        args=a.RevokeKeyArgs, result=g.RevokeKeyResult, reach=Reach.WRITE, effect=IDEMPOTENT, category="policy",
        audience=Audience.OPERATORS, tool=False,
    ),
    Syscall(
        name="read_metrics",
        title="Read metrics",
        summary="Counters and histograms in the Prometheus text form.",
        args=a.NoArgs, result=r.MetricsResult, reach=Reach.READ, effect=PURE, category="kernel",
        audience=Audience.HOSTS, tool=False, resource="aos://metrics",
    ),
    Syscall(
        name="set_policy",
        title="Switch the scheduler",
        summary="Switch the scheduler's policy while agents run; it holds across restarts.",
        args=a.SetPolicyArgs, result=r.PolicyResult, reach=Reach.WRITE, effect=IDEMPOTENT, category="kernel",
        audience=Audience.OPERATORS, tool=False,
    ),
    Syscall(
        name="read_timeline",
        title="Read the timeline",
        summary="Who had which turn, since when it had waited, and why it was chosen.",
        args=a.ReadTimelineArgs, result=r.TimelineResult, reach=Reach.READ, effect=PURE, category="process",
        audience=Audience.OPERATORS, tool=False,
    ),
    Syscall(
        name="prove_audit",
        title="Prove an audit record",
        summary="One record, and the hashes that prove it to whoever holds the log's public key.",
        args=a.ProveAuditArgs, result=r.ProofResult, reach=Reach.READ, effect=PURE, category="audit",
        audience=Audience.OPERATORS, tool=False,
    ),
    Syscall(
        name="add_schedule",
        title="Add a schedule",
        summary="Have an agent start at set times, under a budget of one run and of all.",
        args=a.AddScheduleArgs, result=r.ScheduleRow, reach=Reach.WRITE, effect=IDEMPOTENT, category="process",
        audience=Audience.OPERATORS, tool=False, errors=(E.CONFLICT, E.LIMIT_EXCEEDED, E.UNAVAILABLE),
    ),
    Syscall(
        name="list_schedules",
        title="List schedules",
        summary="The schedules: last and next run, outcome, what was spent.",
        args=a.NoArgs, result=r.SchedulesResult, reach=Reach.READ, effect=PURE, category="process",
        audience=Audience.OPERATORS, tool=False,
    ),
    Syscall(
        name="pause_schedule",
        title="Pause a schedule",
        summary="Pause a schedule, or have it go on.",
        args=a.PauseScheduleArgs, result=r.ScheduleRow, reach=Reach.WRITE, effect=IDEMPOTENT, category="process",
        audience=Audience.OPERATORS, tool=False,
    ),
    Syscall(
        name="remove_schedule",
        title="Remove a schedule",
        summary="Take a schedule off the timetable.",
        args=a.ScheduleArgs, result=r.ScheduleRow, reach=Reach.WRITE, effect=IDEMPOTENT, category="process",
        audience=Audience.OPERATORS, tool=False, destructive=True,
    ),
    Syscall(
        name="run_schedule",
        title="Run a schedule",
        summary="Start one run of a schedule: the one that is due, or one out of turn.",
        args=a.RunScheduleArgs, result=r.ScheduleRow, reach=Reach.WRITE, effect=IDEMPOTENT, category="process",
        audience=Audience.OPERATORS, tool=False,
        errors=(E.BUDGET_EXHAUSTED, E.CONFLICT, E.LIMIT_EXCEEDED, E.UNAVAILABLE),
    ),
)  # fmt: skip

TABLE: Mapping[str, Syscall] = MappingProxyType({row.name: row for row in ROWS})

assert len(TABLE) == len(ROWS)
