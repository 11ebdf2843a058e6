"""Workspaces on disk: directories that agents write to, read by a kernel that trusts nothing in them.

Every path is walked part by part from a descriptor of the workspace's root, and a symbolic link is never followed, so
that swapping a folder for a link at the right moment wins nothing. It knows nothing of sandboxes but the user id that
commands have, which has to own what is written here.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aos_mcp.abi.errors import Conflict, Denied, Invalid, LimitExceeded, NotFound, Unavailable
from aos_mcp.abi.handle import Digest
from aos_mcp.abi.limits import WORKSPACE_BYTES_MAX, WORKSPACE_DEPTH_MAX, WORKSPACE_FILES_MAX
from aos_mcp.abi.sandbox import WorkspaceFile
from aos_mcp.sandbox.box import box_gid, box_uid

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_PATH_BYTES_MAX = 4_096
_PART_BYTES_MAX = 255
_CHUNK = 1 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PERMISSIONS = 0o777  # Set-user-id bits never leave a workspace.
_TEMPORARY = ".aos-write-"


class DirectoryWorkspaces:
    """Workspaces as folders of one directory. Synchronous: call it from a worker thread."""

    def __init__(self, root: Path) -> None:
        """Keep the workspaces in `root`, which is made at the first use, for the kernel's user alone."""
        self._root = root

    def path(self, workspace: str) -> str:
        """Return the folder of a workspace, made when it is not there.

        Raises Invalid for a name that is not one of `[A-Za-z0-9._-]`.
        """
        if not _NAME.fullmatch(workspace):
            raise Invalid(
                f"{workspace[:80]!r} cannot name a workspace.", "Use letters, digits, `.`, `_` and `-`, 128 at most."
            )
        folder = self._root / workspace
        with _translated(workspace):
            self._root.mkdir(parents=True, exist_ok=True, mode=0o711)
            try:
                folder.mkdir(mode=0o700)
                os.chown(folder, box_uid(), box_gid(), follow_symlinks=False)
            except FileExistsError:
                pass
        return str(folder)

    def write(self, workspace: str, path: str, body: bytes) -> None:
        """Write one file through a temporary one, making its folders.

        Raises Invalid for a path that leaves the workspace or runs through a file, Denied for one that meets a link.
        """
        parts = _parts(path)
        with self._opened(workspace) as root, _translated(path), _folder(root, parts[:-1], make=True) as parent:
            found = _look(parent, parts[-1])
            if found is not None and stat.S_ISLNK(found.st_mode):
                raise _met_link(path)
            if found is not None and stat.S_ISDIR(found.st_mode):
                raise Invalid(f"{path!r} is a folder.", "Name a file.")
            mode = stat.S_IMODE(found.st_mode) & _PERMISSIONS if found is not None else 0o644
            _put(parent, parts[-1], body, mode=mode, mtime_ns=None)

    def read(self, workspace: str, path: str, *, limit: int) -> bytes:
        """Return the first `limit` bytes of a regular file.

        Raises NotFound, Invalid when it is not a regular file, Denied when the path meets a link.
        """
        parts = _parts(path)
        with self._opened(workspace) as root, _translated(path), _folder(root, parts[:-1], make=False) as parent:
            with _regular(parent, parts[-1], path) as file:
                chunks = []
                while limit > 0 and (data := os.read(file, min(limit, _CHUNK))):
                    chunks.append(data)
                    limit -= len(data)
        return b"".join(chunks)

    def scan(
        self, workspace: str, known: Mapping[str, WorkspaceFile], *, hashed: bool = True
    ) -> Mapping[str, WorkspaceFile]:
        """Return all regular files and links by path; what is neither, or has a name that is not UTF-8, is left out.

        Raises LimitExceeded beyond WORKSPACE_FILES_MAX entries, WORKSPACE_BYTES_MAX bytes (holes of sparse files
        count) or WORKSPACE_DEPTH_MAX folders.
        """
        walk = _Walk(known, hashed)
        with self._opened(workspace) as root, _translated(workspace):
            walk.folder(root, "", 0)
        return walk.found

    def restore(self, workspace: str, files: Mapping[str, WorkspaceFile], body: Callable[[Digest], bytes]) -> None:
        """Make an empty workspace hold exactly `files`, with their modes and times.

        Raises Conflict when the workspace is not empty, Invalid for a path that leaves it.
        """
        with self._opened(workspace) as root:
            if os.listdir(root):
                raise Conflict(f"The workspace {workspace!r} is not empty.", "Restore into a new one.")
            # Links come last: no file can then be meant to be written through one.
            for path, entry in sorted(files.items(), key=lambda item: item[1].link is not None):
                parts = _parts(path)
                with _translated(path), _folder(root, parts[:-1], make=True) as parent:
                    if entry.link is not None:
                        os.symlink(entry.link, parts[-1], dir_fd=parent)
                        os.chown(parts[-1], box_uid(), box_gid(), dir_fd=parent, follow_symlinks=False)
                    elif entry.digest is not None:
                        mode = entry.mode & _PERMISSIONS
                        _put(parent, parts[-1], body(entry.digest), mode=mode, mtime_ns=entry.mtime_ns)

    @contextlib.contextmanager
    def _opened(self, workspace: str) -> Iterator[int]:
        with _translated(workspace), _closing(os.open(self.path(workspace), _FOLDER)) as root:
            yield root


