"""Pages of context, exactly as they are."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel

from aos_mcp.abi import limits
from aos_mcp.abi.results import PageInResult
from aos_mcp.resources.form import TEXT, Form


def _whole(values: Mapping[str, str]) -> Mapping[str, object]:
    return {**values, "limit": limits.PAGE_BYTES_MAX}


def _content(result: BaseModel) -> str:
    assert isinstance(result, PageInResult), type(result)
    return result.content


FORMS = (
    Form(
        uri="aos://page/{page_id}",
        name="page",
        title="Page",
        description="One page of context, exactly as it was written.",
        call="page_in",
        mime_type=TEXT,
        arguments=_whole,
        render=_content,
    ),
)
