"""A program on a clock that jumps, one thing at a time: the same program twice gives the same run, to the last step.

Owns an event loop whose time passes only while everybody waits, worker threads that work while the loop stands still,
and an order for what asyncio and anyio keep in sets. Promises that hours pass in seconds and that nothing depends on
this machine's speed: what a run does follows from its inputs alone. Knows nothing of kernels. There is no waiting for
the outside world here: no sockets, no other processes.
"""

from __future__ import annotations

import asyncio  # noqa: TID251 - anyio has no loop of its own: this is one
import itertools
import selectors
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from contextvars import Context, copy_context
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
from anyio._backends import _asyncio as backend

T = TypeVar("T")


RESOLUTION_S = 1e-6
"""What is due within so much is due: after months, a float does not tell nanoseconds apart any more."""


class Stuck(RuntimeError):
    """Everybody waits, and nobody for a time: the run would never end."""


class _Jump(selectors.SelectSelector):
    """Instead of waiting for a time, makes it come."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise Stuck("everybody waits, and nobody for a time")
        if not ready and timeout is not None:
            self._loop.elapsed_s += max(0.0, timeout)
        return ready


class _Task(asyncio.Task[Any]):
    """A task that sets keep by its number: by its address, whom a cancellation reaches first would be chance."""

    def __init__(self, *values: Any, **named: Any) -> None:
        self._number = next(_numbers)
        super().__init__(*values, **named)

    def __hash__(self) -> int:
        return self._number


class _Scope(backend.CancelScope):
    """As `_Task`, for cancel scopes."""

    __slots__ = ("_number",)

    def __init__(self, *values: Any, **named: Any) -> None:
        self._number = next(_numbers)
        super().__init__(*values, **named)

    def __hash__(self) -> int:
        return self._number


_numbers: Iterator[int] = itertools.count()


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose time begins at 0 and jumps to the next moment that somebody waits for."""

    def __init__(self) -> None:
        """Make a loop at time 0."""
        self.elapsed_s = 0.0
        super().__init__(_Jump(self))
        self._clock_resolution = RESOLUTION_S
        self.set_task_factory(_task)

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self.elapsed_s


def _task(loop: asyncio.AbstractEventLoop, work: Any, /, **named: Any) -> _Task:
    return _Task(work, loop=loop, **named)


class VirtualClock:
    """`ports.Clock` on a virtual loop; `epoch` is what it shows when the loop is made (seconds since 1970)."""

    def __init__(self, loop: VirtualLoop, epoch: float) -> None:
        """Show the time of `loop`."""
        self._loop = loop
        self._epoch = epoch

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._epoch + self._loop.elapsed_s

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return self._loop.elapsed_s

    async def sleep_until(self, when: float) -> None:
        """Return once `now() >= when`."""
        while (left_s := when - self.now()) > 0:  # noqa: ASYNC110 - this waits for the clock
            await anyio.sleep(left_s)


class _Aside:
    """A worker thread that works while the loop stands still, and stands still while the loop works for it."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._turned = threading.Semaphore(0)
        self._asked: tuple[Callable[[], Awaitable[Any]], Future[Any]] | None = None

    async def do(self, work: Callable[[], T]) -> T:
        """Run `work` on the thread; the loop does nothing meanwhile but what the work asks of it."""
        done = self._thread.submit(self._begin, work)
        done.add_done_callback(lambda _: self._turned.release())
        self._turned.acquire()
        while self._asked is not None:
            (wish, answer), self._asked = self._asked, None
            task = asyncio.ensure_future(wish())
            await asyncio.wait({task})
            if (error := task.exception()) is not None:
                answer.set_exception(error)
            else:
                answer.set_result(task.result())
            self._turned.acquire()
        return done.result()

    def _begin(self, work: Callable[[], T]) -> T:
        _here.aside = self
        return work()

    def ask(self, wish: Callable[[], Awaitable[T]]) -> T:
        """On the thread: have the loop do something, and wait for it."""
        answer: Future[T] = Future()
        self._asked = (wish, answer)
        self._turned.release()
        return answer.result()

    def end(self) -> None:
        """End the thread."""
        self._thread.shutdown()


_here = threading.local()


def _from_thread(work: Callable[..., Awaitable[T]], *values: Any, token: object = None) -> T:
    aside: _Aside = _here.aside
    return aside.ask(partial(work, *values))


@contextmanager
def _one_at_a_time(hop_s: Callable[[], float]) -> Iterator[None]:
    """Have threads work in turns, and sets of anyio's keep an order, while this lasts."""
    idle: list[_Aside] = []
    made: list[_Aside] = []

    async def run_sync(
        work: Callable[..., T],
        *values: Any,
        abandon_on_cancel: bool = False,
        cancellable: bool | None = None,
        limiter: anyio.CapacityLimiter | None = None,
    ) -> T:
        await anyio.lowlevel.checkpoint()
        async with limiter or anyio.to_thread.current_default_thread_limiter():
            with anyio.CancelScope(shield=not abandon_on_cancel):
                await anyio.sleep(hop_s())
                aside = idle.pop() if idle else _Aside()
                if aside not in made:
                    made.append(aside)
                try:
                    result = await aside.do(partial(copy_context().run, work, *values))
                finally:
                    idle.append(aside)
                await anyio.sleep(hop_s())
            return result

    changed: list[tuple[Any, str, Any]] = [
        (anyio.to_thread, "run_sync", run_sync),
        (anyio.from_thread, "run", _from_thread),
        (backend, "CancelScope", _Scope),
    ]
    before = [(place, name, getattr(place, name)) for place, name, _ in changed]
    for place, name, value in changed:
        setattr(place, name, value)
    try:
        yield
    finally:
        for place, name, value in before:
            setattr(place, name, value)
        for aside in made:
            aside.end()


def run_virtually(main: Callable[[VirtualClock], Awaitable[T]], *, epoch: float, hop_s: Callable[[], float]) -> T:
    """Run a program on virtual time and return what it returns.

    Args:
        main: the program; it is given the clock.
        epoch: what the clock shows at its beginning, in seconds since 1970.
        hop_s: how long it takes until a thread begins, and again until its result is seen; asked for each.

    Raises:
        Stuck: everybody waits, and nobody for a time.
    """
    global _numbers
    _numbers = itertools.count()
    loop = VirtualLoop()

    async def program() -> T:
        return await main(VirtualClock(loop, epoch))

    # In a context of its own: where the caller's says that a loop runs, as in a test between two others, anyio refuses.
    with _one_at_a_time(hop_s), closing(loop):
        return Context().run(partial(anyio.run, program, backend_options={"loop_factory": lambda: loop}))
