"""What every verb of `ports.Transaction` promises of its rows, as checks. The entry is `testing.store_checks`."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import replace

import anyio

from aos_mcp.abi.approval import ApprovalState, Grant
from aos_mcp.abi.budget import Reservation, Usage
from aos_mcp.abi.errors import AosError, Conflict, NotFound
from aos_mcp.abi.guest import GuestKey
from aos_mcp.abi.handle import Digest, Pid
from aos_mcp.abi.journal import Step, StepState
from aos_mcp.abi.message import HOST
from aos_mcp.abi.mount import Pin, PinState
from aos_mcp.abi.process import Process, ProcessState
from aos_mcp.ports import Store, Transaction
from aos_mcp.testing.store_samples import (
    ABSENT,
    AT,
    OWNER,
    a_checkpoint,
    a_full_process,
    a_message,
    a_process,
    a_step,
    an_account,
    an_approval,
)

OpenStore = Callable[[], AbstractAsyncContextManager[Store]]
Check = Callable[[OpenStore], Awaitable[None]]


@contextmanager
def refused(kind: type[AosError]) -> Iterator[None]:
    """Hold the block to raise an error of this kind, with a sentence and a hint."""
    try:
        yield
    except kind as error:
        assert error.message.endswith("."), "an error is a sentence"
        assert error.hint, "an error says what to do next"
        return
    raise AssertionError(f"this must be refused as {kind.__name__}")


# Processes -----------------------------------------------------------------------------------------------------------


async def processes_read_back_as_written(open_store: OpenStore) -> None:
    """Every field of a row comes back as it went in, by pid and by key."""
    least, full = a_process("p_1"), a_full_process("p_2")
    async with open_store() as store:

        def insert(tx: Transaction) -> None:
            tx.process_insert(least)
            tx.process_insert(full)

        await store.write(insert)
        assert await store.read(lambda tx: tx.process_get(least.pid)) == least
        assert await store.read(lambda tx: tx.process_get(full.pid)) == full
        assert await store.read(lambda tx: tx.process_by_key(OWNER, "key-1")) == full
        assert await store.read(lambda tx: tx.process_get(Pid("p_3"))) is None
        assert await store.read(lambda tx: tx.process_by_key("other", "key-1")) is None


async def a_known_pid_or_key_is_refused(open_store: OpenStore) -> None:
    """A pid exists once; an idempotency key once for each owner."""
    async with open_store() as store:
        await store.write(lambda tx: tx.process_insert(a_process("p_1", key="k")))
        with refused(Conflict):
            await store.write(lambda tx: tx.process_insert(a_process("p_1")))
        with refused(Conflict):
            await store.write(lambda tx: tx.process_insert(a_process("p_2", key="k")))
        await store.write(lambda tx: tx.process_insert(a_process("p_3", key="k", owner="other")))
        await store.write(lambda tx: tx.process_insert(a_process("p_4")))
        await store.write(lambda tx: tx.process_insert(a_process("p_5")))


async def a_put_is_a_compare_and_set(open_store: OpenStore) -> None:
    """Of two writers that read the same version one is refused, and what is not there cannot be put."""
    first = a_process("p_1")
    full = replace(a_full_process("p_1"), version=0, preempted=0, wasted_tokens=0)  # `process_note` counts these
    async with open_store() as store:
        await store.write(lambda tx: tx.process_insert(first))
        stored = await store.write(lambda tx: tx.process_put(full))
        assert stored == replace(full, version=1), "a put returns the row with the next version"
        assert await store.read(lambda tx: tx.process_get(first.pid)) == stored, "a put stores every field"
        with refused(Conflict):
            await store.write(lambda tx: tx.process_put(replace(first, name="late")))
        with refused(NotFound):
            await store.write(lambda tx: tx.process_put(a_process("p_2")))
        assert await store.read(lambda tx: tx.process_get(first.pid)) == stored


async def no_put_of_many_is_lost(open_store: OpenStore) -> None:
    """Units that read and put one row, from many tasks at once, all count."""
    async with open_store() as store:
        await store.write(lambda tx: tx.process_insert(a_process("p_1")))

        def step(tx: Transaction) -> None:
            row = tx.process_get(Pid("p_1"))
            assert row is not None
            tx.process_put(replace(row, step=row.step + 1))

        async with anyio.create_task_group() as tasks:
            for _ in range(200):
                tasks.start_soon(store.write, step)
        row = await store.read(lambda tx: tx.process_get(Pid("p_1")))
        assert row is not None
        assert (row.step, row.version) == (200, 200)


async def lists_are_newest_first_and_go_on_behind_a_key(open_store: OpenStore) -> None:
    """Filters narrow, the order is by time and pid, and `after` neither repeats nor skips."""
    async with open_store() as store:

        def insert(tx: Transaction) -> None:
            tx.process_insert(a_process("p_a", at=1.0))
            tx.process_insert(a_process("p_b", at=2.0, parent="p_a", program="p_a", state=ProcessState.RUNNING))
            tx.process_insert(a_process("p_c", at=2.0, parent="p_a", program="p_a", state=ProcessState.EXITED))
            tx.process_insert(a_process("p_d", at=3.0, owner="other"))

        await store.write(insert)

        def listed(rows: list[Process]) -> str:
            return "".join(row.pid.removeprefix("p_") for row in rows)

        def look(tx: Transaction) -> None:
            assert listed(tx.process_list(limit=9)) == "dcba"
            assert listed(tx.process_list(limit=2)) == "dc"
            assert listed(tx.process_list(after=(2.0, "p_c"), limit=9)) == "ba"
            assert listed(tx.process_list(owner=OWNER, limit=9)) == "cba"
            assert listed(tx.process_list(parent=Pid("p_a"), limit=9)) == "cb"
            assert listed(tx.process_list(program=Pid("p_a"), after=(2.0, "p_c"), limit=9)) == "ba"
            assert listed(tx.process_list(states=[ProcessState.READY], limit=9)) == "da"
            assert listed(tx.process_list(states=[ProcessState.READY], owner=OWNER, limit=9)) == "a"
            live = [ProcessState.READY, ProcessState.RUNNING]
            assert listed(tx.process_list(program=Pid("p_a"), states=live, limit=9)) == "ba"
            assert listed(tx.process_list(parent=Pid("p_a"), states=live, owner="other", limit=9)) == ""
            assert listed(tx.process_children(Pid("p_a"))) == "bc"
            assert tx.process_count(states=live) == 3
            assert tx.process_count(states=live, parent=Pid("p_a")) == 1
            assert tx.process_count(states=[]) == 0
            counts = {state: n for state, n in tx.process_counts().items() if n}
            assert counts == {ProcessState.READY: 2, ProcessState.RUNNING: 1, ProcessState.EXITED: 1}

        await store.read(look)


async def a_prefix_finds_only_the_owners_pids(open_store: OpenStore) -> None:
    """A prefix is text, not a pattern, and finds nothing of others."""
    async with open_store() as store:

        def insert(tx: Transaction) -> None:
            for pid in ("p_aa", "p_ab", "p_b", "pxa"):
                tx.process_insert(a_process(pid))
            tx.process_insert(a_process("p_ac", owner="other"))

        await store.write(insert)

        def found(prefix: str, limit: int = 9) -> Callable[[Transaction], list[str]]:
            return lambda tx: [row.pid for row in tx.process_find_prefix(OWNER, prefix, limit=limit)]

        assert sorted(await store.read(found("p_a"))) == ["p_aa", "p_ab"]
        assert sorted(await store.read(found("p_"))) == ["p_aa", "p_ab", "p_b"]
        assert len(await store.read(found("p_", limit=2))) == 2
        assert await store.read(found("p%")) == []


async def leases_are_renewed_without_a_new_version(open_store: OpenStore) -> None:
    """Renewal reaches every lease of the holder; a put by the holder with an older lease does not shorten it."""
    mine = replace(a_process("p_1", state=ProcessState.RUNNING, fence=1), lease_holder="a", lease_until=10.0)
    async with open_store() as store:

        def insert(tx: Transaction) -> None:
            tx.process_insert(mine)
            tx.process_insert(replace(mine, pid=Pid("p_2"), state=ProcessState.BLOCKED))
            tx.process_insert(replace(mine, pid=Pid("p_3"), lease_holder="b"))
            tx.process_insert(a_process("p_4"))

        await store.write(insert)
        assert await store.write(lambda tx: tx.process_renew("a", 20.0)) == 2
        assert await store.write(lambda tx: tx.process_renew("nobody", 20.0)) == 0
        leased = {row.pid: row.lease_until for row in await store.read(lambda tx: tx.process_leased())}
        assert leased == {"p_1": 20.0, "p_2": 20.0, "p_3": 10.0}
        stored = await store.write(lambda tx: tx.process_put(mine))
        assert (stored.version, stored.lease_until) == (1, 20.0)
        taken = await store.write(
            lambda tx: tx.process_put(replace(stored, lease_holder="b", fence=2, lease_until=5.0))
        )
        assert taken.lease_until == 5.0, "another holder's lease is its own"
        left = await store.write(lambda tx: tx.process_put(replace(taken, lease_holder=None, lease_until=None)))
        assert await store.read(lambda tx: tx.process_get(mine.pid)) == left
        assert left.lease_until is None


# Budgets and payloads ------------------------------------------------------------------------------------------------


async def accounts_know_their_ancestors(open_store: OpenStore) -> None:
    """A chain begins with the account itself and ends at the root."""
    root, middle, leaf = an_account("root"), an_account("m", parent="root"), an_account("leaf", parent="m")
    async with open_store() as store:

        def insert(tx: Transaction) -> None:
            for account in (root, middle, leaf):
                tx.account_insert(account)

        await store.write(insert)
        assert await store.read(lambda tx: tx.account_get("leaf")) == leaf
        assert await store.read(lambda tx: tx.account_chain("leaf")) == [leaf, middle, root]
        assert await store.read(lambda tx: tx.account_chain("nobody")) == []
        assert await store.read(lambda tx: tx.accounts_get(["m", "root", "x"])) == {"m": middle, "root": root}
        poorer = replace(middle, reserved_tokens=0, limit=replace(middle.limit, wall_s=None))
        await store.write(lambda tx: tx.account_put(poorer))
        assert await store.read(lambda tx: tx.account_get("m")) == poorer
        with refused(NotFound):
            await store.write(lambda tx: tx.account_put(an_account("x")))
        with refused(Conflict):
            await store.write(lambda tx: tx.account_insert(leaf))


async def what_is_charged_to_an_account_is_charged_to_all_above_it(open_store: OpenStore) -> None:
    """Amounts are added in the store, not written over what was read: no charge can be lost to another."""
    root, leaf, other = an_account("root"), an_account("leaf", parent="root"), an_account("other", parent="root")
    more = Usage(input_tokens=1, cached_tokens=2, written_tokens=3, output_tokens=4, microusd=5, turns=6, tool_calls=7)
    async with open_store() as store:

        def charge(tx: Transaction) -> None:
            for account in (root, leaf, other):
                tx.account_insert(account)
            tx.account_add("leaf", more, reserved_microusd=8, reserved_tokens=9)

        await store.write(charge)
        for before in (root, leaf):
            after = await store.read(lambda tx: tx.account_chain("leaf"))
            assert after[before is root] == replace(
                before,
                used=before.used + more,
                reserved_microusd=before.reserved_microusd + 8,
                reserved_tokens=before.reserved_tokens + 9,
            )
        assert await store.read(lambda tx: tx.account_get("other")) == other
        await store.write(lambda tx: tx.account_add("leaf", Usage(), reserved_microusd=-8, reserved_tokens=-9))
        settled = await store.read(lambda tx: tx.account_get("leaf"))
        assert settled == replace(leaf, used=leaf.used + more)
        with refused(NotFound):
            await store.write(lambda tx: tx.account_add("x", more, reserved_microusd=0, reserved_tokens=0))


async def a_reservation_is_taken_once(open_store: OpenStore) -> None:
    """Whoever takes it second gets None."""
    reservation = Reservation(reservation_id="r", account="a", microusd=10**14, tokens=2, at=AT)
    async with open_store() as store:
        await store.write(lambda tx: tx.reservation_insert(reservation))
        with refused(Conflict):
            await store.write(lambda tx: tx.reservation_insert(reservation))
        assert await store.read(lambda tx: tx.reservation_list()) == [reservation]
        assert await store.write(lambda tx: tx.reservation_take("r")) == reservation
        assert await store.write(lambda tx: tx.reservation_take("r")) is None
        assert await store.read(lambda tx: tx.reservation_list()) == []


async def a_payload_is_kept_once_by_its_digest(open_store: OpenStore) -> None:
    """Any bytes come back exactly; the address is their SHA-256."""
    async with open_store() as store:
        bodies = (b"", b"\x00\xff" * 5_000, "\N{OWL}".encode())
        digests = [Digest(hashlib.sha256(body).hexdigest()) for body in bodies]
        for _ in range(2):
            assert await store.write(lambda tx: [tx.payload_put(body) for body in bodies]) == digests
        assert await store.read(lambda tx: [tx.payload_get(digest) for digest in digests]) == list(bodies)
        assert await store.read(lambda tx: tx.payload_get(ABSENT)) is None


# Journal -------------------------------------------------------------------------------------------------------------


async def steps_are_in_order(open_store: OpenStore) -> None:
    """A journal reads forwards, from its end, by request and by what is still open."""
    steps = [a_step("p_1", n, state=StepState.DONE if n % 2 else StepState.INTENT) for n in range(6)]
    async with open_store() as store:

        def insert(tx: Transaction) -> None:
            for step in (*steps, a_step("p_2", 0, request="r"), a_step("p_2", 1, request="r")):
                tx.step_insert(step)

        await store.write(insert)

        def look(tx: Transaction) -> None:
            pid = Pid("p_1")
            assert tx.step_list(pid, limit=99) == steps
            assert tx.step_list(pid, after=3, limit=99) == steps[4:]
            assert tx.step_list(pid, after=0, limit=2) == steps[1:3]
            assert tx.step_last(pid, limit=2) == steps[4:]
            assert tx.step_open(pid) == steps[::2]
            assert tx.step_by_request(Pid("p_2"), "r") == a_step("p_2", 1, request="r")
            assert tx.step_by_request(pid, "r") is None
            assert tx.step_list(Pid("p_3"), limit=9) == []

        await store.read(look)
        done = replace(steps[2], state=StepState.UNKNOWN, result=Digest("1" * 64), ended_at=AT)
        await store.write(lambda tx: tx.step_put(done))
        assert await store.read(lambda tx: tx.step_open(Pid("p_1"))) == [steps[0], steps[4]]
        with refused(Conflict):
            await store.write(lambda tx: tx.step_insert(steps[0]))
        with refused(NotFound):
            await store.write(lambda tx: tx.step_put(a_step("p_1", 6)))


async def an_older_fence_writes_nothing(open_store: OpenStore) -> None:
    """A kernel that lost a process cannot add to its journal or end its steps."""
    old, new = a_step("p_1", 0, fence=4), a_step("p_1", 1, fence=5)
    async with open_store() as store:
        await store.write(lambda tx: tx.process_insert(a_process("p_1", fence=4)))
        await store.write(lambda tx: tx.step_insert(old))
        await store.write(lambda tx: tx.process_put(a_process("p_1", fence=5)))
        stale: tuple[Callable[[Transaction], None], ...] = (
            lambda tx: tx.step_insert(a_step("p_1", 1, fence=4)),
            lambda tx: tx.step_put(replace(old, state=StepState.DONE)),
        )
        for work in stale:
            with refused(Conflict):
                await store.write(work)
        await store.write(lambda tx: tx.step_insert(new))
        taken_over: Step = replace(old, state=StepState.UNKNOWN, fence=5)
        await store.write(lambda tx: tx.step_put(taken_over))
        assert await store.read(lambda tx: tx.step_list(Pid("p_1"), limit=9)) == [taken_over, new]


# Messages, checkpoints, approvals, facts -----------------------------------------------------------------------------


async def what_nobody_knows_is_found_by_whose_it_is(open_store: OpenStore) -> None:
    """Steps of unknown outcome by process, and open steps that are no process's."""
    async with open_store() as store:

        def insert(tx: Transaction) -> None:
            tx.process_insert(a_process("p_1"))
            tx.process_insert(replace(a_process("p_2"), wake_at=AT + 2))
            tx.process_insert(replace(a_process("p_3"), wake_at=AT + 1))
            tx.process_insert(replace(a_process("p_4", state=ProcessState.EXITED), wake_at=AT))
            for number in range(3):
                tx.step_insert(a_step("p_1", number, state=StepState.UNKNOWN))
            tx.step_insert(a_step("p_1", 3))
            tx.step_insert(a_step("host:ann", 0))
            tx.step_insert(a_step("host:ann", 1, state=StepState.DONE))

        await store.write(insert)

        def look(tx: Transaction) -> None:
            assert tx.step_unknown([Pid("p_1"), Pid("p_2"), Pid("p_9")]) == {"p_1": [0, 1, 2]}
            assert [(step.pid, step.number) for step in tx.step_unowned()] == [("host:ann", 0)]
            assert tx.step_get(Pid("p_1"), 3) is not None
            assert tx.step_get(Pid("p_1"), 4) is None
            assert tx.process_alarm() == AT + 1

        await store.read(look)


