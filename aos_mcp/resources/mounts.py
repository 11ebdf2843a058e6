"""What the kernel is joined to: downstream servers, and the people it asks."""

from __future__ import annotations

from aos_mcp.resources.form import Form

FORMS = (
    Form(
        uri="aos://mounts",
        name="mounts",
        title="Mounts",
        description="The downstream MCP servers and their state.",
        call="list_mounts",
    ),
    Form(
        uri="aos://approvals",
        name="approvals",
        title="Approvals",
        description="The questions that wait for a person.",
        call="list_approvals",
    ),
)
