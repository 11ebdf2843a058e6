"""Which function does which call. One entry for each row of the syscall table; a test holds the two together."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import cast

from aos_mcp.kernel.calls import (
    audit,
    checkpoint,
    execute,
    guest,
    key,
    memory,
    message,
    model,
    mount,
    notes,
    policy,
    process,
    provenance,
    schedules,
    scheduling,
    status,
    upkeep,
)
from aos_mcp.kernel.gate import Handler

HANDLERS: Mapping[str, Handler] = MappingProxyType(
    {
        # Each takes the model its row names, and the gate decodes into just that: the cast forgets only its type.
        name: cast("Handler", handler)
        for name, handler in {
            "spawn_agent": process.spawn,
            "wait_agent": process.wait,
            "list_agents": process.list_agents,
            "signal_agent": process.signal,
            "exit": process.exit_,
            "read_process": process.read_process,
            "read_journal": process.read_journal,
            "send_message": message.send,
            "page_out": memory.page_out,
            "page_in": memory.page_in,
            "search_pages": memory.search,
            "read_context": memory.read_context,
            "checkpoint": checkpoint.checkpoint,
            "restore": checkpoint.restore,
            "read_checkpoint": checkpoint.read_checkpoint,
            "explain_step": provenance.explain_step,
            "replay_journal": provenance.replay_journal,
            "sandbox_exec": execute.execute,
            "complete": model.complete,
            "generate": guest.generate,
            "count_tokens": guest.count_tokens,
            "list_models": guest.list_models,
            "issue_key": key.issue,
            "list_keys": key.list_keys,
            "revoke_key": key.revoke,
            "search_tools": mount.search_tools,
            "call_tool": mount.call_tool,
            "list_notes": notes.list_notes,
            "undo_notes": notes.undo_notes,
            "consolidate_notes": notes.consolidate_notes,
            "list_mounts": mount.list_mounts,
            "answer_approval": policy.answer,
            "reconcile": policy.reconcile,
            "list_approvals": policy.list_approvals,
            "read_audit": audit.read_audit,
            "prove_audit": audit.prove_audit,
            "read_store": upkeep.read_store,
            "backup_store": upkeep.backup_store,
            "compact_store": upkeep.compact_store,
            "erase_payloads": upkeep.erase_payloads,
            "forget_ended": upkeep.forget_ended,
            "kernel_status": status.kernel_status,
            "read_metrics": status.read_metrics,
            "set_policy": scheduling.set_policy,
            "read_timeline": scheduling.read_timeline,
            "add_schedule": schedules.add_schedule,
            "list_schedules": schedules.list_schedules,
            "pause_schedule": schedules.pause_schedule,
            "remove_schedule": schedules.remove_schedule,
            "run_schedule": schedules.run_schedule,
        }.items()
    }
)
