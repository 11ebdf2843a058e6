"""The tamper-evident log."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel

from aos_mcp.abi.errors import NotFound
from aos_mcp.abi.results import ReadAuditResult
from aos_mcp.resources.form import Form


def _newest(values: Mapping[str, str]) -> Mapping[str, object]:
    return {}


def _one(values: Mapping[str, str]) -> Mapping[str, object]:
    return {"after_seq": int(values["seq"]) - 1, "limit": 1}


def _record(result: BaseModel) -> str:
    assert isinstance(result, ReadAuditResult), type(result)
    if not result.records:
        raise NotFound("There is no such record.", "Read aos://audit for the numbers there are.")
    return result.records[0].model_dump_json()


FORMS = (
    Form(
        uri="aos://audit",
        name="audit",
        title="Audit log",
        description="The newest records and the signed head.",
        call="read_audit",
        arguments=_newest,
    ),
    Form(
        uri="aos://audit/{seq}",
        name="audit-record",
        title="Audit record",
        description="One record of the audit log, by its number.",
        call="read_audit",
        arguments=_one,
        render=_record,
    ),
)
