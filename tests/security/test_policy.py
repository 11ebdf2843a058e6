from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aos_mcp.abi.approval import Grant
from aos_mcp.abi.capability import CallerKind, Rights
from aos_mcp.abi.journal import EffectClass
from aos_mcp.abi.settings import Rule
from aos_mcp.security.policy import QUESTION_CHARS_MAX, Action, Allow, Ask, Deny, action_digest, decide, question
from aos_mcp.security.rules import matches

ALL = Rights()


def action(
    tool: str = "git__push",
    *,
    call: str = "call_tool",
    kind: CallerKind = CallerKind.AGENT,
    agent: str = "coder",
    arguments: Mapping[str, object] | None = None,
    read_only: bool = False,
) -> Action:
    return Action(
        caller_kind=kind,
        agent=agent,
        call=call,
        tool=tool,
        arguments={} if arguments is None else arguments,
        effect=EffectClass.PURE if read_only else EffectClass.UNSAFE,
        read_only=read_only,
        external=True,
    )


def grant(decision: str = "allow", *, agent: str = "coder", tool: str = "git__push") -> Grant:
    return Grant(owner="somebody", agent=agent, tool=tool, decision=decision, at=0.0)


PATTERNS = st.sampled_from(["*", "git__*", "git__push", "sandbox_exec", "web__*"])
RULES = st.lists(
    st.builds(
        Rule,
        effect=st.sampled_from(["allow", "ask", "deny"]),
        tool=PATTERNS,
        agent=st.sampled_from(["*", "coder", "host"]),
        args=st.sampled_from([{}, {"path": "/etc/*"}]),
    ),
    max_size=6,
)
ACTIONS = st.builds(
    action,
    st.sampled_from(["git__push", "git__log", "sandbox_exec", "web__get", "spawn_agent"]),
    kind=st.sampled_from(list(CallerKind)),
    agent=st.sampled_from(["coder", "host", "tester"]),
    arguments=st.sampled_from([{}, {"path": "/etc/passwd"}, {"path": "/srv"}]),
    read_only=st.booleans(),
)
GRANTS = st.none() | st.builds(grant, st.sampled_from(["allow", "deny"]))


def test_an_agent_is_denied_what_its_rights_do_not_name_whatever_the_rules_say() -> None:
    rights = Rights(tools=(("fs__*",),))
    decision = decide(action(), rights, [Rule(effect="allow")], grant())
    assert isinstance(decision, Deny)
    assert "rights" in decision.reason


def test_an_agent_without_rights_is_denied() -> None:
    assert isinstance(decide(action("page_in", call="page_in"), None, [], None), Deny)


def test_an_agent_without_the_right_to_spawn_is_denied_children() -> None:
    spawn = action("spawn_agent", call="spawn_agent")
    assert isinstance(decide(spawn, Rights(spawn=False), [], None), Deny)
    assert isinstance(decide(spawn, ALL, [], None), Allow)


def test_a_deny_rule_wins_over_an_allow_rule_before_it() -> None:
    rules = [Rule(effect="allow", tool="git__*"), Rule(effect="deny", tool="git__push", reason="releases are by hand")]
    decision = decide(action(), ALL, rules, grant())
    assert decision == Deny(reason="rule 2 (deny tool=git__push, agent=*): releases are by hand")


def test_the_first_rule_that_matches_decides_between_allow_and_ask() -> None:
    allow, ask = Rule(effect="allow", tool="git__*"), Rule(effect="ask", tool="*")
    assert isinstance(decide(action(), ALL, [allow, ask], None), Allow)
    assert isinstance(decide(action(), ALL, [ask, allow], None), Ask)


def test_a_remembered_answer_settles_what_would_be_asked() -> None:
    ask = Rule(effect="ask", tool="git__*")
    for rules in ([], [ask]):
        assert isinstance(decide(action(), ALL, rules, grant()), Allow)
        assert isinstance(decide(action(), ALL, rules, grant("deny")), Deny)


def test_a_remembered_answer_for_another_agent_or_tool_settles_nothing() -> None:
    assert isinstance(decide(action(), ALL, [], grant(agent="tester")), Ask)
    assert isinstance(decide(action(), ALL, [], grant(tool="git__log")), Ask)


@pytest.mark.parametrize("kind", [CallerKind.HOST, CallerKind.OPERATOR, CallerKind.KERNEL])
def test_callers_that_are_not_agents_are_allowed_by_default(kind: CallerKind) -> None:
    assert isinstance(decide(action(kind=kind, agent="host"), None, [], None), Allow)


def test_agents_may_make_kernel_calls_and_read_downstream_by_default_and_ask_for_the_rest() -> None:
    assert isinstance(decide(action("sandbox_exec", call="sandbox_exec"), ALL, [], None), Allow)
    assert isinstance(decide(action("git__log", read_only=True), ALL, [], None), Allow)
    assert isinstance(decide(action("git__push"), ALL, [], None), Ask)


def test_rules_bind_the_host_too() -> None:
    host = action(kind=CallerKind.HOST, agent="host")
    assert isinstance(decide(host, None, [Rule(effect="ask", agent="host")], None), Ask)
    assert isinstance(decide(host, None, [Rule(effect="deny", tool="git__*")], None), Deny)


