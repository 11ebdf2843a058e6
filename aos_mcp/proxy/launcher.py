"""Starts one downstream server so that it cannot outlive the kernel. Run as a program, standard library only.

`launcher.py PARENT COMMAND [ARG…]` asks Linux to kill this process when its parent dies, then becomes the command.
Elsewhere the reaper alone keeps the promise. What it cannot start it says on standard error, and ends with 127.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> int:
    """Become `argv[1:]` as a child of the process `argv[0]`; returns only when that fails."""
    parent, command = int(argv[0]), argv[1]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:
            return 0  # The kernel died before the signal was set.
    # Python ignores these two, and an ignored signal is inherited: the server gets the defaults a shell would give it.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execvp(command, argv[1:])
    except OSError as error:
        sys.stderr.write(f"{command}: {error.strerror}\n")
    return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
