"""Boot: the one place that names concrete drivers, and puts a kernel on them.

Everything is opened here and closed in reverse when the context ends. What is slow (a provider's SDK, Docker, a
downstream server) is not waited for: the first MCP reply does not need it.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio

from aos_mcp import __version__
from aos_mcp.abi.audit import AuditEntry
from aos_mcp.abi.errors import Unavailable
from aos_mcp.abi.handle import pid_in
from aos_mcp.abi.settings import MountSettings, Settings
from aos_mcp.audit.chain import generate_key, load_key, verifier_text
from aos_mcp.audit.redact import redactor
from aos_mcp.definitions import check_definitions, definition_folders
from aos_mcp.embed.selection import find_embedder
from aos_mcp.hardware import SystemClock, SystemEntropy, local_principal
from aos_mcp.kernel.admission import Admission
from aos_mcp.kernel.kernel import Kernel
from aos_mcp.kernel.machine import Machine, Seal
from aos_mcp.llm.catalogue import Catalogue
from aos_mcp.metrics.registry import Metrics
from aos_mcp.proxy.host_config import import_mounts
from aos_mcp.proxy.mount_table import MountTable
from aos_mcp.sandbox.drivers import ProvenSandbox
from aos_mcp.sandbox.workspace import DirectoryWorkspaces
from aos_mcp.storage.sqlite import open_sqlite

SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL")
"""A variable whose name holds one of these has a value that must never be shown."""
SECRET_CHARS_MIN = 8
OBSERVED_MAX = 100_000
"""Egress decisions that may wait for the sealer, which takes them twice a second."""


@asynccontextmanager
async def boot(settings: Settings, environ: Mapping[str, str], home: Path) -> AsyncIterator[Kernel]:
    """Open the devices, recover, and run agents in the background while the context lasts.

    Raises:
        Unavailable: the store cannot be opened.
        Invalid: the configuration does not fit the machine.
    """
    _make_home(home)
    clock, entropy = SystemClock(), SystemEntropy()
    node = f"{socket.gethostname()}:{os.getpid()}"
    runtime = home / "run"
    runtime.mkdir(mode=0o700, exist_ok=True)
    mounts = _mounts(settings, environ, home)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_sqlite(home / "kernel.db", clock))
        models = await stack.enter_async_context(Catalogue(settings, environ, clock))
        workspaces = home / "workspaces"
        observed: deque[AuditEntry] = deque(maxlen=OBSERVED_MAX)
        sandbox = ProvenSandbox(
            settings.sandbox,
            workspaces,
            runtime,
            clock,
            entropy,
            node,
            on_egress=lambda session, host, port, allowed: observed.append(
                egress_entry(clock.now(), session, host, port, allowed=allowed)
            ),
        )
        await stack.enter_async_context(sandbox)
        table = await stack.enter_async_context(MountTable(mounts, clock, entropy, environ))
        machine = Machine(
            settings=settings,
            version=__version__,
            node=node,
            store=store,
            models=models,
            sandbox=sandbox,
            workspaces=DirectoryWorkspaces(workspaces),
            mounts=table,
            clock=clock,
            entropy=entropy,
            seal=_seal(home),
            definitions=lambda project: check_definitions(definition_folders(home, project))[0],
            redact=redactor(secrets_of(environ)),
            metrics=Metrics(),
            admission=Admission(settings.providers, clock, slice_tokens=settings.slice_tokens),
            started_at=clock.now(),
            store_file=store,
            embedder=models.embedder(settings.search.model)
            if settings.search.embedder == "endpoint"
            else find_embedder(settings.search),
            observed=observed,
        )
        kernel = Kernel(machine, local_principal())
        async with anyio.create_task_group() as group:
            await group.start(kernel.run)
            try:
                yield kernel
            finally:
                group.cancel_scope.cancel()


def egress_entry(at: float, session: str, host: str, port: int, *, allowed: bool) -> AuditEntry:
    """Return the audit entry of one decision of an egress proxy."""
    return AuditEntry(
        at=at,
        category="execute",
        actor=session,
        pid=pid_in(session),
        call="egress",
        outcome="ok" if allowed else "denied",
        subject=f"{host}:{port}",
        detail="",
    )


def secrets_of(environ: Mapping[str, str]) -> Iterable[str]:
    """Return the values of variables that are secrets by their name."""
    for name, value in environ.items():
        if len(value) >= SECRET_CHARS_MIN and any(word in name.upper() for word in SECRET_WORDS):
            yield value


def _mounts(settings: Settings, environ: Mapping[str, str], home: Path) -> Mapping[str, MountSettings]:
    return {**import_mounts(settings.import_, environ, home), **settings.mounts}


def _make_home(home: Path) -> None:
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"{home} cannot be made: {error.strerror}.", "Set AOS_HOME to a writable folder.") from None


def _seal(home: Path) -> Seal:
    """Return what the audit log is signed with.

    The key's public half and the log's name stay as they were first made: a log is verified under the name it was
    signed with, whatever the machine is called by then.
    """
    key, public = home / "audit.key", home / "audit.pub"
    if not key.exists():
        _write_once(key, generate_key())
    raw = key.read_bytes()
    if not public.exists():
        origin = f"aos-mcp/{socket.gethostname()}"
        _write_once(public, (verifier_text(load_key(raw).public_key(), origin) + "\n").encode())
    return Seal(key=raw, origin=public.read_text("utf-8").partition("+")[0], heads=home / "audit.heads")


def _write_once(path: Path, body: bytes) -> None:
    """Write a file that is then there whole, whenever the machine dies; one that is there already stays."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    with contextlib.suppress(FileExistsError):
        os.link(part, path)
    part.unlink()
