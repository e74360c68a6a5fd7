"""What a new process does to itself before it becomes PocketBase; nothing of it can be undone.

Runs in the child, between fork and exec (``processes.start_child(prepare=…)``), so that it costs no
start of an interpreter. All it needs was made before: it opens no file but the control groups', and
imports nothing. The order matters:

1. session, control groups, limits and signals, which need the node's rights;
2. the tenant's own user, or for a node that is root without such users, no capabilities;
3. the parent-death signal, which a change of user resets;
4. no new privileges, Landlock, and the filter of system calls last, since it refuses the rest.

Whatever fails raises OSError, and the child ends instead of running unconfined.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import struct

import attrs

from pbcluster.node.sandbox.landlock import LIBC, RESTRICT_SELF, call

PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 1, 24, 38, 22
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x20080522
#: The kernel has 41; more than it knows are refused with EINVAL, which ends the loop.
_MAX_CAPABILITIES = 64
UMASK = 0o077
#: Where the processor does not suffice, a tenant's process yields to the node, which must renew its
#: lease for all of them: a third of the time that a process without it gets (nice(2)).
NICENESS = 5


class _Program(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


@attrs.frozen(kw_only=True)
class Confinement:
    """All of it, ready to be used.

    :ivar parent: process id of the node.
    :ivar cgroup_files: ``cgroup.procs`` of each group to join.
    :ivar limits: resource → bound, soft and hard.
    :ivar user: uid and gid to become; None: stay.
    :ivar ruleset: Landlock's descriptor in the child; None: no Landlock (bubblewrap does it).
    :ivar filter: seccomp's; None: bubblewrap installs it.
    """

    parent: int
    cgroup_files: tuple[str, ...] = ()
    limits: tuple[tuple[int, int], ...] = ()
    user: tuple[int, int] | None = None
    ruleset: int | None = None
    filter: bytes | None = None


def enter(wanted: Confinement) -> None:
    """Confine this process. :raises OSError: a step failed; the process must end."""
    if os.getpgrp() != os.getpid():
        os.setsid()
    for file in wanted.cgroup_files:
        _write(file, b"0")
    for kind, bound in wanted.limits:
        resource.setrlimit(kind, (bound, bound))
    os.setpriority(os.PRIO_PROCESS, 0, max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))
    os.umask(UMASK)
    # A write beyond a limit shall fail with EFBIG; Go would end the process at this signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGXFSZ])
    if os.geteuid() == 0 and wanted.filter is not None:
        _drop_bounding_set()
    if wanted.user is not None:
        uid, gid = wanted.user
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    elif os.geteuid() == 0 and wanted.filter is not None:
        _drop_capabilities()
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != wanted.parent:
        raise ProcessLookupError("the node ended meanwhile")
    if wanted.ruleset is not None or wanted.filter is not None:
        _prctl(PR_SET_NO_NEW_PRIVS, 1)
    if wanted.ruleset is not None:
        call(RESTRICT_SELF, ctypes.c_int(wanted.ruleset), ctypes.c_uint(0))
        os.close(wanted.ruleset)
    if wanted.filter is not None:
        _install(wanted.filter)


def _write(file: str, content: bytes) -> None:
    fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)


def _prctl(option: int, argument: int) -> None:
    zero = ctypes.c_ulong(0)
    if LIBC.prctl(option, ctypes.c_ulong(argument), zero, zero, zero) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}: {os.strerror(ctypes.get_errno())}")


def _drop_bounding_set() -> None:
    """No capability from the next exec on, whoever is executed."""
    with contextlib.suppress(OSError):
        for capability in range(_MAX_CAPABILITIES):
            _prctl(PR_CAPBSET_DROP, capability)


def _drop_capabilities() -> None:
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    if LIBC.capset(header, bytes(24)) != 0:
        raise OSError(ctypes.get_errno(), f"capset: {os.strerror(ctypes.get_errno())}")


def _install(program: bytes) -> None:
    wanted = _Program(len(program) // 8, program)
    zero = ctypes.c_ulong(0)
    mode = ctypes.c_ulong(_SECCOMP_MODE_FILTER)
    if LIBC.prctl(PR_SET_SECCOMP, mode, ctypes.byref(wanted), zero, zero) != 0:
        raise OSError(ctypes.get_errno(), f"seccomp: {os.strerror(ctypes.get_errno())}")
