"""What the verbs of `ports.QueueTransaction` promise, as checks. The entry is `testing.store_checks`."""

from __future__ import annotations

from dataclasses import replace

from aos_mcp.abi.budget import Budget, Usage
from aos_mcp.abi.errors import Conflict, NotFound
from aos_mcp.abi.handle import Pid
from aos_mcp.abi.process import ProcessState
from aos_mcp.abi.scheduling import OWNER_PREFIX, Missed, Pick, Schedule, Share, SizeHint, Work
from aos_mcp.ports import Transaction
from aos_mcp.testing.store_record_checks import Check, OpenStore, refused
from aos_mcp.testing.store_samples import AT, OWNER, a_process, an_account

HINT = SizeHint(agent="reviewer", model="replay/none", turns=4.5, turn_units=1_000.0, runs=3)


async def ready_processes_come_when_they_are_due(open_store: OpenStore) -> None:
    """READY rows, the longest ready first, not before their hour; where some are named, only of these."""
    async with open_store() as store:

        def insert(tx: Transaction) -> None:
            tx.process_insert(replace(a_process("p_late", at=0.0), ready_at=3.0))
            tx.process_insert(a_process("p_early", at=1.0))
            tx.process_insert(replace(a_process("p_waits", at=2.0), ready_at=0.5, wake_at=10.0))
            tx.process_insert(a_process("p_runs", state=ProcessState.RUNNING))

        await store.write(insert)
        due = await store.read(lambda tx: tx.process_ready(9.0, limit=9))
        assert [(row.pid, row.ready_at) for row in due] == [("p_early", 1.0), ("p_late", 3.0)]
        due = await store.read(lambda tx: tx.process_ready(10.0, limit=2))
        assert [row.pid for row in due] == ["p_waits", "p_early"]
        some = [Pid("p_late"), Pid("p_runs"), Pid("p_none")]
        due = await store.read(lambda tx: tx.process_ready(10.0, among=some, limit=9))
        assert [row.pid for row in due] == ["p_late"]
        assert await store.read(lambda tx: tx.process_ready(10.0, among=[], limit=9)) == []


async def the_size_of_a_process_is_what_its_account_and_its_like_say(open_store: OpenStore) -> None:
    """Turns and tokens of its own account, what its limits leave, and the hint for its definition and model."""
    used = Usage(turns=2, input_tokens=10, cached_tokens=5, written_tokens=3, output_tokens=7)
    async with open_store() as store:

        def insert(tx: Transaction) -> None:
            tx.process_insert(replace(a_process("p_1"), agent="reviewer"))
            tx.process_insert(a_process("p_2"))
            tx.account_insert(replace(an_account("p_1"), used=used, limit=Budget(turns=5, tokens=100)))
            tx.account_insert(replace(an_account("p_2"), used=Usage(), limit=Budget()))
            tx.hint_put(replace(HINT, runs=1))
            tx.hint_put(HINT)

        await store.write(insert)
        work = await store.read(lambda tx: tx.process_work([Pid("p_1"), Pid("p_2"), Pid("p_3")]))
        assert await store.read(lambda tx: tx.hint_get("reviewer", "replay/none")) == HINT
        assert await store.read(lambda tx: tx.hint_get("", "replay/none")) is None
    assert work == {
        "p_1": Work(
            turns=2,
            input_tokens=13,
            output_tokens=7,
            turns_left=3,
            tokens_left=75,
            usual_turns=4.5,
            usual_turn_units=1_000.0,
        ),
        "p_2": Work(
            turns=0,
            input_tokens=0,
            output_tokens=0,
            turns_left=None,
            tokens_left=None,
            usual_turns=None,
            usual_turn_units=None,
        ),
    }


async def what_is_noted_of_a_process_makes_no_new_version(open_store: OpenStore) -> None:
    """Counts add up, whoever holds the row meanwhile, and its next put does not undo them."""
    async with open_store() as store:
        await store.write(lambda tx: tx.process_insert(a_process("p_1")))
        held = await store.read(lambda tx: tx.process_get(Pid("p_1")))
        assert held is not None
        await store.write(lambda tx: tx.process_note(Pid("p_1"), wasted_tokens=5))
        await store.write(lambda tx: tx.process_note(Pid("p_1"), wasted_tokens=2, preempted=1))
        await store.write(lambda tx: tx.process_note(Pid("p_none"), preempted=1))
        await store.write(lambda tx: tx.process_put(replace(held, name="put")))
        row = await store.read(lambda tx: tx.process_get(Pid("p_1")))
        assert row is not None
        assert (row.name, row.wasted_tokens, row.preempted) == ("put", 7, 1)


async def shares_only_rise(open_store: OpenStore) -> None:
    """A put lifts and never lowers; a charge adds to program and owner, where they have a share."""
    owner = OWNER_PREFIX + OWNER
    async with open_store() as store:

        def work(tx: Transaction) -> None:
            tx.process_insert(a_process("p_1", program="p_root"))
            tx.share_charge(Pid("p_1"), 1_000.0)
            tx.share_put(Share(name="p_root", served=10.0))
            tx.share_put(Share(name=owner, served=5.0, floor=7.0))
            tx.share_charge(Pid("p_1"), 100.0)
            tx.share_charge(Pid("p_none"), 100.0)
            tx.share_put(Share(name="p_root", served=20.0, floor=1.0))
            tx.share_put(Share(name=owner, served=0.0, floor=9.0))

        await store.write(work)
        found = await store.read(lambda tx: tx.share_list(["p_root", owner, "p_none"]))
    assert found == {
        "p_root": Share(name="p_root", served=110.0, floor=1.0),
        owner: Share(name=owner, served=105.0, floor=9.0),
    }


