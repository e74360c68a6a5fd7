"""A user of its own for each tenant of a node that runs as root.

What holds:

* Two tenants never have the same user at the same time, also not on two nodes of one machine: a
  node takes a block of the range under a lock of the machine, which the kernel gives back at its
  end.
* A tenant keeps its user as long as the node has its directory, over restarts too: the map is
  written, durably, before a user is handed out. A user is given again only after its former
  tenant's directory is gone.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from pbcluster.errors import ConfigError, Unavailable
from pbcluster.node.directories import DirectoryHandle

#: One byte of it stands for one user.
LOCK_FILE = Path("/run/pbcluster-users.lock")
#: A block has room for the tenants at once and for those whose copies are still here.
BLOCK_FACTOR = 4
MIN_BLOCK = 1000
_MAP = "users.json"
_MAX_MAP_BYTES = 16 * 2**20


class UserMap(msgspec.Struct):
    """What is stored: tenant id → uid."""

    users: dict[str, int]


def lock_block(first: int, last: int, size: int, lock_file: Path = LOCK_FILE) -> tuple[int, int]:
    """Take the first free block of a range, for as long as this process lives.

    :returns: its first user, and the descriptor that holds the lock.
    :raises ConfigError: all are taken, or the range is smaller than a block.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(lock_file, flags, 0o600)
    except OSError as error:
        raise ConfigError(f"cannot open {lock_file}: {error.strerror}") from None
    for start in range(first, last - size + 2, size):
        # An open file description's lock: it does not end when another descriptor is closed.
        wanted = struct.pack("@hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, start, size, 0)
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, wanted)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                os.close(fd)
                raise
            continue
        return start, fd
    os.close(fd)
    raise ConfigError(
        f"no {size} users of the range {first}-{last} are free: other nodes of this machine use "
        "them; give a larger range with --tenant-uids"
    )


class TenantUsers:
    """Tenant → uid, out of one block. The gid is the same number."""

    def __init__(self, data_dir: Path, block: range, known: Callable[[], Iterable[str]]) -> None:
        """
        :param block: the users of this node.
        :param known: ids of tenants that have a directory here.
        """
        self._data_dir = data_dir
        self._block = block
        self._known = known
        with DirectoryHandle.open(data_dir) as root:
            content = root.read(_MAP, _MAX_MAP_BYTES)
        users: dict[str, int] = {}
        with contextlib.suppress(msgspec.DecodeError):
            users = msgspec.json.decode(content or b"", type=UserMap).users
        # Of another block: a new one is handed out, and the files change hands at the next start.
        self._users = {tenant: uid for tenant, uid in users.items() if uid in block}

    @property
    def first(self) -> int:
        """The first user of the block."""
        return self._block.start

    def of(self, tenant_id: str) -> int:
        """The tenant's user. :raises Unavailable: none is left."""
        if tenant_id in self._users:
            return self._users[tenant_id]
        known = {*self._known(), tenant_id}
        users = {tenant: uid for tenant, uid in self._users.items() if tenant in known}
        taken = set(users.values())
        uid = next((each for each in self._block if each not in taken), None)
        if uid is None:
            raise Unavailable(f"all {len(self._block)} users of this node's range are in use")
        users[tenant_id] = uid
        with DirectoryHandle.open(self._data_dir) as root:
            root.write(_MAP, msgspec.json.encode(UserMap(users)), durable=True)
        self._users = users
        return uid
