import pytest
from hypothesis import given
from hypothesis import strategies as st

from aos_mcp.abi.capability import LEVEL_ORDER, IsolationLevel, Rights
from aos_mcp.abi.errors import Denied
from aos_mcp.security.rights import attenuate, may_call, narrow, network_allowed, permitted, reachable

NAMES = st.sampled_from(
    ["exit", "spawn_agent", "sandbox_exec", "git__log", "git__push", "Git__log", "web__get", "a[b]"]
)
PATTERNS = st.sampled_from(["*", "git__*", "*__log", "sandbox_exec", "[a-g]*", "?it__log", "", "a[b]", "exit"])
HOSTS = st.sampled_from(["example.com", "api.example.com", "EXAMPLE.com.", "10.0.0.1", "::1", "[::1]", "evil.com"])
HOST_PATTERNS = st.sampled_from(
    [
        "*",
        "example.com",
        "*.example.com",
        "example.com:443",
        "*:80",
        "[::1]:443",
        "::1",
        "example.com:*",
        "10.0.0.*",
        "",
    ]
)
PORTS = st.sampled_from([80, 443, 8_443])
LEVELS = st.sampled_from(list(IsolationLevel))
LAYERS = st.lists(st.lists(PATTERNS, max_size=3).map(tuple), max_size=3).map(tuple)
NETWORKS = st.lists(st.lists(HOST_PATTERNS, max_size=3).map(tuple), max_size=3).map(tuple)
RIGHTS = st.builds(Rights, tools=LAYERS, network=NETWORKS, level=LEVELS, spawn=st.booleans())
ASKED = st.fixed_dictionaries(
    {
        "tools": st.none() | st.lists(PATTERNS, max_size=3),
        "network": st.none() | st.lists(HOST_PATTERNS, max_size=3),
        "level": st.none() | LEVELS,
        "spawn": st.none() | st.booleans(),
    }
)


@given(parent=RIGHTS, asked=st.lists(ASKED, max_size=4), name=NAMES, host=HOSTS, port=PORTS)
def test_a_descendant_never_may_what_its_ancestor_may_not(
    parent: Rights, asked: list[dict[str, object]], name: str, host: str, port: int
) -> None:
    child = parent
    for wish in asked:
        child = attenuate(child, **wish)  # type: ignore[arg-type]
    assert may_call(parent, name) or not may_call(child, name)
    assert network_allowed(parent, host, port) or not network_allowed(child, host, port)
    assert LEVEL_ORDER.index(child.level) <= LEVEL_ORDER.index(parent.level)
    assert parent.spawn or not child.spawn


@given(parent=RIGHTS, name=NAMES, host=HOSTS, port=PORTS)
def test_a_child_that_asks_for_nothing_gets_what_its_parent_has(
    parent: Rights, name: str, host: str, port: int
) -> None:
    child = attenuate(parent, tools=None, network=None, level=None)
    assert child == parent


@given(parent=RIGHTS, tools=st.lists(PATTERNS, max_size=3), name=NAMES)
def test_a_child_may_exactly_what_both_its_parent_and_its_own_patterns_allow(
    parent: Rights, tools: list[str], name: str
) -> None:
    child = attenuate(parent, tools=tools, network=None, level=None)
    assert may_call(child, name) == (may_call(parent, name) and may_call(Rights(tools=(tuple(tools),)), name))


def test_rights_without_a_layer_or_a_pattern_allow_nothing() -> None:
    assert not may_call(Rights(tools=()), "exit")
    assert not may_call(Rights(tools=((),)), "exit")
    assert not network_allowed(Rights(network=()), "example.com", 443)
    assert not network_allowed(Rights(network=((),)), "example.com", 443)
    assert reachable(Rights(network=())) == ((),)


def test_names_are_matched_with_their_case() -> None:
    rights = Rights(tools=(("git__*",),))
    assert may_call(rights, "git__log")
    assert not may_call(rights, "Git__log")
    assert not may_call(rights, "xgit__log")


@pytest.mark.parametrize(
    ("pattern", "host", "port", "allowed"),
    [
        ("example.com", "example.com", 443, True),
        ("example.com", "EXAMPLE.COM.", 1, True),
        ("Example.com.", "example.com", 1, True),
        ("example.com", "example.com.evil.org", 443, False),
        ("example.com", "notexample.com", 443, False),
        ("*.example.com", "api.example.com", 443, True),
        ("*.example.com", "example.com", 443, False),
        ("example.com:443", "example.com", 443, True),
        ("example.com:443", "example.com", 80, False),
        ("example.com:44", "example.com", 443, False),
        ("example.com:*", "example.com", 80, True),
        ("*:443", "anything.org", 443, True),
        ("*:443", "anything.org", 80, False),
        ("[::1]:443", "::1", 443, True),
        ("[::1]:443", "::1", 80, False),
        ("[::1]", "[::1]", 80, True),
        ("::1", "::1", 80, True),
        ("::1", "::2", 80, False),
        ("", "example.com", 80, False),
    ],
)
def test_a_network_pattern_names_a_host_and_perhaps_a_port(pattern: str, host: str, port: int, allowed: bool) -> None:
    assert network_allowed(Rights(network=((pattern,),)), host, port) is allowed


def test_every_network_layer_must_allow() -> None:
    rights = attenuate(Rights(network=(("*.example.com",),)), tools=None, network=["api.*"], level=None)
    assert network_allowed(rights, "api.example.com", 443)
    assert not network_allowed(rights, "www.example.com", 443)
    assert not network_allowed(rights, "api.evil.org", 443)
    assert reachable(rights) == (("*.example.com",), ("api.*",))


def test_a_command_gets_the_level_it_asks_for_or_all_its_process_has() -> None:
    rights = Rights(level=IsolationLevel.STANDARD)
    assert narrow(rights, None) is IsolationLevel.STANDARD
    assert narrow(rights, IsolationLevel.READ_ONLY) is IsolationLevel.READ_ONLY


def test_a_wider_level_is_refused_with_what_may_be_asked_instead() -> None:
    with pytest.raises(Denied) as refused:
        narrow(Rights(level=IsolationLevel.STANDARD), IsolationLevel.NETWORK)
    assert "network" in refused.value.message
    assert "standard" in refused.value.hint


@given(rights=RIGHTS, asked=st.none() | LEVELS)
def test_a_command_never_runs_wider_than_its_process(rights: Rights, asked: IsolationLevel | None) -> None:
    try:
        level = narrow(rights, asked)
    except Denied:
        assert asked is not None
        return
    assert LEVEL_ORDER.index(level) <= LEVEL_ORDER.index(rights.level)


PATTERNS = st.sampled_from(["*", "a.x", "b.x", "*.x", "a.x:443", "*:443", "a.x:80", "[::1]:80", "c.y"])


@given(st.lists(st.lists(PATTERNS, max_size=3).map(tuple), min_size=1, max_size=3))
def test_what_an_enforcer_is_given_reaches_nothing_a_layer_forbids(layers: list[tuple[str, ...]]) -> None:
    rights = Rights(network=tuple(layers))
    flat = Rights(network=(permitted(rights),))
    for host in ("a.x", "b.x", "c.x", "c.y", "z.z", "::1"):
        for port in (80, 443, 8080):
            assert not network_allowed(flat, host, port) or network_allowed(rights, host, port)


def test_a_childs_host_under_a_wide_operator_list_is_permitted() -> None:
    assert permitted(Rights(network=(("*",), ("pypi.org:443",)))) == ("pypi.org:443",)
