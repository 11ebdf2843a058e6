"""Agent definitions: Markdown with a front matter, in the form that several hosts read as well."""

from __future__ import annotations

from dataclasses import dataclass

from aos_mcp.abi.budget import Budget


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentDefinition:
    """One definition. `prompt` is the text behind the front matter; None leaves a choice to the spawn."""

    name: str
    description: str
    prompt: str
    path: str
    model: str | None = None
    tools: tuple[str, ...] | None = None
    network: tuple[str, ...] | None = None
    budget: Budget | None = None
    priority: int | None = None
