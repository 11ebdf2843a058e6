"""AIOS as a peer of `aos bench llm`: model calls through its FIFO scheduler, from a checkout that the user gives.

A program of its own; it imports nothing of ours. What AIOS needs besides its scheduler (its SDK, memory, storage, tools
and the drivers of models) stands there as names without anything behind them, and the model answers at once: what is
measured is the way of a call through its queue, its threads and its log. One line of JSON comes out.

    python aios_fifo.py CHECKOUT --callers 64 --calls 100
"""

from __future__ import annotations

import argparse
import importlib
import importlib.abc
import importlib.machinery
import json
import os
import sys
import threading
import time
from collections.abc import MutableSequence, Sequence
from types import ModuleType
from typing import Any

KINDS = ("llm", "memory", "storage", "tool")
STAND_INS = ("cerebrum", "aios.memory", "aios.storage", "aios.llm_core", "aios.tool", "aios.config")


class _StandIn(ModuleType):
    """A module in which every name is a class of its own that takes anything."""

    __path__: MutableSequence[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = type(name, (), {"__init__": lambda self, **given: self.__dict__.update(given)})
        setattr(self, name, made)
        return made


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        if not any(name == each or name.startswith(f"{each}.") for each in STAND_INS):
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to run."""


class _Instant:
    """The model: it answers at once, one call or a batch, as each release asks for it."""

    def execute_llm_syscall(self, call: Any) -> str:
        return "Done."

    def execute_llm_syscalls(self, batch: Sequence[Any]) -> None:
        for call in batch:
            call.set_response("Done.")
            call.set_end_time(time.perf_counter())
            call.set_status("done")
            call.event.set()


def measure(callers: int, calls: int) -> float:
    """Return the calls a second of so many threads, each making so many calls one after the other."""
    fifo = importlib.import_module("aios.scheduler.fifo_scheduler")
    queues = importlib.import_module("aios.hooks.stores._global")
    syscalls = importlib.import_module("aios.syscall.syscall")
    query = importlib.import_module("cerebrum.llm.apis").LLMQuery
    sources = {f"get_{kind}_syscall": getattr(queues, f"global_{kind}_req_queue_get_message") for kind in KINDS}
    nobody = {"memory_manager": None, "storage_manager": None, "tool_manager": None}
    scheduler = fifo.FIFOScheduler(llm=_Instant(), log_mode="console", **nobody, **sources)
    executor = syscalls.SyscallExecutor()
    scheduler.start()

    def caller(number: int) -> None:
        for _ in range(calls):
            executor._execute_syscall(f"agent{number}", query(messages=[], action_type="chat"))

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(callers)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall_s = time.perf_counter() - started
    scheduler.stop()
    return callers * calls / wall_s


def main() -> None:
    """Measure the checkout that is named; what it prints itself goes nowhere."""
    parser = argparse.ArgumentParser()
    parser.add_argument("checkout")
    parser.add_argument("--callers", type=int, required=True)
    parser.add_argument("--calls", type=int, required=True)
    options = parser.parse_args()
    answer = os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    sys.path.insert(0, options.checkout)
    sys.meta_path.insert(0, _Finder())
    try:
        json.dump({"per_s": measure(options.callers, options.calls)}, answer)
    except (ImportError, AttributeError, TypeError) as error:  # another release, or no checkout at all
        json.dump({"failed": repr(error)}, answer)
    answer.close()


if __name__ == "__main__":
    main()
