"""The node's disk: a directory for each tenant, who has it locked, and under which claim it is.

    DATA_DIR/lock                     held by the node as long as it runs
    DATA_DIR/tenants/<id>/lock        flock, inherited by the tenant's PocketBase
    DATA_DIR/tenants/<id>/claim.json  the claim of the copy, and the boot it was written in
    DATA_DIR/tenants/<id>/settled     there: nothing runs on the copy, and all of it is in S3
    DATA_DIR/tenants/<id>/data/       data.db and what belongs to it
    DATA_DIR/aside/<id>-<time>-<n>/   copies that could not be trusted, never overwritten
    DATA_DIR/trash/<id>-<n>/          copies on their way out

The tenant's process may write below its directory: symbolic links are never followed there. A lock
is an open file description: it lasts until the node *and* PocketBase have closed it. Calls block
for the time of a file operation (an fsync for claim notes).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import msgspec

from pbcluster.errors import ConfigError, InvalidInput, StorageCorrupt, Unavailable
from pbcluster.node import copy_removal, wal
from pbcluster.node.interfaces import Owner
from pbcluster.node.warm_budget import LocalCopy
from pbcluster.records import is_tenant_id

DATABASE = "data.db"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NOTE = "claim.json"
_LOCK = "lock"
_SETTLED = "settled"
_MAX_NOTE_BYTES = 64 * 1024


class DirectoryHandle:
    """An open directory: everything is reached relative to it, without following links."""

    def __init__(self, fd: int, path: Path) -> None:
        self._fd = fd
        self._path = path

    @classmethod
    def open(cls, path: Path, *, create: bool = False) -> DirectoryHandle:
        """:raises StorageCorrupt: it is a link. :raises FileNotFoundError: it is not there."""
        if create:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return cls(_open_folder(str(path), None, path), path)

    def folder(self, name: str, *, create: bool = False) -> DirectoryHandle:
        """A folder in it; as :meth:`open`."""
        if create:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=self._fd)
        path = self._path / name
        return DirectoryHandle(_open_folder(name, self._fd, path), path)

    def write(self, name: str, content: bytes, *, durable: bool = False) -> None:
        """Replace a file as a whole, mode 0600.

        :param durable: it is on the disk, name and all, when this returns.
        """
        beside = f".{name}.new"
        self.remove(beside)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(beside, flags, 0o600, dir_fd=self._fd)
        with open(fd, "wb") as stream:
            stream.write(content)
            if durable:
                stream.flush()
                os.fsync(fd)
        os.rename(beside, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        if durable:
            os.fsync(self._fd)

    def read(self, name: str, max_bytes: int) -> bytes | None:
        """A file's first bytes, None if there is no such regular file."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            fd = os.open(name, flags, dir_fd=self._fd)
        except OSError:
            return None
        with open(fd, "rb") as stream:
            regular = stat.S_ISREG(os.fstat(fd).st_mode)
            return stream.read(max_bytes) if regular else None

    def remove(self, name: str) -> None:
        """Remove a file; fine if there is none."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._fd)

    def identity(self, name: str) -> tuple[int, int] | None:
        """Device and inode of a regular file, None if there is no such one."""
        try:
            status = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except OSError:
            return None
        return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None

    def size(self, name: str) -> int:
        """Bytes of a regular file, 0 if there is no such one."""
        try:
            status = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except OSError:
            return 0
        return status.st_size if stat.S_ISREG(status.st_mode) else 0

    def lock(self, name: str) -> int:
        """Take an exclusive lock without waiting. :returns: the descriptor that holds it.

        :raises BlockingIOError: somebody holds it.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, 0o600, dir_fd=self._fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def sync(self) -> None:
        """Names in it are on the disk when this returns."""
        os.fsync(self._fd)

    def close(self) -> None:
        """Close it; harmless if it is closed."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> DirectoryHandle:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _open_folder(name: str, parent: int | None, path: Path) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise StorageCorrupt(f"{path} should be a directory and is none") from None
        raise


class _Note(msgspec.Struct, frozen=True):
    """What a claim note holds."""

    boot: str
    owner: Owner


class TenantLock:
    """``DirectoryLock``. :ivar fd: the descriptor to hand to PocketBase."""

    def __init__(self, fd: int, released: Callable[[TenantLock], None]) -> None:
        self.fd = fd
        self._released = released

    def release(self) -> None:
        """Close ours; it stays locked as long as a process that inherited it lives."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)  # no LOCK_UN: that would unlock it for PocketBase too
            self._released(self)


