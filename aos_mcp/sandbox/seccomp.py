"""The system calls no sandboxed command may make, as a BPF program.

It is a deny list over a namespace without capabilities: what stands here is what has been used to get out of such a
place, or reaches kernel code that an unprivileged program has no business in. Docker's own filter stays on beneath it.
"""

from __future__ import annotations

import errno
import functools
import os
import socket

from aos_mcp.abi.errors import Unavailable

_CLONE_NEW = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET."""

_SOCK_PACKET = 10
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C

_DENIED = (
    # Namespaces and mounts: a nested user namespace could undo the read-only mounts.
    *("unshare", "setns", "mount", "umount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "fsopen"),
    *("fsconfig", "fsmount", "fspick", "mount_setattr", "swapon", "swapoff", "quotactl", "quotactl_fd"),
    # Other processes, and files by handle rather than by path.
    *("ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd", "process_madvise"),
    *("open_by_handle_at", "name_to_handle_at"),
    # Wide kernel interfaces with a history; io_uring also makes sockets behind the filter's back.
    *("bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register"),
    *("keyctl", "add_key", "request_key", "lookup_dcookie", "fanotify_init", "vmsplice"),
    # The machine itself.
    *("kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "reboot", "acct", "syslog"),
    *("settimeofday", "clock_settime", "clock_settime64", "adjtimex", "clock_adjtime", "clock_adjtime64"),
    *("sethostname", "setdomainname", "iopl", "ioperm", "nfsservctl", "uselib", "vhangup", "personality"),
    *("mbind", "set_mempolicy", "migrate_pages", "move_pages"),
)

_SOCKET_FAMILIES_ALLOWED = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
"""All else is refused: AF_ALG, AF_VSOCK, AF_PACKET, AF_KEY and whatever comes next."""

_SOCKET_FAMILY_MAX = 64
_PERSONALITY_QUERY = 0xFFFFFFFF


@functools.cache
def deny_filter() -> bytes:
    """Return the filter as BPF instructions, eight bytes each, for this machine's architecture.

    Raises Unavailable when libseccomp is not installed.
    """
    try:
        import pyseccomp  # Loads libseccomp.so at import: only where a sandbox is really used.
    except (ImportError, OSError, RuntimeError) as error:
        raise Unavailable(
            f"The system call filter cannot be built: {error}.",
            "Install libseccomp (Debian and Ubuntu: apt install libseccomp2) and start the kernel again.",
        ) from None
    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    refuse, missing = pyseccomp.ERRNO(errno.EPERM), pyseccomp.ERRNO(errno.ENOSYS)
    for name in _DENIED:
        if name == "personality":
            rules.add_rule(refuse, name, pyseccomp.Arg(0, pyseccomp.NE, _PERSONALITY_QUERY))
        elif _known(pyseccomp, name):
            rules.add_rule(refuse, name)
    for flag in _CLONE_NEW:
        rules.add_rule(refuse, "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, flag, flag))
    # The arguments of clone3 lie in memory, where a filter cannot look; C libraries fall back to clone.
    rules.add_rule(missing, "clone3")
    for family in range(_SOCKET_FAMILY_MAX):
        if family not in _SOCKET_FAMILIES_ALLOWED:
            rules.add_rule(refuse, "socket", pyseccomp.Arg(0, pyseccomp.EQ, family))
    rules.add_rule(refuse, "socket", pyseccomp.Arg(0, pyseccomp.GE, _SOCKET_FAMILY_MAX))
    for family in (socket.AF_INET, socket.AF_INET6):
        for kind in (socket.SOCK_RAW, _SOCK_PACKET):
            is_raw = pyseccomp.Arg(1, pyseccomp.MASKED_EQ, 0xF, kind)
            rules.add_rule(refuse, "socket", pyseccomp.Arg(0, pyseccomp.EQ, family), is_raw)
    # Route queries (protocol 0) are how C libraries list interfaces; the other protocols only widen the attack surface.
    not_route = pyseccomp.Arg(2, pyseccomp.NE, 0)
    rules.add_rule(refuse, "socket", pyseccomp.Arg(0, pyseccomp.EQ, socket.AF_NETLINK), not_route)
    for request in (_TIOCSTI, _TIOCLINUX):
        rules.add_rule(refuse, "ioctl", pyseccomp.Arg(1, pyseccomp.MASKED_EQ, 0xFFFFFFFF, request))
    return _exported(rules)


def _known(pyseccomp: object, name: str) -> bool:
    """Tell whether libseccomp knows the call; an old library knows fewer, an architecture may lack some."""
    try:
        return bool(pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name) != -1)  # type: ignore[attr-defined]
    except (ValueError, OSError):
        return False


def _exported(rules: object) -> bytes:
    fd = os.memfd_create("seccomp")
    with os.fdopen(fd, "r+b") as file:
        rules.export_bpf(file)  # type: ignore[attr-defined]
        file.seek(0)
        return file.read()