async def racers_know_their_rivals(open_store: OpenStore) -> None:
    """The others of one race, and none for whoever is in none."""
    async with open_store() as store:

        def race(tx: Transaction) -> None:
            for pid, name in (("p_1", "a"), ("p_2", "a"), ("p_3", "a"), ("p_4", "b")):
                tx.race_join(Pid(pid), name)
            assert tx.race_rivals(Pid("p_2")) == ["p_1", "p_3"]
            assert tx.race_rivals(Pid("p_4")) == []
            assert tx.race_rivals(Pid("p_5")) == []

        await store.write(race)
        with refused(Conflict):
            await store.write(lambda tx: tx.race_join(Pid("p_1"), "b"))


async def a_message_is_taken_once_oldest_first(open_store: OpenStore) -> None:
    """Waiting messages go to their recipient and owner only, each once."""
    sent = [a_message(f"m_{n}", at=AT + n) for n in range(3)]
    async with open_store() as store:

        def insert(tx: Transaction) -> None:
            for message in reversed(sent):
                tx.message_insert(message)
            tx.message_insert(a_message("m_other", owner="other"))
            tx.message_insert(a_message("m_pid", recipient="p_1"))

        await store.write(insert)
        assert await store.read(lambda tx: tx.message_count(HOST, OWNER)) == 3
        waiting = await store.read(lambda tx: tx.message_waiting(HOST, OWNER, limit=9))
        assert len(waiting) == await store.read(lambda tx: tx.message_count(HOST, OWNER)), "looking takes nothing"
        taken = await store.write(lambda tx: tx.message_take(HOST, OWNER, AT + 9, limit=2))
        assert taken == [replace(message, taken_at=AT + 9) for message in sent[:2]]
        assert await store.read(lambda tx: tx.message_count(HOST, OWNER)) == 1
        taken = await store.write(lambda tx: tx.message_take(HOST, OWNER, AT + 9, limit=9))
        assert [message.message_id for message in taken] == ["m_2"]
        assert await store.write(lambda tx: tx.message_take(HOST, OWNER, AT + 9, limit=9)) == []
        assert await store.read(lambda tx: tx.message_count("p_1", OWNER)) == 1

        def waited(at: float) -> Callable[[Transaction], list[str]]:
            return lambda tx: [each.message_id for each in tx.message_waiting_at(HOST, OWNER, at, limit=9)]

        assert await store.read(waited(AT + 1)) == ["m_0", "m_1"], "what had been sent by then, and read later"
        assert await store.read(waited(AT + 9)) == []
        with refused(Conflict):
            await store.write(lambda tx: tx.message_insert(sent[0]))


