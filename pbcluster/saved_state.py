"""The file of ``pbcluster members snapshot``: the whole registry, and which cluster it is of.

``MAGIC``, the CRC-32 of what follows, then the msgpack of :class:`SavedState`. Whoever reads one
finds out what is wrong with it; nothing of a damaged file is used.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import msgspec

from pbcluster.errors import ConfigError

MAGIC = b"PBS\x01"
_HEAD = len(MAGIC) + 4


class SavedState(msgspec.Struct, frozen=True, array_like=True):
    """What is in the file.

    ``index`` is the log index of the state, ``at`` the ISO time at which it was read, ``image``
    what ``Registry.to_bytes`` gave.
    """

    cluster_id: str
    index: int
    at: str
    image: bytes


def pack(state: SavedState) -> bytes:
    """The bytes of the file."""
    body = msgspec.msgpack.encode(state)
    return MAGIC + zlib.crc32(body).to_bytes(4) + body


def unpack(data: bytes, where: str) -> SavedState:
    """Read the bytes of a file.

    :param where: named in errors.
    :raises ConfigError: it is no such file, of another version, or damaged.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise ConfigError(f"{where} is no snapshot that `pbcluster members snapshot` wrote")
    body = data[_HEAD:]
    if zlib.crc32(body).to_bytes(4) != data[len(MAGIC) : _HEAD]:
        raise ConfigError(f"{where} is damaged: its checksum is wrong")
    try:
        saved = msgspec.msgpack.decode(body, type=SavedState)
        index, *rest = msgspec.msgpack.decode(saved.image, type=list)
    except (msgspec.DecodeError, ValueError) as error:
        raise ConfigError(f"{where} cannot be read: {error}") from None
    if index != saved.index or not rest:
        raise ConfigError(f"{where} holds no registry of log index {saved.index}")
    return saved


def read(file: Path) -> SavedState:
    """As :func:`unpack`, of a file. :raises ConfigError: also if it cannot be opened."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from None
    return unpack(data, str(file))