async def the_newest_picks_are_kept(open_store: OpenStore) -> None:
    """Oldest first, of some or of all; pruning leaves the newest."""
    picks = [Pick(pid=Pid(f"p_{n % 2}"), since=AT, at=AT + n, why=f"because {n}") for n in range(6)]
    async with open_store() as store:

        def insert(tx: Transaction) -> None:
            for pick in picks:
                tx.pick_insert(pick)

        await store.write(insert)
        assert await store.read(lambda tx: tx.pick_list([], limit=3)) == picks[3:]
        assert await store.read(lambda tx: tx.pick_list([Pid("p_1")], limit=9)) == picks[1::2]
        assert await store.write(lambda tx: tx.pick_prune(4)) == 2
        assert await store.write(lambda tx: tx.pick_prune(4)) == 0
        assert await store.read(lambda tx: tx.pick_list([], limit=9)) == picks[2:]


async def who_starts_after_whom_is_on_record_until_it_starts(open_store: OpenStore) -> None:
    """Targets in order, dependents of a target, and those that wait; taken, they are gone."""
    async with open_store() as store:

        def insert(tx: Transaction) -> None:
            for pid in ("p_a", "p_b"):
                tx.process_insert(a_process(pid))
            tx.process_insert(replace(a_process("p_c", state=ProcessState.BLOCKED), priority=9))
            tx.process_insert(a_process("p_d"))
            for pid, target in (("p_c", "p_b"), ("p_c", "p_a"), ("p_d", "p_a")):
                tx.dependency_insert(Pid(pid), Pid(target))

        await store.write(insert)
        assert [row.pid for row in await store.read(lambda tx: tx.dependency_targets(Pid("p_c")))] == ["p_b", "p_a"]
        assert await store.read(lambda tx: tx.dependency_of(Pid("p_a"))) == ["p_c", "p_d"]
        waiting = await store.read(lambda tx: tx.dependency_waiting())
        assert waiting == [("p_c", 9, "p_b"), ("p_c", 9, "p_a")]
        assert await store.read(lambda tx: tx.process_leased()) == [], "nobody holds what has yet to start"
        await store.write(lambda tx: tx.dependency_take(Pid("p_c")))
        assert await store.read(lambda tx: tx.dependency_targets(Pid("p_c"))) == []
        assert await store.read(lambda tx: tx.dependency_of(Pid("p_a"))) == ["p_d"]


async def schedules_read_back_as_written(open_store: OpenStore) -> None:
    """By id and by name, of one owner or of all; a name is taken once for each owner; dropped, they are gone."""
    least = Schedule(
        schedule_id="sc_1",
        owner=OWNER,
        name="one",
        form="every 1h",
        zone="UTC",
        spawn="{}",
        missed=Missed.ONCE,
        next_at=AT,
        created_at=AT,
    )
    full = replace(
        least,
        form="cron 0 9 * * *",
        zone="Europe/Berlin",
        spawn='{"task":"x"}',
        missed=Missed.ALL,
        paused=True,
        next_at=None,
        last_at=AT + 1,
        last_pid=Pid("p_1"),
        last_outcome="started",
        runs=3,
    )
    other = replace(least, schedule_id="sc_2", owner="other", created_at=AT + 1)
    async with open_store() as store:
        await store.write(lambda tx: tx.schedule_insert(least))
        await store.write(lambda tx: tx.schedule_insert(other))
        with refused(Conflict):
            await store.write(lambda tx: tx.schedule_insert(replace(least, schedule_id="sc_3")))
        assert await store.read(lambda tx: tx.schedule_find(OWNER, "one")) == least
        await store.write(lambda tx: tx.schedule_put(full))
        assert await store.read(lambda tx: tx.schedule_find(OWNER, "sc_1")) == full
        assert await store.read(lambda tx: tx.schedule_find(OWNER, "sc_2")) is None
        assert await store.read(lambda tx: tx.schedule_list()) == [full, other]
        assert await store.read(lambda tx: tx.schedule_list("other")) == [other]
        await store.write(lambda tx: tx.schedule_drop("sc_1"))
        with refused(NotFound):
            await store.write(lambda tx: tx.schedule_put(full))
        assert await store.read(lambda tx: tx.schedule_list()) == [other]


QUEUE_CHECKS: tuple[Check, ...] = (
    ready_processes_come_when_they_are_due,
    the_size_of_a_process_is_what_its_account_and_its_like_say,
    what_is_noted_of_a_process_makes_no_new_version,
    shares_only_rise,
    the_newest_picks_are_kept,
    who_starts_after_whom_is_on_record_until_it_starts,
    schedules_read_back_as_written,
)
