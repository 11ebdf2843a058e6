"""Drivers `docker+runc` and `docker+runsc`: boxes that are hardened containers of a Docker engine on this machine.

Without a configured image the box is a skeleton: an image of empty folders, built here from a few hundred bytes, over
this machine's own /usr, read-only. No image is ever pulled. docker-py blocks, so it runs in worker threads with a
client of its own for each use; the attached stream is driven by the event loop.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import shutil
import socket
import stat
import subprocess
import tarfile
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from aos_mcp.abi.errors import Unavailable
from aos_mcp.sandbox.box import (
    AGENTD,
    AGENTD_OPTIONS,
    INSIDE_AGENTD,
    INSIDE_EGRESS,
    INSIDE_WORKSPACE,
    Box,
    Channel,
    box_gid,
    box_uid,
    fold,
    greeting,
)
from aos_mcp.sandbox.cgroup import kernel_mark, mark_is_alive
from aos_mcp.sandbox.seccomp import deny_filter
from aos_mcp.sandbox.userland import Userland, host_userland

_CALL_S = 30
_DESTROY_S = 20.0
_READ_BYTES = 65_536
_SAID_BYTES_MAX = 8_192
_FRAME_HEADER = 8
_STDOUT = 1
_CPUS_MAX = 2
_RUNSC_YEAR_MIN = 2025
_RUNSC_PIDS_MIN = 512  # Its own host threads count, and it dies when it cannot make one.
_DEFAULT_SOCKET = "unix:///var/run/docker.sock"
_SKELETON = "aos-mcp/skeleton"
_LABEL_NODE, _LABEL_KERNEL, _LABEL_SESSION = "aos.node", "aos.kernel", "aos.session"
_REPAIR = (
    "Start the Docker engine and give this user access to its socket (group `docker`, or rootless Docker), or use the"
    " driver bwrap."
)


class Docker:
    """Makes boxes with one runtime of a Docker engine."""

    memory_limit = "total"

    def __init__(self, runtime: str, image: str, runtime_dir: Path, node: str) -> None:
        """Take `runc` or `runsc`, and an image that is already on the machine ("" for the skeleton)."""
        self.name = f"docker+{runtime}"
        self.limits_processes_by_user = runtime == "runsc"
        self._runtime = runtime
        self._image = image
        self._agentd = runtime_dir / "agentd.py"
        self._node = node
        self._userland: Userland | None = None
        self._ready = ""

    async def check(self) -> None:
        """Find the engine, the runtime and the image; remove the containers of dead kernels."""
        await anyio.to_thread.run_sync(self._check)

    def greeting(self, box: Box) -> Mapping[str, object]:
        """Have the supervisor put our filter on top of the engine's, which lets AF_VSOCK and io_uring pass."""
        return greeting(box, seccomp=deny_filter(), die_with_parent=False)

    async def start(self, box: Box) -> Channel:
        """Create, attach to and start a container."""
        if not self._ready:
            raise Unavailable(f"The driver {self.name} has not been checked.", "Run `aos doctor`.")
        container, stream = await anyio.to_thread.run_sync(self._start, box)
        return DockerChannel(container, stream)

    def _check(self) -> None:
        with _client() as api:
            info = api.info()
            if self._runtime not in info.get("Runtimes", {}):
                raise Unavailable(
                    f"The Docker engine has no runtime {self._runtime}.",
                    "Install gVisor's runsc and register it with `runsc install`, or use another driver.",
                )
            if self._runtime == "runsc":
                _check_runsc(str(info["Runtimes"]["runsc"].get("path", "runsc")))
            deny_filter()
            self._sweep(api)
            if self._image:
                api.inspect_image(self._image)
                self._ready = self._image
            else:
                self._userland = host_userland()
                self._ready = _skeleton(api, self._userland)
        self._agentd.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # The engine binds a file as it is, so the copy has to be readable for a user who is not the kernel's.
        shutil.copyfile(AGENTD, self._agentd)
        self._agentd.chmod(0o444)

    def _sweep(self, api: Any) -> None:
        for found in api.containers(all=True, filters={"label": [f"{_LABEL_NODE}={self._node}"]}):
            if not mark_is_alive(found["Labels"].get(_LABEL_KERNEL, "")):
                _remove(api, found["Id"])

    def _start(self, box: Box) -> tuple[str, socket.socket]:
        with _client() as api:
            container = self._create(api, box)
            try:
                attached = api.attach_socket(container, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
                # The stream is taken out of docker-py's hands, which would close it with the client.
                stream = socket.socket(fileno=attached._sock.detach())
                attached.close()
                try:
                    stream.setblocking(False)
                    api.start(container)
                except BaseException:
                    stream.close()
                    raise
            except BaseException:
                _remove(api, container)
                raise
        return container, stream

    def _create(self, api: Any, box: Box) -> str:
        from docker.types import LogConfig, Ulimit

        pids = box.pids_max + 1
        host = api.create_host_config(
            runtime=self._runtime,
            network_mode="none",
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges:true"],
            ipc_mode="private",
            mem_limit=box.memory_bytes,
            memswap_limit=box.memory_bytes,
            pids_limit=max(pids, _RUNSC_PIDS_MIN) if self._runtime == "runsc" else pids,
            nano_cpus=min(os.cpu_count() or 1, _CPUS_MAX) * 10**9,
            shm_size=box.shm_bytes,
            tmpfs={"/tmp": f"rw,exec,nosuid,nodev,mode=1777,size={box.tmp_bytes}"},
            ulimits=[Ulimit(name="core", soft=0, hard=0), Ulimit(name="nofile", soft=1024, hard=1024)],
            log_config=LogConfig(type="none"),
            mounts=self._mounts(box),
            auto_remove=True,
        )
        python = self._userland.python if self._userland else "python3"
        created = api.create_container(
            self._ready,
            entrypoint=[python],
            command=[*AGENTD_OPTIONS, INSIDE_AGENTD],
            user=f"{box_uid()}:{box_gid()}",
            hostname="sandbox",
            working_dir="/",
            stdin_open=True,
            labels={_LABEL_NODE: self._node, _LABEL_KERNEL: kernel_mark(), _LABEL_SESSION: box.session},
            host_config=host,
        )
        return str(created["Id"])

    def _mounts(self, box: Box) -> Sequence[Any]:
        from docker.types import Mount

        shown = [(path, path) for path in (self._userland.binds if self._userland else ())]
        shown.append((str(self._agentd), INSIDE_AGENTD))
        if box.egress is not None:
            shown.append((str(box.egress), INSIDE_EGRESS))
        mounts = [Mount(inside, path, type="bind", read_only=True) for path, inside in shown]
        return [*mounts, Mount(INSIDE_WORKSPACE, str(box.workspace), type="bind", read_only=not box.writable)]


class DockerChannel:
    """A box that is a container, reached over its attached stream."""

    def __init__(self, container: str, stream: socket.socket) -> None:
        """Take over a started container and its non-blocking stream."""
        self._container = container
        self._stream = stream
        self._buffer = b""
        self._said = b""
        self._closed = False

    async def send(self, data: bytes) -> None:
        """Write to the supervisor."""
        view = memoryview(data)
        while view:
            if self._closed:
                raise BrokenPipeError
            try:
                view = view[self._stream.send(view) :]
            except BlockingIOError:
                await _ready(anyio.wait_writable, self._stream)
            except OSError:
                raise BrokenPipeError from None

    async def receive(self) -> bytes:
        """Return the supervisor's next bytes, taken out of the engine's frames; what it complains of is kept aside."""
        while True:
            frame = self._frame()
            if frame is not None and frame[0] == _STDOUT:
                return frame[1]
            if frame is not None:
                self._said = (self._said + frame[1])[-_SAID_BYTES_MAX:]
                continue
            if self._closed:
                return b""
            try:
                data = self._stream.recv(_READ_BYTES)
            except BlockingIOError:
                await _ready(anyio.wait_readable, self._stream)
                continue
            except OSError:
                return b""
            if not data:
                return b""
            self._buffer += data

    def gone(self) -> bool:
        """Tell whether the stream has ended; between commands nothing else can be in it."""
        if self._closed:
            return True
        try:
            return not self._stream.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    async def destroy(self) -> None:
        """Hang up, which ends the supervisor, and remove the container, which ends the rest."""
        if self._closed:
            return
        self._closed = True
        anyio.notify_closing(self._stream)  # Whoever waits for the stream would wait for ever otherwise.
        self._stream.close()
        with anyio.move_on_after(_DESTROY_S), contextlib.suppress(Unavailable):
            await anyio.to_thread.run_sync(_destroy, self._container)

    def oom_kills(self) -> int | None:
        """Only the supervisor can see them: the control group is mounted inside."""
        return None

    def diagnosis(self) -> str:
        """Return the supervisor's last complaint."""
        return fold(self._said.decode("utf-8", "replace"))

    def _frame(self) -> tuple[int, bytes] | None:
        if len(self._buffer) < _FRAME_HEADER:
            return None
        size = int.from_bytes(self._buffer[4:_FRAME_HEADER], "big")
        end = _FRAME_HEADER + size
        if len(self._buffer) < end:
            return None
        kind, body = self._buffer[0], self._buffer[_FRAME_HEADER:end]
        self._buffer = self._buffer[end:]
        return kind, body


async def _ready(wait: Callable[[socket.socket], Awaitable[None]], stream: socket.socket) -> None:
    """Wait for a stream; one that is closed meanwhile is ready to say so."""
    with contextlib.suppress(anyio.ClosedResourceError):
        await wait(stream)


@contextlib.contextmanager
def _client() -> Iterator[Any]:
    """Connect to the engine, and translate what it and the way to it may say."""
    import docker  # Half a second of imports: only where an engine is really used.
    from docker.errors import DockerException, ImageNotFound

    found = docker.utils.kwargs_from_env()
    try:
        _knock(found.get("base_url", _DEFAULT_SOCKET))
        with contextlib.closing(docker.APIClient(version="auto", timeout=_CALL_S, **found)) as api:
            yield api
    except ImageNotFound:
        raise Unavailable(
            "The sandbox's Docker image is not on this machine.",
            "Pull it with `docker pull`: it is never pulled for you.",
        ) from None
    except (DockerException, OSError) as error:
        raise Unavailable(f"The Docker engine cannot be used: {fold(str(error))}.", _REPAIR) from None


def _knock(base_url: str) -> None:
    """See that an engine listens on this machine: docker-py leaks a socket when none does. Raises OSError."""
    scheme, _, path = base_url.partition("://")
    if scheme not in {"unix", "http+unix"}:
        raise Unavailable("The Docker engine is not on this machine.", "Use an engine on a local Unix socket.")
    with socket.socket(socket.AF_UNIX) as door:
        door.settimeout(_CALL_S)
        door.connect("/" + path.lstrip("/"))


def _destroy(container: str) -> None:
    with _client() as api:
        _remove(api, container)


def _remove(api: Any, container: str) -> None:
    """Kill and remove; a container that is gone, or on its way, is as good."""
    from docker.errors import APIError

    try:
        api.remove_container(container, force=True, v=True)
    except APIError as error:
        if error.status_code not in {404, 409}:
            raise


def _check_runsc(path: str) -> None:
    """Refuse a gVisor that is too old for current Linux kernels."""
    try:
        shown = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=_CALL_S, check=False).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"runsc does not start: {error}.", "Install gVisor's current release.") from None
    release = re.search(r"(20\d\d)\d{4}", shown)
    if release is None or int(release[1]) < _RUNSC_YEAR_MIN:
        raise Unavailable(
            f"runsc is too old: {fold(shown) or 'no version'}.",
            f"Install a gVisor release of {_RUNSC_YEAR_MIN} or later.",
        )


def _skeleton(api: Any, userland: Userland) -> str:
    """Return the tag of the image of empty folders, building it where it is missing."""
    from docker.errors import ImageNotFound

    body = _skeleton_tar(userland)
    tag = hashlib.sha256(body).hexdigest()[:16]
    name = f"{_SKELETON}:{tag}"
    try:
        api.inspect_image(name)
    except ImageNotFound:
        api.import_image_from_data(body, repository=_SKELETON, tag=tag)
    return name


def _skeleton_tar(userland: Userland) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        folders = ["etc", "dev", "proc", "sys", "tmp", "run", "run/aos-egress", "workspace"]
        folders += [path.lstrip("/") for path in userland.binds if path.count("/") == 1]
        for path in folders:
            entry = tarfile.TarInfo(path)
            entry.type = tarfile.DIRTYPE
            entry.mode = 0o1777 if path == "tmp" else 0o755  # The engine gives the mounted /tmp the mode of this one.
            tar.addfile(entry)
        for path, target in userland.links:
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
        for path, text in userland.stubs:
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode = len(text), stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH
            tar.addfile(entry, io.BytesIO(text))
    return buffer.getvalue()
