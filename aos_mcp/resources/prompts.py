"""The MCP prompts: what a person starts from a host's menu. Templates over the tools, nothing more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import mcp_types as types
from mcp.shared.exceptions import MCPError


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """One prompt: its arguments by name (True: required) with their descriptions, and the text it becomes."""

    name: str
    title: str
    description: str
    arguments: tuple[tuple[str, bool, str], ...]
    text: Callable[[Mapping[str, str]], str]


def _delegate(given: Mapping[str, str]) -> str:
    options = [f"model {given['model']!r}" if given.get("model") else ""]
    options.append(f"a budget of {given['budget_usd']} US dollars" if given.get("budget_usd") else "")
    using = " and ".join(option for option in options if option)
    return (
        f"Delegate this task to an agent:\n\n{given['task']}\n\n"
        f"Use spawn_agent{' with ' + using if using else ''}. Write the task so that it stands alone: the agent sees "
        "nothing of this conversation. Then wait_agent; while it runs you may do other work. When it ends, check its "
        "result against the task before you report it, and say what it cost."
    )


def _review(given: Mapping[str, str]) -> str:
    pid = given["pid"]
    return (
        f"Review the agent {pid}. Read aos://proc/{pid}, aos://proc/{pid}/context and aos://proc/{pid}/journal, and "
        f"read_audit with pid {pid}. Say what it has done, what it is doing, what it waits for, what it has spent of "
        "its budget, which steps failed or have an unknown outcome, and whether to let it go on, send it a message, "
        "or signal it. Change nothing before I agree."
    )


def _recover(given: Mapping[str, str]) -> str:
    return (
        "Find out what needs attention in the kernel. Read kernel_status and list_agents. For every agent that failed, "
        "was ended by its budget, or waits for an approval: read aos://proc/{pid} and its journal, and propose one of: "
        "answer the approval, restore a checkpoint or a step (on another model or budget), spawn it anew, or leave it. "
        "Where unknown_steps or an approval says that a call may have happened, find out whether it did, and propose "
        "an answer: done with what it gave, allow to have it done, or deny to leave it. Change nothing before I agree."
    )


TEMPLATES: Mapping[str, Template] = {
    template.name: template
    for template in (
        Template(
            name="delegate",
            title="Delegate a task",
            description="Give a task to an agent and follow it to its end.",
            arguments=(
                ("task", True, "What is to be done"),
                ("model", False, "provider/model"),
                ("budget_usd", False, "The most it may spend, in US dollars"),
            ),
            text=_delegate,
        ),
        Template(
            name="review_agent",
            title="Review an agent",
            description="Look into one agent: progress, spending, trouble.",
            arguments=(("pid", True, "The agent's pid"),),
            text=_review,
        ),
        Template(
            name="recover",
            title="Recover",
            description="Find agents that failed or wait, and propose what to do.",
            arguments=(),
            text=_recover,
        ),
    )
}


def prompts() -> list[types.Prompt]:
    """Return all prompts."""
    return [
        types.Prompt(
            name=template.name,
            title=template.title,
            description=template.description,
            arguments=[
                types.PromptArgument(name=name, description=description, required=required)
                for name, required, description in template.arguments
            ],
        )
        for template in TEMPLATES.values()
    ]


def get_prompt(name: str, arguments: Mapping[str, str]) -> types.GetPromptResult:
    """Return one prompt with its arguments filled in.

    Raises:
        MCPError: -32602 for an unknown prompt or a missing argument.
    """
    template = TEMPLATES.get(name)
    if template is None:
        raise MCPError(types.INVALID_PARAMS, f"There is no prompt {name!r}.")
    missing = [given for given, required, _ in template.arguments if required and not arguments.get(given)]
    if missing:
        raise MCPError(types.INVALID_PARAMS, f"The prompt {name!r} needs {', '.join(missing)}.")
    content = types.TextContent(type="text", text=template.text(arguments))
    return types.GetPromptResult(
        description=template.description, messages=[types.PromptMessage(role="user", content=content)]
    )
