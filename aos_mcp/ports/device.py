"""The ports of everything that is not the store: time, chance, models, commands, files, downstream servers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar, runtime_checkable

from aos_mcp.abi.budget import Usage
from aos_mcp.abi.completion import Completion, ModelInfo, Prompt
from aos_mcp.abi.handle import Digest
from aos_mcp.abi.mount import MountedTool, MountStatus, ToolOutcome
from aos_mcp.abi.sandbox import Command, CommandOutcome, SandboxProof, WorkspaceFile

T = TypeVar("T")


class Clock(Protocol):
    """Time, so that a test can hold it."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back; for durations."""
        ...

    async def sleep_until(self, when: float) -> None:
        """Return once `now() >= when`."""
        ...


class Entropy(Protocol):
    """Randomness, so that a test can replay it."""

    def handle(self, prefix: str) -> str:
        """Return `prefix` and 26 characters of lower-case base32: 128 random bits."""
        ...

    def random(self) -> float:
        """Return a number in [0, 1)."""
        ...


Deliver = Callable[[str], None]
"""Takes each piece of text as a model writes it. Must not block.

An empty piece says that more than text is being written: reasoning, or a tool call. Such an answer cannot be broken off
and gone on with.
"""


@runtime_checkable
class Metered(Protocol):
    """A `Deliver` that is also told what was used by a call that failed, or that was cancelled."""

    def __call__(self, text: str, /) -> None:
        """Take a piece of text."""
        ...

    def used(self, usage: Usage) -> None:
        """Take what was used until then, before the error or the cancellation comes out of `complete`.

        Output is what the provider counted, and at least what came: text, reasoning and tool calls. No prompt tokens
        means that the provider had not counted them yet; `microusd` is 0 then. Not called when nothing had come back.
        """
        ...


class LanguageModel(Protocol):
    """One model at one provider."""

    name: str
    """`provider/model`."""

    async def describe(self) -> ModelInfo:
        """Return what is known before the first call: window, price, dialect.

        Does not call the provider. The first one of a process may take a second (price table); later ones are cached.
        """
        ...

    async def complete(self, prompt: Prompt, deliver: Deliver) -> Completion:
        """Make one call, always streamed.

        Cancelling it closes the stream; what was delivered until then is what was generated, and a `deliver` that is
        `Metered` is told what was used. Never retries by itself. Raises ModelError.
        """
        ...


class Models(Protocol):
    """The catalogue of models."""

    def resolve(self, name: str) -> LanguageModel:
        """Return the driver for `provider/model`. Loads SDKs at the first call, not here.

        Raises NotFound for an unknown provider, Unavailable when the provider's key is missing (the hint names the
        variable).
        """
        ...

    async def default(self) -> str:
        """Return the default model's name.

        Configured, else AOS_MODEL, else the first provider with a key, else a reachable Ollama. Raises Unavailable,
        naming the variables that would give one.
        """
        ...

    def warm(self, name: str) -> None:
        """Make ready for a first call of this model, in the background: load its SDK. Returns at once, never fails."""
        ...

    def providers(self) -> Sequence[tuple[str, bool]]:
        """Return every configured provider's name and whether its key is present (keyless ones: True)."""
        ...


class Embedder(Protocol):
    """Makes vectors of texts."""

    name: str
    """Names the vectors it makes: two embedders whose vectors may be compared have the same."""

    async def embed(self, texts: Sequence[str]) -> Sequence[bytes]:
        """Return a vector for each text, as `abi.vector.Vector.values`; what is beyond the model's window is not read.

        The first call may load the model. Raises Unavailable when it cannot be had, and TimedOut.
        """
        ...


class Sandbox(Protocol):
    """Runs commands where they can reach nothing but their workspace. There is no way around it."""

    async def prove(self) -> Sequence[SandboxProof]:
        """Try each configured driver's self-tests; remember the best that passed. One proof per driver."""
        ...

    def proven(self) -> SandboxProof | None:
        """Return the proof of the driver in use; None when none passed or none was tried."""
        ...

    async def execute(self, command: Command) -> CommandOutcome:
        """Run one command to its end.

        Commands of one session are serialised. On cancellation everything the command started is killed before this
        returns. Raises Unavailable when no driver passed or the driver died before the command started, and
        UnknownOutcome when it died while the command ran.
        """
        ...

    async def close(self, session: str) -> None:
        """End a session and everything in it. Unknown sessions are ignored."""
        ...

    async def shutdown(self) -> None:
        """End all sessions."""
        ...


class Workspaces(Protocol):
    """Directories that commands act on. Every path is walked from a root descriptor, links never followed."""

    def path(self, workspace: str) -> str:
        """Return the directory, made when it is not there."""
        ...

    def write(self, workspace: str, path: str, body: bytes) -> None:
        """Write one file, making its folders.

        Raises Invalid for a path that leaves the workspace, Denied for one that meets a symbolic link.
        """
        ...

    def read(self, workspace: str, path: str, *, limit: int) -> bytes:
        """Read a regular file, at most `limit` bytes. Raises NotFound, Invalid, Denied as `write`."""
        ...

    def scan(
        self, workspace: str, known: Mapping[str, WorkspaceFile], *, hashed: bool = True
    ) -> Mapping[str, WorkspaceFile]:
        """Return all entries by path.

        Files unchanged by size, mtime and mode keep the digest in `known`; others are read and hashed, or, without
        `hashed`, left without a digest for a caller who reads them anyway. Raises LimitExceeded
        beyond the bounds of `abi.limits`.
        """
        ...

    def restore(self, workspace: str, files: Mapping[str, WorkspaceFile], body: Callable[[Digest], bytes]) -> None:
        """Make the (empty) workspace hold exactly `files`."""
        ...


Progress = Callable[[float, float | None, str], Awaitable[None]]
"""Takes (done, total or None, a sentence): what is shown to whoever waits."""


class Mounts(Protocol):
    """The downstream MCP servers."""

    def status(self) -> Sequence[MountStatus]:
        """Return every configured downstream, by name."""
        ...

    def tools(self) -> Sequence[MountedTool]:
        """Return the tools of all that are up, by name."""
        ...

    def tool(self, name: str) -> MountedTool | None:
        """Return one tool."""
        ...

    async def settled(self, timeout_s: float) -> None:
        """Return once every downstream was tried at least once, or after `timeout_s`."""
        ...

    async def call(
        self,
        name: str,
        arguments: Mapping[str, object],
        *,
        timeout_s: float,
        progress: Progress | None = None,
        meta: Mapping[str, object] | None = None,
    ) -> ToolOutcome:
        """Call one tool once.

        Raises NotFound for a tool that is not offered, Invalid where the server refuses the arguments, Unavailable when
        it is down before the call was sent, TimedOut, and UnknownOutcome when the connection was lost after. Never
        repeats a call.
        """
        ...

    def on_change(self, notify: Callable[[str], None]) -> None:
        """Call `notify(server)` whenever a server's state or tool list changed."""
        ...