async def checkpoints_are_newest_first(open_store: OpenStore) -> None:
    """A process's checkpoints, the last taken first."""
    taken = [a_checkpoint("c_1"), a_checkpoint("c_2"), replace(a_checkpoint("c_0", at=AT + 1), manifest=ABSENT)]
    async with open_store() as store:

        def insert(tx: Transaction) -> None:
            for checkpoint in taken:
                tx.checkpoint_insert(checkpoint)

        await store.write(insert)
        assert await store.read(lambda tx: tx.checkpoint_get("c_0")) == taken[2]
        assert await store.read(lambda tx: tx.checkpoint_get("c_9")) is None
        assert await store.read(lambda tx: tx.checkpoint_list(Pid("p_1"), limit=9)) == taken[::-1]
        assert await store.read(lambda tx: tx.checkpoint_list(Pid("p_1"), limit=1)) == taken[2:]
        step = taken[0].step
        assert await store.read(lambda tx: tx.checkpoint_before(Pid("p_1"), step)) == taken[2]
        assert await store.read(lambda tx: tx.checkpoint_before(Pid("p_1"), step - 1)) is None
        label = taken[0].label
        assert await store.write(lambda tx: tx.checkpoint_drop(Pid("p_1"), label + "?", keep=0)) == 0
        assert await store.write(lambda tx: tx.checkpoint_drop(Pid("p_1"), label, keep=2)) == 1
        assert await store.read(lambda tx: tx.checkpoint_list(Pid("p_1"), limit=9)) == [taken[2], taken[1]]
        with refused(Conflict):
            await store.write(lambda tx: tx.checkpoint_insert(taken[1]))


