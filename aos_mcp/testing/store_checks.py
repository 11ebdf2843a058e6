"""The contract of `ports.Store` and `ports.Transaction`, as checks that every driver passes: ours, and those of others.

Each check is given a way to open one store, empty at first; opening it again must find what was there. Nothing here
knows a database. A check raises AssertionError where the driver breaks the contract.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import anyio

from aos_mcp.abi.errors import Conflict, Internal, Invalid, Unavailable
from aos_mcp.abi.handle import Pid
from aos_mcp.ports import Store, Transaction
from aos_mcp.testing.store_note_checks import NOTE_CHECKS
from aos_mcp.testing.store_page_checks import PAGE_CHECKS
from aos_mcp.testing.store_queue_checks import QUEUE_CHECKS
from aos_mcp.testing.store_record_checks import RECORD_CHECKS, Check, OpenStore, refused
from aos_mcp.testing.store_samples import (
    AT,
    a_head,
    a_message,
    a_page,
    a_process,
    a_record,
    a_step,
    an_account,
    an_entry,
)

DEADLINE_S = 60.0


async def check_store(open_store: OpenStore) -> None:
    """Run one check after the other. The first opening in each must give an empty store of its own."""
    for check in CHECKS:
        with anyio.fail_after(DEADLINE_S):
            await check(open_store)


class _Holder:
    """A unit that keeps the writer busy until it is told to go on, so that what comes behind it is queued.

    As a context it lets the unit go on in any case: a check that fails must not leave the writer held.
    """

    def __init__(self) -> None:
        self.runs = 0
        self._began = threading.Event()
        self._go_on = threading.Event()

    def __enter__(self) -> _Holder:
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on()

    def __call__(self, tx: Transaction) -> str:
        """Write a fact, then wait."""
        self.runs += 1
        tx.fact_put("held", "yes")
        self._began.set()
        assert self._go_on.wait(DEADLINE_S), "nobody told the unit to go on"
        return "kept"

    async def began(self) -> None:
        """Return once the unit runs."""
        assert await anyio.to_thread.run_sync(self._began.wait, DEADLINE_S), "the unit never ran"

    def go_on(self) -> None:
        """Let the unit come to its end."""
        self._go_on.set()


# Audit ---------------------------------------------------------------------------------------------------------------


async def staged_entries_become_records_in_order(open_store: OpenStore) -> None:
    """Sealing appends, drops what was staged up to an id and adds the head; what was staged later stays."""
    entries = [an_entry(f"e{n}", pid="p_1" if n == 1 else "") for n in range(3)]
    async with open_store() as store:
        assert await store.read(lambda tx: tx.audit_last()) is None
        assert await store.read(lambda tx: tx.audit_head()) is None

        def stage(tx: Transaction) -> None:
            for entry in entries:
                tx.audit_stage(entry)

        await store.write(stage)
        staged = await store.read(lambda tx: tx.audit_staged(limit=9))
        assert [entry for _, entry in staged] == entries
        assert [stage_id for stage_id, _ in staged] == sorted({stage_id for stage_id, _ in staged})
        assert await store.read(lambda tx: tx.audit_staged(limit=1)) == staged[:1]
        records = [a_record(seq, entry) for seq, entry in enumerate(entries[:2], start=1)]
        await store.write(lambda tx: tx.audit_seal(records, staged[1][0], a_head(2)))
        assert await store.read(lambda tx: tx.audit_staged(limit=9)) == staged[2:]
        await store.write(lambda tx: tx.audit_seal([a_record(3, entries[2])], staged[2][0], a_head(3)))
        await store.write(lambda tx: tx.audit_stage(entries[0]))
        later = await store.read(lambda tx: tx.audit_staged(limit=9))
        assert later[0][0] > staged[2][0], "a stage id is never used twice"
        records.append(a_record(3, entries[2]))

        def look(tx: Transaction) -> None:
            assert tx.audit_last() == records[2]
            assert tx.audit_head() == a_head(3)
            assert tx.audit_list(after=0, limit=9) == records
            assert tx.audit_list(after=1, limit=1) == records[1:2]
            assert tx.audit_list(after=0, pid="p_1", limit=9) == records[1:2]
            assert tx.audit_tail(limit=2) == records[1:]
            assert tx.audit_tail(pid="p_1", limit=9) == records[1:2]
            assert tx.audit_tail(pid="p_2", limit=9) == []

        await store.read(look)


async def a_seal_that_does_not_follow_changes_nothing(open_store: OpenStore) -> None:
    """Records must continue the chain without a gap; a refused seal leaves no part of itself, caught or not."""
    async with open_store() as store:
        await store.write(lambda tx: tx.audit_stage(an_entry("e")))
        staged = await store.read(lambda tx: tx.audit_staged(limit=9))
        through = staged[0][0]

        def seal(*seqs: int) -> Callable[[Transaction], None]:
            return lambda tx: tx.audit_seal([a_record(seq, an_entry("e")) for seq in seqs], through, a_head(seqs[-1]))

        def seal_and_go_on(tx: Transaction) -> None:
            with refused(Conflict):
                seal(1, 3)(tx)

        with refused(Conflict):
            await store.write(seal(2))
        await store.write(seal_and_go_on)
        assert await store.read(lambda tx: tx.audit_staged(limit=9)) == staged
        assert await store.read(lambda tx: tx.audit_last()) is None
        assert await store.read(lambda tx: tx.audit_head()) is None
        await store.write(seal(1))
        with refused(Conflict):
            await store.write(seal(1))


# Units ---------------------------------------------------------------------------------------------------------------


async def a_unit_that_raises_changes_nothing(open_store: OpenStore) -> None:
    """The exception comes out as it is, whatever it is, and nothing of the unit stays."""
    async with open_store() as store:

        def fail(tx: Transaction) -> None:
            tx.process_insert(a_process("p_1"))
            tx.payload_put(b"lost")
            tx.page_insert(a_page("pg_1"), "lost")
            assert tx.process_get(Pid("p_1")) is not None, "a unit sees its own writes"
            raise KeyError("mine")

        try:
            await store.write(fail)
        except KeyError as error:
            assert error.args == ("mine",)
        else:
            raise AssertionError("the exception of a unit comes out of the call")
        assert await store.read(lambda tx: tx.process_get(Pid("p_1"))) is None
        assert await store.read(lambda tx: tx.page_table(Pid("p_1"))) == []
        assert await store.read(lambda tx: tx.page_search("lost", owner="somebody", limit=9)) == []


async def a_conflict_that_a_unit_catches_leaves_the_rest_of_it(open_store: OpenStore) -> None:
    """A refused insert undoes itself alone: a unit may go on another way."""
    async with open_store() as store:
        await store.write(lambda tx: tx.process_insert(a_process("p_1")))

        def work(tx: Transaction) -> None:
            tx.fact_put("before", "yes")
            with refused(Conflict):
                tx.process_insert(a_process("p_1"))
            tx.fact_put("after", "yes")

        await store.write(work)
        assert await store.read(lambda tx: (tx.fact_get("before"), tx.fact_get("after"))) == ("yes", "yes")


async def units_of_one_group_do_not_touch_each_other(open_store: OpenStore) -> None:
    """Of units that are committed together, those that fail leave nothing, and the others everything."""
    failed: list[int] = []

    async with open_store() as store:
        with _Holder() as holder:

            async def unit(n: int) -> None:
                def work(tx: Transaction) -> None:
                    tx.fact_put(f"unit-{n}", "yes")
                    if n % 3 == 0:
                        tx.process_insert(a_process("p_taken"))

                try:
                    await store.write(work, flush=n == 5)
                except Conflict:
                    failed.append(n)

            await store.write(lambda tx: tx.process_insert(a_process("p_taken")))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(store.write, holder)
                await holder.began()
                for n in range(12):
                    tasks.start_soon(unit, n)
                await anyio.wait_all_tasks_blocked()
                holder.go_on()
            kept = await store.read(lambda tx: [n for n in range(12) if tx.fact_get(f"unit-{n}")])
            assert kept == [n for n in range(12) if n % 3]
            assert sorted(failed) == [0, 3, 6, 9]


async def a_read_waits_for_no_write_and_sees_none_of_it(open_store: OpenStore) -> None:
    """While a unit is under way readers see the state before it; after it, the state it left."""
    async with open_store() as store:
        with _Holder() as holder:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(store.write, holder)
                await holder.began()
                assert await store.read(lambda tx: tx.fact_get("held")) is None
                holder.go_on()
            assert await store.read(lambda tx: tx.fact_get("held")) == "yes"


async def a_read_sees_one_state_throughout(open_store: OpenStore) -> None:
    """What is committed while a reader is under way does not show in it."""
    began, go_on = threading.Event(), threading.Event()

    def read_twice(tx: Transaction) -> tuple[str | None, str | None]:
        first = tx.fact_get("name")
        began.set()
        assert go_on.wait(DEADLINE_S), "nobody told the reader to go on"
        return first, tx.fact_get("name")

    async with open_store() as store:
        await store.write(lambda tx: tx.fact_put("name", "old"))
        seen: list[tuple[str | None, str | None]] = []

        async def reader() -> None:
            seen.append(await store.read(read_twice))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reader)
            assert await anyio.to_thread.run_sync(began.wait, DEADLINE_S)
            await store.write(lambda tx: tx.fact_put("name", "new"))
            go_on.set()
        assert seen == [("old", "old")]
        assert await store.read(lambda tx: tx.fact_get("name")) == "new"


async def a_read_cannot_write(open_store: OpenStore) -> None:
    """A unit that writes under `read` is a defect, and writes nothing."""
    async with open_store() as store:
        with refused(Internal):
            await store.read(lambda tx: tx.fact_put("name", "value"))
        assert await store.read(lambda tx: tx.fact_get("name")) is None


async def a_unit_cancelled_before_it_began_never_runs(open_store: OpenStore) -> None:
    """What waits behind another unit and is cancelled there leaves nothing, and the store goes on."""
    runs: list[str] = []

    def work(tx: Transaction) -> None:
        runs.append("ran")
        tx.fact_put("cancelled", "yes")

    async with open_store() as store:
        with _Holder() as holder:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(store.write, holder)
                await holder.began()
                async with anyio.create_task_group() as waiting:
                    waiting.start_soon(store.write, work)
                    await anyio.wait_all_tasks_blocked()
                    waiting.cancel_scope.cancel()
                holder.go_on()
            await store.write(lambda tx: tx.fact_put("next", "yes"))
            assert runs == []
            assert await store.read(lambda tx: tx.fact_get("cancelled")) is None


async def a_unit_cancelled_while_it_runs_is_settled_first(open_store: OpenStore) -> None:
    """A unit that has begun runs once and comes to its end before the cancellation goes on."""
    async with open_store() as store:
        with _Holder() as holder:

            async def release() -> None:
                await anyio.wait_all_tasks_blocked()
                holder.go_on()

            async with anyio.create_task_group() as tasks:
                async with anyio.create_task_group() as waiting:
                    waiting.start_soon(store.write, holder)
                    await holder.began()
                    tasks.start_soon(release)
                    waiting.cancel_scope.cancel()
                assert await store.read(lambda tx: tx.fact_get("held")) == "yes"
            await store.write(lambda tx: tx.fact_put("next", "yes"))
            assert holder.runs == 1


async def values_no_store_can_hold_are_refused(open_store: OpenStore) -> None:
    """Half a surrogate pair and numbers beyond 64 bits are the caller's mistake, and stop nobody else."""
    async with open_store() as store:
        with refused(Invalid):
            await store.write(lambda tx: tx.fact_put("name", "\ud800"))
        with refused(Invalid):
            await store.write(lambda tx: tx.process_renew("a" + chr(0xDFFF), 1.0))
        with refused(Invalid):
            await store.write(lambda tx: tx.step_insert(a_step("p_1", 2**63)))
        await store.write(lambda tx: tx.page_insert(a_page("pg_1"), "an owl \ud800 \x00 and more"))
        assert len(await store.read(lambda tx: tx.page_search("owl", owner="somebody", limit=9))) == 1


