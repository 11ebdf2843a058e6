"""A second host, of the era with a handshake, which ends all that descends from its servers when it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from aos_mcp.testing.providers import provider_server
from tests.hosts.home import LAST_PID, furnish, kernel_home, needs
from tests.hosts.opencode import Session, calls, opencode, says
from tests.surface.conftest import daemon_pid

pytestmark = [pytest.mark.hosts, needs("opencode"), pytest.mark.timeout(300)]

SETTINGS = """
[sandbox]
drivers = []

[[rules]]
effect = "ask"
tool = "complete"
"""

FIRST = (
    calls("spawn_agent", task="Say hello.", model="replay/hello"),
    calls("wait_agent", pids=[LAST_PID], timeout_s=60),
    calls("complete", prompt="Say hello.", model="replay/hello"),
    calls("spawn_agent", task="Wait for a word.", model="replay/patient"),
    says("That was the first run."),
)
SECOND = (
    calls("list_agents", limit=1),
    calls("send_message", to=LAST_PID, text="Here the word is plover."),
    calls("wait_agent", pids=[LAST_PID], timeout_s=60),
    says("That was the second run."),
)


@dataclass(frozen=True)
class Story:
    """What came of it."""

    first: Session
    second: Session
    daemons: tuple[int | None, int | None]


@pytest.fixture(scope="module")
async def story(home: Path) -> AsyncIterator[Story]:
    furnish(home, SETTINGS)
    async with provider_server() as model:
        first = await opencode(home, model, *FIRST)
        before = daemon_pid(kernel_home(home))
        second = await opencode(home, model, *SECOND)
        yield Story(first, second, (before, daemon_pid(kernel_home(home))))


async def test_the_host_works_through_the_whole_script(story: Story) -> None:
    assert (story.first.exit_code, story.first.last_words) == (0, "That was the first run.")
    assert (story.second.exit_code, story.second.last_words) == (0, "That was the second run.")
    assert [state for state, _ in story.second.answered] == ["completed"] * 3


async def test_a_host_without_forms_is_told_which_question_waits(story: Story) -> None:
    state, text = story.first.answered[2]
    assert state == "error"
    assert "approval_required" in text
    assert "ap_" in text


async def test_an_agent_is_spawned_and_waited_for(story: Story) -> None:
    assert "Hello. My note is pg_" in story.first.answered[1][1]


async def test_the_daemon_and_its_agents_outlive_a_host_that_ends_what_descends_from_it(story: Story) -> None:
    before, after = story.daemons
    assert before is not None
    assert after == before
    assert "I heard plover." in story.second.answered[2][1]