async def a_question_is_found_by_what_it_asks(open_store: OpenStore) -> None:
    """The newest live question about an action is the one that counts; lists are oldest first."""
    old, new = an_approval("a_1"), an_approval("a_2", at=AT + 1)
    spent = an_approval("a_3", at=AT + 2, state=ApprovalState.CLAIMED)
    async with open_store() as store:

        def insert(tx: Transaction) -> None:
            for approval in (spent, new, old, an_approval("a_4", owner="other")):
                tx.approval_insert(approval)

        await store.write(insert)

        def look(tx: Transaction) -> None:
            assert tx.approval_get("a_1") == old
            assert tx.approval_get("a_9") is None
            assert tx.approval_by_digest(OWNER, "d") == new
            assert tx.approval_by_digest(OWNER, "e") is None
            assert tx.approval_list(owner=OWNER, states=[ApprovalState.PENDING], limit=9) == [old, new]
            assert tx.approval_list(owner=OWNER, states=[ApprovalState.PENDING], limit=1) == [old]
            assert len(tx.approval_list(owner=None, states=[], limit=9)) == 4

        await store.read(look)
        answer = replace(
            new, state=ApprovalState.ALLOWED, answered_at=AT, answered_by="cli", remember=True, note="yes", pid=None
        )
        await store.write(lambda tx: tx.approval_put(answer))
        assert await store.read(lambda tx: tx.approval_by_digest(OWNER, "d")) == answer
        with refused(NotFound):
            await store.write(lambda tx: tx.approval_put(an_approval("a_9")))
        with refused(Conflict):
            await store.write(lambda tx: tx.approval_insert(old))