async def opening_again_finds_everything(open_store: OpenStore) -> None:
    """What was written, flushed or not, is there after the store was closed."""
    async with open_store() as store:
        await _write_some(store)
    async with open_store() as store:

        def look(tx: Transaction) -> None:
            assert tx.process_get(Pid("p_1")) == a_process("p_1")
            assert tx.account_get("p_1") == an_account("p_1")
            assert tx.step_open(Pid("p_1")) == [a_step("p_1", 0)]
            assert tx.message_count("host", "somebody") == 1
            assert tx.fact_get("flushed") == "yes"
            assert [hit.page.page_id for hit in tx.page_search("owls", owner="somebody", limit=9)] == ["pg_1"]

        await store.read(look)


async def _write_some(store: Store) -> None:
    def work(tx: Transaction) -> None:
        tx.process_insert(a_process("p_1"))
        tx.account_insert(an_account("p_1"))
        tx.step_insert(a_step("p_1", 0))
        tx.message_insert(a_message("m_1"))
        tx.page_insert(a_page("pg_1"), "an owl")

    await store.write(work)
    await store.write(lambda tx: tx.fact_put("flushed", "yes"), flush=True)


async def a_closed_store_refuses(open_store: OpenStore) -> None:
    """After the end nothing hangs and nothing is lost in silence."""
    async with open_store() as store:
        await store.write(lambda tx: tx.fact_put("at", str(AT)))
    with refused(Unavailable):
        await store.write(lambda tx: tx.fact_put("late", "yes"))
    with refused(Unavailable):
        await store.read(lambda tx: tx.fact_get("at"))


