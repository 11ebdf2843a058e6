"""Hosts that do anything at any time: their calls follow from a seed."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from aos_mcp.abi.errors import AosError, ErrorCode
from aos_mcp.abi.handle import Pid
from aos_mcp.kernel.journal import asked_of
from aos_mcp.ports import Clock, Transaction
from aos_mcp.testing.kernels import TestKernel
from tests.crash.scenarios import PERSON
from tests.crash.world import WINDOWS, World

BETWEEN_S = 12.0
"""From one call of a host to its next, in the mean."""
NOBODY = "p_" + "z" * 26
WORKSPACE = "w1"
HOSTS_SESSION = f"host-h-{WORKSPACE}"
"""What the sandbox knows the hosts' commands by."""


class Host:
    """One host. It answers questions about what may have happened truthfully: it looks at the ledger."""

    def __init__(self, k: TestKernel, world: World, clock: Clock, chance: random.Random, name: str) -> None:
        self._k = k
        self._world = world
        self._clock = clock
        self._chance = chance
        self._name = name
        self._made = 0
        self._keys: list[str] = []

    async def run(self, until: float) -> None:
        """Call until then. What is refused is refused in words; a defect is not."""
        while self._clock.now() < until:
            await self._clock.sleep_until(self._clock.now() + self._chance.expovariate(1 / BETWEEN_S))
            self._made += 1
            act = self._chance.choices([act for _, act in self._acts], [weight for weight, _ in self._acts])[0]
            try:
                await act(f"{self._name}-{self._made}")
                self._world.heard[act.__name__, "ok"] += 1
            except AosError as error:
                self._world.heard[act.__name__, str(error.code)] += 1
                assert error.code is not ErrorCode.INTERNAL, f"{act.__name__}: {error}"

    @property
    def _acts(self) -> Sequence[tuple[int, Callable[[str], Awaitable[None]]]]:
        return (
            (12, self.spawn), (3, self.family), (6, self.signal), (4, self.save), (4, self.fork), (2, self.race),
            (6, self.mail), (10, self.answer), (6, self.wait), (3, self.schedule), (3, self.page), (2, self.read_in),
            (2, self.note), (2, self.command), (2, self.order), (2, self.guest), (2, self.erase), (2, self.look),
        )  # fmt: skip

    async def _call(self, call: str, /, **arguments: object) -> Any:
        return await self._k.call(call, **arguments)

    async def _operate(self, call: str, /, **arguments: object) -> Any:
        return await self._k.call(call, PERSON, **arguments)

    async def _one(self) -> str:
        agents = sorted((await self._call("list_agents", limit=200)).agents, key=lambda row: row.pid)
        live = [row for row in agents if row.exit_code is None]
        some = live if live and self._chance.random() < 0.7 else agents
        return self._chance.choice(some).pid if some else NOBODY

    def _budget(self) -> dict[str, object]:
        budget: dict[str, object] = {
            "turns": self._chance.randrange(1, 12),
            "tool_calls": self._chance.randrange(1, 20),
        }
        if self._chance.random() < 0.2:
            budget["wall_s"] = self._chance.uniform(30, 600)
        if self._chance.random() < 0.2:
            budget["usd"] = self._chance.uniform(0.0, 0.3)
        return budget

    def _spawning(self, task: str) -> dict[str, object]:
        models = [*WINDOWS, "sim/small,other/large"]
        return {
            "task": f"walk {task}",
            "model": self._chance.choice(models),
            "priority": self._chance.choice([0, 50, 50, 100]),
            "budget": self._budget(),
        }

    async def spawn(self, name: str) -> None:
        await self._call("spawn_agent", **self._spawning(name), idempotency_key=name)

    async def family(self, name: str) -> None:
        await self._call("spawn_agent", **self._spawning(name), after=[await self._one(), await self._one()])

    async def signal(self, name: str) -> None:
        signal = self._chance.choice(["stop", "cont", "cont", "term", "kill"])
        await self._call("signal_agent", pid=await self._one(), signal=signal, tree=self._chance.random() < 0.5)

    async def save(self, name: str) -> None:
        await self._call("checkpoint", pid=await self._one(), label=name)

    async def fork(self, name: str) -> None:
        saved = await self._call("checkpoint", pid=await self._one())
        model = self._chance.choice([None, "other/large"])
        await self._call("restore", checkpoint_id=saved.checkpoint_id, name=f"fork {name}", model=model)

    async def race(self, name: str) -> None:
        saved = await self._call("checkpoint", pid=await self._one())
        await self._call("restore", checkpoint_id=saved.checkpoint_id, count=2, race=True, name=f"race {name}")

    async def mail(self, name: str) -> None:
        await self._call("send_message", to=await self._one(), text=f"mail {name}")

    async def answer(self, name: str) -> None:
        for row in (await self._call("list_approvals")).approvals:
            if self._chance.random() < 0.6:
                decision = self._chance.choice(["allow", "allow", "deny"])
                if row.step is not None:
                    decision = (
                        "done" if await self._happened(row.approval_id) else self._chance.choice(["allow", "deny"])
                    )
                with suppress(AosError):  # somebody else answered, or its time is over
                    await self._operate("answer_approval", approval_id=row.approval_id, decision=decision)

    async def _happened(self, approval_id: str) -> bool:
        """Look at the ledger for what a question is about."""

        def keys(tx: Transaction) -> list[str]:
            approval = tx.approval_get(approval_id)
            pid, _, number = approval.digest.partition("@") if approval is not None else ("", "", "0")
            step = tx.step_get(Pid(pid), int(number))
            if step is None:
                return []
            command = asked_of(tx, step)[1].get("command")
            return [f"shop:{step.idempotency_key}", *(f"sandbox:{who}:{command}" for who in (pid, HOSTS_SESSION))]

        return any(key in self._world.ledger for key in await self._k.machine.store.read(keys))

    async def wait(self, name: str) -> None:
        await self._call("wait_agent", pids=[await self._one()], timeout_s=self._chance.uniform(0, 40))

    async def schedule(self, name: str) -> None:
        known = (await self._operate("list_schedules")).schedules
        which = self._chance.choice(known).name if known else ""
        match self._chance.randrange(4):
            case 0 | 1:
                form = self._chance.choice(["every 3m", "every 10m", "cron */7 * * * *"])
                missed = self._chance.choice(["skip", "once", "all"])
                spawn = self._spawning(f"planned {name}")
                await self._operate(
                    "add_schedule",
                    name=name,
                    form=form,
                    missed=missed,
                    spawn=spawn,
                    total_usd=self._chance.uniform(0.1, 3),
                )
            case 2:
                await self._operate("pause_schedule", schedule=which, paused=self._chance.random() < 0.5)
            case _:
                await self._operate(self._chance.choice(["remove_schedule", "run_schedule"]), schedule=which)

    async def page(self, name: str) -> None:
        kept = await self._call("page_out", content=f"page {name} " * 40, title=name)
        await self._call("page_in", page_id=kept.page_id, offset=5, limit=20)

    async def read_in(self, name: str) -> None:
        found = await self._call("search_pages", query="note fact page", k=3)
        for hit in found.hits[:1]:
            await self._call("page_in", page_id=hit.page_id, pid=await self._one())

    async def note(self, name: str) -> None:
        notes = (await self._operate("list_notes")).notes
        old = [self._chance.choice(notes).page_id] if notes and self._chance.random() < 0.5 else []
        await self._call("page_out", content=f"a note of {name}", namespace="shared", supersedes=old)
        if self._chance.random() < 0.2:
            await self._operate("undo_notes", writer="host")

    async def command(self, name: str) -> None:
        await self._call("sandbox_exec", command=f"host-{name}", workspace=WORKSPACE)

    async def order(self, name: str) -> None:
        await self._call("call_tool", name="shop__order", arguments={"n": self._chance.randrange(10**9)})

    async def guest(self, name: str) -> None:
        if not self._keys or self._chance.random() < 0.3:
            made = await self._operate("issue_key", name=f"guest {name}", model="sim/large", budget=self._budget())
            self._keys.append(made.key)
        prompt = {"turns": [{"role": "user", "text": f"guest {name}"}]}
        await self._k.kernel.guest_call(
            self._chance.choice(self._keys), "generate", {"model": "sim/large", "prompt": prompt, "max_tokens": 500}
        )

    async def erase(self, name: str) -> None:
        await self._operate("erase_payloads", target=await self._one())

    async def look(self, name: str) -> None:
        pid = await self._one()
        await self._call("read_journal", pid=pid)
        await self._call("read_context", pid=pid)
        await self._call("kernel_status")
        checked = (await self._call("read_audit", verify=True, limit=5)).verified
        assert checked.ok, checked.why
