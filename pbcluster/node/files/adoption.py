"""Takes over the files of a tenant that kept them on the disk: once, before its PocketBase starts.

PocketBase's local storage has ``data/storage/<key>`` and, beside each file, ``<key>.attrs`` with
its content type and metadata; its backups lie in ``data/backups``. Each is sent to S3 unless an
object of that name is there; a folder is renamed when all of it was sent, so that an interrupted
take-over begins again and a finished one costs one look. Symbolic links are not followed, and
nothing on the disk is removed.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from twisted.logger import Logger

from pbcluster.node.files.bucket import FileBucket
from pbcluster.node.files.errors import S3Error
from pbcluster.node.files.names import BUCKETS, TenantNames, check_key

log = Logger()

ATTRIBUTES = ".attrs"
DONE = ".in-s3"
_MAX_ATTRIBUTES_BYTES = 64 * 1024


async def adopt(
    data: Path, names: TenantNames, bucket: FileBucket, prove: Callable[[], Awaitable[None]]
) -> int:
    """Send what is on the disk.

    :param data: PocketBase's data directory. :param prove: raises if the tenant is not ours.
    :returns: how many files were sent. :raises PBClusterError: S3 or the proof is missing.
    """
    sent = 0
    for name in BUCKETS:
        folder = data / name
        # Where the tenant could have put a link, nothing is there.
        if not (_is_folder(data) and _is_folder(folder)):
            continue
        found = list(_files(folder))
        if not found:
            continue
        for path in found:
            sent += await _send(path, folder, names.prefix(name), bucket, prove)
        folder.rename(_free(folder.with_name(name + DONE)))
        log.info("{count} files of {folder} were taken over", count=len(found), folder=str(folder))
    return sent


def _free(target: Path) -> Path:
    """A name that nothing has: a tenant that turned S3 off for a while has files here again."""
    names = (target, *(target.with_name(f"{target.name}-{n}") for n in range(2, 1000)))
    return next(each for each in names if not os.path.lexists(each))


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def _files(folder: Path) -> Iterator[Path]:
    for root, _, names in os.walk(folder, followlinks=False):
        for name in sorted(names):
            path = Path(root) / name
            if not name.endswith(ATTRIBUTES) and stat.S_ISREG(path.lstat().st_mode):
                yield path


async def _send(
    path: Path,
    folder: Path,
    prefix: str,
    bucket: FileBucket,
    prove: Callable[[], Awaitable[None]],
) -> int:
    key = str(path.relative_to(folder))
    try:
        check_key(key)
    except S3Error as error:
        log.error("{path} cannot be taken over: {error}", path=str(path), error=error)
        return 0
    await prove()
    if await bucket.head(prefix + key) is not None:
        return 0
    attributes = _attributes(path)
    metadata = attributes.get("user.metadata") or {}
    with _open(path) as stream:
        await bucket.upload(
            prefix + key,
            stream,
            str(attributes.get("user.content_type") or ""),
            {str(name): str(value) for name, value in metadata.items() if str(value).isascii()},
        )
    return 1


def _attributes(path: Path) -> dict[str, Any]:
    beside = path.with_name(path.name + ATTRIBUTES)
    try:
        with _open(beside) as stream:
            found = json.loads(stream.read(_MAX_ATTRIBUTES_BYTES))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _open(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")