async def decisions_pins_and_facts_are_replaced(open_store: OpenStore) -> None:
    """What is put under a known key takes the place of what was there."""
    grant = Grant(owner=OWNER, agent="a", tool="t", decision="allow", at=AT)
    pin = Pin(name="s__b", digest="d", definition="{}", state=PinState.PINNED, pinned_at=AT)
    async with open_store() as store:

        def put(tx: Transaction) -> None:
            tx.grant_put(grant)
            tx.grant_put(replace(grant, decision="deny"))
            tx.pin_put(pin)
            tx.pin_put(replace(pin, state=PinState.QUARANTINED, offered_digest="e", offered_definition="[]"))
            tx.pin_put(replace(pin, name="s__a"))
            tx.fact_put("name", "one")
            tx.fact_put("name", "two")

        await store.write(put)
        assert await store.read(lambda tx: tx.grant_get(OWNER, "a", "t")) == replace(grant, decision="deny")
        assert await store.read(lambda tx: tx.grant_get("other", "a", "t")) is None
        pins = await store.read(lambda tx: tx.pin_list())
        assert [(each.name, each.state) for each in pins] == [
            ("s__a", PinState.PINNED),
            ("s__b", PinState.QUARANTINED),
        ]
        assert pins[1].offered_definition == "[]"
        assert await store.read(lambda tx: tx.fact_get("name")) == "two"
        assert await store.read(lambda tx: tx.fact_get("other")) is None


