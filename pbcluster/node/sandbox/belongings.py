"""Gives a tenant's directory to the tenant's user, never through a link.

    T                            root, group of the tenant, 0710: it passes through
    T/data, T/tmp                the tenant's, 0700
    T/hooks, migrations, public  root's, group of the tenant, 0750 and files 0640: it reads them

Litestream's own files in ``data`` stay root's. The tenant's process does not run meanwhile. Blocks;
what has the right owner is not touched, and folders that belong to the tenant are not walked, since
only the tenant makes files there.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pbcluster.errors import StorageCorrupt
from pbcluster.node.sandbox.rules import READABLE, WRITABLE

#: A directory of a tenant is never this deep.
MAX_DEPTH = 64
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LITESTREAM = "-litestream"


def hand_over(directory: Path, uid: int, gid: int) -> None:
    """See the module.

    :raises StorageCorrupt: a folder is a link or missing, or nested too deep.
    """
    try:
        root = os.open(directory, _FOLDER)
        try:
            _own(root, 0, gid, 0o710)
            for name in WRITABLE:
                _with_folder(name, root, lambda fd: _give(fd, uid, gid, 0))
            for name in READABLE:
                _with_folder(name, root, lambda fd: _show(fd, gid, 0))
        finally:
            os.close(root)
    except NotADirectoryError as error:
        raise StorageCorrupt(f"{directory}: {error.filename} should be a directory") from None


def take_back(directory: Path) -> None:
    """As :func:`hand_over`, to the node's own user: for a node that stopped giving users."""
    hand_over(directory, os.geteuid(), os.getegid())


def _with_folder(name: str, parent: int, use: object) -> None:
    fd = os.open(name, _FOLDER, dir_fd=parent)
    try:
        use(fd)  # type: ignore[operator]
    finally:
        os.close(fd)


def _own(fd: int, uid: int, gid: int, mode: int) -> bool:
    """Set owner and mode of an open file; whether the owner was another."""
    status = os.fstat(fd)
    other = (status.st_uid, status.st_gid) != (uid, gid)
    if other:
        os.fchown(fd, uid, gid)
    if stat.S_IMODE(status.st_mode) != mode:
        os.fchmod(fd, mode)
    return other


def _give(fd: int, uid: int, gid: int, depth: int) -> None:
    """Everything below becomes the tenant's. The folder itself last: its owner says it is done."""
    _check(depth)
    status = os.fstat(fd)
    whole = (status.st_uid, status.st_gid) != (uid, gid)
    with os.scandir(fd) as entries:
        for entry in entries:
            if depth == 0 and entry.name.endswith(_LITESTREAM):
                continue
            if entry.is_dir(follow_symlinks=False):
                if whole:
                    _with_folder(entry.name, fd, lambda below: _give(below, uid, gid, depth + 1))
            else:
                mine = entry.stat(follow_symlinks=False)
                # What has a second name may be somebody else's file.
                if (mine.st_uid, mine.st_gid) != (uid, gid) and mine.st_nlink == 1:
                    os.chown(entry.name, uid, gid, dir_fd=fd, follow_symlinks=False)
    _own(fd, uid, gid, 0o700)


def _show(fd: int, gid: int, depth: int) -> None:
    """Everything below is root's and readable by the tenant. Only the node makes files there."""
    _check(depth)
    with os.scandir(fd) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _with_folder(entry.name, fd, lambda below: _show(below, gid, depth + 1))
            elif entry.is_file(follow_symlinks=False):
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                file = os.open(entry.name, flags, dir_fd=fd)
                try:
                    _own(file, os.geteuid(), gid, 0o640)
                finally:
                    os.close(file)
    _own(fd, os.geteuid(), gid, 0o750)


def _check(depth: int) -> None:
    if depth > MAX_DEPTH:
        raise StorageCorrupt(f"a tenant's folders are nested deeper than {MAX_DEPTH}")


def closed_ancestor(path: Path) -> Path | None:
    """The first directory above ``path`` that other users may not pass through; None: none."""
    for parent in [*reversed(path.resolve().parents)]:
        if not parent.stat().st_mode & stat.S_IXOTH:
            return parent
    return None
