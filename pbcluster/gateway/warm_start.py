"""The file of remembered routes, by which a gateway that starts knows the tenants at once.

``MAGIC``, the CRC-32 of what follows, then the msgpack of :class:`SavedRoutes`. Nothing depends on
it: a file that is torn, damaged, of another version or of another cluster is not used, and without
any the gateway asks for each route. So it is written whole (beside, renamed) but not synced. It
holds no secret; its mode is 0600.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import msgspec
from twisted.logger import Logger

from pbcluster.errors import ConfigError
from pbcluster.gateway.routes import RouteCache
from pbcluster.wire import Route

MAGIC = b"PBR\x01"
_HEAD = len(MAGIC) + 4
#: ``routes.MAX_ROUTES`` of them, each with many host names, need less.
MAX_FILE_BYTES = 256 * 1024 * 1024
#: Older files say nothing: tenants move, and addresses are given away.
MAX_AGE_S = 7 * 24 * 3600.0
SUFFIX = ".routes"

log = Logger()


class SavedRoutes(msgspec.Struct, frozen=True, array_like=True):
    """What is in the file: routes, the longest unused first, and the Unix time of writing."""

    cluster_id: str
    at_s: float
    routes: tuple[Route, ...]


def pack(saved: SavedRoutes) -> bytes:
    """The bytes of the file."""
    body = msgspec.msgpack.encode(saved)
    return MAGIC + zlib.crc32(body).to_bytes(4) + body


def unpack(data: bytes) -> SavedRoutes:
    """Read the bytes of a file.

    :raises ConfigError: they are of no such file, or damaged; says how.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise ConfigError("it is no file of routes, or of another version")
    body = data[_HEAD:]
    if zlib.crc32(body).to_bytes(4) != data[len(MAGIC) : _HEAD]:
        raise ConfigError("its checksum is wrong")
    try:
        return msgspec.msgpack.decode(body, type=SavedRoutes)
    except (msgspec.DecodeError, ValueError) as error:
        raise ConfigError(f"it cannot be read: {error}") from None


def routes_file(directory: Path, worker: int) -> Path:
    """Where a worker (from 1; a gateway without workers is 1) keeps its routes."""
    return directory / f"{worker}{SUFFIX}"


def write(file: Path, saved: SavedRoutes) -> None:
    """Write the file. May be called in a thread. :raises OSError: it cannot be written."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as stream:
        stream.write(pack(saved))
    os.replace(beside, file)


def load(directory: Path, cluster_id: str, routes: RouteCache, *, now: float, unix_s: float) -> int:
    """Put the routes of all workers' files into ``routes``; each of them only if it is newest.

    A file that cannot be used is set aside, with a line in the log.

    :param now: seconds of the cache's clock. :param unix_s: the wall clock.
    :returns: how many routes are remembered now.
    """
    for file in sorted(directory.glob(f"*{SUFFIX}")):
        try:
            saved = _read(file, cluster_id)
        except (OSError, ConfigError) as error:
            _set_aside(file, error)
            continue
        age_s = unix_s - saved.at_s
        if age_s <= MAX_AGE_S:
            routes.warm(saved.routes, now, max(age_s, 1.0))
    return len(routes)


def prune(directory: Path, workers: int) -> None:
    """Remove the files of workers that are no more; the others have read them."""
    for file in directory.glob(f"*{SUFFIX}"):
        if not file.stem.isdigit() or int(file.stem) > workers:
            file.unlink(missing_ok=True)


def _read(file: Path, cluster_id: str) -> SavedRoutes:
    if file.stat().st_size > MAX_FILE_BYTES:
        raise ConfigError(f"it is larger than {MAX_FILE_BYTES} bytes")
    saved = unpack(file.read_bytes())
    if saved.cluster_id != cluster_id:
        raise ConfigError(f"it is of cluster {saved.cluster_id[:63]!r}")
    return saved


def _set_aside(file: Path, error: Exception) -> None:
    if isinstance(error, FileNotFoundError):
        return  # another worker was faster
    reason = error.message if isinstance(error, ConfigError) else str(error)
    log.warn(
        "the remembered routes in {file} are not used: {reason}; set aside as {aside}",
        file=str(file),
        reason=reason,
        aside=f"{file.name}.damaged",
    )
    try:
        os.replace(file, file.with_name(f"{file.name}.damaged"))
    except OSError as again:
        log.warn("{file} cannot be set aside: {why}", file=str(file), why=str(again))
