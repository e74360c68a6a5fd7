"""Run by path, before a child of the supervisor becomes what it is for.

``python -I -S launch.py PARENT_PID PROGRAM ARGUMENT…`` asks the kernel to send SIGTERM when the
parent dies (prctl(2), PR_SET_PDEATHSIG), so that no process outlives its supervisor, then executes
the program in its place: same process id. It imports nothing of ours, so that it takes a few
milliseconds. A fork hook in the parent would do the same but is unsafe beside threads.
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
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        print(f"prctl: {os.strerror(ctypes.get_errno())}", file=sys.stderr)
        return 1
    if os.getppid() != parent:
        return EXIT_PARENT_GONE  # it died before the kernel knew our wish
    try:
        os.execvp(program[0], program)
    except OSError as error:
        print(f"cannot start {program[0]}: {error.strerror}", file=sys.stderr)
        return EXIT_NO_PROGRAM


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