def test_an_operator_is_not_asked_for_leave_but_is_bound_by_deny_rules() -> None:
    operator = action(kind=CallerKind.OPERATOR, agent="operator")
    assert isinstance(decide(operator, None, [Rule(effect="ask")], None), Allow)
    assert isinstance(decide(operator, None, [Rule(effect="deny")], None), Deny)


@given(ACTIONS, RULES, GRANTS)
def test_nothing_beats_a_deny_rule_that_matches(act: Action, rules: list[Rule], remembered: Grant | None) -> None:
    denied = any(
        rule.effect == "deny" and matches(rule, tool=act.tool, agent=act.agent, arguments=act.arguments)
        for rule in rules
    )
    if denied and act.caller_kind is not CallerKind.KERNEL:
        assert isinstance(decide(act, ALL, rules, remembered), Deny)


@given(ACTIONS, RULES, GRANTS)
def test_every_decision_names_its_reason(act: Action, rules: list[Rule], remembered: Grant | None) -> None:
    assert decide(act, ALL, rules, remembered).reason


@given(ACTIONS, RULES, GRANTS)
def test_narrower_rights_never_turn_a_refusal_into_leave(
    act: Action, rules: list[Rule], remembered: Grant | None
) -> None:
    narrower = replace(ALL, tools=(("*",), ("git__*",)), spawn=False)
    if isinstance(decide(act, ALL, rules, remembered), Deny):
        assert isinstance(decide(act, narrower, rules, remembered), Deny)


def test_a_rule_on_an_argument_speaks_only_of_calls_that_have_it() -> None:
    rule = Rule(effect="deny", args={"path": "/etc/*"})
    assert matches(rule, tool="fs__read", agent="coder", arguments={"path": "/etc/passwd"})
    assert matches(rule, tool="fs__read", agent="coder", arguments={"path": "/etc/ssh/a\nb"})
    assert not matches(rule, tool="fs__read", agent="coder", arguments={"path": "/srv"})
    assert not matches(rule, tool="fs__read", agent="coder", arguments={})


def test_an_argument_that_is_not_text_is_matched_as_json() -> None:
    arguments = {"argv": ["rm", "-rf", "/"], "force": True, "depth": 3, "nothing": None}
    for name, pattern in [("argv", '*"rm"*'), ("force", "true"), ("depth", "3"), ("nothing", "null")]:
        rule = Rule(effect="deny", args={name: pattern})
        assert matches(rule, tool="fs__x", agent="coder", arguments=arguments)


def test_a_pattern_with_many_stars_on_a_long_argument_ends() -> None:
    rule = Rule(effect="deny", args={"text": "*a*a*a*a*a*a*a*b"})
    assert not matches(rule, tool="x", agent="y", arguments={"text": "a" * 50_000})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ARGUMENTS = st.dictionaries(st.text(max_size=8), JSON, max_size=4)


@given(ARGUMENTS)
def test_a_digest_does_not_depend_on_the_order_of_arguments(arguments: dict[str, object]) -> None:
    turned = dict(reversed(arguments.items()))
    assert action_digest("me", "p_1", "c", "t", arguments) == action_digest("me", "p_1", "c", "t", turned)


def test_a_digest_differs_in_every_part_of_the_action() -> None:
    digests = {
        action_digest("me", "p_1", "c", "t", {"a": 1}),
        action_digest("you", "p_1", "c", "t", {"a": 1}),
        action_digest("me", None, "c", "t", {"a": 1}),
        action_digest("me", "p_1", "d", "t", {"a": 1}),
        action_digest("me", "p_1", "c", "u", {"a": 1}),
        action_digest("me", "p_1", "c", "t", {"a": "1"}),
        action_digest("me", "p_1", "c", "t", {"a": True}),
        action_digest("me", "p_1", "c", "t", {"a": 1, "b": None}),
        action_digest("me", "p_1", "c", "t", {}),
    }
    assert len(digests) == 9
    assert all(len(digest) == 64 for digest in digests)


def test_a_question_shows_the_very_tool_and_arguments() -> None:
    shown = question(action(arguments={"remote": "origin", "force": True}))
    assert 'Agent “coder” wants to call git__push with {"force":true,"remote":"origin"}.' in shown


@given(ARGUMENTS)
def test_nothing_can_hide_in_a_question(arguments: dict[str, object]) -> None:
    shown = question(action(agent="co\u202eder\u200b", arguments=arguments))
    assert shown.isprintable()


@pytest.mark.parametrize(
    "hidden", ["\u202e", "\u200b", "\u2066", "\U000e0041", "\x7f", "\x85", "\u00a0", "\u3164", "\ufe0f"]
)
def test_a_character_without_a_shape_is_shown_as_an_escape(hidden: str) -> None:
    shown = question(action(arguments={"text": f"a{hidden}b"}))
    assert hidden not in shown
    assert f"{ord(hidden):04x}" in shown


def test_arguments_are_shown_whole_up_to_the_limit_and_then_counted() -> None:
    fitting = {"t": "x" * (QUESTION_CHARS_MAX - len('{"t":""}'))}
    assert "more characters" not in question(action(arguments=fitting))
    assert "(8,008 more characters)" in question(action(arguments={"t": "x" * 10_000}))
