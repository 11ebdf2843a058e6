"""Policy: may this action happen, must somebody be asked, or is it refused. Pure, and the only place that says so.

Owns the order of the reasons: rights, deny rules, the first rule that matches, a remembered answer, the default of the
effect. Does not know the store, approvals' states, or who will be asked.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aos_mcp.abi.approval import Grant
from aos_mcp.abi.capability import CallerKind, Rights
from aos_mcp.abi.journal import EffectClass
from aos_mcp.abi.settings import Rule
from aos_mcp.security.rights import may_call
from aos_mcp.security.rules import matches

QUESTION_CHARS_MAX = 2_000  # A person reads no more; the digest binds the rest.
SPAWN = "spawn_agent"
_BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
"""Characters that show nothing though Unicode calls them letters, marks or symbols: fillers, variation selectors."""

DOWNSTREAM = "__"
"""Stands between server and tool in the name of a downstream tool, and in no name of the kernel's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allow:
    """It may happen."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A person must allow it first."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deny:
    """It may not happen, whoever is asked."""

    reason: str


Decision = Allow | Ask | Deny


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What is about to happen.

    `agent` is the agent's definition or name, or `host`; `call` the syscall; `tool` what rules and rights speak about:
    the call's own name, or `server__tool`. `external` says whether it acts on the world outside the kernel.
    """

    caller_kind: CallerKind
    agent: str
    call: str
    tool: str
    arguments: Mapping[str, object]
    effect: EffectClass
    read_only: bool
    external: bool


def decide(action: Action, rights: Rights | None, rules: Sequence[Rule], grant: Grant | None) -> Decision:
    """Return the decision and the reason that made it.

    `rights` are the calling process's, None for callers that are not agents; `grant` is the remembered answer for this
    agent and tool. A grant settles what would be asked and what no rule speaks about, never against a deny rule. The
    kernel's own acts pass. An operator is who would be asked, so is not asked.
    """
    if action.caller_kind is CallerKind.KERNEL:
        return Allow(reason="the kernel itself")
    refused = _beyond_rights(action, rights)
    if refused is not None:
        return refused
    fitting = [
        (number, rule)
        for number, rule in enumerate(rules, start=1)
        if matches(rule, tool=action.tool, agent=action.agent, arguments=action.arguments)
    ]
    for number, rule in fitting:
        if rule.effect == "deny":
            return Deny(reason=_name(number, rule))
    decision: Decision | None = _by_rule(*fitting[0]) if fitting else None
    if decision is None or isinstance(decision, Ask):
        decision = _by_grant(action, grant) or decision or _by_default(action)
    if isinstance(decision, Ask) and action.caller_kind is CallerKind.OPERATOR:
        return Allow(reason=f"the operator does it ({decision.reason})")
    return decision


def action_digest(principal: str, pid: str | None, call: str, tool: str, arguments: Mapping[str, object]) -> str:
    """Return what binds an approval to one action: SHA-256 of its canonical JSON, in hexadecimal."""
    action = {"principal": principal, "pid": pid, "call": call, "tool": tool, "arguments": dict(arguments)}
    return hashlib.sha256(_canonical(action, ascii_only=True).encode()).hexdigest()


def question(action: Action) -> str:
    """Return the sentence a person is shown: who, which tool, and its very arguments.

    At most QUESTION_CHARS_MAX characters of arguments, and it says when there are more. Characters that no reader sees,
    or that turn the direction of writing, are shown as escapes: nothing can hide in the question.
    """
    arguments = shown(_canonical(dict(action.arguments), ascii_only=False))
    rest = len(arguments) - QUESTION_CHARS_MAX
    if rest > 0:
        arguments = f"{arguments[:QUESTION_CHARS_MAX]}… ({rest:,} more characters)"
    who = "The host" if action.caller_kind is CallerKind.HOST else f"Agent “{shown(action.agent)}”"
    effect = " It may change things outside the kernel." if action.external and not action.read_only else ""
    return f"{who} wants to call {shown(action.tool)} with {arguments}.{effect} Allow it?"


def shown(text: str) -> str:
    r"""Return text with every character that has no shape of its own as a `\u` escape; plain spaces are kept."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(c) if _shapeless(c) else c for c in text)


def _shapeless(character: str) -> bool:
    if character == " ":
        return False
    return unicodedata.category(character)[0] in "CZ" or _BLANK.match(character) is not None


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _beyond_rights(action: Action, rights: Rights | None) -> Deny | None:
    if action.caller_kind not in {CallerKind.AGENT, CallerKind.GUEST}:
        return None
    if rights is None:
        return Deny(reason="the agent has no rights")
    if not may_call(rights, action.tool):
        return Deny(reason=f"the agent's rights do not include {action.tool}")
    if action.call == SPAWN and not rights.spawn:
        return Deny(reason="the agent's rights do not include children")
    return None


def _by_rule(number: int, rule: Rule) -> Allow | Ask:
    return Allow(reason=_name(number, rule)) if rule.effect == "allow" else Ask(reason=_name(number, rule))


def _by_grant(action: Action, grant: Grant | None) -> Decision | None:
    if grant is None or (grant.agent, grant.tool) != (action.agent, action.tool):
        return None
    reason = f"remembered answer for {grant.tool} by {grant.agent}"
    return Allow(reason=reason) if grant.decision == "allow" else Deny(reason=reason)


def _by_default(action: Action) -> Allow | Ask:
    if action.caller_kind is not CallerKind.AGENT:
        return Allow(reason=f"default: {action.caller_kind} calls")
    if DOWNSTREAM not in action.tool:
        return Allow(reason="default: the kernel's own calls are bounded by rights, budgets and the sandbox")
    if action.read_only:
        return Allow(reason="default: a downstream tool that only reads")
    return Ask(reason="default: a downstream tool that may change things")


def _name(number: int, rule: Rule) -> str:
    """Return how a person finds the rule again: its number in the configuration, and its own words."""
    terms = [f"tool={rule.tool}", f"agent={rule.agent}", *(f"{name}={pattern}" for name, pattern in rule.args.items())]
    words = f": {rule.reason}" if rule.reason else ""
    return f"rule {number} ({rule.effect} {', '.join(terms)}){words}"


def _canonical(value: object, *, ascii_only: bool) -> str:
    return json.dumps(value, ensure_ascii=ascii_only, sort_keys=True, separators=(",", ":"))
