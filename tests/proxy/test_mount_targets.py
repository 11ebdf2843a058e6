"""Variables, references and what may be shown of them; pauses and progress."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
import pytest

from aos_mcp.abi import limits
from aos_mcp.abi.errors import Invalid, Unavailable
from aos_mcp.abi.settings import MountSettings
from aos_mcp.proxy.mount import ProgressGate, backoff
from aos_mcp.proxy.mount_table import MountTable
from aos_mcp.proxy.target import expand, proxy_for, resolve, transport_of
from aos_mcp.testing.clock import FakeClock, SeededEntropy


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${A}/x", "1/x"),
        ("${A:-2}", "1"),
        ("${B:-2}", "2"),
        ("${EMPTY:-2}", "2"),
        ("${EMPTY}", ""),
        ("${B:-}", ""),
        ("${B:-http://x:1}", "http://x:1"),
        ("$A {A} ${A", "$A {A} ${A"),
    ],
)
def test_variables_are_replaced_as_a_shell_does(text: str, value: str) -> None:
    assert expand(text, {"A": "1", "EMPTY": ""}) == value


@pytest.mark.parametrize("name", ["B", "input:token"])
def test_a_variable_that_is_not_set_is_named(name: str) -> None:
    with pytest.raises(Unavailable, match=name):
        expand(f"x ${{{name}}}", {"A": "1"})


async def secret(value: str, **environ: str) -> str:
    settings = MountSettings(command="true", env={"KEY": value})
    return (await resolve(settings, "s", {"PATH": "/usr/bin:/bin", **environ})).env["KEY"]


async def test_references_become_the_secret_behind_them(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from file\n", "utf-8")
    assert await secret("env:OTHER", OTHER="from env") == "from env"
    assert await secret(f"file:{tmp_path}/key") == "from file"
    assert await secret(f"cmd:{sys.executable} -c 'print(\"from command\")'") == "from command"


@pytest.mark.parametrize("value", ["file:./dev.db", "file:///dev.db", "http://x", "environment", "env:a b"])
async def test_values_that_only_look_like_references_stay(value: str) -> None:
    assert await secret(value) == value


@pytest.mark.parametrize("value", ["env:NOT_SET", "file:/no/such/file", "cmd:false", "cmd:/no/such/program"])
async def test_a_reference_to_nothing_says_which_value_is_missing(value: str) -> None:
    with pytest.raises(Unavailable, match="KEY"):
        await secret(value)


async def test_a_target_shows_no_secret() -> None:
    settings = MountSettings(url="https://x.example/mcp", headers={"Authorization": "env:TOKEN"})
    target = await resolve(settings, "s", {"TOKEN": "Bearer 0123456789"})
    assert "0123456789" not in repr(target)
    assert target.censor("got Bearer 0123456789 from you") == "got *** from you"


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"command": "x", "url": "http://x"},
        {"command": "x", "transport": "http"},
        {"url": "http://x", "transport": "stdio"},
    ],
)
def test_settings_that_contradict_themselves_are_refused(settings: dict[str, str]) -> None:
    with pytest.raises(Invalid, match="'s'"):
        transport_of(MountSettings.model_validate(settings), "s")


def test_two_keys_that_become_one_name_are_refused() -> None:
    mounts = {"a b": MountSettings(command="x"), "a-b": MountSettings(command="y")}
    with pytest.raises(Invalid, match="a-b"):
        MountTable(mounts, FakeClock(), SeededEntropy(), {})


async def test_a_url_that_is_not_of_the_web_is_refused() -> None:
    with pytest.raises(Invalid, match="http"):
        await resolve(MountSettings(url="ftp://x"), "s", {})


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("https://far.example/mcp", "http://p:1"),
        ("http://far.example/mcp", None),
        ("https://near.example/mcp", None),
        ("https://a.near.example/mcp", None),
        ("https://localhost/mcp", None),
    ],
)
def test_the_usual_variables_name_a_proxy(url: str, proxy: str | None) -> None:
    assert proxy_for(url, {"HTTPS_PROXY": "http://p:1", "NO_PROXY": ".near.example, other"}) == proxy


def test_pauses_double_up_to_the_cap_and_are_jittered() -> None:
    pauses = [backoff(n, 0.0) for n in range(1, 12)]
    assert pauses[:4] == [0.5, 1.0, 2.0, 4.0]
    assert pauses[-1] == backoff(10_000, 0.0) == limits.MOUNT_BACKOFF_CAP_S
    assert backoff(1, 0.999) > backoff(1, 0.0) / 2


async def test_progress_is_thinned_and_ends_with_the_call() -> None:
    clock, seen = FakeClock(), []

    async def note(done: float, total: float | None, message: str) -> None:
        seen.append(done)

    gate = ProgressGate(note, clock)
    for n in range(3):
        await gate.report(n, None, None)
    clock.advance(limits.MOUNT_PROGRESS_S)
    await gate.report(3, None, None)
    gate.close()
    clock.advance(limits.MOUNT_PROGRESS_S)
    await gate.report(4, None, None)
    assert seen == [0, 3]


async def test_a_failed_server_rests_on_the_given_clock() -> None:
    clock = FakeClock()
    table = MountTable({"bad": MountSettings(command="/no/such/program")}, clock, SeededEntropy(), {})
    with anyio.fail_after(60):
        async with table:
            await table.settled(60)
            assert table.status()[0].restarts == 0
            told = anyio.Event()
            table.on_change(lambda _: told.set())
            clock.advance(limits.MOUNT_BACKOFF_BASE_S)
            await told.wait()
            assert table.status()[0].restarts == 1
