"""Rights: what a process may reach, and how they shrink from parent to child.

A right is a stack of layers, and what is asked for must pass every layer. A child has its parent's layers and more,
so that it can never exceed its parent is plain from the shape and needs no arithmetic over patterns. Fails closed:
no layer at all allows nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from aos_mcp.abi.capability import LEVEL_ORDER, IsolationLevel, Rights
from aos_mcp.abi.errors import Denied

NOTHING: tuple[tuple[str, ...], ...] = ((),)
"""One layer without patterns. It stands for no layers, so that a child's own layer does not become the only one."""


def attenuate(
    parent: Rights,
    *,
    tools: Sequence[str] | None,
    network: Sequence[str] | None,
    level: IsolationLevel | None,
    spawn: bool | None = None,
) -> Rights:
    """Return a child's rights: the parent's, and at most what is named here. None adds no bound of its own."""
    return replace(
        parent,
        tools=parent.tools if tools is None else (*(parent.tools or NOTHING), tuple(tools)),
        network=parent.network if network is None else (*reachable(parent), tuple(network)),
        level=parent.level if level is None else min(parent.level, level, key=LEVEL_ORDER.index),
        spawn=parent.spawn and spawn is not False,
    )


def may_call(rights: Rights, name: str) -> bool:
    """Return whether every layer has a pattern for a call's name or `server__tool`. Case counts."""
    return bool(rights.tools) and all(any(fnmatchcase(name, p) for p in layer) for layer in rights.tools)


def reachable(rights: Rights) -> tuple[tuple[str, ...], ...]:
    """Return the network layers for whoever enforces them; one without patterns reaches nothing. Never empty."""
    return rights.network or NOTHING


def network_allowed(rights: Rights, host: str, port: int) -> bool:
    """Return whether every layer has a pattern for `host` or `host:port`. Case and a final dot do not count.

    The isolation level is another question, which `narrow` answers; so is the address a name resolves to.
    """
    return all(any(_reaches(pattern, host, port) for pattern in layer) for layer in reachable(rights))


def permitted(rights: Rights) -> tuple[str, ...]:
    """Return the patterns that reach nothing a layer forbids: each of any layer that all the others cover.

    This is what an enforcer that knows one list only is given; it never reaches more than `network_allowed` admits.
    """
    layers = reachable(rights)
    found = {
        pattern: None
        for layer in layers
        for pattern in layer
        if all(any(_covers(other, pattern) for other in other_layer) for other_layer in layers)
    }
    return tuple(found)


def narrow(rights: Rights, asked: IsolationLevel | None) -> IsolationLevel:
    """Return the level of a command: the one asked for, or else the widest the rights have.

    Raises Denied when more is asked than the rights have.
    """
    if asked is None:
        return rights.level
    if LEVEL_ORDER.index(asked) > LEVEL_ORDER.index(rights.level):
        raise Denied(
            f"Isolation level {asked} is wider than this process may use.",
            f"Ask for {rights.level} or a narrower level; whoever spawned it decides the widest.",
        )
    return asked


def _reaches(pattern: str, host: str, port: int) -> bool:
    host_pattern, port_pattern = _split(pattern)
    if port_pattern not in {"", "*", str(port)}:
        return False
    name = _plain(host)
    if ":" in host_pattern:  # An IPv6 address is taken as it is: its brackets would be a set of characters to fnmatch.
        return name == host_pattern
    return fnmatchcase(name, host_pattern)


def _covers(wide: str, narrow_: str) -> bool:
    """Tell whether every host and port of one pattern is one of another's. False where it cannot be told."""
    (wide_host, wide_port), (host, port) = _split(wide), _split(narrow_)
    if wide_port not in {"", "*", port}:
        return False
    return wide_host in {host, "*"} or (":" not in host and "[" not in wide_host and fnmatchcase(host, wide_host))


def _split(pattern: str) -> tuple[str, str]:
    """Return host and port of `host`, `host:port`, `[v6]` or `[v6]:port`; a bare IPv6 address has no port."""
    if pattern.startswith("["):
        host, _, rest = pattern.partition("]")
        return _plain(host), rest.removeprefix(":")
    if pattern.count(":") == 1:
        host, _, port = pattern.partition(":")
        return _plain(host), port
    return _plain(pattern), ""


def _plain(host: str) -> str:
    return host.strip("[]").removesuffix(".").lower()
