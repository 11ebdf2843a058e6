"""The kernel's counters."""

from __future__ import annotations

from pydantic import BaseModel

from aos_mcp.abi.results import MetricsResult
from aos_mcp.resources.form import TEXT, Form


def _text(result: BaseModel) -> str:
    assert isinstance(result, MetricsResult), type(result)
    return result.text


FORMS = (
    Form(
        uri="aos://metrics",
        name="metrics",
        title="Metrics",
        description="Counters and histograms in the Prometheus text form.",
        call="read_metrics",
        mime_type=TEXT,
        render=_text,
    ),
)
