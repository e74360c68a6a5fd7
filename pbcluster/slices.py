"""How long a process may keep a processor from one that wakes up.

Linux lets what runs finish a slice of a millisecond or more, and where it looks 250 times a second
only, up to four. What has a shorter slice is let in sooner (EEVDF, since Linux 6.12), and has to
let others in sooner; how much of a processor it gets stays the same. Each service asks for that at
its start: a request goes through several processes, each of which does little and then waits, and
may find a tenant that computes. Threads and processes that are started later have the same slice.
Elsewhere nothing changes.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct

#: The kernel's shortest.
SLICE_NS = 100_000
_SCHED_OTHER = 0
#: Numbers of sched_setattr(2) and sched_getattr(2).
_CALLS = {"x86_64": (314, 315), "aarch64": (274, 275)}
#: ``struct sched_attr``, its first version: size, policy, flags, niceness, priority, runtime,
#: deadline, period. For SCHED_OTHER the runtime is the slice.
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")
_SIZE = _ATTRIBUTES.size
_LIBC = ctypes.CDLL(None)


def shorten() -> bool:
    """Give this thread, and what it starts, the shortest slice.

    :returns: whether the kernel took it; one that knows no slices takes it and does nothing.
    """
    if platform.machine() not in _CALLS or os.sched_getscheduler(0) != _SCHED_OTHER:
        return False
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    wanted = _ATTRIBUTES.pack(_SIZE, _SCHED_OTHER, 0, nice, 0, SLICE_NS, 0, 0)
    number = _CALLS[platform.machine()][0]
    return bool(_LIBC.syscall(number, 0, ctypes.c_char_p(wanted), 0) == 0)


def of(thread: int = 0) -> int:
    """Nanoseconds of a thread's slice, this one's by default.

    :returns: 0: the kernel knows no slices, or the thread is gone.
    """
    found = ctypes.create_string_buffer(_SIZE)
    number = _CALLS[platform.machine()][1]
    if _LIBC.syscall(number, thread, found, _SIZE, 0) != 0:
        return 0
    return int(_ATTRIBUTES.unpack(found.raw)[5])
