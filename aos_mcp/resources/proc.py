"""Processes, as /proc shows them."""

from __future__ import annotations

from collections.abc import Mapping

from aos_mcp.abi import limits
from aos_mcp.resources.form import Form


def _all(values: Mapping[str, str]) -> Mapping[str, object]:
    return {"limit": limits.LIST_MAX}


def _after(values: Mapping[str, str]) -> Mapping[str, object]:
    return {"pid": values["pid"], "after": int(values["after"]), "limit": limits.LIST_MAX}


def _step(values: Mapping[str, str]) -> Mapping[str, object]:
    return {"pid": values["pid"], "step": int(values["step"])}


FORMS = (
    Form(
        uri="aos://proc",
        name="proc",
        title="Agents",
        description="All agents, newest first.",
        call="list_agents",
        arguments=_all,
    ),
    Form(
        uri="aos://proc/{pid}",
        name="process",
        title="One agent",
        description="Everything about one agent.",
        call="read_process",
    ),
    Form(
        uri="aos://proc/{pid}/context",
        name="context",
        title="Page table",
        description="What is in an agent's context, what left it, when and why.",
        call="read_context",
    ),
    Form(
        uri="aos://proc/{pid}/journal",
        name="journal",
        title="Journal",
        description="The steps of an agent.",
        call="read_journal",
    ),
    Form(
        uri="aos://proc/{pid}/journal/{after}",
        name="journal-after",
        title="Journal, continued",
        description="The steps of an agent behind the one with this number.",
        call="read_journal",
        arguments=_after,
    ),
    Form(
        uri="aos://proc/{pid}/why/{step}",
        name="why",
        title="Why a step was made",
        description="The pages the model saw, what allowed the step, and the budget it drew on.",
        call="explain_step",
        arguments=_step,
    ),
    Form(
        uri="aos://checkpoint/{checkpoint_id}",
        name="checkpoint",
        title="Checkpoint",
        description="One checkpoint of an agent.",
        call="read_checkpoint",
    ),
)
