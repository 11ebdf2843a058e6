"""Downstream servers as operating-system processes: start, lines in, lines out, last words, and a certain end.

Promises: a child never outlives the kernel, sees only the environment it was given, never touches the terminal, and
cannot make the kernel hold more than one line of `MOUNT_LINE_BYTES_MAX` and the tail of its standard error. The pipes
are ours, not the event loop's, so that an escaped grandchild which holds one open delays nothing. Knows no MCP.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from anyio.abc import Process

from aos_mcp.abi import limits
from aos_mcp.proxy.definition import plain
from aos_mcp.proxy.target import Target

_HERE = Path(__file__).parent
_CHUNK = 2**16  # What a pipe holds.
_POLL_S = 0.01
_DRAIN_S = 0.5  # After the process ended, for what is still in its pipes; and after its output ended, for its end.
_WORDS_CHARS_MAX = 300


class LineTooLong(Exception):
    """A line went beyond `MOUNT_LINE_BYTES_MAX`; the stream cannot be followed any further."""


class Reaper:
    """The process that ends our children when we cannot. One serves all mounts."""

    def __init__(self, stdin: int) -> None:
        """Take the writing end of its standard input."""
        self._stdin = stdin

    def watch(self, group: int) -> None:
        """End this process group when the kernel is gone."""
        self._tell(f"{group}\n")

    def release(self, group: int) -> None:
        """Forget a group that has ended; its number may be given to others."""
        self._tell(f"-{group}\n")

    def _tell(self, line: str) -> None:
        # A dead reaper is not fatal: the parent-death signal still covers the direct children.
        with contextlib.suppress(BrokenPipeError):
            os.write(self._stdin, line.encode())


@asynccontextmanager
async def start_reaper() -> AsyncIterator[Reaper]:
    """Run a reaper for as long as the block lasts."""
    theirs, ours = os.pipe()
    try:
        process = await anyio.open_process(
            [sys.executable, "-I", "-S", str(_HERE / "reaper.py")],
            stdin=theirs,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={},
            start_new_session=True,
        )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    try:
        yield Reaper(ours)
    finally:
        os.close(ours)
        with anyio.CancelScope(shield=True):
            if not await _ended(process, limits.MOUNT_STOP_S):
                process.kill()


class Child:
    """One running server. `receive_line` and `send_line` have one caller each."""

    def __init__(self, process: Process, stdin: int, stdout: int, stderr: int, target: Target) -> None:
        """Take a started process and our ends of its pipes."""
        self._process = process
        self._stdin, self._stdout, self._stderr = stdin, stdout, stderr
        self._target = target
        self._buffer = bytearray()
        self._searched = 0
        self._words = bytearray()
        self._errors_ended = anyio.Event()
        self._output_ended = False
        self._fate = ""

    @property
    def pid(self) -> int:
        """The process, which also leads a process group of its own."""
        return self._process.pid

    @property
    def last_words(self) -> str:
        """The end of what it wrote to standard error, as one line, secrets blotted out; may be empty."""
        lines = self._target.censor(self._words.decode("utf-8", "replace")).splitlines()
        told = [line for line in (plain(line, limits.MOUNT_STDERR_BYTES) for line in lines) if line]
        return " | ".join(told[-3:])[-_WORDS_CHARS_MAX:]

    @property
    def fate(self) -> str:
        """How it ended by itself, as half a sentence; empty while it runs and when it was us who ended it."""
        return self._fate

    async def receive_line(self) -> bytes:
        """Return the next line of its standard output, without the newline.

        Raises:
            anyio.EndOfStream: it closed its output.
            LineTooLong: the line has no end in sight.
        """
        while (end := self._buffer.find(b"\n", self._searched)) < 0:
            self._searched = len(self._buffer)
            if self._searched > limits.MOUNT_LINE_BYTES_MAX:
                raise LineTooLong
            chunk = await _read(self._stdout)
            if not chunk:
                self._output_ended = True
                raise anyio.EndOfStream
            self._buffer += chunk
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        return line

    async def send_line(self, line: bytes) -> None:
        """Write `line` and a newline; waits while the server does not read.

        Raises:
            anyio.BrokenResourceError: it closed its input.
        """
        rest = memoryview(line + b"\n")
        while rest:
            try:
                rest = rest[os.write(self._stdin, rest) :]
            except BlockingIOError:
                await anyio.wait_writable(self._stdin)
            except BrokenPipeError:
                raise anyio.BrokenResourceError from None

    async def listen_to_errors(self) -> None:
        """Keep the tail of its standard error, until that ends."""
        while chunk := await _read(self._stderr):
            self._words += chunk
            del self._words[: -limits.MOUNT_STDERR_BYTES]
        self._errors_ended.set()

    async def wait(self) -> None:
        """Return when the process has ended."""
        await self._process.wait()

    async def stop(self) -> None:
        """End it and everything in its group: end of input, SIGTERM, SIGKILL, `MOUNT_STOP_S` apart."""
        if self._output_ended or self._process.returncode is not None:
            await _ended(self._process, _DRAIN_S)
            self._fate = _fate(self._process.returncode)
        os.close(self._stdin)
        self._stdin = -1
        if not await _ended(self._process, limits.MOUNT_STOP_S):
            _signal_group(self.pid, signal.SIGTERM)
            await _ended(self._process, limits.MOUNT_STOP_S)
        # Always: the leader may be gone while the server proper lives on below it.
        _signal_group(self.pid, signal.SIGKILL)
        await _ended(self._process, limits.MOUNT_STOP_S)
        with anyio.move_on_after(_DRAIN_S):
            await self._errors_ended.wait()

    def close(self) -> None:
        """Let go of the pipes."""
        for fd in (self._stdin, self._stdout, self._stderr):
            if fd >= 0:
                os.close(fd)
        self._stdin = self._stdout = self._stderr = -1


@asynccontextmanager
async def spawn(target: Target, reaper: Reaper) -> AsyncIterator[Child]:
    """Run a server for as long as the block lasts; it is gone, with all it started, when the block is left.

    Raises:
        OSError: it cannot be started at all. (A command that does not exist starts, says so, and ends with 127.)
    """
    pipes = [os.pipe() for _ in range(3)]
    (their_in, our_in), (our_out, their_out), (our_err, their_err) = pipes
    try:
        process = await anyio.open_process(
            [sys.executable, "-I", "-S", str(_HERE / "launcher.py"), str(os.getpid()), *target.argv],
            stdin=their_in,
            stdout=their_out,
            stderr=their_err,
            cwd=target.cwd,
            env=target.env,
            start_new_session=True,
        )
    except BaseException:
        for fd in (our_in, our_out, our_err):
            os.close(fd)
        raise
    finally:
        for fd in (their_in, their_out, their_err):
            os.close(fd)
    for fd in (our_in, our_out, our_err):
        os.set_blocking(fd, False)
    child = Child(process, our_in, our_out, our_err, target)
    reaper.watch(child.pid)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(child.listen_to_errors)
            try:
                yield child
            finally:
                with anyio.CancelScope(shield=True):
                    await child.stop()
                tasks.cancel_scope.cancel()
    finally:
        reaper.release(child.pid)
        child.close()


async def _read(fd: int) -> bytes:
    while True:
        await anyio.wait_readable(fd)
        with contextlib.suppress(BlockingIOError):
            return os.read(fd, _CHUNK)


async def _ended(process: Process, timeout_s: float) -> bool:
    """Tell whether it ended in time."""
    with anyio.move_on_after(timeout_s):
        await process.wait()
    return process.returncode is not None


def _fate(status: int | None) -> str:
    if status is None:
        return "it closed its output"
    if status < 0:
        return f"it was killed by signal {-status} ({signal.strsignal(-status)})"
    return f"it ended with status {status}"


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