async def whoever_shuts_down_in_a_cancelled_scope_may_still_write(open_store: OpenStore) -> None:
    """The last records of a kernel that is being cancelled are kept."""
    with anyio.CancelScope() as scope:
        async with open_store() as store:
            try:
                scope.cancel()
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await store.write(lambda tx: tx.fact_put("last", "words"))
    async with open_store() as store:
        assert await store.read(lambda tx: tx.fact_get("last")) == "words"


UNIT_CHECKS: tuple[Check, ...] = (
    staged_entries_become_records_in_order,
    a_seal_that_does_not_follow_changes_nothing,
    a_unit_that_raises_changes_nothing,
    a_conflict_that_a_unit_catches_leaves_the_rest_of_it,
    units_of_one_group_do_not_touch_each_other,
    a_read_waits_for_no_write_and_sees_none_of_it,
    a_read_sees_one_state_throughout,
    a_read_cannot_write,
    a_unit_cancelled_before_it_began_never_runs,
    a_unit_cancelled_while_it_runs_is_settled_first,
    values_no_store_can_hold_are_refused,
    opening_again_finds_everything,
    a_closed_store_refuses,
    whoever_shuts_down_in_a_cancelled_scope_may_still_write,
)
CHECKS: tuple[Check, ...] = (*RECORD_CHECKS, *PAGE_CHECKS, *NOTE_CHECKS, *QUEUE_CHECKS, *UNIT_CHECKS)
"""Every check, for a test that takes them one by one."""
