"""Ends what a killed kernel leaves behind. Run as a program, standard library only.

The kernel holds the other end of standard input and writes `+GROUP` when it has started a process group, `-GROUP`
when it has ended one. End of input means that the kernel is gone, however it went: whatever groups are left are
killed. A parent-death signal reaches the direct child only; the servers that `npx` and the like start live below it.
"""

import contextlib
import os
import signal
import sys


def main() -> None:
    """Follow the kernel's groups until it is gone."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line)
        if group > 0:
            groups.add(group)
        else:
            groups.discard(-group)
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
