"""Rules: whether one speaks about an action. What follows from that is `security.policy`'s."""

from __future__ import annotations

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase

from aos_mcp.abi.settings import Rule


def matches(rule: Rule, *, tool: str, agent: str, arguments: Mapping[str, object]) -> bool:
    """Return whether all of a rule's patterns fit. Case counts; `*` crosses `/` and line ends.

    A rule that names an argument speaks only about calls that have it. Text is matched as it is, anything else as
    compact JSON.
    """
    return (
        fnmatchcase(tool, rule.tool)
        and fnmatchcase(agent, rule.agent)
        and all(
            name in arguments and fnmatchcase(_as_text(arguments[name]), pattern) for name, pattern in rule.args.items()
        )
    )


def _as_text(value: object) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