class NodeDirectories:
    """``TenantDirectories`` below a data directory."""

    def __init__(self, data_dir: Path, now: Callable[[], float] = time.time) -> None:
        """
        :param now: seconds since 1970, for the names of what is set aside.
        """
        self.data_dir = data_dir.absolute()
        self._now = now
        self._boot = _BOOT_ID.read_text(encoding="ascii").strip()
        self._locks: dict[str, TenantLock] = {}
        for name in ("tenants", "aside", "trash"):
            (self.data_dir / name).mkdir(mode=0o700, parents=True, exist_ok=True)

    def lock_node(self) -> Callable[[], None]:
        """Lock the whole data directory; before orphans are looked for.

        :returns: what gives it back.
        :raises ConfigError: another node runs on it.
        """
        with DirectoryHandle.open(self.data_dir) as root:
            try:
                fd = root.lock(_LOCK)
            except BlockingIOError:
                raise ConfigError(
                    f"another node runs on {self.data_dir}; give each its own --data-dir"
                ) from None
        return lambda: os.close(fd)

    def path(self, tenant_id: str) -> Path:
        """The tenant's directory. :raises InvalidInput: no tenant id."""
        if not is_tenant_id(tenant_id):
            raise InvalidInput(
                f"{tenant_id!r} is not a tenant id", field="tenant_id", allowed="a tenant id"
            )
        return self.data_dir / "tenants" / tenant_id

    def lock(self, tenant_id: str) -> TenantLock:
        """Create the directory if needed and lock it. :raises Unavailable: somebody holds it."""
        with DirectoryHandle.open(self.path(tenant_id), create=True) as root:
            try:
                fd = root.lock(_LOCK)
            except BlockingIOError:
                raise Unavailable(
                    f"the directory of {tenant_id} is locked by another process"
                ) from None

        def released(gone: TenantLock) -> None:
            if self._locks.get(tenant_id) is gone:
                del self._locks[tenant_id]

        lock = self._locks[tenant_id] = TenantLock(fd, released)
        return lock

    def lock_fd(self, tenant_id: str) -> int | None:
        """The descriptor of the lock that we hold now, for PocketBase to inherit."""
        lock = self._locks.get(tenant_id)
        return lock.fd if lock is not None else None

    def claim_note(self, tenant_id: str) -> Owner | None:
        """The claim under which the copy was last served; None if it may not be trusted."""
        try:
            with DirectoryHandle.open(self.path(tenant_id)) as root:
                content = root.read(_NOTE, _MAX_NOTE_BYTES)
            note = msgspec.json.decode(content or b"", type=_Note)
        except (OSError, msgspec.DecodeError, StorageCorrupt):
            return None
        return note.owner if note.boot == self._boot else None

    def write_claim_note(self, tenant_id: str, owner: Owner) -> None:
        """Remember it, durably, before the copy is served."""
        content = msgspec.json.encode(_Note(self._boot, owner))
        with DirectoryHandle.open(self.path(tenant_id), create=True) as root:
            root.write(_NOTE, content, durable=True)

    def set_aside(self, tenant_id: str) -> Path | None:
        """Move an untrusted copy away, never overwriting one; None if there was none."""
        tenant = self.path(tenant_id)
        try:
            with DirectoryHandle.open(tenant) as root:
                root.remove(_NOTE)
                root.remove(_SETTLED)
                root.sync()
        except FileNotFoundError:
            return None
        data = tenant / "data"
        if data.is_symlink():
            raise StorageCorrupt(f"{data} should be a directory and is none")
        with contextlib.suppress(OSError):
            data.rmdir()  # an empty one is no copy
        if not data.exists():
            return None
        target = self._aside_name(tenant_id)
        data.rename(target)
        return target

    def _aside_name(self, tenant_id: str) -> Path:
        when = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._now()))
        number = 1
        while (path := self.data_dir / "aside" / f"{tenant_id}-{when}-{number}").exists():
            number += 1
        return path

    # -- what may go --

    def settle(self, tenant_id: str) -> None:
        """Remember that all of the copy is in S3 and nothing runs on it; not if files stand beside
        the database that no replica has."""
        if copy_removal.holds_files(self.path(tenant_id) / "data"):
            return
        with DirectoryHandle.open(self.path(tenant_id)) as root:
            root.write(_SETTLED, b"")

    def unsettle(self, tenant_id: str) -> None:
        """Forget that, durably: something is about to run on it."""
        with DirectoryHandle.open(self.path(tenant_id), create=True) as root:
            root.remove(_SETTLED)
            root.sync()

    def is_settled(self, tenant_id: str) -> bool:
        """Whether it is remembered."""
        return copy_removal.settled_at(self.path(tenant_id)) is not None

    def discard(self, tenant_id: str, *, whole: bool = False) -> None:
        """Take the copy away for good, at once; its bytes go later.

        :param whole: hooks, migrations and public files too, and the directory with its lock,
            which the caller gives back at once then.
        """
        tenant = self.path(tenant_id)
        copy_removal.discard(tenant, self.data_dir / "trash", (_NOTE, _SETTLED))
        if whole and tenant.exists():
            tenant.rename(copy_removal.free_name(self.data_dir / "trash", tenant_id))

    def discard_aside(self, aside: Path) -> None:
        """As :meth:`discard`, of what :meth:`set_aside` gave."""
        aside.rename(copy_removal.free_name(self.data_dir / "trash", aside.name))

    def copies(self) -> tuple[LocalCopy, ...]:
        """All copies, with their sizes. Takes long: call it in a thread."""
        return copy_removal.measure([self.path(name) for name in self.known()])

    def empty_trash(self) -> int:
        """Remove what was discarded. Takes long: call it in a thread."""
        return copy_removal.empty(self.data_dir / "trash")

    def prune_aside(self, most_bytes: int | None = None) -> int:
        """Remove old copies that were set aside. Takes long: call it in a thread."""
        return copy_removal.prune(self.data_dir / "aside", self._now(), most_bytes)

    def room_bytes(self) -> int:
        """Bytes that are free on the disk."""
        return shutil.disk_usage(self.data_dir).free

    def database_bytes(self, tenant_id: str) -> int:
        """Size of data.db with its log, 0: there is none."""
        return copy_removal.database_bytes(self.path(tenant_id) / "data" / DATABASE)

    def database_identity(self, tenant_id: str) -> tuple[int, int] | None:
        """Device and inode of data.db, None if it is missing."""
        try:
            with (
                DirectoryHandle.open(self.path(tenant_id)) as root,
                root.folder("data") as data,
            ):
                return data.identity(DATABASE)
        except (OSError, StorageCorrupt):
            return None

    def has_wal(self, tenant_id: str) -> bool:
        """Whether a write-ahead log with content lies beside data.db."""
        try:
            with (
                DirectoryHandle.open(self.path(tenant_id)) as root,
                root.folder("data") as data,
            ):
                return bool(data.read(f"{DATABASE}-wal", 1))
        except (OSError, StorageCorrupt):
            return False

    def database_position(self, tenant_id: str) -> bytes | None:
        """Changes with each commit to data.db; None: it cannot be told, it may have changed."""
        return wal.position(self.path(tenant_id) / "data" / DATABASE)

    def known(self) -> tuple[str, ...]:
        """Ids of all tenants that have a directory here."""
        names = (entry.name for entry in os.scandir(self.data_dir / "tenants"))
        return tuple(sorted(name for name in names if is_tenant_id(name)))
