"""The seccomp filter of a tenant's process, as the kernel takes it (seccomp(2), linux/filter.h).

Pure: a machine's numbers in, bytes out. The filter looks at the architecture first: a call of
another one (32-bit code on a 64-bit kernel has other numbers) ends the process. Arguments are
compared by their lower 32 bits only, which is all that the kernel itself takes of those looked at
here: each is an ``int``, a ``pid_t`` or (``clone``) cut to 32 bits.

A refused call answers EPERM; a socket of a kind that is not allowed EACCES, as Landlock answers;
MPTCP EPROTONOSUPPORT and ``clone3`` ENOSYS, for which programs know another way.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence

from pbcluster.node.sandbox.syscalls import LAST_KNOWN, Machine

# Instructions: BPF_LD|BPF_W|BPF_ABS, BPF_JMP|{JEQ,JGT,JSET}|BPF_K, BPF_ALU|BPF_AND|BPF_K, BPF_RET.
_LOAD, _EQUAL, _GREATER, _SET, _AND, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x54, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
# struct seccomp_data: nr, arch, instruction pointer, six arguments of 64 bits.
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16
_X32_BIT = 0x40000000

CLONE_THREAD = 0x00010000
MSG_FASTOPEN = 0x20000000  # connects without Landlock's being asked
AF_INET, AF_INET6, SOCK_STREAM, SOCK_TYPE_MASK = 2, 10, 1, 0xF
IPPROTO_TCP, IPPROTO_MPTCP = 6, 262
PR_SET_NAME, PR_GET_NAME, PR_SET_VMA = 15, 16, 0x53564D41

_ALLOWED = (_RETURN, 0, 0, _ALLOW)


def _refuse(number: int) -> tuple[int, int, int, int]:
    return (_RETURN, 0, 0, _ERRNO | number)


def _argument(place: int) -> tuple[int, int, int, int]:
    return (_LOAD, 0, 0, _ARGUMENTS + 8 * place)


def _if_call(number: int, body: Sequence[tuple[int, int, int, int]]) -> list[tuple[int, ...]]:
    """``body``, which must return, for this call only."""
    return [(_EQUAL, 0, len(body), number), *body]


def _socket() -> list[tuple[int, int, int, int]]:
    """TCP over IPv4 and IPv6, nothing else."""
    return [
        _argument(0),
        (_EQUAL, 2, 0, AF_INET),
        (_EQUAL, 1, 0, AF_INET6),
        _refuse(errno.EACCES),
        _argument(1),
        (_AND, 0, 0, SOCK_TYPE_MASK),
        (_EQUAL, 1, 0, SOCK_STREAM),
        _refuse(errno.EACCES),
        _argument(2),
        (_EQUAL, 1, 0, 0),
        (_EQUAL, 0, 1, IPPROTO_TCP),
        _ALLOWED,
        (_EQUAL, 0, 1, IPPROTO_MPTCP),
        _refuse(errno.EPROTONOSUPPORT),
        _refuse(errno.EACCES),
    ]


def _unless_flag(place: int, flag: int) -> list[tuple[int, int, int, int]]:
    return [_argument(place), (_SET, 0, 1, flag), _refuse(errno.EPERM), _ALLOWED]


def program(machine: Machine) -> bytes:
    """The filter, an array of ``struct sock_filter``."""
    eperm, enosys = _refuse(errno.EPERM), _refuse(errno.ENOSYS)
    lines: list[tuple[int, ...]] = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, machine.audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if machine.x32:
        lines += [(_SET, 0, 1, _X32_BIT), enosys]
    lines += [(_GREATER, 0, 1, LAST_KNOWN), enosys]
    lines += _if_call(machine.clone3, [enosys])
    lines += _if_call(machine.clone, [_argument(0), (_SET, 1, 0, CLONE_THREAD), eperm, _ALLOWED])
    lines += _if_call(machine.socket, _socket())
    names = [(_EQUAL, 0, 1, option) for option in (PR_SET_NAME, PR_GET_NAME, PR_SET_VMA)]
    allowed = [line for name in names for line in (name, _ALLOWED)]
    lines += _if_call(machine.prctl, [_argument(0), *allowed, eperm])
    lines += _if_call(machine.prlimit64, [_argument(0), (_EQUAL, 1, 0, 0), eperm, _ALLOWED])
    lines += _if_call(machine.sendto, _unless_flag(3, MSG_FASTOPEN))
    lines += _if_call(machine.sendmsg, _unless_flag(2, MSG_FASTOPEN))
    for number in machine.refused:
        lines += _if_call(number, [eperm])
    lines.append(_ALLOWED)
    return b"".join(struct.pack("=HBBI", *line) for line in lines)
