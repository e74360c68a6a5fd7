"""How long a process may keep a processor from one that wakes up.

Linux lets what runs finish a slice of a millisecond or more, and where it looks only four times a
hundredth of a second, four. What has a shorter slice is let in sooner (EEVDF, since Linux 6.12), and
has to let others in sooner; how much of a processor it gets stays the same. Each service asks for
that at its start: a request goes through several processes, each of which does little and then
waits, and may find a tenant that computes. Threads and processes that are started later have the
same slice. Elsewhere nothing changes.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct

#: The kernel's shortest.
SLICE_NS = 100_000
_SCHED_OTHER = 0
#: Number of sched_setattr(2).
_CALLS = {"x86_64": 314, "aarch64": 274}
#: ``struct sched_attr``, its first version: size, policy, flags, niceness, priority, runtime,
#: deadline, period. For SCHED_OTHER the runtime is the slice.
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")


def shorten() -> bool:
    """Give this thread, and what it starts, the shortest slice.

    :returns: whether the kernel took it; one that knows no slices takes it and does nothing.
    """
    number = _CALLS.get(platform.machine())
    if number is None or os.sched_getscheduler(0) != _SCHED_OTHER:
        return False
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    size = _ATTRIBUTES.size
    wanted = _ATTRIBUTES.pack(size, _SCHED_OTHER, 0, nice, 0, SLICE_NS, 0, 0)
    libc = ctypes.CDLL(None)
    return bool(libc.syscall(number, 0, ctypes.c_char_p(wanted), 0) == 0)
