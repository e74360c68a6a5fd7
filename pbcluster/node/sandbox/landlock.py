"""Landlock's three system calls, the same numbers on every machine (landlock(7))."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterable

from pbcluster.node.sandbox.rules import (
    ALL_PATHS,
    ALL_PORTS,
    ALL_SCOPES,
    ON_FILES,
    PathRule,
    PortRule,
)

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
_VERSION = 1
_PATH_BENEATH, _NET_PORT = 1, 2
LIBC = ctypes.CDLL(None, use_errno=True)


def call(number: int, *arguments: object) -> int:
    """A system call. :raises OSError: it failed."""
    result = int(LIBC.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def abi() -> int:
    """The kernel's version of Landlock; 0: it has none, or it is turned off."""
    try:
        return call(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(_VERSION))
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
            return 0
        raise


def ruleset(paths: Iterable[PathRule], ports: Iterable[PortRule]) -> int:
    """Make a ruleset that refuses everything but these.

    :returns: its descriptor, to be closed by the caller.
    :raises OSError: a path that must exist does not, or the kernel refuses it.
    """
    attributes = struct.pack("=QQQ", ALL_PATHS, ALL_PORTS, ALL_SCOPES)
    fd = call(CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0))
    try:
        for path in paths:
            _allow_path(fd, path)
        for port in ports:
            rule = struct.pack("=QQ", port.access, port.port)
            call(ADD_RULE, ctypes.c_int(fd), ctypes.c_int(_NET_PORT), rule, ctypes.c_uint(0))
    except BaseException:
        os.close(fd)
        raise
    return fd


def _allow_path(fd: int, rule: PathRule) -> None:
    # The tenant could have put a link there: what it points to must not be allowed.
    nofollow = os.O_NOFOLLOW if rule.must_exist else 0
    try:
        opened = os.open(rule.path, os.O_PATH | os.O_CLOEXEC | nofollow)
    except FileNotFoundError:
        if rule.must_exist:
            raise
        return
    try:
        mode = os.fstat(opened).st_mode
        if stat.S_ISLNK(mode):
            raise OSError(errno.ELOOP, f"{rule.path} is a symbolic link")
        access = rule.access if stat.S_ISDIR(mode) else rule.access & ON_FILES
        packed = struct.pack("=Qi", access, opened)
        call(ADD_RULE, ctypes.c_int(fd), ctypes.c_int(_PATH_BENEATH), packed, ctypes.c_uint(0))
    finally:
        os.close(opened)