@dataclass
class _Walk:
    """One scan: what was known, what was found, and the running totals."""

    known: Mapping[str, WorkspaceFile]
    hashed: bool
    found: dict[str, WorkspaceFile] = field(default_factory=dict)
    size_bytes: int = 0
    entries: int = 0

    def folder(self, fd: int, prefix: str, depth: int) -> None:
        """Take in one folder and those below it."""
        if depth > WORKSPACE_DEPTH_MAX:
            raise _too_much(f"folders nested more than {WORKSPACE_DEPTH_MAX} deep")
        with os.scandir(fd) as entries:
            names = sorted(entry.name for entry in entries)
        for name in names:
            self.entries += 1
            if self.entries > WORKSPACE_FILES_MAX:
                raise _too_much(f"more than {WORKSPACE_FILES_MAX} entries")
            if _is_utf8(name):
                self._entry(fd, name, prefix + name, depth)

    def _entry(self, parent: int, name: str, path: str, depth: int) -> None:
        about = _look(parent, name)
        if about is None:
            return
        if stat.S_ISDIR(about.st_mode):
            try:
                folder = _open_folder(parent, name)
            except (FileNotFoundError, NotADirectoryError, Denied):
                return  # Swapped for something else since it was looked at: the next scan will find that.
            with _closing(folder):
                self.folder(folder, path + "/", depth + 1)
        elif stat.S_ISLNK(about.st_mode):
            with contextlib.suppress(OSError):
                text = os.readlink(name, dir_fd=parent)
                if _is_utf8(text):
                    self.found[path] = _described(path, about, digest=None, link=text)
        elif stat.S_ISREG(about.st_mode):
            self.size_bytes += about.st_size
            if self.size_bytes > WORKSPACE_BYTES_MAX:
                raise _too_much(f"more than {WORKSPACE_BYTES_MAX} bytes")
            self._file(parent, name, path, about)

    def _file(self, parent: int, name: str, path: str, about: os.stat_result) -> None:
        before = self.known.get(path)
        same = before is not None and before.link is None and _described(path, about, digest=before.digest) == before
        if before is not None and same:
            self.found[path] = before
            return
        if not self.hashed:
            self.found[path] = _described(path, about, digest=None)
            return
        with contextlib.suppress(FileNotFoundError, Invalid, Denied):
            with _regular(parent, name, path) as file:
                about = os.fstat(file)
                self.found[path] = _described(path, about, digest=_hashed(file))


def _parts(path: str) -> list[str]:
    """Split a path that came from outside. Raises Invalid for one that is not plainly inside."""
    parts = [part for part in path.split("/") if part not in {"", "."}]
    size_bytes = len(path.encode("utf-8", "surrogatepass"))
    bad = (
        path.startswith("/") or "\0" in path or ".." in parts or not parts
        or size_bytes > _PATH_BYTES_MAX or not _is_utf8(path)
        or any(len(part.encode("utf-8")) > _PART_BYTES_MAX for part in parts)
    )  # fmt: skip
    if bad:
        raise Invalid(
            f"{path[:80]!r} is not a path inside the workspace.",
            "Give a relative path without `..`, such as `src/a.py`.",
        )
    return parts