async def a_key_is_found_by_its_digest_and_revoked_once_and_for_all(open_store: OpenStore) -> None:
    """Keys are told apart by id and digest, and listed for their guest's owner alone, newest first."""
    first = GuestKey(key_id="gk_1", digest="d1", pid=Pid("p_1"), created_at=AT)
    second = GuestKey(key_id="gk_2", digest="d2", pid=Pid("p_2"), created_at=AT + 1)
    async with open_store() as store:

        def insert(tx: Transaction) -> None:
            tx.process_insert(replace(a_process("p_1"), guest=True))
            tx.process_insert(replace(a_process("p_2"), guest=True))
            tx.process_insert(replace(a_process("p_3", owner="other"), guest=True))
            tx.guest_key_insert(first)
            tx.guest_key_insert(second)
            tx.guest_key_insert(replace(first, key_id="gk_3", digest="d3", pid=Pid("p_3")))

        await store.write(insert)
        with refused(Conflict):
            await store.write(lambda tx: tx.guest_key_insert(replace(first, key_id="gk_4")))
        assert await store.read(lambda tx: tx.guest_key_by_digest("d1")) == first
        assert await store.read(lambda tx: tx.guest_key_by_digest("d4")) is None
        assert await store.read(lambda tx: tx.guest_key_list(owner=OWNER, limit=9)) == [second, first]
        assert await store.read(lambda tx: tx.guest_key_list(owner=OWNER, pid=Pid("p_1"), limit=9)) == [first]
        assert await store.read(lambda tx: tx.guest_key_list(owner=OWNER, limit=1)) == [second]
        revoked = replace(first, revoked_at=AT + 2)
        await store.write(lambda tx: tx.guest_key_put(revoked))
        assert await store.read(lambda tx: tx.guest_key_get("gk_1")) == revoked
        with refused(NotFound):
            await store.write(lambda tx: tx.guest_key_put(replace(first, key_id="gk_9")))


RECORD_CHECKS: tuple[Check, ...] = (
    processes_read_back_as_written,
    a_known_pid_or_key_is_refused,
    a_put_is_a_compare_and_set,
    no_put_of_many_is_lost,
    lists_are_newest_first_and_go_on_behind_a_key,
    a_prefix_finds_only_the_owners_pids,
    leases_are_renewed_without_a_new_version,
    accounts_know_their_ancestors,
    what_is_charged_to_an_account_is_charged_to_all_above_it,
    a_reservation_is_taken_once,
    a_payload_is_kept_once_by_its_digest,
    steps_are_in_order,
    an_older_fence_writes_nothing,
    what_nobody_knows_is_found_by_whose_it_is,
    racers_know_their_rivals,
    a_message_is_taken_once_oldest_first,
    checkpoints_are_newest_first,
    a_question_is_found_by_what_it_asks,
    decisions_pins_and_facts_are_replaced,
    a_key_is_found_by_its_digest_and_revoked_once_and_for_all,
)
