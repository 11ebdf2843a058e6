"""What a text was made from: labels, carried from a source to all that is made from it.

Owns the rule. A downstream server's answer is labelled `mount:NAME`, a command's output `sandbox`; what is read from
pages or from another agent has the labels of what was read. What an agent writes itself may come from anything it has
seen, so it has all the labels of its context.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from aos_mcp.abi.handle import PageId, Pid
from aos_mcp.abi.page import Page
from aos_mcp.ports import Transaction

SANDBOX = "sandbox"


def joined(*labels: Iterable[str]) -> tuple[str, ...]:
    """Return the labels of what is made from several sources."""
    return tuple(sorted({label for each in labels for label in each}))


def of_result(tx: Transaction, owner: str, call: str, arguments: Mapping[str, object], body: bytes) -> tuple[str, ...]:
    """Return the labels of a tool's answer, the JSON text `body`, to an agent of `owner`."""
    if call == "call_tool":
        return (f"mount:{str(arguments.get('name')).partition('__')[0]}",)
    if call == "sandbox_exec":
        return (SANDBOX,)
    if call == "page_in":
        page = page_read(tx, owner, arguments)
        return page.labels if page is not None else ()
    told = json.loads(body) if call in {"search_pages", "wait_agent"} else {}
    found = [tx.page_get(PageId(hit["page_id"])) for hit in told.get("hits", [])]
    waited = [tx.page_labels(Pid(agent["pid"])) for agent in told.get("agents", [])]
    return joined(*(page.labels for page in found if page is not None), *waited)


def page_read(tx: Transaction, owner: str, arguments: Mapping[str, object]) -> Page | None:
    """Return the page that a page_in names, in whole or by its beginning."""
    named = PageId(str(arguments.get("page_id")))
    page = tx.page_get(named)
    if page is None:
        whole = tx.page_named(named, owner=owner)
        page = tx.page_get(whole) if whole is not None else None
    return page if page is not None and page.owner == owner else None