@contextlib.contextmanager
def _closing(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _folder(root: int, parts: list[str], *, make: bool) -> Iterator[int]:
    """Walk to a folder, one part at a time."""
    here = os.dup(root)
    try:
        for part in parts:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=here)
                    os.chown(part, box_uid(), box_gid(), dir_fd=here, follow_symlinks=False)
            below = _open_folder(here, part)
            os.close(here)
            here = below
        yield here
    finally:
        os.close(here)


def _open_folder(parent: int, name: str) -> int:
    """Open a folder, never through a link; one its owner has closed to itself is opened up first."""
    try:
        return os.open(name, _FOLDER, dir_fd=parent)
    except PermissionError:
        with _closing(os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)) as fd:
            os.chmod(f"/proc/self/fd/{fd}", 0o700)
        return os.open(name, _FOLDER, dir_fd=parent)
    except NotADirectoryError:
        about = _look(parent, name)
        if about is not None and stat.S_ISLNK(about.st_mode):
            raise _met_link(name) from None
        raise


@contextlib.contextmanager
def _regular(parent: int, name: str, path: str) -> Iterator[int]:
    """Open a regular file for reading; what was looked at is what is opened, and nothing else ever is."""
    with _closing(os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)) as place:
        about = os.fstat(place)
        if stat.S_ISLNK(about.st_mode):
            raise _met_link(path)
        if not stat.S_ISREG(about.st_mode):
            raise Invalid(f"{path!r} is not a regular file.", "Name a regular file.")
        link = f"/proc/self/fd/{place}"
        try:
            file = os.open(link, os.O_RDONLY | os.O_CLOEXEC)
        except PermissionError:
            os.chmod(link, stat.S_IMODE(about.st_mode) & _PERMISSIONS | 0o400)
            file = os.open(link, os.O_RDONLY | os.O_CLOEXEC)
        with _closing(file):
            yield file


def _put(parent: int, name: str, body: bytes, *, mode: int, mtime_ns: int | None) -> None:
    """Put a whole file in place at once. What stood under its name is replaced, not written to."""
    temporary = f"{_TEMPORARY}{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=parent)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with _closing(os.open(temporary, flags, 0o600, dir_fd=parent)) as fd:
        view = memoryview(body)
        while view:
            view = view[os.write(fd, view[:_CHUNK]) :]
        os.fchown(fd, box_uid(), box_gid())
        os.fchmod(fd, mode)
        if mtime_ns is not None:
            os.utime(fd, ns=(mtime_ns, mtime_ns))
    os.replace(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)


def _look(parent: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _hashed(fd: int) -> Digest:
    digest = hashlib.sha256()
    left = WORKSPACE_BYTES_MAX
    while left > 0 and (data := os.read(fd, _CHUNK)):
        digest.update(data)
        left -= len(data)
    return Digest(digest.hexdigest())


def _described(path: str, about: os.stat_result, *, digest: Digest | None, link: str | None = None) -> WorkspaceFile:
    return WorkspaceFile(
        path=path,
        size_bytes=about.st_size,
        mode=stat.S_IMODE(about.st_mode) & _PERMISSIONS,
        mtime_ns=about.st_mtime_ns,
        digest=digest,
        link=link,
    )


def _is_utf8(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _met_link(path: str) -> Denied:
    return Denied(f"{path!r} meets a symbolic link.", "Name the file itself; links are never followed.")


def _too_much(what: str) -> LimitExceeded:
    return LimitExceeded(f"The workspace holds {what}.", "Delete what is not needed and try again.")


@contextlib.contextmanager
def _translated(path: str) -> Iterator[None]:
    """Turn what the operating system says about a path into what a caller can act on."""
    try:
        yield
    except FileNotFoundError:
        raise NotFound(f"There is no file {path!r} in the workspace.", "List the workspace to see its names.") from None
    except (NotADirectoryError, IsADirectoryError):
        raise Invalid(f"{path!r} runs through something that is not a folder.", "Name another path.") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _met_link(path) from None
        raise Unavailable(
            f"The workspace cannot be used: {error.strerror}.", "Check the disk's free space and permissions."
        ) from None
