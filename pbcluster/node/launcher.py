"""Run by path, before a child of the node becomes PocketBase or Litestream.

``python -I -S -E launcher.py PARENT_PID PROGRAM ARGUMENT…`` begins a session of its own (so that a
Ctrl-C at the terminal reaches the node alone), asks the kernel for SIGKILL when the parent's thread
dies (prctl(2), PR_SET_PDEATHSIG) and executes the program in its place: same process id. It costs
about 16 ms; ``processes`` uses ``setsid`` and ``setpriv`` of util-linux instead where they are (1
ms). It imports nothing of ours.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
EXIT_PARENT_GONE = 75
EXIT_NO_PROGRAM = 127


def main(arguments: list[str]) -> int:
    """Execute the program; returns only if that is impossible."""
    parent, program = int(arguments[0]), arguments[1:]
    if os.getpgrp() != os.getpid():
        os.setsid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        print(f"prctl: {os.strerror(ctypes.get_errno())}", file=sys.stderr)
        return 1
    if os.getppid() != parent:
        return EXIT_PARENT_GONE  # it died before the kernel knew our wish
    try:
        os.execv(program[0], program)
    except OSError as error:
        print(f"cannot start {program[0]}: {error.strerror}", file=sys.stderr)
        return EXIT_NO_PROGRAM


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
